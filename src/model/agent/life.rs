//! Where an instance of an agent stands, and the one function that moves it.
//!
//! [`step`] takes where it stands, what happens and the time, and returns where
//! it stands afterwards with what has to be done. Time and chance are arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::plan::{OnOom, Plan};
use crate::model::attempt::{Class, Outcome};
use crate::model::draw::draw;
use crate::model::id::{Run, TaskId};
use crate::model::restart::{Restarts, Why};
use crate::model::time::Time;

/// What follows an end, once what it left behind is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    Stop,
    Again { at: Time, phase: Phase },
    Rest(Phase),
}

/// An instance of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// Whether it is to run.
    pub wanted: bool,
    /// Where it stands.
    pub phase: Phase,
    /// Since when.
    pub since: Time,
    /// When the clock next has something to say about it, if ever.
    pub wake: Option<Time>,
    /// The task that is its run or its clean-up, while it has one.
    pub task: Option<TaskId>,
    /// The task that was its latest run.
    pub latest: Option<TaskId>,
    /// Its restarts so far.
    pub restarts: Restarts,
    /// How its latest run ended.
    pub outcome: Option<Outcome>,
    /// When.
    pub ended: Option<Time>,
    then: Option<Then>,
}

impl Life {
    /// One that nobody wants yet.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            since: now,
            ..Self::default()
        }
    }
}

/// Something that happens to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it not to run.
    Stop,
    /// Somebody wants it ended and started anew.
    Restart,
    /// All agents are up that it waits for.
    Released,
    /// Its run or clean-up is this task.
    Made(TaskId),
    /// Its run has a process.
    Up,
    /// It has said, or was found, to be up.
    Ready,
    /// It has done nothing since a time.
    Idle(Time),
    /// It does something again.
    Busy,
    /// The task that it has is over.
    Ended(Outcome),
    /// The time in [`Life::wake`] has come.
    Wake,
    /// The clock was set by so many microseconds.
    ClockSet(i64),
}

/// What has to be done about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Make the task that is its next run.
    Run,
    /// Make the task that puts things right.
    CleanUp,
    /// Cancel its run.
    End(TaskId),
    /// Have its run ended as one that has gone wrong.
    GiveUp(TaskId),
}

/// Chance for the next end of an instance, the same each time it is asked.
#[must_use]
pub const fn chance(run: Run, life: &Life) -> u64 {
    let seed = draw(run.agent.0.cast_unsigned()).wrapping_add(run.instance as u64);
    draw(draw(seed).wrapping_add(life.restarts.total()))
}

/// Moves an instance by one event. `draw` is chance, from all 64-bit numbers.
#[must_use]
pub fn step(life: Life, plan: &Plan, event: Event, draw: u64, now: Time) -> (Life, Option<Act>) {
    match event {
        Event::Start => start(life, plan, now),
        Event::Stop => stop(life, now),
        Event::Restart => restart(life, plan, now),
        Event::Released if life.phase == Phase::Waiting => run(life, now),
        Event::Made(task) => (made(life, task), None),
        Event::Up if !plan.tells_ready() => (up(life, now), None),
        Event::Up => (starts_up(life, plan, now), None),
        Event::Ready => (up(life, now), None),
        Event::Idle(since) if life.phase == Phase::Healthy => {
            (to(life, Phase::Idle, since.min(now)), None)
        }
        Event::Busy if life.phase == Phase::Idle => (to(life, Phase::Healthy, now), None),
        Event::Ended(outcome) => ended(life, plan, outcome, draw, now),
        Event::Wake => wake(life, plan, now),
        Event::ClockSet(by) => (clock_set(life, by), None),
        Event::Released | Event::Idle(_) | Event::Busy => (life, None),
    }
}

fn to(mut life: Life, phase: Phase, now: Time) -> Life {
    if life.phase != phase {
        life.since = now;
    }
    life.phase = phase;
    life.wake = None;
    life
}

/// The next run; first what has to be up before it.
fn begin(life: Life, plan: &Plan, now: Time) -> (Life, Option<Act>) {
    if plan.after.is_empty() {
        return run(life, now);
    }
    (to(life, Phase::Waiting, now), None)
}

fn run(life: Life, now: Time) -> (Life, Option<Act>) {
    (to(life, Phase::Starting, now), Some(Act::Run))
}

/// Its process is there: from now on it has so long to be up.
fn starts_up(mut life: Life, plan: &Plan, now: Time) -> Life {
    if life.phase == Phase::Starting && life.wake.is_none() {
        let limit = Duration::from_millis(plan.start_timeout_ms);
        life.wake = Some(now.after(limit));
    }
    life
}

fn made(mut life: Life, task: TaskId) -> Life {
    life.task = Some(task);
    if life.phase == Phase::Starting {
        life.latest = Some(task);
    }
    life
}

fn up(life: Life, now: Time) -> Life {
    if life.phase != Phase::Starting {
        return life;
    }
    let mut life = to(life, Phase::Healthy, now);
    life.restarts.ready(now);
    life
}

fn start(mut life: Life, plan: &Plan, now: Time) -> (Life, Option<Act>) {
    life.wanted = true;
    match life.phase {
        Phase::Stopped
        | Phase::Completed
        | Phase::Failed
        | Phase::BackingOff
        | Phase::CoolingOff => {
            life.restarts.forgive();
            begin(life, plan, now)
        }
        Phase::CleaningUp => {
            life.then = Some(at_once(now));
            (life, None)
        }
        Phase::Waiting | Phase::Starting | Phase::Healthy | Phase::Idle | Phase::Stopping => {
            (life, None)
        }
    }
}

const fn at_once(now: Time) -> Then {
    Then::Again {
        at: now,
        phase: Phase::BackingOff,
    }
}

fn stop(mut life: Life, now: Time) -> (Life, Option<Act>) {
    life.wanted = false;
    match life.phase {
        Phase::Starting | Phase::Healthy | Phase::Idle => end(life, now),
        Phase::CleaningUp => {
            life.then = Some(Then::Stop);
            (life, None)
        }
        Phase::Stopping => (life, None),
        Phase::Stopped
        | Phase::Waiting
        | Phase::BackingOff
        | Phase::CoolingOff
        | Phase::Completed
        | Phase::Failed => (to(life, Phase::Stopped, now), None),
    }
}

fn restart(life: Life, plan: &Plan, now: Time) -> (Life, Option<Act>) {
    if !life.phase.has_run() {
        return start(life, plan, now);
    }
    let mut life = life;
    life.wanted = true;
    life.restarts.forgive();
    end(life, now)
}

fn end(life: Life, now: Time) -> (Life, Option<Act>) {
    let life = to(life, Phase::Stopping, now);
    let act = life.task.map(Act::End);
    (life, act)
}

fn ended(
    mut life: Life,
    plan: &Plan,
    outcome: Outcome,
    draw: u64,
    now: Time,
) -> (Life, Option<Act>) {
    life.task = None;
    if life.phase == Phase::CleaningUp {
        return go_on(life, plan, now);
    }
    life.then = Some(follow(&mut life, plan, &outcome, draw, now));
    life.outcome = Some(outcome);
    life.ended = Some(now);
    if plan.on_stop.is_some() {
        return (to(life, Phase::CleaningUp, now), Some(Act::CleanUp));
    }
    go_on(life, plan, now)
}

/// What the end of a run means.
fn follow(life: &mut Life, plan: &Plan, outcome: &Outcome, draw: u64, now: Time) -> Then {
    if !life.wanted {
        life.restarts.forgive();
        return Then::Stop;
    }
    match outcome.class {
        // Asked for, by a restart or of the task itself; or nobody's fault.
        Class::Cancelled | Class::Lost | Class::Interrupted | Class::Poison => {
            life.restarts.interrupted();
            at_once(now)
        }
        Class::Success
        | Class::Exit
        | Class::Signal
        | Class::Oom
        | Class::Timeout
        | Class::Spawn
        | Class::Skipped
        | Class::Expired
        | Class::Provider
        | Class::Budget => {
            if outcome.class == Class::Oom && plan.on_oom == OnOom::Stop {
                return Then::Rest(Phase::Failed);
            }
            // How it exits when it is ended because it hung says nothing.
            let own = matches!(outcome.class, Class::Success | Class::Exit);
            if !plan.starts_again(outcome.exit_code.filter(|_| own)) {
                let is_good = outcome.class == Class::Success;
                let phase = [Phase::Failed, Phase::Completed][usize::from(is_good)];
                return Then::Rest(phase);
            }
            let next = life.restarts.ended(&plan.policy(), now, draw);
            let phase = match next.why {
                Why::Backoff(_) => Phase::BackingOff,
                Why::CoolOff => Phase::CoolingOff,
            };
            Then::Again { at: next.at, phase }
        }
    }
}

/// Once nothing is left of the run.
fn go_on(mut life: Life, plan: &Plan, now: Time) -> (Life, Option<Act>) {
    match life.then.take() {
        Some(Then::Again { at, .. }) if at <= now => begin(life, plan, now),
        Some(Then::Again { at, phase }) => {
            let mut life = to(life, phase, now);
            life.wake = Some(at);
            (life, None)
        }
        Some(Then::Rest(phase)) => {
            life.wanted = false;
            (to(life, phase, now), None)
        }
        Some(Then::Stop) | None => (to(life, Phase::Stopped, now), None),
    }
}

fn wake(mut life: Life, plan: &Plan, now: Time) -> (Life, Option<Act>) {
    if life.wake.is_none_or(|at| at > now) {
        return (life, None);
    }
    life.wake = None;
    match life.phase {
        Phase::Starting => {
            let act = life.task.map(Act::GiveUp);
            (life, act)
        }
        Phase::BackingOff | Phase::CoolingOff => begin(life, plan, now),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Healthy
        | Phase::Idle
        | Phase::Stopping
        | Phase::CleaningUp
        | Phase::Completed
        | Phase::Failed => (life, None),
    }
}

fn clock_set(mut life: Life, by: i64) -> Life {
    let moved = |at: Time| Time::from_micros(at.micros().saturating_add(by));
    life.since = moved(life.since);
    life.wake = life.wake.map(moved);
    life.restarts.clock_set(by);
    if let Some(Then::Again { at, .. }) = &mut life.then {
        *at = moved(*at);
    }
    life
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::agent::plan::Restart;
    use crate::model::id::AgentId;

    const RUN: Run = Run {
        agent: AgentId(1),
        instance: 1,
        clean_up: false,
    };

    fn at(ms: i64) -> Time {
        Time::from_micros(ms * 1_000)
    }

    fn outcome(class: Class, exit_code: Option<i32>) -> Outcome {
        Outcome {
            class,
            exit_code,
            signal: None,
            message: String::new(),
        }
    }

    /// An instance in a world of its own: a clock, and tasks that are made.
    struct World {
        life: Life,
        plan: Plan,
        now: Time,
        tasks: i64,
        /// Starts, and the time of each.
        starts: Vec<Time>,
        ended: Option<Time>,
    }

    impl World {
        fn new(plan: Plan) -> Self {
            let now = at(1_000_000);
            Self {
                life: Life::new(now),
                plan,
                now,
                tasks: 0,
                starts: Vec::new(),
                ended: None,
            }
        }

        fn does(&mut self, event: Event) -> Option<Act> {
            let draw = chance(RUN, &self.life);
            let (life, act) = step(self.life.clone(), &self.plan, event, draw, self.now);
            self.life = life;
            if let Some(Act::Run | Act::CleanUp) = act {
                assert_eq!(self.life.task, None, "one task at a time");
                if act == Some(Act::Run) {
                    assert!(self.life.wanted, "nobody wants it");
                    self.starts.push(self.now);
                }
                self.tasks += 1;
                let made = self.does(Event::Made(TaskId(self.tasks)));
                assert_eq!(made, None);
            }
            act
        }

        fn ends(&mut self, class: Class, code: Option<i32>) {
            if self.life.task.is_some() {
                self.ended = Some(self.now);
                self.does(Event::Ended(outcome(class, code)));
            }
        }

        fn check(&self) {
            let life = &self.life;
            let waits = [Phase::BackingOff, Phase::CoolingOff].contains(&life.phase);
            assert!(
                !waits || life.wake.is_some(),
                "no wait without an end: {life:?}"
            );
            assert!(!waits || life.wanted, "{life:?}");
            let has =
                life.phase.has_run() || [Phase::Stopping, Phase::CleaningUp].contains(&life.phase);
            assert_eq!(life.task.is_some(), has, "{life:?}");
            assert!(!life.phase.is_over() || !life.wanted, "{life:?}");
            assert!(life.restarts.in_row() <= self.plan.max_restarts, "{life:?}");
        }
    }

    /// What may happen, by number.
    fn happens(world: &mut World, what: u8, by: u64) {
        match what {
            0 => drop(world.does(Event::Start)),
            1 => drop(world.does(Event::Stop)),
            2 => drop(world.does(Event::Restart)),
            3 => drop(world.does(Event::Up)),
            4 => drop(world.does(Event::Ready)),
            5 => drop(world.does(Event::Idle(world.now))),
            6 => drop(world.does(Event::Busy)),
            7 => drop(world.does(Event::Released)),
            8 => world.ends(Class::Success, Some(0)),
            9 => world.ends(Class::Exit, Some(7)),
            10 => world.ends(Class::Signal, None),
            11 => world.ends(Class::Lost, None),
            12 => world.ends(Class::Cancelled, None),
            _ => {
                world.now = world.now.after(Duration::from_millis(by));
                if world.life.wake.is_some_and(|at| at <= world.now) {
                    let due = world.life.wake;
                    world.does(Event::Wake);
                    assert_ne!(
                        (world.life.wake, due.is_some()),
                        (due, true),
                        "it would turn on"
                    );
                }
            }
        }
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let rule = prop_oneof![
            Just(Restart::Always),
            Just(Restart::OnFailure),
            Just(Restart::No)
        ];
        (rule, 0..6_u32, any::<[bool; 3]>()).prop_map(|(restart, max_restarts, flags)| Plan {
            restart,
            max_restarts,
            notify: flags[0],
            after: if flags[1] {
                vec!["other".to_owned()]
            } else {
                Vec::new()
            },
            on_stop: flags[2].then(|| crate::model::agent::plan::CleanUp {
                command: vec!["true".to_owned()],
                timeout_ms: None,
            }),
            ..Plan::default()
        })
    }

    proptest! {
        #[test]
        fn whatever_happens_it_has_one_task_at_most_and_waits_for_nothing_without_end(
            plan in plan(),
            history in proptest::collection::vec((0..16_u8, 0..400_000_u64), 1..300),
        ) {
            let mut world = World::new(plan);
            for (what, by) in history {
                happens(&mut world, what, by);
                world.check();
            }
        }

        #[test]
        fn a_crash_loop_follows_the_rule_to_the_moment(
            limit in 1..7_u32,
            lived in proptest::collection::vec(0..59_000_u64, 1..40),
        ) {
            let mut world = World::new(Plan { max_restarts: limit, ..Plan::default() });
            world.does(Event::Start);
            let mut in_row = 0;
            for ms in lived {
                world.does(Event::Up);
                world.now = world.now.after(Duration::from_millis(ms));
                world.ends(Class::Exit, Some(1));
                let at = world.life.wake.expect("a wait");
                let wait = at.since(world.now).as_secs_f64();
                let (base, phase) = if in_row == limit {
                    in_row = 0;
                    (300.0, Phase::CoolingOff)
                } else {
                    in_row += 1;
                    let doubled = f64::from(1_u32 << (in_row - 1)).min(60.0);
                    (if in_row > 5 { 60.0 } else { doubled }, Phase::BackingOff)
                };
                prop_assert_eq!(world.life.phase, phase);
                prop_assert!(wait >= base && wait <= base * 1.1 + 0.001, "{} of {}", wait, base);
                // Not a moment before.
                let early = Time::from_micros(at.micros() - 1);
                world.now = early;
                prop_assert_eq!(world.does(Event::Wake), None);
                world.now = at;
                prop_assert_eq!(world.does(Event::Wake), Some(Act::Run));
            }
        }

        #[test]
        fn a_clock_that_is_set_changes_no_wait(by in -400_000_000_000_000_i64..400_000_000_000_000) {
            let mut world = World::new(Plan::default());
            world.does(Event::Start);
            world.does(Event::Up);
            world.ends(Class::Exit, Some(1));
            let left = world.life.wake.expect("a wait").since(world.now);
            world.now = Time::from_micros(world.now.micros() + by);
            world.does(Event::ClockSet(by));
            prop_assert_eq!(world.life.wake.expect("a wait").since(world.now), left);
            prop_assert_eq!(world.life.since, world.now);
            prop_assert_eq!(world.does(Event::Wake), None);
        }
    }

    #[test]
    fn what_is_no_fault_of_its_own_starts_it_at_once_and_counts_for_nothing() {
        let mut world = World::new(Plan {
            max_restarts: 0,
            ..Plan::default()
        });
        world.does(Event::Start);
        for class in [Class::Lost, Class::Interrupted, Class::Cancelled] {
            let before = world.starts.len();
            world.ends(class, None);
            assert_eq!(world.starts.len(), before + 1, "{class:?}");
            assert_eq!(world.life.restarts.in_row(), 0);
        }
        world.ends(Class::Signal, None);
        assert_eq!(world.life.phase, Phase::CoolingOff);
    }

    #[test]
    fn one_that_hung_is_started_again_whatever_its_exit_code() {
        let mut world = World::new(Plan {
            restart: Restart::OnFailure,
            no_restart_on: vec![0, 7],
            ..Plan::default()
        });
        world.does(Event::Start);
        world.ends(Class::Timeout, Some(0));
        assert_eq!(world.life.phase, Phase::BackingOff);
        world.does(Event::Start);
        world.ends(Class::Exit, Some(7));
        assert_eq!(world.life.phase, Phase::Failed);
    }

    #[test]
    fn one_that_was_killed_for_want_of_memory_is_started_again_or_not_as_the_plan_says() {
        for (on_oom, phase) in [
            (OnOom::Restart, Phase::BackingOff),
            (OnOom::Stop, Phase::Failed),
        ] {
            let mut world = World::new(Plan {
                on_oom,
                ..Plan::default()
            });
            world.does(Event::Start);
            world.ends(Class::Oom, None);
            assert_eq!(world.life.phase, phase);
        }
    }

    #[test]
    fn a_stop_is_no_restart() {
        let mut world = World::new(Plan::default());
        world.does(Event::Start);
        world.does(Event::Stop);
        world.ends(Class::Cancelled, None);
        assert_eq!(world.life.restarts.total(), 0);
    }

    #[test]
    fn a_stop_during_the_clean_up_is_obeyed_and_a_start_as_well() {
        let clean_up = crate::model::agent::plan::CleanUp {
            command: vec!["true".to_owned()],
            timeout_ms: None,
        };
        let mut world = World::new(Plan {
            on_stop: Some(clean_up),
            ..Plan::default()
        });
        world.does(Event::Start);
        world.ends(Class::Signal, None);
        assert_eq!(world.life.phase, Phase::CleaningUp);
        world.does(Event::Stop);
        world.ends(Class::Success, Some(0));
        assert_eq!(world.life.phase, Phase::Stopped);
        world.does(Event::Start);
        world.does(Event::Stop);
        assert_eq!(world.life.phase, Phase::Stopping);
        world.ends(Class::Cancelled, None);
        world.does(Event::Start);
        world.ends(Class::Exit, Some(1));
        assert_eq!(
            world.life.phase,
            Phase::Starting,
            "the clean-up's own end means nothing"
        );
    }
}
