//! What is kept of calls of language models: the ledger, and how each account
//! stands.

use crate::model::attempt::AttemptKey;
use crate::model::budget::{Cap, Day, Name, Purse};
use crate::model::gauge::{Gauge, Others};
use crate::model::id::TaskId;
use crate::model::ledger::{Call, Over, Spent};
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

    /// Writes down a call that is about to be made, and gives it its number.
    ///
    /// # Errors
    /// The database refused.
    fn begin_call(&mut self, call: &Call) -> Result<i64, Error>;

    /// Writes down what came of a call that is not over.
    ///
    /// # Errors
    /// The database refused.
    fn end_call(&mut self, id: i64, over: &Over) -> Result<(), Error>;

    /// All relayed calls that are not over.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn open_relayed_calls(&mut self) -> Result<Vec<Call>, Error>;

    /// How a budget stands, and its limits where they are kept with it; empty
    /// where nothing is known of it.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn purse(&mut self, name: &Name) -> Result<(Purse, Cap), Error>;

    /// Users who have spent something on a day, at most so many.
    ///
    /// # Errors
    /// The database refused.
    fn spenders(&mut self, day: Day, limit: u32) -> Result<Vec<u32>, Error>;

    /// Keeps how a budget stands.
    ///
    /// # Errors
    /// The database refused.
    fn save_purse(&mut self, name: &Name, purse: &Purse, now: Time) -> Result<(), Error>;

    /// Keeps the limits of a budget with it.
    ///
    /// # Errors
    /// The database refused.
    fn cap_purse(&mut self, name: &Name, cap: Cap, now: Time) -> Result<(), Error>;

    /// A call by its number.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn call_numbered(&mut self, id: i64) -> Result<Option<Call>, Error>;

    /// An attempt's own call.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn call(&mut self, key: AttemptKey) -> Result<Option<Call>, Error>;

    /// The latest calls of a task, at most so many, first to last.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn calls(&mut self, task: TaskId, limit: u32) -> Result<Vec<Call>, Error>;

    /// Calls that are made, of live attempts or relayed, that count against a gauge and were let go after
    /// a time.
    ///
    /// # Errors
    /// The database refused.
    fn running_calls(&mut self, gauge: &str, after: Time) -> Result<Others, Error>;

    /// Live attempts that are calls.
    ///
    /// # Errors
    /// The database refused.
    fn own_calls(&mut self) -> Result<u32, Error>;

    /// What was spent since a time, by model.
    ///
    /// # Errors
    /// The database refused.
    fn spent_since(&mut self, since: Time) -> Result<Vec<Spent>, Error>;

    /// Forgets calls that were made before a time, and purses that were not
    /// touched since: those of a day, and of tasks and batches those of another
    /// year before. At most so many of each; how many there were.
    ///
    /// # Errors
    /// The database refused.
    fn drop_calls(&mut self, before: Time, limit: u32) -> Result<u32, Error>;
}
