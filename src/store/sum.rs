//! Checksums of what a task was asked to do.
//!
//! SQLite notices damage of its own structure, and reading a row notices what
//! is no value. A byte that changed inside a command or an input is neither,
//! and would be run as it is. So what was asked for carries a CRC-32, which
//! finds every change of a few bits. It is no protection against a person.

use crc32fast::Hasher;

use super::Error;
use crate::model::id::TaskId;
use crate::model::task::Task;
use crate::model::time::Time;

/// The texts of a task's row that only an edit changes: name, labels, key,
/// group key and specification, as they are stored.
pub(super) type Texts<'a> = [Option<&'a str>; 5];

/// The checksum of what was asked for by a row of tasks. The number is in it,
/// so that a row in the place of another is noticed as well.
pub(super) fn of_task(id: TaskId, owner: u32, created: Time, texts: Texts<'_>) -> u32 {
    let mut sum = Hasher::new();
    sum.update(&id.0.to_le_bytes());
    sum.update(&owner.to_le_bytes());
    sum.update(&created.micros().to_le_bytes());
    for text in texts {
        // No text has such a length; and none runs into the next.
        let length = text.map_or(u64::MAX, |text| {
            u64::try_from(text.len()).unwrap_or_default()
        });
        sum.update(&length.to_le_bytes());
        sum.update(text.unwrap_or_default().as_bytes());
    }
    sum.finalize()
}

/// The same of a task, with two of its texts as they are stored.
pub(super) fn of(task: &Task, labels: Option<&str>, spec: Option<&str>) -> u32 {
    let (name, key, group) = (&task.name, &task.key, &task.group);
    let [name, key, group] = [name, key, group].map(Option::as_deref);
    let texts = [name, labels, key, group, spec];
    of_task(task.id, task.owner, task.created, texts)
}

/// The standard input of a task, if it has its checksum or never had one.
///
/// # Errors
/// It is damaged.
pub(super) fn input(id: TaskId, data: Vec<u8>, sum: Option<u32>) -> Result<Vec<u8>, Error> {
    if sum.is_none_or(|sum| of_input(id, &data) == sum) {
        return Ok(data);
    }
    Err(Error::Damaged {
        table: "input of task",
        id: id.0,
        what: "it does not have its checksum any more".to_owned(),
    })
}

/// The checksum of a task's standard input.
pub(super) fn of_input(id: TaskId, data: &[u8]) -> u32 {
    let mut sum = Hasher::new();
    sum.update(&id.0.to_le_bytes());
    sum.update(data);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_elsewhere_has_another_checksum() {
        let of = |texts| of_task(TaskId(1), 2, Time::from_micros(3), texts);
        let sums = [
            of([Some("ab"), None, None, None, Some("{}")]),
            of([Some("a"), Some("b"), None, None, Some("{}")]),
            of([None, Some("ab"), None, None, Some("{}")]),
            of([Some("ab"), Some(""), None, None, Some("{}")]),
            of_task(TaskId(2), 2, Time::from_micros(3), [None; 5]),
            of_input(TaskId(1), b"ab"),
            of_input(TaskId(2), b"ab"),
        ];
        for (at, sum) in sums.iter().enumerate() {
            assert!(!sums[at + 1..].contains(sum), "{at}");
        }
    }
}
