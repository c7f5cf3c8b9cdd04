//! [`Queues`] in SQLite.
//!
//! States are spelled out in the queries so that the partial indexes can be
//! used. Where SQLite could take another index and read what it need not, the
//! right one is named.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, params};

use crate::model::admit::{Head, Live};
use crate::model::id::TaskId;
use crate::model::queue::{GROUP_LIMIT, Lane, Queue};
use crate::model::rate::Rate;
use crate::model::task::{State, Task};
use crate::store::Error;
use crate::store::queues::{Crowd, Queues};
use crate::store::rows::{self, Columns};

use super::{Sqlite, failed};

/// Columns of a queue, in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "id, name, concurrency, rate_count, rate_us, rate_until, group_limit, paused, draining"
    };
}

fn read(row: &Row<'_>) -> Result<Queue, Error> {
    let mut from = Columns::new(row, "queue")?;
    let name = from.get()?;
    let concurrency = from.get()?;
    let count: Option<u32> = from.get()?;
    let micros: Option<u64> = from.get()?;
    let rate = match count.zip(micros) {
        None => None,
        Some((count, micros)) => {
            let rate = Rate::new(count, Duration::from_micros(micros));
            Some(rate.ok_or_else(|| from.damaged(format!("rate of {count} in {micros} µs")))?)
        }
    };
    Ok(Queue {
        id: from.id(),
        name,
        concurrency,
        rate,
        rate_until: from.time()?,
        group_limit: from.get()?,
        paused: from.get()?,
        draining: from.get()?,
    })
}

/// First open ready task of a queue with an owner after the one given.
const NEXT_OWNER: &str = "SELECT owner, rank, id FROM task INDEXED BY task_ready \
     WHERE state = 2 AND open = 1 AND queue = ?1 AND owner > ?2 \
     ORDER BY owner, rank, id LIMIT 1";
/// Open ready task behind another one.
const NEXT_TASK: &str = "SELECT owner, rank, id FROM task INDEXED BY task_ready \
     WHERE state = 2 AND open = 1 AND queue = ?1 AND owner = ?2 AND (rank, id) > (?3, ?4) \
     ORDER BY rank, id LIMIT 1";
/// First queue with an open ready task after the one given.
const NEXT_QUEUE: &str = "SELECT queue FROM task INDEXED BY task_ready \
     WHERE state = 2 AND open = 1 AND queue > ?1 ORDER BY queue LIMIT 1";
/// Live attempts by queue and owner.
const LIVE: &str = "SELECT queue, owner, count(*) FROM task INDEXED BY task_live \
     WHERE state BETWEEN 3 AND 5 GROUP BY queue, owner";
/// Live tasks of a group, which are always open.
const GROUP_LIVE: &str = "SELECT count(*) FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 1 AND state BETWEEN 2 AND 5 AND state > 2";
/// Open tasks of a group.
const GROUP_OPEN: &str = "SELECT count(*) FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 1 AND state BETWEEN 2 AND 5";
/// Shuts the last open ready tasks of a group.
const SHUT: &str = "UPDATE task SET open = 0 WHERE id IN (\
     SELECT id FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 1 AND state BETWEEN 2 AND 5 AND state = 2 \
     ORDER BY rank DESC, id DESC LIMIT ?3)";
/// Opens the first shut ready tasks of a group.
const OPEN: &str = "UPDATE task SET open = 1 WHERE id IN (\
     SELECT id FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 0 AND state BETWEEN 2 AND 5 \
     ORDER BY rank, id LIMIT ?3)";
/// First shut task of a group.
const FIRST_SHUT: &str = "SELECT rank, id FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 0 AND state BETWEEN 2 AND 5 \
     ORDER BY rank, id LIMIT 1";
/// Last open ready task of a group.
const LAST_OPEN: &str = "SELECT rank, id FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key = ?2 AND open = 1 AND state BETWEEN 2 AND 5 AND state = 2 \
     ORDER BY rank DESC, id DESC LIMIT 1";
/// First group of a queue after the one given.
const NEXT_GROUP: &str = "SELECT group_key FROM task INDEXED BY task_group \
     WHERE queue = ?1 AND group_key > ?2 AND state BETWEEN 2 AND 5 ORDER BY group_key LIMIT 1";

impl Sqlite {
    fn head(
        &self,
        sql: &str,
        queue: i64,
        from: impl rusqlite::Params,
    ) -> Result<Option<Head>, Error> {
        self.statement(sql)?
            .query_row(from, |row| {
                Ok(Head {
                    queue,
                    owner: row.get(0)?,
                    rank: row.get(1)?,
                    task: TaskId(row.get(2)?),
                })
            })
            .optional()
            .map_err(failed("find the next task"))
    }

    fn group_place(&self, sql: &str, queue: i64, group: &str) -> Result<Option<(i64, i64)>, Error> {
        self.statement(sql)?
            .query_row(params![queue, group], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(failed("look at a group"))
    }

    fn count_group(&self, sql: &str, queue: i64, group: &str) -> Result<u32, Error> {
        self.statement(sql)?
            .query_row(params![queue, group], |row| row.get(0))
            .map_err(failed("count a group"))
    }

    fn door(&self, sql: &str, queue: i64, group: &str, tasks: u32) -> Result<(), Error> {
        self.statement(sql)?
            .execute(params![queue, group, tasks])
            .map(drop)
            .map_err(failed("open or shut tasks of a group"))
    }

    fn is_shut(&self, id: TaskId) -> Result<bool, Error> {
        self.statement("SELECT 1 FROM task WHERE id = ?1 AND state = 2 AND open = 0")?
            .exists([id.0])
            .map_err(failed("look at a task's group"))
    }
}

impl Queues for Sqlite {
    fn queues(&mut self) -> Result<Vec<Queue>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM queue WHERE gone = 0 ORDER BY name"
        );
        self.rows(sql, [], read)
    }

    fn queue_named(&mut self, name: &str) -> Result<Option<Queue>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM queue WHERE name = ?1 AND gone = 0"
        );
        Ok(self.rows(sql, [name], read)?.pop())
    }

    fn is_draining(&mut self, name: &str) -> Result<bool, Error> {
        // Asked with every task that is handed in, and known of every queue that has had one.
        if let Some(id) = self.queues.get(name) {
            return Ok(self.draining.contains(id));
        }
        self.statement("SELECT 1 FROM queue WHERE name = ?1 AND draining = 1")?
            .exists([name])
            .map_err(failed("look at a queue"))
    }

    fn make_queue(&mut self, name: &str) -> Result<Queue, Error> {
        let id = self.queue(name)?;
        Ok(self.queue_named(name)?.unwrap_or_else(|| Queue {
            id,
            name: name.to_owned(),
            ..Queue::default()
        }))
    }

    fn save_queue(&mut self, queue: &Queue) -> Result<(), Error> {
        let micros = |rate: Rate| u64::try_from(rate.period().as_micros()).unwrap_or(u64::MAX);
        self.statement(
            "UPDATE queue SET concurrency = ?2, rate_count = ?3, rate_us = ?4, rate_until = ?5, \
             regroup = CASE WHEN group_limit IS ?6 THEN regroup ELSE '' END, group_limit = ?6, \
             paused = ?7, draining = ?8 WHERE id = ?1",
        )?
        .execute(params![
            queue.id,
            queue.concurrency,
            queue.rate.map(Rate::count),
            queue.rate.map(micros),
            queue.rate_until.micros(),
            queue.group_limit,
            queue.paused,
            queue.draining,
        ])
        .map_err(failed("save a queue"))?;
        if queue.draining {
            self.draining.insert(queue.id);
        } else {
            self.draining.remove(&queue.id);
        }
        Ok(())
    }

    fn remove_queue(&mut self, queue: &Queue) -> Result<(), Error> {
        self.save_queue(&Queue {
            id: queue.id,
            ..Queue::default()
        })?;
        self.queues.remove(&queue.name);
        self.statement("UPDATE queue SET gone = 1 WHERE id = ?1")?
            .execute([queue.id])
            .map(drop)
            .map_err(failed("remove a queue"))
    }

    fn live_by_owner(&mut self) -> Result<Vec<Live>, Error> {
        self.rows(LIVE, [], |row| {
            let live = || -> rusqlite::Result<Live> {
                Ok(Live {
                    queue: row.get(0)?,
                    owner: row.get(1)?,
                    count: row.get(2)?,
                })
            };
            live().map_err(failed("count live attempts"))
        })
    }

    fn ready_queues(&mut self) -> Result<Vec<Queue>, Error> {
        let mut found = Vec::new();
        let mut last = 0_i64;
        let by_id = concat!("SELECT ", columns!(), " FROM queue WHERE id = ?1");
        loop {
            let next = self
                .statement(NEXT_QUEUE)?
                .query_row([last], |row| row.get(0))
                .optional()
                .map_err(failed("find queues with ready tasks"))?;
            let Some(id) = next else { return Ok(found) };
            last = id;
            found.extend(self.rows(by_id, [id], read)?);
        }
    }

    fn heads(&mut self, queue: i64) -> Result<Vec<Head>, Error> {
        let mut found = Vec::new();
        let mut last = -1_i64;
        while let Some(head) = self.head(NEXT_OWNER, queue, params![queue, last])? {
            last = i64::from(head.owner);
            found.push(head);
        }
        Ok(found)
    }

    fn next_head(&mut self, head: &Head) -> Result<Option<Head>, Error> {
        let after = params![head.queue, head.owner, head.rank, head.task.0];
        self.head(NEXT_TASK, head.queue, after)
    }

    fn live_of_group(&mut self, queue: i64, group: &str) -> Result<u32, Error> {
        self.count_group(GROUP_LIVE, queue, group)
    }

    fn settle_group(&mut self, queue: i64, group: &str) -> Result<(), Error> {
        let limit = self
            .statement("SELECT group_limit FROM queue WHERE id = ?1")?
            .query_row([queue], |row| row.get::<_, Option<u32>>(0))
            .map_err(failed("read a group limit"))?
            .unwrap_or(GROUP_LIMIT);
        let open = self.count_group(GROUP_OPEN, queue, group)?;
        if open > limit {
            self.door(SHUT, queue, group, open - limit)?;
        } else if open < limit {
            self.door(OPEN, queue, group, limit - open)?;
        }
        // A task that came or came back may be in front of an open one.
        while let (Some(shut), Some(open)) = (
            self.group_place(FIRST_SHUT, queue, group)?,
            self.group_place(LAST_OPEN, queue, group)?,
        ) {
            if open <= shut {
                break;
            }
            self.door(SHUT, queue, group, 1)?;
            self.door(OPEN, queue, group, 1)?;
        }
        Ok(())
    }

    fn regroup(&mut self, limit: u32) -> Result<bool, Error> {
        for _ in 0..limit {
            let unsettled = self
                .statement("SELECT id, regroup FROM queue WHERE regroup IS NOT NULL LIMIT 1")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(failed("find groups to settle"))?;
            let Some((queue, after)): Option<(i64, String)> = unsettled else {
                return Ok(false);
            };
            let group: Option<String> = self
                .statement(NEXT_GROUP)?
                .query_row(params![queue, after], |row| row.get(0))
                .optional()
                .map_err(failed("find groups to settle"))?;
            if let Some(group) = &group {
                self.settle_group(queue, group)?;
            }
            self.statement("UPDATE queue SET regroup = ?2 WHERE id = ?1")?
                .execute(params![queue, group])
                .map_err(failed("note which groups are settled"))?;
        }
        Ok(true)
    }

    fn lanes(&mut self) -> Result<Vec<Lane>, Error> {
        let mut lanes: Vec<Lane> = self
            .queues()?
            .into_iter()
            .map(|queue| Lane {
                queue,
                counts: [0; State::ALL.len()],
            })
            .collect();
        // From the books on disk: those in memory are of the writer only.
        let sql = "SELECT queue, what, sum(number) FROM book WHERE what < 100 GROUP BY queue, what";
        let counted = self.rows(sql, [], |row| {
            let line = || -> rusqlite::Result<(i64, i64, u64)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            };
            line().map_err(failed("count the tasks of a queue"))
        })?;
        for (queue, what, number) in counted {
            let place = State::ALL
                .iter()
                .position(|state| rows::state_number(*state) == what);
            let lane = lanes.iter_mut().find(|lane| lane.queue.id == queue);
            let count = lane
                .zip(place)
                .and_then(|(lane, place)| lane.counts.get_mut(place));
            if let Some(count) = count {
                *count = number;
            }
        }
        Ok(lanes)
    }

    fn crowd(&mut self, tasks: &[Task]) -> Result<Crowd, Error> {
        let mut crowd = Crowd {
            queues: self.queues()?,
            shares: self.live_by_owner()?.into_iter().collect(),
            ..Crowd::default()
        };
        for task in tasks {
            let grouped = task.state == State::Queued && task.group.is_some();
            if grouped && self.is_shut(task.id)? {
                crowd.shut.insert(task.id);
            }
        }
        Ok(crowd)
    }
}
