//! Budgets: whose there are, and how they stand.

use serde::{Deserialize, Serialize};

use crate::model::budget::{Allowance, Cap, Day, Minute, Name, Purse};
use crate::model::id::AgentId;
use crate::model::price::Money;
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::command::{Caller, Error};
use super::handle::Handle;
use super::reader::Query;

pub(super) mod spend;

/// What the budget of a batch is called for people.
pub const BATCH: &str = "this batch";
/// Users that are shown to an admin beside those who are named.
const USERS: u32 = 100;

/// What calls may come to in a day, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daily {
    /// Whose tasks: a name or a number; `*` for each user that is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Tasks of which queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
}

impl Daily {
    /// Its amounts.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        Cap {
            tokens: self.tokens,
            cost: self.cost,
        }
    }
}

/// Whose calls a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Those of each user who has no rule of one's own.
    Everyone,
    /// Those of a user.
    User(u32),
    /// Those of tasks in a queue.
    Queue,
}

/// What calls may come to in a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose.
    pub who: Who,
    /// The user or the queue, as the configuration names it.
    pub name: String,
    /// How much.
    pub cap: Cap,
}

/// One of the budgets that a call draws on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its name in the store.
    pub name: Name,
    /// Its name for people.
    pub whose: String,
    /// The most there is.
    pub cap: Cap,
    /// How it stands.
    pub purse: Purse,
    /// When it begins anew, where it does.
    pub until: Option<Time>,
}

/// All budgets that calls of a task draw on, also those without a limit: there
/// may be one later in the day.
fn shares(
    store: &mut impl Store,
    rules: &[Rule],
    task: &Task,
    now: Time,
) -> Result<Vec<Share>, store::Error> {
    let mut shares = Vec::new();
    if let Some(budget) = &task.spec.budget {
        let name = Name::of_task(task.id);
        if !budget.own.is_empty() {
            let (purse, _) = store.purse(&name)?;
            shares.push(Share {
                name,
                whose: "this task".to_owned(),
                cap: budget.own,
                purse,
                until: None,
            });
        }
        if let Some(batch) = &budget.batch {
            let name = Name::of_batch(task.owner, batch);
            let (purse, cap) = store.purse(&name)?;
            shares.push(Share {
                name,
                whose: BATCH.to_owned(),
                cap,
                purse,
                until: None,
            });
        }
        if let Some((allowance, run)) = budget.agent.as_ref().zip(task.spec.run) {
            of_agent(store, allowance, run.agent, now, &mut shares)?;
        }
    }
    shares.push(of_user(store, rules, task.owner, now)?);
    let queue = rules.iter();
    let queue = queue
        .filter(|rule| rule.who == Who::Queue)
        .find(|rule| rule.name == task.queue);
    let cap = queue.map(|rule| rule.cap).unwrap_or_default();
    shares.push(of_queue(store, &task.queue, cap, now)?);
    Ok(shares)
}

fn of_user(
    store: &mut impl Store,
    rules: &[Rule],
    uid: u32,
    now: Time,
) -> Result<Share, store::Error> {
    let find = |who| rules.iter().find(|rule| rule.who == who);
    let own = find(Who::User(uid));
    let rule = own.or_else(|| find(Who::Everyone));
    let day = Day::of(now);
    let name = Name::of_user(uid, day);
    Ok(Share {
        whose: match own {
            Some(rule) => format!("user {} today", rule.name),
            None => format!("uid {uid} today"),
        },
        cap: rule.map(|rule| rule.cap).unwrap_or_default(),
        purse: store.purse(&name)?.0,
        name,
        until: Some(day.end()),
    })
}

fn of_agent(
    store: &mut impl Store,
    allowance: &Allowance,
    id: AgentId,
    now: Time,
    shares: &mut Vec<Share>,
) -> Result<(), store::Error> {
    let called = &allowance.name;
    if !allowance.day.is_empty() {
        let day = Day::of(now);
        let name = Name::of_agent(id, day);
        shares.push(Share {
            whose: format!("agent `{called}` today"),
            cap: allowance.day,
            purse: store.purse(&name)?.0,
            name,
            until: Some(day.end()),
        });
    }
    if allowance.minute.is_some() {
        let minute = Minute::of(now);
        let name = Name::of_minute(id, minute);
        shares.push(Share {
            whose: format!("agent `{called}` in this minute"),
            cap: Cap {
                tokens: allowance.minute,
                cost: None,
            },
            purse: store.purse(&name)?.0,
            name,
            until: Some(minute.end()),
        });
    }
    Ok(())
}

fn of_queue(
    store: &mut impl Store,
    queue: &str,
    cap: Cap,
    now: Time,
) -> Result<Share, store::Error> {
    let day = Day::of(now);
    let name = Name::of_queue(queue, day);
    Ok(Share {
        whose: format!("queue `{queue}` today"),
        cap,
        purse: store.purse(&name)?.0,
        name,
        until: Some(day.end()),
    })
}

/// The budgets of a day that a caller may know of: those of queues, and of
/// users one's own, or all.
pub(super) fn of_today(
    store: &mut impl Store,
    rules: &[Rule],
    caller: Caller,
    now: Time,
) -> Result<Vec<Share>, store::Error> {
    let mut shares = Vec::new();
    let mut users = vec![caller.uid];
    for rule in rules {
        match rule.who {
            Who::Queue => shares.push(of_queue(store, &rule.name, rule.cap, now)?),
            Who::User(uid) if caller.may_touch(uid) && uid != caller.uid => users.push(uid),
            Who::Everyone if caller.admin => users.extend(store.spenders(Day::of(now), USERS)?),
            Who::User(_) | Who::Everyone => {}
        }
    }
    users.sort_unstable();
    users.dedup();
    for uid in users {
        let share = of_user(store, rules, uid, now)?;
        if !share.cap.is_empty() {
            shares.push(share);
        }
    }
    Ok(shares)
}

/// The budgets with limits that a task draws on, for who looks at it.
pub(super) fn of_task(
    store: &mut impl Store,
    rules: &[Rule],
    task: &Task,
    now: Time,
) -> Result<Vec<Share>, store::Error> {
    if task.spec.prompt.is_none() && !task.spec.llm {
        return Ok(Vec::new());
    }
    let mut shares = shares(store, rules, task, now)?;
    shares.retain(|share| !share.cap.is_empty());
    Ok(shares)
}

impl Handle {
    /// The budgets of this day that a caller may know of.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn budgets(&self, caller: Caller, now: Time) -> Result<Vec<Share>, Error> {
        let query = |reply| Query::Budgets { caller, now, reply };
        self.read(query).await
    }
}
