//! `call`: what a prompt's task runs. It reads one call from standard input,
//! makes it, and writes the answer as it comes.
//!
//! A provider that is busy is waited for here, by the clock that it names:
//! nothing was spent on what it refused, so that costs no attempt.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

use crate::client::llm::{self, Failure as Gone, Piece, Usage};
use crate::clock;
use crate::model::check::STDIN_MAX;
use crate::model::prompt::Call;
use crate::model::quantity::format_duration;
use crate::model::retry::TRY_AGAIN;

use structured::Dialogue;

use super::text::escape;
use super::{Failure, Outcome, complain};

mod structured;

/// Most bytes of a call: every byte of the text may be six in JSON.
const CALL_MAX: usize = STDIN_MAX * 8;
/// First and longest wait for a provider that is busy and does not say how long.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// `call`: 0 when the answer is whole, 75 when there may be one later, 1 when not.
pub(super) async fn call() -> Outcome {
    let mut text = String::new();
    let limit = u64::try_from(CALL_MAX).unwrap_or(u64::MAX);
    io::stdin().lock().take(limit).read_to_string(&mut text)?;
    if text.is_empty() {
        let told = "the model of this task is not configured any more; submit it anew with another";
        return Err(Failure::Code(1, told.to_owned()));
    }
    let call: Call = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("standard input is no call: {error}")))?;
    drop(text);
    let failed = |why| Failure::Code(1, why);
    let mut dialogue = Dialogue::of(&call).map_err(failed)?;
    let begun = clock::instant();
    let mut wait = WAITS.0;
    loop {
        let asked = match &mut dialogue {
            Some(dialogue) => dialogue.ask(&call).await,
            None => llm::ask(&call, None, print).await,
        };
        let failure = match asked {
            Ok(usage) => {
                status(&told(usage, begun.elapsed()));
                if usage.cut {
                    complain("the answer ends where it was as long as max_tokens allows");
                }
                return Ok(0);
            }
            Err(failure) => failure,
        };
        let clean = |why: &str| escape(&llm::without(why, call.key.as_ref()));
        match failure {
            Gone::Lasting(why) => return Err(Failure::Code(1, clean(&why))),
            Gone::Passing(why) => return Err(Failure::Code(TRY_AGAIN, clean(&why))),
            Gone::Busy(why, asks) => {
                let pause = asks.unwrap_or(wait);
                wait = (wait * 2).min(WAITS.1);
                status(&format!("waits for its provider until {}", at(pause)));
                complain(&format!(
                    "{}; asking again in {}",
                    clean(&why),
                    format_duration(pause)
                ));
                sleep_until(Instant::from_std(clock::instant() + pause)).await;
                status("asks again");
            }
        }
    }
}

/// Prints a piece of the answer; there is JSON beside the text only where a
/// schema is.
fn print(piece: &Piece) -> io::Result<()> {
    let (Piece::Text(words) | Piece::Data(words)) = piece;
    let mut out = io::stdout().lock();
    out.write_all(words.as_bytes())?;
    out.flush()
}

/// Says how it stands, where the task can.
fn status(text: &str) {
    if let Err(error) = sd_notify::notify(&[NotifyState::Status(text)]) {
        tracing::debug!(%error, "cannot say how it stands");
    }
}

fn told(usage: Usage, took: Duration) -> String {
    let count =
        |tokens: Option<u64>| tokens.map_or_else(|| "?".to_owned(), |tokens| tokens.to_string());
    format!(
        "{} tokens in, {} out, {:.1} s",
        count(usage.input),
        count(usage.output),
        took.as_secs_f64()
    )
}

/// The time so far from now, to the second.
fn at(pause: Duration) -> String {
    let micros = clock::now().after(pause).micros();
    Timestamp::from_second(micros.div_euclid(1_000_000))
        .map_or_else(|_| "later".to_owned(), |time| time.to_string())
}
