//! What is kept of agents.

use crate::model::agent::life::Life;
use crate::model::agent::plan::{Agent, NewAgent};
use crate::model::id::AgentId;
use crate::model::time::Time;

use super::Error;

/// Agents and where their instances stand. Changes belong to the transaction
/// that is open.
pub trait Agents {
    /// Every agent, with its instances; and what is damaged. An agent that
    /// cannot be read is left out, and an instance is as one that nobody wants.
    ///
    /// # Errors
    /// The database refused.
    fn agents(&mut self) -> Result<(Vec<Agent>, Vec<Error>), Error>;

    /// Keeps a new agent without instances.
    ///
    /// # Errors
    /// The database refused; a name twice is an error.
    fn add_agent(&mut self, new: &NewAgent, now: Time) -> Result<Agent, Error>;

    /// Saves what is asked of an agent, and whether it is removed.
    ///
    /// # Errors
    /// The database refused.
    fn save_agent(&mut self, agent: &Agent) -> Result<(), Error>;

    /// Saves where an instance stands, counted from 1; it may be new.
    ///
    /// # Errors
    /// The database refused.
    fn save_life(&mut self, agent: AgentId, instance: u32, life: &Life) -> Result<(), Error>;

    /// Forgets an instance.
    ///
    /// # Errors
    /// The database refused.
    fn drop_life(&mut self, agent: AgentId, instance: u32) -> Result<(), Error>;

    /// Forgets an agent and its instances; its tasks stay.
    ///
    /// # Errors
    /// The database refused.
    fn drop_agent(&mut self, id: AgentId) -> Result<(), Error>;
}
