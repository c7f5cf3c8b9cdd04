//! A queue: a named lane for tasks, with limits of its own.

use super::check::queue_name;
use super::invalid::Invalid;
use super::rate::Rate;
use super::task::State;
use super::time::Time;

/// Tasks of one group key that run at once in a queue that says nothing else.
pub const GROUP_LIMIT: u32 = 1;
/// Highest group limit: so many rows are looked at when one of a group ends.
pub const GROUP_LIMIT_MAX: u32 = 1_000;
/// Highest concurrency of a queue.
pub const CONCURRENCY_MAX: u32 = 1_000_000;

/// A queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Its row.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its own limit of attempts at once.
    pub concurrency: Option<u32>,
    /// Its own limit of starts in a time.
    pub rate: Option<Rate>,
    /// When the rate's bucket is full again.
    pub rate_until: Time,
    /// Its own limit of attempts at once of one group key.
    pub group_limit: Option<u32>,
    /// Whether it starts nothing.
    pub paused: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
}

impl Queue {
    /// How many of one group key run at once.
    #[must_use]
    pub fn group_limit(&self) -> u32 {
        self.group_limit.unwrap_or(GROUP_LIMIT)
    }

    /// How many more attempts its concurrency has room for; `default` is for
    /// queues that say nothing.
    #[must_use]
    pub fn room(&self, live: u32, default: Option<u32>) -> u32 {
        let limit = self.concurrency.or(default).unwrap_or(u32::MAX);
        limit.saturating_sub(live)
    }

    /// How many more starts its rate allows now.
    #[must_use]
    pub fn starts(&self, now: Time) -> u32 {
        let free = |rate: Rate| rate.free(self.rate_until, now);
        self.rate.map_or(u32::MAX, free)
    }

    /// Until when its rate is used up, if it is.
    #[must_use]
    pub fn used_up(&self, now: Time) -> Option<Time> {
        let next = self.rate?.next(self.rate_until, now);
        (next > now).then_some(next)
    }

    /// Mends its rate's bucket; whether that changed anything.
    pub fn mend(&mut self, now: Time) -> bool {
        let until = self.rate_until;
        if let Some(rate) = self.rate {
            self.rate_until = rate.mend(until, now);
        }
        self.rate_until != until
    }

    /// Counts a start.
    pub fn start(&mut self, now: Time) {
        if let Some(rate) = self.rate {
            self.rate_until = rate.take(self.rate_until, now);
        }
    }
}

/// A queue with its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// It.
    pub queue: Queue,
    /// Its tasks in each state, in the order of [`State::ALL`].
    pub counts: [u64; State::ALL.len()],
}

/// New limits of a queue. What is `None` stays; what is `Some(None)` is no
/// limit of its own any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at once.
    pub concurrency: Option<Option<u32>>,
    /// Starts in a time.
    pub rate: Option<Option<Rate>>,
    /// Attempts at once of one group key.
    pub group_limit: Option<Option<u32>>,
}

impl Limits {
    /// Checks the limits, and the name of the queue that is to have them.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn check(&self, name: &str) -> Result<(), Invalid> {
        queue_name(name)?;
        within("concurrency", self.concurrency, CONCURRENCY_MAX)?;
        within("group_limit", self.group_limit, GROUP_LIMIT_MAX)
    }

    /// Gives a queue these limits.
    pub fn set(&self, queue: &mut Queue) {
        if let Some(concurrency) = self.concurrency {
            queue.concurrency = concurrency;
        }
        if let Some(group_limit) = self.group_limit {
            queue.group_limit = group_limit;
        }
        if let Some(rate) = self.rate.filter(|rate| *rate != queue.rate) {
            queue.rate = rate;
            queue.rate_until = Time::default();
        }
    }
}

fn within(field: &'static str, limit: Option<Option<u32>>, most: u32) -> Result<(), Invalid> {
    let Some(Some(limit)) = limit else {
        return Ok(());
    };
    if (1..=most).contains(&limit) {
        return Ok(());
    }
    let pause = if limit == 0 {
        "; `pause` stops a queue"
    } else {
        ""
    };
    let reason = format!("must lie between 1 and {most}{pause}");
    Err(Invalid { field, reason })
}
