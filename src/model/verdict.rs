//! The verdict on an attempt: what happened, seen in the light of what was
//! wanted.

use super::attempt::{Class, Ended, Exit, Outcome};
use super::task::StopCause;

/// The verdict on an attempt: what happened, seen in the light of what was
/// wanted. A cancelled or timed-out attempt stays that however it then exits.
pub(super) fn judge(ended: &Ended, stop: Option<StopCause>) -> Outcome {
    let (class, message) = match (stop, &ended.exit) {
        (Some(StopCause::Cancel), _) => (Class::Cancelled, "on request".to_owned()),
        (Some(StopCause::Timeout), _) => (Class::Timeout, "over its time limit".to_owned()),
        (Some(StopCause::Deadline), _) => (Class::Timeout, "over its deadline".to_owned()),
        (Some(StopCause::Silence), _) => (
            Class::Timeout,
            "no sign of life within its heartbeat".to_owned(),
        ),
        // Refused by a runner that was told to stop or has no room: no fault of
        // the task's.
        (None, Exit::Spawn { error, .. }) if ended.interrupted => {
            (Class::Interrupted, error.clone())
        }
        (None, Exit::Spawn { error, .. }) => (Class::Spawn, error.clone()),
        (None, Exit::Lost) => (Class::Lost, "its runner ended before it did".to_owned()),
        (None, _) if ended.oom => (Class::Oom, "over its memory limit".to_owned()),
        (None, _) if ended.interrupted => {
            (Class::Interrupted, "its runner was told to stop".to_owned())
        }
        (None, Exit::Code { code: 0 }) => (Class::Success, String::new()),
        (None, Exit::Code { code }) => (Class::Exit, format!("exit code {code}")),
        (None, Exit::Signal { signal }) => (Class::Signal, format!("ended by signal {signal}")),
    };
    let (exit_code, signal) = match ended.exit {
        Exit::Code { code } => (Some(code), None),
        Exit::Signal { signal } => (None, Some(signal)),
        Exit::Spawn { .. } | Exit::Lost => (None, None),
    };
    Outcome {
        class,
        exit_code,
        signal,
        message,
    }
}

/// Whether the runner turned the attempt away before anything of it ran. That
/// says nothing of the task, so it counts neither as a try nor as an
/// interruption, and there are no effects that `hold` would have to respect.
pub(super) fn never_began(ended: &Ended) -> bool {
    matches!(ended.exit, Exit::Spawn { .. }) && ended.interrupted
}

/// Whether nobody could say as whom the attempt may run. Then nothing of it
/// ran, and it is not the task's fault.
pub(super) const fn is_undecided(ended: &Ended) -> bool {
    matches!(
        ended.exit,
        Exit::Spawn {
            undecided: true,
            ..
        }
    )
}
