//! What is kept of calls of language models: the ledger, and how each account
//! stands.

use crate::model::attempt::AttemptKey;
use crate::model::gauge::{Gauge, Others};
use crate::model::id::TaskId;
use crate::model::ledger::{Call, Over, Spent};
use crate::model::price::Money;
use crate::model::time::Time;

use super::Error;

/// Calls and gauges. Changes belong to the transaction that is open.
pub trait Calls {
    /// Every gauge, by name. One that cannot be read is left out: it begins
    /// anew.
    ///
    /// # Errors
    /// The database refused.
    fn gauges(&mut self) -> Result<Vec<(String, Gauge)>, Error>;

    /// Keeps a gauge.
    ///
    /// # Errors
    /// The database refused.
    fn save_gauge(&mut self, name: &str, gauge: &Gauge) -> Result<(), Error>;

    /// Writes down a call that is about to be made.
    ///
    /// # Errors
    /// The database refused; a number twice is an error.
    fn begin_call(&mut self, call: &Call) -> Result<(), Error>;

    /// Writes down what came of a call that is not over.
    ///
    /// # Errors
    /// The database refused.
    fn end_call(&mut self, key: AttemptKey, over: &Over) -> Result<(), Error>;

    /// The call of an attempt.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn call(&mut self, key: AttemptKey) -> Result<Option<Call>, Error>;

    /// The calls of a task, first to last.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn calls(&mut self, task: TaskId) -> Result<Vec<Call>, Error>;

    /// Calls of live attempts that count against a gauge and were let go after
    /// a time.
    ///
    /// # Errors
    /// The database refused.
    fn running_calls(&mut self, gauge: &str, after: Time) -> Result<Others, Error>;

    /// What was spent since a time, by model.
    ///
    /// # Errors
    /// The database refused.
    fn spent_since(&mut self, since: Time) -> Result<Vec<Spent>, Error>;

    /// What an owner's calls cost since a time, or may have.
    ///
    /// # Errors
    /// The database refused.
    fn cost_of_owner(&mut self, owner: u32, since: Time) -> Result<Money, Error>;

    /// Forgets calls that were made before a time, at most so many; how many
    /// there were.
    ///
    /// # Errors
    /// The database refused.
    fn drop_calls(&mut self, before: Time, limit: u32) -> Result<u32, Error>;
}
