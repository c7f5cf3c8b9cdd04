//! How much a provider may say. Whatever it sends, a call ends, in little
//! memory; what may be said grows with the tokens that were asked for, so that
//! a long answer which is wanted is not one that is too long.

use super::Failure;
use crate::model::prompt::Call;
use crate::model::receipt::End;

/// Bytes of an answer: of its text, and of whatever is sent, beside what its
/// tokens take (SEC-26 in `tests/security.md`).
pub(super) const ANSWER_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an answer that has to be as a schema has it: it is held in memory
/// until it is judged.
const REPLY_MAX: usize = 1024 * 1024;
/// Bytes that are sent for a token of an answer. Events have 200 to 400 around
/// each, and up to 700 where a provider sends its checks of content with it.
const TOKEN: usize = 1024;

/// What may still come of an answer.
#[derive(Debug)]
pub(super) struct Room {
    sent: usize,
    text: usize,
    /// What the latter was at first.
    most: usize,
}

impl Room {
    /// That of a call.
    pub(super) fn of(call: &Call) -> Self {
        let tokens = usize::try_from(call.max_tokens).unwrap_or(usize::MAX);
        let most = match call.schema {
            None => ANSWER_MAX,
            Some(_) => REPLY_MAX,
        };
        Self {
            sent: ANSWER_MAX.saturating_add(tokens.saturating_mul(TOKEN)),
            text: most,
            most,
        }
    }

    /// So many bytes were sent.
    pub(super) fn sent(&mut self, url: &str, bytes: usize) -> Result<(), Failure> {
        let left = self.sent.checked_sub(bytes);
        let what = "what it sends is far more than the tokens that it was asked for";
        self.sent = left.ok_or_else(|| too_long(url, what))?;
        Ok(())
    }

    /// So many bytes of text are in it.
    pub(super) fn text(&mut self, url: &str, bytes: usize) -> Result<(), Failure> {
        let left = self.text.checked_sub(bytes);
        let mib = self.most / (1024 * 1024);
        let what = || format!("its text has more than {mib} MiB");
        self.text = left.ok_or_else(|| too_long(url, &what()))?;
        Ok(())
    }
}

/// It was answered, which has its price, and would be so again.
pub(super) fn too_long(url: &str, what: &str) -> Failure {
    let why = format!("{url}: the answer is too long: {what}; ask for less, or another model");
    Failure::new(End::Answered, why)
}
