//! Calls of models in the engine, with an invented clock, an invented provider and crashes: what is admitted never goes
//! beyond the limits, and what is kept is what the ledger says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use taskdaemon::engine::Engine;
use taskdaemon::engine::budgets::{Rule, Who};
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::Effect;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::prompts::{Model, Prompts, Provider, Target};
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::model::attempt::{AttemptKey, Ended, Exit};
use taskdaemon::model::budget::{Budget, Cap, Name, Purse, Sum};
use taskdaemon::model::gauge::{Gauge, Others, Settled};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::ledger::Call;
use taskdaemon::model::limit::Limits;
use taskdaemon::model::prompt::{Dialect, Prompt, patience};
use taskdaemon::model::receipt::{End, Receipt};
use taskdaemon::model::spec::{NewTask, Spec};
use taskdaemon::model::time::Time;
use taskdaemon::store::calls::Calls as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::{new_task, options};

const ACCOUNT: &str = "one/m-1";

fn limits() -> Limits {
    serde_json::from_str(
        r#"{"requests": "600/1m", "output_tokens": "12000/1m", "tokens": "100000/1h", "concurrency": 8}"#,
    )
    .expect("limits")
}

fn prompts() -> Prompts {
    let target = Target {
        model: Model {
            name: "chat".to_owned(),
            provider: "one".to_owned(),
            model: "m-1".to_owned(),
            max_tokens: None,
            limits: limits(),
            price: None,
            fallback: Vec::new(),
            fallback_after: Duration::from_secs(60),
        },
        provider: Provider {
            name: "one".to_owned(),
            dialect: Dialect::Anthropic,
            base_url: "http://127.0.0.1:1".to_owned(),
            key_file: None,
            key_credential: None,
            insecure: false,
        },
        key: None,
        account: ACCOUNT.to_owned(),
    };
    Prompts {
        targets: vec![target],
        program: "taskdaemon".to_owned(),
        calls: 64,
        budgets: Vec::new(),
        door: None,
    }
}

fn prompt(tokens: u32) -> NewTask {
    NewTask {
        queue: "prompt".to_owned(),
        stdin: Some(b"what is it?".to_vec()),
        spec: Spec {
            argv: Vec::new(),
            prompt: Some(Prompt {
                model: "chat".to_owned(),
                max_tokens: Some(tokens),
                ..Prompt::default()
            }),
            retry: patience(),
            ..Spec::default()
        },
        ..new_task("true")
    }
}

/// An engine whose calls end when the test says so.
struct Bed {
    dir: tempfile::TempDir,
    prompts: Prompts,
    engine: Option<Engine<Sqlite>>,
    now: Time,
    /// Calls that are made.
    made: Vec<AttemptKey>,
    /// Receipts as they were handed in.
    receipts: HashMap<AttemptKey, Receipt>,
}

impl Bed {
    fn new() -> Self {
        Self::with(prompts())
    }

    fn with(prompts: Prompts) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("directory");
        let mut bed = Self {
            dir,
            prompts,
            engine: None,
            now: Time::from_micros(1_700_000_000_000_000),
            made: Vec::new(),
            receipts: HashMap::new(),
        };
        bed.open();
        bed
    }

    /// As after a crash: what was not committed is gone, the calls go on.
    fn open(&mut self) {
        drop(self.engine.take());
        let store = Sqlite::open(self.dir.path(), &options()).expect("open");
        let mut engine = Engine::new(store, Options::default(), "boot".to_owned());
        engine.set_prompts(self.prompts.clone());
        engine.recover(self.now).expect("recover");
        self.engine = Some(engine);
        let held = self.made.clone();
        self.turn(vec![Command::RunnerUp(RunnerUp {
            instance: "runner".to_owned(),
            boot: "boot".to_owned(),
            version: "1".to_owned(),
            pid: 1,
            abilities: Abilities::default(),
            policy: None,
            held,
        })]);
    }

    fn engine(&mut self) -> &mut Engine<Sqlite> {
        self.engine.as_mut().expect("an engine")
    }

    /// Each turn has a time of its own, by which the ledger can be read again.
    fn turn(&mut self, commands: Vec<Command>) {
        self.now = self.now.after(Duration::from_millis(1));
        let now = self.now;
        let turned = self.engine().turn(commands, now).expect("turn");
        for effect in turned.effects {
            if let Effect::Launch(order) = effect {
                self.made.push(order.key);
            }
        }
    }

    fn submit(&mut self, tokens: u32) {
        self.hand_in(prompt(tokens));
    }

    fn hand_in(&mut self, task: NewTask) {
        let (reply, mut answer) = oneshot::channel();
        let tasks = vec![task];
        self.turn(vec![Command::Submit { tasks, reply }]);
        answer.try_recv().expect("answered").expect("accepted");
    }

    fn end(&mut self, which: usize, receipt: Option<Receipt>) {
        let key = self.made.swap_remove(which);
        let code = match &receipt {
            Some(receipt) if receipt.end == End::Answered => 0,
            _ => 75,
        };
        if let Some(receipt) = &receipt {
            self.receipts.insert(key, receipt.clone());
        }
        let ended = Ended {
            exit: Exit::Code { code },
            receipt: receipt.map(Box::new),
            ..Ended::lost(self.now)
        };
        self.turn(vec![Command::Ended {
            key,
            started: None,
            ended,
        }]);
    }

    fn gauge(&mut self) -> Gauge {
        let gauges = self.engine().store().gauges().expect("read");
        let kept: BTreeMap<_, _> = gauges.into_iter().collect();
        kept.get(ACCOUNT).cloned().unwrap_or_default()
    }

    fn ledger(&mut self, tasks: i64) -> Vec<Call> {
        let store = self.engine().store();
        let calls = (1..=tasks).flat_map(|id| store.calls(TaskId(id), 99).expect("read"));
        calls.collect()
    }

    /// What the ledger comes to when it is read from its beginning.
    fn replayed(&mut self, tasks: i64) -> Gauge {
        enum Entry<'c> {
            Begin(&'c Call),
            End(&'c Call),
        }
        let calls = self.ledger(tasks);
        let mut entries: Vec<(Time, u8, Entry<'_>)> = Vec::new();
        for call in &calls {
            entries.push((call.at, 1, Entry::Begin(call)));
            if let Some(over) = call.over {
                entries.push((over.at, 0, Entry::End(call)));
            }
        }
        // What ends in a turn makes room for what begins in it.
        entries.sort_by_key(|(at, order, _)| (*at, *order));
        let mut gauge = Gauge::default();
        for (at, _, entry) in entries {
            gauge.refill(&limits(), at);
            match entry {
                Entry::Begin(call) => gauge.take(call.taken),
                Entry::End(call) => gauge.settle(
                    &limits(),
                    Settled {
                        taken: call.taken,
                        weight: Default::default(),
                        refund: Dialect::Anthropic.refund(),
                        others: Others::default(),
                        receipt: self.receipts.get(&call.key),
                    },
                    call.key.task.0.cast_unsigned(),
                    at,
                ),
            }
        }
        gauge
    }
}

fn receipt(kind: u8, output: u64) -> Option<Receipt> {
    let of = |end| Some(Receipt::of(end));
    match kind {
        0..=4 => Some(Receipt {
            input: Some(20),
            output: Some(output),
            ..Receipt::of(End::Answered)
        }),
        5 => Some(Receipt {
            wait_us: Some(700_000),
            ..Receipt::of(End::Refused)
        }),
        6 => of(End::Broken),
        7 => of(End::Rejected),
        _ => None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Submit(u32),
    End(usize, u8, u64),
    Pass(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u32..4_000).prop_map(Step::Submit),
        4 => (0_usize..8, 0_u8..10, 0_u64..5_000).prop_map(|(n, kind, output)| Step::End(n, kind, output)),
        3 => (1_u64..5_000).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_says_what_the_live_state_is_whatever_crashes(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut bed = Bed::new();
        let mut tasks = 0;
        for step in steps {
            match step {
                Step::Submit(tokens) => {
                    bed.submit(tokens);
                    tasks += 1;
                }
                Step::End(which, kind, output) => {
                    if !bed.made.is_empty() {
                        let which = which % bed.made.len();
                        bed.end(which, receipt(kind, output));
                    }
                }
                Step::Pass(millis) => {
                    bed.now = bed.now.after(Duration::from_millis(millis));
                    bed.turn(vec![]);
                }
                Step::Crash => bed.open(),
            }
            prop_assert!(bed.made.len() <= 8, "{} calls at once", bed.made.len());
        }
        let now = bed.now;
        let (mut kept, mut replayed) = (bed.gauge(), bed.replayed(tasks));
        kept.refill(&limits(), now);
        replayed.refill(&limits(), now);
        prop_assert_eq!(kept.left(&limits()), replayed.left(&limits()));
        let account = bed.engine().snapshot().calls.accounts[ACCOUNT].clone();
        let mut live = account.gauge;
        live.refill(&limits(), now);
        prop_assert_eq!(live.left(&limits()), kept.left(&limits()));
        let calls = bed.ledger(tasks);
        for first in &calls {
            let within = |call: &&Call| call.at >= first.at;
            for last in calls.iter().filter(within) {
                let span = calls.iter().filter(within).filter(|call| call.at <= last.at);
                let sum: u64 = span.map(charged).sum();
                let before = calls.iter().filter(|call| call.at < first.at);
                let before = before.filter(|call| call.over.is_some_and(|over| over.at >= first.at));
                let back: u64 = before.map(|call| call.taken.output - charged(call)).sum();
                let time = u64::try_from(last.at.since(first.at).as_millis()).expect("short");
                let most = 2_000 + time * 12_000 / 60_000 + 1 + back + last.taken.output;
                prop_assert!(sum <= most, "{sum} of {most} output tokens");
            }
        }
    }
}

/// A model with a price, no limits, and budgets of a user and a queue.
fn budgeted() -> Prompts {
    let mut prompts = prompts();
    let model = &mut prompts.targets[0].model;
    model.limits = Limits::default();
    model.price = serde_json::from_str(r#"{"input": 1, "output": 3}"#).ok();
    let rule = |who, name: &str, cap| Rule {
        who,
        name: name.to_owned(),
        cap: serde_json::from_str(cap).expect("a budget"),
    };
    prompts.budgets = vec![
        rule(Who::Everyone, "*", r#"{"tokens": 12000, "cost": 0.03}"#),
        rule(Who::Queue, "prompt", r#"{"tokens": 11000}"#),
    ];
    prompts
}

/// Limits of a purse, by its name.
fn cap_of(name: &str, own: &BTreeMap<String, Cap>) -> Cap {
    let rules = budgeted().budgets;
    match name.split('/').next() {
        Some("user") => rules[0].cap,
        Some("queue") => rules[1].cap,
        _ => own[name],
    }
}

#[derive(Debug, Clone)]
enum Spending {
    /// With so many tokens of an answer, and a budget of its own or of its batch.
    Submit(u32, Option<u64>, bool),
    End(usize, u8, u64),
    Pass(u64),
    Crash,
}

fn spending() -> impl Strategy<Value = Spending> {
    let own = prop::option::of(1_u64..6_000);
    prop_oneof![
        4 => (1_u32..3_000, own, any::<bool>()).prop_map(|(n, own, batch)| Spending::Submit(n, own, batch)),
        4 => (0_usize..8, 0_u8..10, 0_u64..5_000).prop_map(|(n, kind, part)| Spending::End(n, kind, part)),
        2 => (1_u64..90_000).prop_map(Spending::Pass),
        1 => (3_600_000_u64..40_000_000).prop_map(Spending::Pass),
        1 => Just(Spending::Crash),
    ]
}

impl Bed {
    /// Each purse is what the ledger says, and within its budget.
    fn check_purses(
        &mut self,
        tasks: i64,
        own: &BTreeMap<String, Cap>,
    ) -> Result<(), TestCaseError> {
        let mut purses: BTreeMap<String, Purse> = BTreeMap::new();
        for call in self.ledger(tasks) {
            for name in &call.purses {
                let purse = purses.entry(name.as_str().to_owned()).or_default();
                *purse = purse.hold(call.holds());
                if let Some(over) = call.over {
                    let used = over.used.map(|used| used.input + used.output);
                    let nothing = over
                        .end
                        .is_some_and(|end| end != End::Answered && end != End::Broken);
                    let tokens = used.unwrap_or(if nothing { 0 } else { call.held });
                    let cost = over.cost.expect("a price");
                    *purse = purse.settle(call.holds(), Sum { tokens, cost });
                }
            }
        }
        for (name, expected) in purses {
            let (kept, _) = self
                .engine()
                .store()
                .purse(&Name::read(name.clone()))
                .expect("read");
            prop_assert_eq!(kept, expected, "{}", &name);
            let (cap, all) = (cap_of(&name, own), kept.spent.and(kept.held));
            prop_assert!(
                cap.tokens.is_none_or(|most| all.tokens <= most),
                "{}: {:?}",
                &name,
                kept
            );
            prop_assert!(
                cap.cost.is_none_or(|most| all.cost <= most),
                "{}: {:?}",
                &name,
                kept
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_budget_is_overspent_whatever_crashes_and_purses_are_what_the_ledger_says(
        steps in prop::collection::vec(spending(), 1..60),
    ) {
        let mut bed = Bed::with(budgeted());
        let mut tasks = 0;
        let mut own: BTreeMap<String, Cap> = BTreeMap::new();
        let shared = Cap { tokens: Some(8_000), cost: None };
        own.insert(Name::of_batch(prompt(1).owner, "b").as_str().to_owned(), shared);
        for step in steps {
            match step {
                Spending::Submit(tokens, most, batch) => {
                    tasks += 1;
                    let cap = Cap { tokens: most, cost: None };
                    own.insert(Name::of_task(TaskId(tasks)).as_str().to_owned(), cap);
                    let mut task = prompt(tokens);
                    task.batch = batch.then_some(shared);
                    task.spec.budget = Some(Budget { own: cap, batch: batch.then(|| "b".to_owned()), agent: None });
                    bed.hand_in(task);
                }
                Spending::End(which, kind, part) => {
                    if !bed.made.is_empty() {
                        let which = which % bed.made.len();
                        let key = bed.made[which];
                        let call = bed.engine().store().call(key).expect("read").expect("a call");
                        // No provider counts more than it was asked for.
                        bed.end(which, receipt(kind, part.min(call.taken.output)));
                    }
                }
                Spending::Pass(millis) => {
                    bed.now = bed.now.after(Duration::from_millis(millis));
                    bed.turn(vec![]);
                }
                Spending::Crash => bed.open(),
            }
            bed.check_purses(tasks, &own)?;
        }
        while !bed.made.is_empty() {
            bed.end(0, receipt(0, 1));
        }
        bed.check_purses(tasks, &own)?;
    }
}

/// Output tokens of a call that the provider counts, at most what was taken.
fn charged(call: &Call) -> u64 {
    match call.over.map(|over| (over.end, over.used)) {
        Some((Some(End::Answered), Some(used))) => used.output.min(call.taken.output),
        Some((Some(End::Refused | End::Rejected), _)) => 0,
        _ => call.taken.output,
    }
}

#[test]
fn a_small_prompt_does_not_overtake_a_large_one_of_its_model() {
    let mut bed = Bed::new();
    bed.submit(2_000);
    assert_eq!(bed.made.len(), 1);
    bed.end(0, receipt(0, 2_000));
    // The bucket is empty: 2000 take ten seconds, 100 half a second.
    bed.submit(2_000);
    bed.submit(100);
    bed.now = bed.now.after(Duration::from_secs(5));
    bed.turn(vec![]);
    assert!(bed.made.is_empty(), "{:?}", bed.made);
    bed.now = bed.now.after(Duration::from_millis(5_010));
    bed.turn(vec![]);
    assert_eq!(bed.made.len(), 1);
    assert_eq!(bed.made[0].task, TaskId(2));
}
