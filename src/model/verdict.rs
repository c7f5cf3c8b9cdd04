//! The verdict on an attempt: what happened, seen in the light of what was
//! wanted.

use super::attempt::{Class, Ended, Exit, Outcome};
use super::receipt::End;
use super::task::StopCause;

/// The verdict on an attempt: what happened, seen in the light of what was
/// wanted. A cancelled or timed-out attempt stays that however it then exits.
/// `limited`: the task asked for a limit on its memory.
pub(super) fn judge(ended: &Ended, stop: Option<StopCause>, limited: bool) -> Outcome {
    let (class, message) = match (stop, &ended.exit) {
        (Some(StopCause::Cancel), _) => (Class::Cancelled, "on request".to_owned()),
        (Some(StopCause::Timeout), _) => (Class::Timeout, "over its time limit".to_owned()),
        (Some(StopCause::Deadline), _) => (Class::Timeout, "over its deadline".to_owned()),
        (Some(StopCause::Silence), _) => (
            Class::Timeout,
            "no sign of life within its heartbeat".to_owned(),
        ),
        // Refused by a runner that was told to stop or has no room, or not begun
        // since its daemon ended first: no fault of the task's.
        (None, Exit::Spawn { error, .. }) if ended.interrupted => {
            (Class::Interrupted, error.clone())
        }
        (None, Exit::Spawn { error, .. }) => (Class::Spawn, error.clone()),
        // A class that no rule tries again: the input does not become whole.
        (None, Exit::Unfed { error }) => (Class::Skipped, error.clone()),
        (None, Exit::Lost) => (
            Class::Lost,
            "its runner, or the process that made its call, ended before it did".to_owned(),
        ),
        // What is left when the kernel took only a part of it, and ends well,
        // has coped. A task with a limit is taken whole.
        (None, exit) if ended.oom && *exit != (Exit::Code { code: 0 }) => {
            let why = if limited {
                "over its memory limit"
            } else {
                "the kernel killed it: the host, or all tasks together, ran out of memory"
            };
            (Class::Oom, why.to_owned())
        }
        (None, _) if ended.interrupted => {
            (Class::Interrupted, "its runner was told to stop".to_owned())
        }
        (None, Exit::Code { code: 0 }) => (Class::Success, String::new()),
        (None, Exit::Code { code }) if let Some(why) = of_provider(ended) => {
            (Class::Provider, format!("{why} (exit code {code})"))
        }
        (None, Exit::Code { code }) => (Class::Exit, format!("exit code {code}")),
        (None, Exit::Signal { signal }) => (Class::Signal, format!("ended by signal {signal}")),
    };
    let (exit_code, signal) = match ended.exit {
        Exit::Code { code } => (Some(code), None),
        Exit::Signal { signal } => (None, Some(signal)),
        Exit::Spawn { .. } | Exit::Unfed { .. } | Exit::Lost => (None, None),
    };
    Outcome {
        class,
        exit_code,
        signal,
        message,
    }
}

/// What the provider of a model said or did that is not the task's fault.
fn of_provider(ended: &Ended) -> Option<&str> {
    let receipt = ended.receipt.as_deref()?;
    match receipt.end {
        End::Refused | End::Overloaded | End::Barred | End::Broken => Some(&receipt.why),
        End::Answered | End::Rejected => None,
    }
}

/// Whether the attempt came to an end before anything of it ran, and not by it. That
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

/// Whether the policy did not allow the attempt. Nothing of it ran.
pub(super) const fn is_denied(ended: &Ended) -> bool {
    matches!(ended.exit, Exit::Spawn { denied: true, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Time;

    fn killed(exit: Exit) -> Ended {
        Ended {
            exit,
            oom: true,
            ..Ended::lost(Time::from_micros(0))
        }
    }

    #[test]
    fn a_task_that_copes_with_an_oom_kill_in_it_has_not_failed() {
        let class = |code| judge(&killed(Exit::Code { code }), None, false).class;
        assert_eq!(class(0), Class::Success);
        assert_eq!(class(1), Class::Oom);
        let whole = killed(Exit::Signal { signal: 9 });
        let limited = judge(&whole, None, true);
        assert_eq!(limited.class, Class::Oom);
        assert_eq!(limited.message, "over its memory limit");
        let message = judge(&whole, None, false).message;
        assert!(message.contains("host"), "it had no limit: {message}");
    }
}
