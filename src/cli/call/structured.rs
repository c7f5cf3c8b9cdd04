//! An answer that has to be as a schema has it. Nothing of a reply is printed
//! before it is judged, so that whoever reads the answer reads a good one or
//! none. One that is not good goes back to the model, with what is wrong with
//! it, a few times: that is one attempt of the task, and when it fails, asking
//! the same again would cost as much and promise no more.

use crate::client::https::pool::Pool;
use crate::client::llm::{self, Failure as Gone, Piece, Told, Turn, Usage};
use crate::model::prompt::Call;
use crate::model::receipt::End;
use crate::model::schema::Schema;

use super::super::text::escape;
use super::voice::Voice;

/// A call, and how far it has come.
#[derive(Debug)]
pub(super) struct Dialogue {
    schema: Schema,
    /// The latest reply, where it was no good.
    turn: Option<Turn>,
    /// How many were.
    bad: u32,
    /// What all of them have cost.
    used: Usage,
}

impl Dialogue {
    /// The dialogue of a call, if its answer has to be as a schema has it.
    pub(super) fn of(call: &Call) -> Result<Option<Self>, String> {
        let Some(schema) = &call.schema else {
            return Ok(None);
        };
        let schema = Schema::new(schema).map_err(|why| format!("the schema {why}"))?;
        Ok(Some(Self {
            schema,
            turn: None,
            bad: 0,
            used: Usage::default(),
        }))
    }

    /// Asks until the reply is good, and prints it.
    pub(super) async fn ask(
        mut self,
        call: &Call,
        voice: &Voice,
        pool: &Pool,
    ) -> Result<Told, Gone> {
        loop {
            let (mut text, mut data) = (String::new(), String::new());
            let asked = llm::ask(pool, call, self.turn.as_ref(), |piece| {
                match piece {
                    Piece::Text(words) => text.push_str(words),
                    Piece::Data(words) => data.push_str(words),
                }
                Ok(())
            });
            let told = match asked.await {
                Ok(told) => told,
                // Earlier replies have cost something all the same.
                Err(failure) => {
                    return Err(Gone {
                        usage: self.used.and(failure.usage),
                        ..failure
                    });
                }
            };
            self.used = self.used.and(told.usage);
            let usage = told.usage;
            let reply = if data.is_empty() { text } else { data };
            if usage.refused {
                return Err(self.bad_answer("the model would not answer".to_owned()));
            }
            if usage.cut {
                let most = call.max_tokens;
                return Err(self.bad_answer(format!(
                    "the answer ends where it was as long as max_tokens allows ({most}), so it is \
                     not as the schema has it; ask again with more"
                )));
            }
            let faults = match self.schema.judge(&reply) {
                Ok(json) => {
                    let printed = voice.print(&format!("{json}\n"));
                    printed.map_err(|error| Gone::here(format!("cannot write: {error}")))?;
                    return Ok(Told {
                        usage: self.used,
                        ..told
                    });
                }
                Err(faults) => faults,
            };
            self.bad += 1;
            let first = faults.first().map_or("", String::as_str);
            if self.bad > call.repairs {
                let times = self.bad;
                return Err(self.bad_answer(format!(
                    "the answer is not as the schema has it, {times} times: {first}"
                )));
            }
            let (count, most) = (self.bad, call.repairs);
            voice.status(&format!("asks to mend its answer, {count} of {most}"));
            let clean = escape(&llm::without(first, call.key.as_ref()));
            voice.complain(&format!(
                "the answer is not as the schema has it: {clean}; asking to mend it, {count} of \
                 {most}"
            ));
            self.turn = Some(turn(call, reply, &faults));
        }
    }

    /// The provider has answered, and the answer is no good.
    fn bad_answer(&self, why: String) -> Gone {
        Gone {
            usage: self.used,
            ..Gone::new(End::Answered, why)
        }
    }
}

/// What is said to a reply that is no good. The schema goes with it: some
/// providers do not show it to the model.
fn turn(call: &Call, reply: String, faults: &[String]) -> Turn {
    let schema = call.schema.as_ref().map(ToString::to_string);
    let answer = format!(
        "That is not valid:\n- {}\nAnswer again, with nothing but JSON that is valid by this JSON \
         schema:\n{}",
        faults.join("\n- "),
        schema.unwrap_or_default()
    );
    Turn { reply, answer }
}
