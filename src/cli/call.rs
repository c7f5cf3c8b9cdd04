//! `call`: what a prompt's task runs. It reads one call from standard input,
//! makes it, and writes the answer as it comes; where standard input is a
//! runner's desk, it makes all that come there (`call/several.rs`).
//!
//! What it came to is told to the daemon as a receipt (`model::receipt`), which
//! settles what was taken for it. A call that was turned away is made again
//! when admission says so, and costs no attempt.

use std::io::{self, Read};
use std::time::Duration;

use crate::client::https::pool::Pool;
use crate::client::llm::{self, Piece, Usage};
use crate::clock;
use crate::daemon::memory;
use crate::model::check::STDIN_MAX;
use crate::model::prompt::Call;
use crate::model::receipt::Receipt;
use crate::model::retry::TRY_AGAIN;
use crate::runner::line::Desk;

use structured::Dialogue;
use voice::Voice;

use super::text::escape;
use super::{Failure, Outcome};

mod lot;
mod several;
mod structured;
mod voice;

/// Most bytes of a call: every byte of the text may be six in JSON.
const CALL_MAX: usize = STDIN_MAX * 8;

/// `call`: 0 when the answer is whole, 75 when there may be one later, 1 when not.
pub(super) async fn call() -> Outcome {
    // Before a key is in it.
    memory::keep()?;
    match Desk::standard_input()? {
        Some(desk) => several::see_to(desk).await,
        None => {
            let text = read(io::stdin().lock())?;
            make(text, &Voice::own()?, &Pool::default()).await
        }
    }
}

fn read(input: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(CALL_MAX).unwrap_or(u64::MAX);
    input.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the call that a text stands for.
async fn make(text: String, voice: &Voice, pool: &Pool) -> Outcome {
    if text.is_empty() {
        let told = "the model of this task is not configured any more; submit it anew with another";
        return Err(Failure::Code(1, told.to_owned()));
    }
    let call: Call = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("standard input is no call: {error}")))?;
    drop(text);
    if let Some(order) = &call.lot {
        return lot::see_to(&call, order, voice, pool).await;
    }
    let begun = clock::instant();
    let dialogue = Dialogue::of(&call).map_err(|why| Failure::Code(1, why))?;
    let print = |piece: &Piece| {
        // There is JSON beside the text only where a schema is.
        let (Piece::Text(words) | Piece::Data(words)) = piece;
        voice.print(words)
    };
    let asked = match dialogue {
        Some(dialogue) => dialogue.ask(&call, voice, pool).await,
        None => llm::ask(pool, &call, None, print).await,
    };
    match asked {
        Ok(answer) => {
            voice.hand_over(&answer.receipt());
            voice.status(&told(answer.usage, begun.elapsed()));
            if answer.usage.cut {
                voice.complain("the answer ends where it was as long as max_tokens allows");
            }
            if answer.usage.refused {
                voice.complain("the model, or who watches over it, would not go on");
            }
            Ok(0)
        }
        Err(failure) => give_up(&call, &failure, voice),
    }
}

/// Ends a call that came to nothing.
fn give_up(call: &Call, failure: &llm::Failure, voice: &Voice) -> Outcome {
    let why = escape(&llm::without(&failure.why, call.key.as_ref()));
    if let Some(receipt) = failure.receipt() {
        let why = why.clone();
        voice.hand_over(&Receipt { why, ..receipt });
    }
    let code = if failure.may_pass() { TRY_AGAIN } else { 1 };
    Err(Failure::Code(code, why))
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
