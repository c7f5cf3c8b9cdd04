//! [`Calls`] in SQLite.

use std::time::Duration;

use rusqlite::{Row, params};

use crate::model::attempt::AttemptKey;
use crate::model::budget::{Cap, Day, Name, Purse, Sum};
use crate::model::gauge::{Gauge, Others};
use crate::model::id::TaskId;
use crate::model::ledger::{Call, Over, Spent};
use crate::model::limit::Tokens;
use crate::model::price::Money;
use crate::model::receipt::End;
use crate::model::time::Time;
use crate::store::Error;
use crate::store::calls::Calls;
use crate::store::rows::Columns;

use super::{Sqlite, failed, json};

/// Columns of a call, in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "id, task, number, relayed, owner, model, gauge, at, input_max, output_max, cost_max, ended, how, \
         input, output, cost, held, purses"
    };
}

const BEGIN: &str = "INSERT INTO call (task, number, owner, model, gauge, at, input_max, \
     output_max, cost_max, relayed, held, purses) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const END: &str = "UPDATE call SET ended = ?2, how = ?3, input = ?4, output = ?5, cost = ?6 \
     WHERE id = ?1 AND ended IS NULL";
/// Of attempts that are live: a row without its attempt's end holds nothing up.
const RUNNING: &str = "SELECT count(*), coalesce(sum(input_max), 0), coalesce(sum(output_max), 0) \
     FROM call INDEXED BY call_open LEFT JOIN attempt USING (task, number) \
     WHERE gauge = ?1 AND call.ended IS NULL AND at > ?2 \
     AND (relayed = 1 OR attempt.claimed IS NOT NULL AND attempt.outcome IS NULL)";
const OWN: &str = "SELECT count(*) FROM call INDEXED BY call_open \
     JOIN attempt USING (task, number) \
     WHERE call.ended IS NULL AND relayed = 0 AND attempt.outcome IS NULL";
const SPENT: &str = "SELECT model, count(*), coalesce(sum(input), 0), coalesce(sum(output), 0), \
     coalesce(sum(iif(ended IS NULL, cost_max, cost)), 0), \
     count(*) FILTER (WHERE ended IS NOT NULL AND how IS NULL) \
     FROM call INDEXED BY call_at WHERE at >= ?1 GROUP BY model ORDER BY model";
const DROP: &str = "DELETE FROM call WHERE id IN (\
     SELECT id FROM call INDEXED BY call_at WHERE at < ?1 AND ended IS NOT NULL \
     ORDER BY at LIMIT ?2)";

const PURSE: &str = "SELECT 0, tokens, cost, tokens_held, cost_held, tokens_cap, cost_cap \
     FROM purse WHERE name = ?1";
/// By the first key: only users are looked through, of the days that are kept.
const SPENDERS: &str = "SELECT 0, name FROM purse \
     WHERE name >= 'user/' AND name < 'user0' AND name GLOB '*' || ?1 ORDER BY name LIMIT ?2";
const SAVE_PURSE: &str = "INSERT INTO purse \
     (name, lasts, touched, tokens, cost, tokens_held, cost_held) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO UPDATE SET \
     touched = excluded.touched, tokens = excluded.tokens, cost = excluded.cost, \
     tokens_held = excluded.tokens_held, cost_held = excluded.cost_held";
const CAP_PURSE: &str = "INSERT INTO purse (name, lasts, touched, tokens_cap, cost_cap) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE SET \
     touched = excluded.touched, tokens_cap = excluded.tokens_cap, cost_cap = excluded.cost_cap";
const DROP_PURSES: &str = "DELETE FROM purse WHERE name IN (\
     SELECT name FROM purse INDEXED BY purse_touched \
     WHERE touched < iif(lasts, ?2, ?1) AND touched < ?1 ORDER BY touched LIMIT ?3)";
/// How much longer purses are kept that are of no day.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

fn read(row: &Row<'_>) -> Result<Call, Error> {
    let mut from = Columns::new(row, "call")?;
    let id = from.id();
    let key = AttemptKey {
        task: TaskId(from.get()?),
        number: from.get()?,
    };
    let relayed = from.get()?;
    let (owner, model, gauge, at) = (from.get()?, from.get()?, from.get()?, from.time()?);
    let taken = Tokens {
        input: from.get()?,
        output: from.get()?,
    };
    let money = |micros: Option<u64>| micros.map(Money::from_micros);
    let estimate = money(from.get()?);
    let ended = from.maybe_time()?;
    let how: Option<String> = from.get()?;
    let (input, output): (Option<u64>, Option<u64>) = (from.get()?, from.get()?);
    let cost = money(from.get()?);
    let used = input.zip(output);
    let held = from.get()?;
    let purses: String = from.get()?;
    Ok(Call {
        id,
        key,
        relayed,
        owner,
        model,
        gauge,
        at,
        taken,
        estimate,
        held,
        purses: purses
            .lines()
            .map(|name| Name::read(name.to_owned()))
            .collect(),
        over: ended.map(|at| Over {
            at,
            end: how.and_then(|word| End::from_word(&word)),
            used: used.map(|(input, output)| Tokens { input, output }),
            cost,
        }),
    })
}

impl Calls for Sqlite {
    fn gauges(&mut self) -> Result<Vec<(String, Gauge)>, Error> {
        let rows: Vec<(String, String)> =
            self.rows("SELECT name, state FROM gauge", [], |row| {
                let pair = (row.get(0), row.get(1));
                let (name, state) = pair;
                Ok((
                    name.map_err(failed("read a gauge"))?,
                    state.map_err(failed("read a gauge"))?,
                ))
            })?;
        let read = |(name, state): (String, String)| {
            serde_json::from_str(&state).ok().map(|gauge| (name, gauge))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    fn save_gauge(&mut self, name: &str, gauge: &Gauge) -> Result<(), Error> {
        self.statement(
            "INSERT INTO gauge (name, state) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        )?
        .execute(params![name, json(gauge, false)])
        .map_err(failed("save a gauge"))?;
        Ok(())
    }

    fn begin_call(&mut self, call: &Call) -> Result<i64, Error> {
        let purses: Vec<_> = call.purses.iter().map(Name::as_str).collect();
        self.statement(BEGIN)?
            .execute(params![
                call.key.task.0,
                call.key.number,
                call.owner,
                call.model,
                call.gauge,
                call.at.micros(),
                call.taken.input,
                call.taken.output,
                call.estimate.map(Money::micros),
                call.relayed,
                call.held,
                purses.join("\n"),
            ])
            .map_err(failed("save a call"))?;
        Ok(self.connection.last_insert_rowid())
    }

    fn open_relayed_calls(&mut self) -> Result<Vec<Call>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM call INDEXED BY call_open WHERE ended IS NULL AND relayed = 1"
        );
        self.rows(sql, [], read)
    }

    fn purse(&mut self, name: &Name) -> Result<(Purse, Cap), Error> {
        let found = self.rows(PURSE, [name.as_str()], |row| {
            let mut from = Columns::new(row, "purse")?;
            let mut sum = || {
                Ok::<_, Error>(Sum {
                    tokens: from.get()?,
                    cost: Money::from_micros(from.get()?),
                })
            };
            let purse = Purse {
                spent: sum()?,
                held: sum()?,
            };
            let tokens = from.get()?;
            let cost: Option<u64> = from.get()?;
            let cost = cost.map(Money::from_micros);
            Ok((purse, Cap { tokens, cost }))
        })?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    fn spenders(&mut self, day: Day, limit: u32) -> Result<Vec<u32>, Error> {
        let ending = Name::of_user(0, day);
        let ending = ending.as_str().trim_start_matches("user/0");
        let names = self.rows(SPENDERS, params![ending, limit], |row| {
            Columns::new(row, "purse")?.get()
        })?;
        let users = names.into_iter().filter_map(|name| Name::read(name).user());
        Ok(users.collect())
    }

    fn save_purse(&mut self, name: &Name, purse: &Purse, now: Time) -> Result<(), Error> {
        self.statement(SAVE_PURSE)?
            .execute(params![
                name.as_str(),
                name.lasts(),
                now.micros(),
                purse.spent.tokens,
                purse.spent.cost.micros(),
                purse.held.tokens,
                purse.held.cost.micros(),
            ])
            .map_err(failed("save what was spent"))?;
        Ok(())
    }

    fn cap_purse(&mut self, name: &Name, cap: Cap, now: Time) -> Result<(), Error> {
        self.statement(CAP_PURSE)?
            .execute(params![
                name.as_str(),
                name.lasts(),
                now.micros(),
                cap.tokens,
                cap.cost.map(Money::micros),
            ])
            .map_err(failed("save a budget"))?;
        Ok(())
    }

    fn end_call(&mut self, id: i64, over: &Over) -> Result<(), Error> {
        self.statement(END)?
            .execute(params![
                id,
                over.at.micros(),
                over.end.map(End::word),
                over.used.map(|used| used.input),
                over.used.map(|used| used.output),
                over.cost.map(Money::micros),
            ])
            .map_err(failed("end a call"))?;
        Ok(())
    }

    fn call_numbered(&mut self, id: i64) -> Result<Option<Call>, Error> {
        let sql = concat!("SELECT ", columns!(), " FROM call WHERE id = ?1");
        Ok(self.rows(sql, [id], read)?.into_iter().next())
    }

    fn call(&mut self, key: AttemptKey) -> Result<Option<Call>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM call WHERE task = ?1 AND number = ?2 AND relayed = 0"
        );
        let found = self.rows(sql, params![key.task.0, key.number], read)?;
        Ok(found.into_iter().next())
    }

    fn calls(&mut self, task: TaskId, limit: u32) -> Result<Vec<Call>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM call WHERE task = ?1 ORDER BY id DESC LIMIT ?2"
        );
        let mut calls = self.rows(sql, params![task.0, limit], read)?;
        calls.reverse();
        Ok(calls)
    }

    fn running_calls(&mut self, gauge: &str, after: Time) -> Result<Others, Error> {
        self.statement(RUNNING)?
            .query_row(params![gauge, after.micros()], |row| {
                Ok(Others {
                    calls: row.get(0)?,
                    tokens: Tokens {
                        input: row.get(1)?,
                        output: row.get(2)?,
                    },
                })
            })
            .map_err(failed("count calls"))
    }

    fn own_calls(&mut self) -> Result<u32, Error> {
        self.statement(OWN)?
            .query_row([], |row| row.get(0))
            .map_err(failed("count calls"))
    }

    fn spent_since(&mut self, since: Time) -> Result<Vec<Spent>, Error> {
        self.rows(SPENT, [since.micros()], |row| {
            let spent = || {
                Ok(Spent {
                    model: row.get(0)?,
                    calls: row.get(1)?,
                    tokens: Tokens {
                        input: row.get(2)?,
                        output: row.get(3)?,
                    },
                    cost: Money::from_micros(row.get(4)?),
                    unknown: row.get(5)?,
                })
            };
            spent().map_err(failed("add up calls"))
        })
    }

    fn drop_calls(&mut self, before: Time, limit: u32) -> Result<u32, Error> {
        let dropped = self
            .statement(DROP)?
            .execute(params![before.micros(), limit])
            .map_err(failed("remove calls"))?;
        let year = before.before(YEAR).micros();
        let purses = self
            .statement(DROP_PURSES)?
            .execute(params![before.micros(), year, limit])
            .map_err(failed("remove what was spent"))?;
        let dropped = dropped.max(purses);
        Ok(u32::try_from(dropped).unwrap_or(u32::MAX))
    }
}
