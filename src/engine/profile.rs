//! What is true of live attempts that have a runner of their own.
//!
//! Such a runner serves one attempt, in a sandbox profile, and comes back to
//! the report socket when its daemon is gone. Who comes is believed when the
//! kernel says that it is the user the attempt was recorded to run as. Until
//! then the attempt is sought; that nothing of it is left is for the run room
//! to find out, and is reported like any other end.

use crate::model::attempt::{Attempt, AttemptKey};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::effect::{Effect, Verdict};

impl<S: Store> Engine<S> {
    /// Has the runner of a live attempt looked for.
    pub(super) fn seek(&mut self, attempt: Attempt) {
        self.turned.effects.push(Effect::Seek {
            key: attempt.key,
            group: attempt.started.and_then(|started| started.cgroup),
        });
    }

    /// Judges a runner that came by itself.
    pub(super) fn dialled(
        &mut self,
        visit: u64,
        key: AttemptKey,
        uid: u32,
        trusted: bool,
        now: Time,
    ) -> Result<(), store::Error> {
        let attempts = self.sound(now, |store| store.attempts(key.task))?;
        let verdict = match attempts.into_iter().find(|attempt| attempt.key == key) {
            // Of a store that is no more.
            None => Verdict::End(key),
            Some(attempt) if !attempt.is_alone() => Verdict::Away,
            Some(attempt) => judge(&attempt, uid, trusted),
        };
        self.turned.effects.push(Effect::Met { visit, verdict });
        if matches!(verdict, Verdict::Adopt(_))
            && let Some(task) = self.sound(now, |store| store.task(key.task))?
            && task.attempt == key.number
        {
            self.ask_again(&task);
        }
        Ok(())
    }
}

/// An attempt whose start nobody recorded has no user that could prove
/// anything: its runner, if it is that, has to end.
fn judge(attempt: &Attempt, uid: u32, trusted: bool) -> Verdict {
    let known = attempt.started.as_ref().map(|started| started.uid);
    match (known, &attempt.outcome) {
        _ if !trusted && known.is_some_and(|known| known != uid) => Verdict::Away,
        (_, Some(_)) => Verdict::End(attempt.key),
        (None, None) if !trusted => Verdict::End(attempt.key),
        (_, None) => Verdict::Adopt(attempt.key),
    }
}
