//! Whose turn it is: the choice between ready tasks.
//!
//! Users share what is scarce. Where a queue has less room than ready tasks,
//! that is the queue's room; where the host has fewer slots than could be
//! used, it is the slots. The next start is for whoever has the fewest live
//! attempts there; among equals, for whoever was served there least recently.
//! Between the tasks of one user, rank decides, which has priority and waiting
//! time in it, and then the number.

use std::collections::HashMap;

use super::id::TaskId;

/// Remembered services; when there are more, all are forgotten. That only
/// makes the next choice between equals an arbitrary one.
const SERVED_MAX: usize = 10_000;

/// The first ready task of a user in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Row of the queue.
    pub queue: i64,
    /// Uid of the user.
    pub owner: u32,
    /// The task's rank.
    pub rank: i64,
    /// The task.
    pub task: TaskId,
}

/// Live attempts of a user in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Row of the queue.
    pub queue: i64,
    /// Uid of the user.
    pub owner: u32,
    /// How many.
    pub count: u32,
}

/// Live attempts, by what they are limited by.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    all: u32,
    of_queue: HashMap<i64, u32>,
    of_owner: HashMap<u32, u32>,
    of_both: HashMap<(i64, u32), u32>,
}

impl Shares {
    /// Counts more live attempts.
    pub fn add(&mut self, live: Live) {
        self.all += live.count;
        *self.of_queue.entry(live.queue).or_default() += live.count;
        *self.of_owner.entry(live.owner).or_default() += live.count;
        *self.of_both.entry((live.queue, live.owner)).or_default() += live.count;
    }

    /// Counts the live attempts of a queue nowhere any more.
    pub fn leave_out(&mut self, queue: i64) {
        let inside: Vec<_> = self
            .of_both
            .extract_if(|(other, _), _| *other == queue)
            .collect();
        self.of_queue.remove(&queue);
        for ((_, owner), count) in inside {
            self.all = self.all.saturating_sub(count);
            if let Some(all) = self.of_owner.get_mut(&owner) {
                *all = all.saturating_sub(count);
            }
        }
    }

    /// All live attempts.
    #[must_use]
    pub const fn all(&self) -> u32 {
        self.all
    }

    /// Live attempts of a queue.
    #[must_use]
    pub fn of_queue(&self, queue: i64) -> u32 {
        self.of_queue.get(&queue).copied().unwrap_or_default()
    }

    /// Live attempts of a user.
    #[must_use]
    pub fn of_owner(&self, owner: u32) -> u32 {
        self.of_owner.get(&owner).copied().unwrap_or_default()
    }

    /// Live attempts of a user outside of a queue.
    #[must_use]
    pub fn of_owner_beside(&self, owner: u32, queue: Option<i64>) -> u32 {
        let inside = queue.map_or(0, |queue| self.of_both(queue, owner));
        self.of_owner(owner).saturating_sub(inside)
    }

    fn of_both(&self, queue: i64, owner: u32) -> u32 {
        let both = self.of_both.get(&(queue, owner));
        both.copied().unwrap_or_default()
    }
}

impl FromIterator<Live> for Shares {
    fn from_iter<I: IntoIterator<Item = Live>>(all: I) -> Self {
        let mut shares = Self::default();
        all.into_iter().for_each(|live| shares.add(live));
        shares
    }
}

/// Where users stand against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// For the slots of the host.
    Slots,
    /// For the room in each queue.
    Room,
}

/// Who was served when, in services.
#[derive(Debug, Clone, Default)]
pub struct Served {
    count: u64,
    last: HashMap<(Option<i64>, u32), u64>,
}

impl Served {
    /// A user was served.
    pub fn note(&mut self, queue: i64, owner: u32) {
        if self.last.len() >= SERVED_MAX {
            self.last.clear();
        }
        self.count += 1;
        self.last.insert((None, owner), self.count);
        self.last.insert((Some(queue), owner), self.count);
    }

    fn last(&self, queue: Option<i64>, owner: u32) -> u64 {
        self.last.get(&(queue, owner)).copied().unwrap_or_default()
    }
}

/// Which of the heads is next; none of none.
#[must_use]
pub fn next(heads: &[Head], shares: &Shares, served: &Served, scarce: Scarce) -> Option<usize> {
    let order = |head: &Head| {
        let Head { queue, owner, .. } = *head;
        let (live, last) = match scarce {
            Scarce::Slots => (shares.of_owner(owner), served.last(None, owner)),
            Scarce::Room => (
                shares.of_both(queue, owner),
                served.last(Some(queue), owner),
            ),
        };
        (live, last, head.rank, head.task)
    };
    let first = heads.iter().enumerate().min_by_key(|(_, head)| order(head));
    first.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(queue: i64, owner: u32, rank: i64, task: i64) -> Head {
        Head {
            queue,
            owner,
            rank,
            task: TaskId(task),
        }
    }

    fn live(queue: i64, owner: u32, count: u32) -> Live {
        Live {
            queue,
            owner,
            count,
        }
    }

    #[test]
    fn the_one_with_least_is_next_and_among_equals_the_one_served_longest_ago() {
        let heads = [head(1, 10, 0, 1), head(1, 20, 5, 2)];
        let mut served = Served::default();
        let shares: Shares = [live(1, 10, 1)].into_iter().collect();
        assert_eq!(next(&heads, &shares, &served, Scarce::Room), Some(1));
        let equal = Shares::default();
        assert_eq!(next(&heads, &equal, &served, Scarce::Room), Some(0));
        served.note(1, 10);
        assert_eq!(next(&heads, &equal, &served, Scarce::Room), Some(1));
        served.note(1, 20);
        assert_eq!(next(&heads, &equal, &served, Scarce::Room), Some(0));
        assert_eq!(next(&[], &equal, &served, Scarce::Room), None);
    }

    #[test]
    fn many_queues_of_one_user_are_no_more_than_one_where_slots_are_scarce() {
        let heads = [head(1, 10, 0, 1), head(2, 10, 0, 2), head(3, 20, 9, 3)];
        let shares: Shares = [live(1, 10, 1), live(3, 20, 1)].into_iter().collect();
        let mut served = Served::default();
        served.note(3, 20);
        served.note(1, 10);
        assert_eq!(next(&heads, &shares, &served, Scarce::Slots), Some(2));
    }

    #[test]
    fn what_a_user_runs_elsewhere_does_not_count_where_only_a_queue_is_full() {
        let heads = [head(1, 10, 0, 1), head(1, 20, 0, 2)];
        let shares: Shares = [live(2, 10, 9), live(1, 20, 1)].into_iter().collect();
        let served = Served::default();
        assert_eq!(next(&heads, &shares, &served, Scarce::Room), Some(0));
        assert_eq!(next(&heads, &shares, &served, Scarce::Slots), Some(1));
    }
}
