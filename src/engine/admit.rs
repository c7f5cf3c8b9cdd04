//! Which ready tasks may start now.
//!
//! Everything is counted from rows in the claim's own transaction, so no
//! counter can drift. Looked at are, of each queue with room, the first task of
//! each user: the cost grows with users and starts, not with the backlog. Whose
//! turn it is, [`crate::model::admit`] says.

use std::collections::BTreeMap;

use crate::model::admit::{self, Head, Live, Scarce, Shares};
use crate::model::attempt::{Attempt, AttemptKey, Usage, profile_runner};
use crate::model::hook;
use crate::model::queue::Queue;
use crate::model::task::{Event, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::calls::{Booked, Pass};

/// Groups settled in one turn after a group limit was changed.
const GROUPS: u32 = 200;

/// A queue that has ready tasks, and room for some of them.
struct Lane {
    queue: Queue,
    room: u32,
}

/// What became of a task whose turn it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It starts.
    Starts,
    /// It does not, and those behind it are looked at.
    Passes,
    /// It waits for its model.
    Waits,
    /// It waits for a slot, and so do those behind it.
    NoSlot,
}

/// Such queues, by their row.
type Lanes = BTreeMap<i64, Lane>;

impl<S: Store> Engine<S> {
    /// Starts what may start, and learns when more may.
    pub(super) fn start(&mut self, now: Time) -> Result<(), store::Error> {
        self.next_start = None;
        self.hungry = false;
        let mut pass = Pass::of(self.count_calls()?);
        self.grant(&mut pass, now)?;
        self.admit(pass, now)
    }

    fn admit(&mut self, mut pass: Pass, now: Time) -> Result<(), store::Error> {
        self.regroup(now)?;
        let Some(runner) = self.runner.clone() else {
            return Ok(());
        };
        let mut shares: Shares = self.store.live_by_owner()?.into_iter().collect();
        let agents = self.agents_queue()?;
        if let Some(agents) = &agents {
            shares.leave_out(agents.id);
        }
        let commands = shares.all().saturating_sub(pass.calls);
        let Some(slots) = self.open_slots(commands, now) else {
            return Ok(());
        };
        if let Some(agents) = &agents {
            self.admit_agents(agents, &runner.instance, now)?;
        }
        pass.slots = slots.saturating_sub(commands);
        if pass.is_over() {
            return Ok(());
        }
        let free = pass.slots;
        let mut lanes = self.lanes(&shares, now)?;
        lanes.retain(|id, _| agents.as_ref().is_none_or(|agents| agents.id != *id));
        let scarce = self.scarce(&lanes, free);
        let mut heads = self.heads(&lanes)?;
        let most = self.options.user_running.unwrap_or(u32::MAX);
        // Hooks follow from tasks, and nobody has asked for them.
        let hooks = match self.options.user_running {
            Some(_) => self.store.queue_named(hook::QUEUE)?.map(|queue| queue.id),
            None => None,
        };
        while !pass.is_over() {
            heads.retain(|head: &Head| {
                let lane = lanes.get(&head.queue);
                let own = shares.of_owner_beside(head.owner, hooks);
                let may = own < most || Some(head.queue) == hooks;
                may && lane.is_some_and(|lane| lane.room > 0)
            });
            let Some(index) = admit::next(&heads, &shares, &self.served, scarce) else {
                break;
            };
            let head = heads.swap_remove(index);
            let Some(lane) = lanes.get_mut(&head.queue) else {
                continue;
            };
            let claimed = self.claim(&head, &lane.queue, &runner.instance, &mut pass, now)?;
            let more = match claimed {
                Claimed::Starts | Claimed::Passes => true,
                Claimed::Waits => pass.go_on(head.queue, head.owner),
                Claimed::NoSlot => false,
            };
            if more {
                heads.extend(self.store.next_head(&head)?);
            }
            if claimed != Claimed::Starts {
                continue;
            }
            lane.room -= 1;
            lane.queue.start(now);
            self.served.note(head.queue, head.owner);
            shares.add(Live {
                queue: head.queue,
                owner: head.owner,
                count: 1,
            });
        }
        self.keep_rates(&lanes, now)
    }

    /// The first ready task of each user, of each of these queues.
    fn heads(&mut self, lanes: &Lanes) -> Result<Vec<Head>, store::Error> {
        let mut heads = Vec::new();
        for queue in lanes.keys() {
            heads.extend(self.store.heads(*queue)?);
        }
        Ok(heads)
    }

    /// Keeps what was taken from the rates of queues.
    fn keep_rates(&mut self, lanes: &Lanes, now: Time) -> Result<(), store::Error> {
        for lane in lanes.values().filter(|lane| lane.queue.rate.is_some()) {
            self.store.save_queue(&lane.queue)?;
            self.start_again_at(lane.queue.used_up(now));
        }
        Ok(())
    }

    /// Queues with ready tasks and room for some.
    fn lanes(&mut self, shares: &Shares, now: Time) -> Result<Lanes, store::Error> {
        let mut lanes = Lanes::new();
        for mut queue in self.store.ready_queues()? {
            let live = shares.of_queue(queue.id);
            let room = queue.room(live, self.options.queue_concurrency);
            if queue.paused || room == 0 {
                continue;
            }
            if queue.mend(now) {
                self.store.save_queue(&queue)?;
            }
            if let Some(until) = queue.used_up(now) {
                self.start_again_at(Some(until));
                continue;
            }
            let room = room.min(queue.starts(now));
            lanes.insert(queue.id, Lane { queue, room });
        }
        Ok(lanes)
    }

    /// Where users stand against each other: for slots, when more tasks could
    /// start than there are free ones.
    fn scarce(&self, lanes: &Lanes, free: u32) -> Scarce {
        let could = |lane: &Lane| {
            let ready = self.store.count_of_queue(lane.queue.id, State::Queued);
            ready.min(lane.room.into())
        };
        if lanes.values().map(could).sum::<u64>() > free.into() {
            Scarce::Slots
        } else {
            Scarce::Room
        }
    }

    pub(super) fn start_again_at(&mut self, until: Option<Time>) {
        self.next_start = [self.next_start, until].into_iter().flatten().min();
    }

    /// Lets groups follow a new group limit, some in each turn.
    fn regroup(&mut self, now: Time) -> Result<(), store::Error> {
        if self.regrouping {
            self.regrouping = self.store.regroup(GROUPS)?;
            self.start_again_at(self.regrouping.then_some(now));
        }
        Ok(())
    }

    /// Starts a task; not when its number is taken, its group is full, or its
    /// model cannot be asked.
    pub(super) fn claim(
        &mut self,
        head: &Head,
        queue: &Queue,
        runner: &str,
        pass: &mut Pass,
        now: Time,
    ) -> Result<Claimed, store::Error> {
        let Some(task) = self.sound(now, |store| store.task(head.task))? else {
            return Ok(Claimed::Passes);
        };
        let next = AttemptKey {
            task: task.id,
            number: task.attempt + 1,
        };
        if self.strangers.contains(&next) || self.is_crowded(&task, queue)? {
            return Ok(Claimed::Passes);
        }
        match &task.spec.prompt {
            _ if task.state != State::Queued => {}
            None if pass.slots == 0 => return Ok(Claimed::NoSlot),
            None => pass.slots -= 1,
            Some(prompt) => match self.book_call(&task, prompt, pass, now)? {
                Booked::Starts => {}
                Booked::Waits => return Ok(Claimed::Waits),
                Booked::Never(why) => return self.refuse_call(task, why, pass, now),
            },
        }
        // Ready by the query's own condition; should it not be, it is left
        // where it is.
        let ready = task.due;
        let Ok(task) = self.advance(task, Event::Claim, None, now)? else {
            return Ok(Claimed::Passes);
        };
        self.snapshot.counted.waited.add_time(now.since(ready));
        let profile = task.spec.profile.as_deref().map(profile_runner);
        self.store.begin_attempt(&Attempt {
            key: task.attempt_key(),
            runner: profile.unwrap_or_else(|| runner.to_owned()),
            // As this process sees it, which is what `recover` compares
            // with: the runner may be shown another one, in a container
            // or behind other walls.
            boot: self.boot.clone(),
            claimed: now,
            started: None,
            ended: None,
            outcome: None,
            usage: Usage::default(),
        })?;
        failpoint!("engine/claim/after");
        Ok(Claimed::Starts)
    }

    /// Fails a task whose call no budget has room for; so many in a turn.
    fn refuse_call(
        &mut self,
        task: Task,
        why: String,
        pass: &mut Pass,
        now: Time,
    ) -> Result<Claimed, store::Error> {
        // Queued, as whoever claims it has seen.
        let _over = self.advance(task, Event::Refuse { why }, None, now)?;
        if pass.refuse() {
            return Ok(Claimed::Passes);
        }
        self.start_again_at(Some(now));
        Ok(Claimed::NoSlot)
    }

    /// Whether as many of its group are live as may be, though the task is
    /// open: so it can be while groups follow a lower group limit.
    fn is_crowded(&mut self, task: &Task, queue: &Queue) -> Result<bool, store::Error> {
        let Some(group) = &task.group else {
            return Ok(false);
        };
        let crowded = self.store.live_of_group(queue.id, group)? >= queue.group_limit();
        if crowded {
            self.store.settle_group(queue.id, group)?;
        }
        Ok(crowded)
    }
}
