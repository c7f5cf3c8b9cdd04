//! Changes to a task that waits: what was asked can be put right until an
//! attempt is live.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accept::{make_ready, next_wake};
use super::invalid::Invalid;
use super::spec::NewTask;
use super::task::{Delay, Refusal, State, Task};
use super::time::Time;

/// What is to be different. What is not set stays as it is; a set `None` takes
/// something away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Variables, each for itself.
    pub env: BTreeMap<String, Option<String>>,
    /// Working directory.
    pub cwd: Option<Option<String>>,
    /// Name for people.
    pub name: Option<Option<String>>,
    /// Queue.
    pub queue: Option<String>,
    /// Priority.
    pub priority: Option<i32>,
    /// Labels, each for itself.
    pub labels: BTreeMap<String, Option<String>>,
    /// Time limit of one attempt, in milliseconds.
    pub timeout_ms: Option<Option<u64>>,
    /// Not to be started before; `None` for as soon as possible.
    pub run_at: Option<Option<Time>>,
}

/// Why a task was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad {
    /// Its state does not allow it.
    Refused(Refusal),
    /// A field cannot be what it is to be.
    Invalid(Invalid),
}

impl Edit {
    /// The fields that are set, as the API names them.
    #[must_use]
    pub fn fields(&self) -> Vec<&'static str> {
        let set = [
            ("command", self.command.is_some()),
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("name", self.name.is_some()),
            ("queue", self.queue.is_some()),
            ("priority", self.priority.is_some()),
            ("labels", !self.labels.is_empty()),
            ("timeout", self.timeout_ms.is_some()),
            ("run_at", self.run_at.is_some()),
        ];
        let named = |(name, set): (&'static str, bool)| set.then_some(name);
        set.into_iter().filter_map(named).collect()
    }

    /// The task as it is to be.
    ///
    /// # Errors
    /// An attempt is live, the task is over, or a field cannot be accepted.
    pub fn apply(&self, task: &Task, now: Time) -> Result<Task, Bad> {
        if !matches!(
            task.state,
            State::Blocked | State::Scheduled | State::Queued
        ) {
            return Err(Bad::Refused(Refusal::Unfit {
                act: "edit",
                task: task.id,
                state: task.state,
                hint: "only a task that waits can be changed: submit it anew",
            }));
        }
        let mut edited = task.clone();
        self.write(&mut edited);
        self.check(&edited, now).map_err(Bad::Invalid)?;
        let Some(at) = self.run_at else {
            edited.wake = next_wake(&edited);
            return Ok(edited);
        };
        // Who waits already keeps its place among those that wait.
        let due = match at {
            Some(at) if at > now => at,
            Some(_) | None => task.due.min(now),
        };
        if task.state == State::Blocked {
            edited.due = due;
            edited.wake = next_wake(&edited);
            return Ok(edited);
        }
        Ok(make_ready(edited, due, Delay::Start, now))
    }

    fn write(&self, task: &mut Task) {
        if let Some(queue) = &self.queue {
            task.queue.clone_from(queue);
        }
        task.priority = self.priority.unwrap_or(task.priority);
        if let Some(name) = &self.name {
            task.name.clone_from(name);
        }
        merge(&mut task.labels, &self.labels);
        let spec = Arc::make_mut(&mut task.spec);
        if let Some(command) = &self.command {
            spec.argv.clone_from(command);
        }
        merge(&mut spec.env, &self.env);
        if let Some(cwd) = &self.cwd {
            spec.cwd.clone_from(cwd);
        }
        spec.timeout_ms = self.timeout_ms.unwrap_or(spec.timeout_ms);
    }

    /// The checks of a new task. What cannot be changed passed them before,
    /// and a deadline may have come nearer since.
    fn check(&self, task: &Task, now: Time) -> Result<(), Invalid> {
        let new = NewTask {
            // Where it is, it may be: a hook, too, in the queue of hooks.
            queue: self.queue.clone().unwrap_or_else(|| "default".to_owned()),
            priority: task.priority,
            name: task.name.clone(),
            labels: task.labels.clone(),
            run_at: self.run_at.flatten(),
            spec: (*task.spec).clone(),
            ..NewTask::default()
        };
        new.check(now)
    }
}

fn merge(pairs: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) {
    for (name, value) in changes {
        match value {
            Some(value) => drop(pairs.insert(name.clone(), value.clone())),
            None => drop(pairs.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::accept::accept;
    use crate::model::id::TaskId;
    use crate::model::spec::Spec;

    const NOW: Time = Time::from_micros(1_700_000_000_000_000);

    fn waiting(blocked: bool, run_at: Option<Time>) -> Task {
        let new = NewTask {
            queue: "q".to_owned(),
            name: Some("n".to_owned()),
            labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
            run_at,
            spec: Spec {
                argv: vec!["true".to_owned()],
                queue_ttl_ms: Some(60_000),
                ..Spec::default()
            },
            ..NewTask::default()
        };
        accept(TaskId(7), &new, blocked, NOW)
    }

    fn later() -> Time {
        NOW.after(Duration::from_secs(60))
    }

    #[test]
    fn an_edit_changes_what_it_names_and_nothing_else() {
        for task in [
            waiting(false, None),
            waiting(true, None),
            waiting(false, Some(later())),
        ] {
            let same = Edit::default().apply(&task, NOW).unwrap();
            assert_eq!(same, task, "nothing named, nothing changed");
            let edit = Edit {
                priority: Some(9),
                name: Some(None),
                labels: BTreeMap::from([
                    ("a".to_owned(), None),
                    ("b".to_owned(), Some("2".to_owned())),
                ]),
                timeout_ms: Some(Some(5)),
                ..Edit::default()
            };
            let edited = edit.apply(&task, NOW).unwrap();
            let mut wanted = task.clone();
            wanted.priority = 9;
            wanted.name = None;
            wanted.labels = BTreeMap::from([("b".to_owned(), "2".to_owned())]);
            Arc::make_mut(&mut wanted.spec).timeout_ms = Some(5);
            assert_eq!(edited, wanted);
            assert!(edited.rank() < task.rank(), "a higher priority comes first");
            assert_eq!(
                edit.fields(),
                ["name", "priority", "labels", "timeout"],
                "as the API names them"
            );
        }
    }

    #[test]
    fn a_start_time_can_be_given_moved_and_taken_away() {
        let at = |at| Edit {
            run_at: Some(at),
            ..Edit::default()
        };
        let queued = waiting(false, None);
        let moved = at(Some(later())).apply(&queued, NOW).unwrap();
        assert_eq!(
            (moved.state, moved.due, moved.wake, moved.delay),
            (State::Scheduled, later(), Some(later()), Some(Delay::Start))
        );
        let next = NOW.after(Duration::from_secs(1));
        let back = at(None).apply(&moved, next).unwrap();
        assert_eq!(
            (back.state, back.due, back.delay),
            (State::Queued, next, None)
        );
        assert_eq!(
            back.wake,
            Some(next.after(Duration::from_secs(60))),
            "its time in the queue begins"
        );
        let kept = at(None).apply(&queued, next).unwrap();
        assert_eq!(kept, queued, "who waits keeps its place");
        let blocked = waiting(true, None);
        let moved = at(Some(later())).apply(&blocked, NOW).unwrap();
        assert_eq!((moved.state, moved.due), (State::Blocked, later()));
    }

    #[test]
    fn what_runs_or_is_over_is_not_changed_and_the_refusal_says_what_to_do() {
        for state in State::ALL {
            let task = Task {
                state,
                ..waiting(false, None)
            };
            let waits = matches!(state, State::Blocked | State::Scheduled | State::Queued);
            match (Edit::default().apply(&task, NOW), waits) {
                (Ok(_), true) => {}
                (Err(Bad::Refused(refusal)), false) => {
                    let said = refusal.to_string();
                    assert!(said.contains(state.word()), "{said}");
                    assert!(said.contains("submit it anew"), "{said}");
                }
                (other, _) => panic!("{state}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_hook_that_waits_can_be_changed_and_stays_in_its_queue() {
        let mut hook = waiting(false, None);
        hook.queue = crate::model::hook::QUEUE.to_owned();
        let edit = Edit {
            priority: Some(7),
            ..Edit::default()
        };
        assert_eq!(edit.apply(&hook, NOW).unwrap().priority, 7);
        let edit = Edit {
            queue: Some(crate::model::hook::QUEUE.to_owned()),
            ..Edit::default()
        };
        assert!(edit.apply(&waiting(false, None), NOW).is_err());
    }

    #[test]
    fn each_field_is_checked_as_at_a_submit() {
        let task = waiting(false, None);
        let bad = |edit: Edit| match edit.apply(&task, NOW) {
            Err(Bad::Invalid(invalid)) => invalid.field,
            other => panic!("{other:?}"),
        };
        let edit = Edit::default;
        for (edit, field) in [
            (
                Edit {
                    queue: Some("no spaces".to_owned()),
                    ..edit()
                },
                "queue",
            ),
            (
                Edit {
                    priority: Some(1001),
                    ..edit()
                },
                "priority",
            ),
            (
                Edit {
                    name: Some(Some(String::new())),
                    ..edit()
                },
                "name",
            ),
            (
                Edit {
                    command: Some(vec![]),
                    ..edit()
                },
                "command",
            ),
            (
                Edit {
                    cwd: Some(Some("x".to_owned())),
                    ..edit()
                },
                "cwd",
            ),
            (
                Edit {
                    timeout_ms: Some(Some(0)),
                    ..edit()
                },
                "timeout",
            ),
            (
                Edit {
                    run_at: Some(Some(NOW.after(Duration::from_secs(400_000_000)))),
                    ..edit()
                },
                "run_at",
            ),
            (
                Edit {
                    env: BTreeMap::from([("NOTIFY_SOCKET".to_owned(), Some("x".to_owned()))]),
                    ..edit()
                },
                "env",
            ),
        ] {
            assert_eq!(bad(edit), field);
        }
    }
}
