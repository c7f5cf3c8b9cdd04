//! What is kept of queues, and what admission asks.

use std::collections::HashSet;

use crate::model::admit::{Head, Live, Shares};
use crate::model::id::TaskId;
use crate::model::queue::{Lane, Queue};
use crate::model::task::Task;

use super::Error;

/// What tasks may have to wait for, as it is at one moment.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    /// Every queue.
    pub queues: Vec<Queue>,
    /// Who has how many live attempts where.
    pub shares: Shares,
    /// Of the tasks that were asked about, those that are behind others of
    /// their group key.
    pub shut: HashSet<TaskId>,
}

/// Queues, and who is next in them. The changes belong to the transaction that
/// is open; what admission asks is read in it too.
///
/// Of the ready tasks of a group key in a queue, only as many are *open* as may
/// run beside its live ones: the first by rank and number. Inserting and saving
/// a task keeps that so; only open tasks are heads.
pub trait Queues {
    /// Every queue.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn queues(&mut self) -> Result<Vec<Queue>, Error>;

    /// The queue of this name.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn queue_named(&mut self, name: &str) -> Result<Option<Queue>, Error>;

    /// Whether the queue of this name is there and takes no new tasks.
    ///
    /// # Errors
    /// The database refused.
    fn is_draining(&mut self, name: &str) -> Result<bool, Error>;

    /// The queue of this name, made where there is none.
    ///
    /// # Errors
    /// The database refused.
    fn make_queue(&mut self, name: &str) -> Result<Queue, Error>;

    /// Saves a queue's limits, its rate's bucket, and whether it is paused or
    /// draining. Groups follow a new group limit by [`Queues::regroup`].
    ///
    /// # Errors
    /// The database refused.
    fn save_queue(&mut self, queue: &Queue) -> Result<(), Error>;

    /// Forgets a queue's limits and that it is there, until a task comes to it.
    ///
    /// # Errors
    /// The database refused.
    fn remove_queue(&mut self, queue: &Queue) -> Result<(), Error>;

    /// Live attempts, by queue and owner.
    ///
    /// # Errors
    /// The database refused.
    fn live_by_owner(&mut self) -> Result<Vec<Live>, Error>;

    /// Queues that have open ready tasks.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn ready_queues(&mut self) -> Result<Vec<Queue>, Error>;

    /// The first open ready task of each owner in a queue.
    ///
    /// # Errors
    /// The database refused.
    fn heads(&mut self, queue: i64) -> Result<Vec<Head>, Error>;

    /// The open ready task of the same owner and queue that is behind this one.
    ///
    /// # Errors
    /// The database refused.
    fn next_head(&mut self, head: &Head) -> Result<Option<Head>, Error>;

    /// Live attempts of a group key in a queue.
    ///
    /// # Errors
    /// The database refused.
    fn live_of_group(&mut self, queue: i64, group: &str) -> Result<u32, Error>;

    /// Opens and shuts ready tasks of a group key as its queue's group limit
    /// has it.
    ///
    /// # Errors
    /// The database refused.
    fn settle_group(&mut self, queue: i64, group: &str) -> Result<(), Error>;

    /// Settles up to so many groups of queues whose group limit was changed.
    /// Whether there may be more.
    ///
    /// # Errors
    /// The database refused.
    fn regroup(&mut self, limit: u32) -> Result<bool, Error>;

    /// Every queue with its unfinished tasks, counted in the database.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn lanes(&mut self) -> Result<Vec<Lane>, Error>;

    /// What these tasks may have to wait for.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn crowd(&mut self, tasks: &[Task]) -> Result<Crowd, Error>;
}
