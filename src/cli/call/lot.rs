//! A batch of prompts, seen to until its provider is done with it: how it
//! stands is said as the task's status, and its name as soon as there is one.

use std::io;

use crate::client::https::pool::Pool;
use crate::client::llm::lot::{self, Step};
use crate::client::llm::{self, Failure as Gone};
use crate::model::lot::Order;
use crate::model::prompt::Call;
use crate::model::receipt::{End, Receipt};

use super::super::Outcome;
use super::super::text::escape;
use super::give_up;
use super::voice::Voice;

/// 0 when at least one of its prompts is answered: what became of each is in
/// its line.
pub(super) async fn see_to(call: &Call, order: &Order, voice: &Voice, pool: &Pool) -> Outcome {
    if order.cancel {
        return match lot::cancel(pool, call, order).await {
            Ok(batch) => {
                voice.hand_over(&free());
                voice.complain(&match batch {
                    Some(batch) => format!("{batch} is cancelled"),
                    None => "there is no such batch any more".to_owned(),
                });
                Ok(0)
            }
            Err(failure) => give_up(call, &failure, voice),
        };
    }
    let told = match lot::ask(pool, call, order, |step| say(call, step, voice)).await {
        Ok(told) => told,
        Err(failure) => return give_up(call, &failure, voice),
    };
    for line in &told.lines {
        let line = serde_json::to_string(line).map_err(io::Error::from)?;
        voice.print(&format!("{line}\n"))?;
    }
    let receipt = Receipt {
        input: told.usage.input,
        output: told.usage.output,
        ..Receipt::of(End::Answered)
    };
    // What an attempt before has made is charged to that one.
    let receipt = if told.found { free() } else { receipt };
    let (all, answered) = (
        told.lines.len(),
        told.lines
            .iter()
            .filter(|line| line.error.is_none())
            .count(),
    );
    voice.status(&format!("{answered} of {all} prompts answered"));
    let first = told.lines.iter().find_map(|line| line.error.as_deref());
    let first = llm::without(first.unwrap_or_default(), call.key.as_ref());
    if answered == 0 {
        let why = format!("none of {all} prompts was answered: {first}");
        return give_up(
            call,
            &Gone {
                usage: told.usage,
                ..Gone::new(End::Answered, why)
            },
            voice,
        );
    }
    voice.hand_over(&receipt);
    if answered < all {
        let left = all - answered;
        voice.complain(&format!(
            "{left} of {all} prompts were not answered: {}",
            escape(&first)
        ));
    }
    Ok(0)
}

/// A receipt of nothing that costs anything.
fn free() -> Receipt {
    Receipt {
        input: Some(0),
        output: Some(0),
        ..Receipt::of(End::Answered)
    }
}

fn say(call: &Call, step: &Step<'_>, voice: &Voice) {
    match step {
        Step::Named(name) => {
            voice.say(&format!("X_BATCH={}", name.unwrap_or_default()));
        }
        Step::Done(done, all) => {
            voice.status(&format!(
                "the batch is at its provider: {done} of {all} done"
            ));
            if let Some(percent) = done.saturating_mul(100).checked_div(*all) {
                voice.say(&format!("X_PROGRESS={}", percent.min(100)));
            }
        }
        Step::Waits(why) => {
            let why = escape(&llm::without(why, call.key.as_ref()));
            voice.status(&format!("waits: {why}"));
        }
    }
}
