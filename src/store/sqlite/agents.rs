//! [`Agents`] in SQLite.

use std::sync::Arc;

use rusqlite::{Row, params};

use crate::model::agent::life::Life;
use crate::model::agent::plan::{Agent, NewAgent};
use crate::model::id::AgentId;
use crate::model::time::Time;
use crate::store::Error;
use crate::store::agents::Agents;
use crate::store::rows::Columns;

use super::{Sqlite, failed, json};

/// Every agent, in the order in which [`read`] reads its columns.
pub(in crate::store) const ALL: &str =
    "SELECT id, owner, name, created, removed, plan FROM agent ORDER BY id";

/// Where instances stand, in the order of agents and instances.
pub(in crate::store) const LIVES: &str = "SELECT agent, state FROM life ORDER BY agent, instance";

/// An agent without instances, from a row of them.
pub(in crate::store) fn read(row: &Row<'_>) -> Result<Agent, Error> {
    let mut from = Columns::new(row, "agent")?;
    Ok(Agent {
        id: AgentId(from.id()),
        owner: from.get()?,
        name: from.get()?,
        created: from.time()?,
        removed: from.get()?,
        plan: Arc::new(from.json()?.ok_or_else(|| from.damaged("no plan"))?),
        lives: Vec::new(),
    })
}

/// Where an instance stands, from a row of them.
pub(in crate::store) fn life(row: &Row<'_>) -> Result<Life, Error> {
    let mut from = Columns::new(row, "life of agent")?;
    from.json()?.ok_or_else(|| from.damaged("no state"))
}

impl Agents for Sqlite {
    fn agents(&mut self) -> Result<(Vec<Agent>, Vec<Error>), Error> {
        let (mut agents, mut faults) = (Vec::new(), Vec::new());
        for agent in self.rows(ALL, [], |row| Ok(read(row)))? {
            match agent {
                Ok(agent) => agents.push(agent),
                Err(fault) => faults.push(fault),
            }
        }
        let named = |row: &Row<'_>| Ok((Columns::new(row, "life of agent")?.id(), life(row)));
        for (agent, life) in self.rows(LIVES, [], named)? {
            let found = agents.binary_search_by_key(&AgentId(agent), |agent: &Agent| agent.id);
            let life = life.unwrap_or_else(|fault| {
                faults.push(fault);
                Life::default()
            });
            if let Ok(index) = found {
                agents[index].lives.push(life);
            }
        }
        Ok((agents, faults))
    }

    fn add_agent(&mut self, new: &NewAgent, now: Time) -> Result<Agent, Error> {
        self.statement("INSERT INTO agent (owner, name, created, plan) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                new.owner,
                new.name,
                now.micros(),
                json(&new.plan, false)
            ])
            .map_err(failed("keep an agent"))?;
        Ok(Agent {
            id: AgentId(self.connection.last_insert_rowid()),
            owner: new.owner,
            name: new.name.clone(),
            created: now,
            removed: false,
            plan: Arc::new(new.plan.clone()),
            lives: Vec::new(),
        })
    }

    fn save_agent(&mut self, agent: &Agent) -> Result<(), Error> {
        self.statement("UPDATE agent SET removed = ?2, plan = ?3 WHERE id = ?1")?
            .execute(params![
                agent.id.0,
                agent.removed,
                json(&*agent.plan, false)
            ])
            .map_err(failed("save an agent"))?;
        Ok(())
    }

    fn save_life(&mut self, agent: AgentId, instance: u32, life: &Life) -> Result<(), Error> {
        self.statement(
            "INSERT INTO life (agent, instance, state) VALUES (?1, ?2, ?3) \
             ON CONFLICT (agent, instance) DO UPDATE SET state = excluded.state",
        )?
        .execute(params![agent.0, instance, json(life, false)])
        .map_err(failed("save an agent's instance"))?;
        Ok(())
    }

    fn drop_life(&mut self, agent: AgentId, instance: u32) -> Result<(), Error> {
        self.statement("DELETE FROM life WHERE agent = ?1 AND instance = ?2")?
            .execute(params![agent.0, instance])
            .map_err(failed("forget an agent's instance"))?;
        Ok(())
    }

    fn drop_agent(&mut self, id: AgentId) -> Result<(), Error> {
        self.statement("DELETE FROM agent WHERE id = ?1")?
            .execute([id.0])
            .map_err(failed("forget an agent"))?;
        Ok(())
    }
}
