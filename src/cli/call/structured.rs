//! An answer that has to be as a schema has it. Nothing of a reply is printed
//! before it is judged, so that whoever reads the answer reads a good one or
//! none. One that is not good goes back to the model, with what is wrong with
//! it, a few times: that is one attempt of the task, and when it fails, asking
//! the same again would cost as much and promise no more.

use std::io::{self, Write as _};

use crate::client::llm::{self, Failure as Gone, Piece, Turn, Usage};
use crate::model::prompt::Call;
use crate::model::schema::Schema;

use super::super::complain;
use super::super::text::escape;
use super::status;

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

    /// Asks until the reply is good, and prints it. When this fails because the
    /// provider is busy, it goes on where it was when it is called again.
    pub(super) async fn ask(&mut self, call: &Call) -> Result<Usage, Gone> {
        loop {
            let (mut text, mut data) = (String::new(), String::new());
            let usage = llm::ask(call, self.turn.as_ref(), |piece| {
                match piece {
                    Piece::Text(words) => text.push_str(words),
                    Piece::Data(words) => data.push_str(words),
                }
                Ok(())
            })
            .await?;
            self.count(usage);
            let reply = if data.is_empty() { text } else { data };
            if usage.refused {
                return Err(Gone::Lasting("the model would not answer".to_owned()));
            }
            if usage.cut {
                let most = call.max_tokens;
                return Err(Gone::Lasting(format!(
                    "the answer ends where it was as long as max_tokens allows ({most}), so it is \
                     not as the schema has it; ask again with more"
                )));
            }
            let faults = match self.schema.judge(&reply) {
                Ok(json) => {
                    let mut out = io::stdout().lock();
                    let printed = writeln!(out, "{json}").and_then(|()| out.flush());
                    printed.map_err(|error| Gone::Passing(format!("cannot write: {error}")))?;
                    return Ok(self.used);
                }
                Err(faults) => faults,
            };
            self.bad += 1;
            let first = faults.first().map_or("", String::as_str);
            if self.bad > call.repairs {
                let times = self.bad;
                return Err(Gone::Lasting(format!(
                    "the answer is not as the schema has it, {times} times: {first}"
                )));
            }
            let (count, most) = (self.bad, call.repairs);
            status(&format!("asks to mend its answer, {count} of {most}"));
            let clean = escape(&llm::without(first, call.key.as_ref()));
            complain(&format!(
                "the answer is not as the schema has it: {clean}; asking to mend it, {count} of \
                 {most}"
            ));
            self.turn = Some(turn(call, reply, &faults));
        }
    }

    fn count(&mut self, usage: Usage) {
        let sum = |all: Option<u64>, one: Option<u64>| match (all, one) {
            (Some(all), Some(one)) => Some(all.saturating_add(one)),
            (all, one) => all.or(one),
        };
        self.used.input = sum(self.used.input, usage.input);
        self.used.output = sum(self.used.output, usage.output);
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
