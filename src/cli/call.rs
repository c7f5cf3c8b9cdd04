//! `call`: what a prompt's task runs. It reads one call from standard input,
//! makes it, and writes the answer as it comes.
//!
//! What it came to is told to the daemon as a receipt (`model::receipt`), which
//! settles what was taken for it. A call that was turned away is made again
//! when admission says so, and costs no attempt.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::client::llm::{self, Piece, Usage};
use crate::clock;
use crate::daemon::memory;
use crate::model::check::STDIN_MAX;
use crate::model::prompt::Call;
use crate::model::receipt::Receipt;
use crate::model::retry::TRY_AGAIN;

use structured::Dialogue;

use super::text::escape;
use super::{Failure, Outcome, complain};

mod lot;
mod structured;

/// Most bytes of a call: every byte of the text may be six in JSON.
const CALL_MAX: usize = STDIN_MAX * 8;

/// `call`: 0 when the answer is whole, 75 when there may be one later, 1 when not.
pub(super) async fn call() -> Outcome {
    // Before the key is in it.
    memory::keep()?;
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
    if let Some(order) = &call.lot {
        return lot::see_to(&call, order).await;
    }
    let begun = clock::instant();
    let dialogue = Dialogue::of(&call).map_err(|why| Failure::Code(1, why))?;
    let asked = match dialogue {
        Some(dialogue) => dialogue.ask(&call).await,
        None => llm::ask(&call, None, print).await,
    };
    match asked {
        Ok(answer) => {
            hand_over(&answer.receipt());
            status(&told(answer.usage, begun.elapsed()));
            if answer.usage.cut {
                complain("the answer ends where it was as long as max_tokens allows");
            }
            if answer.usage.refused {
                complain("the model, or who watches over it, would not go on");
            }
            Ok(0)
        }
        Err(failure) => give_up(&call, &failure),
    }
}

/// Ends a call that came to nothing.
fn give_up(call: &Call, failure: &llm::Failure) -> Outcome {
    let why = escape(&llm::without(&failure.why, call.key.as_ref()));
    if let Some(receipt) = failure.receipt() {
        let why = why.clone();
        hand_over(&Receipt { why, ..receipt });
    }
    let code = if failure.may_pass() { TRY_AGAIN } else { 1 };
    Err(Failure::Code(code, why))
}

/// Prints a piece of the answer; there is JSON beside the text only where a
/// schema is.
fn print(piece: &Piece) -> io::Result<()> {
    let (Piece::Text(words) | Piece::Data(words)) = piece;
    let mut out = io::stdout().lock();
    out.write_all(words.as_bytes())?;
    out.flush()
}

/// Tells the daemon what the call came to.
fn hand_over(receipt: &Receipt) {
    let text = serde_json::to_string(receipt).unwrap_or_default();
    if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&format!("X_RECEIPT={text}"))]) {
        tracing::debug!(%error, "cannot say what it came to");
    }
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
