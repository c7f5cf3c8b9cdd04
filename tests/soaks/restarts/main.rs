//! SOAK-4: a thousand restarts and a thousand reloads of the installed daemon under steady load, through the sockets
//! that systemd holds, on a booted container.
//!
//! Clients on the unix and the TCP socket, with new and with kept connections, ask and submit at a fixed rate. A request
//! that is refused, reset, answered with an error or not answered in half a minute is a failure, and none is sent twice.
//! Meanwhile tasks run: what they leave in files of their own says that they ran once and were not interrupted.

#![expect(
    clippy::disallowed_methods,
    reason = "it watches real systems from outside: it waits and measures in real time"
)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::or_fun_call,
    reason = "a test as a program: it fails where it stands, and prints what it has found"
)]

#[path = "../../system/bed.rs"]
#[expect(dead_code, reason = "the system tests use more of it")]
mod bed;
#[path = "../../system/clients.rs"]
#[expect(dead_code, reason = "the system tests use more of it")]
mod clients;
#[path = "../../system/doors.rs"]
mod doors;
#[path = "../../system/host.rs"]
#[expect(dead_code, reason = "the system tests use more of it")]
mod host;
#[path = "../../system/witness.rs"]
#[expect(dead_code, reason = "the system tests use more of it")]
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use bed::{Bed, parse, wait_until};
use clients::{Tally, while_asked};
use doors::{Door, submission};
use witness::Witnesses;

/// Restarts and reloads under load; none may fail a request or touch a running task.
#[derive(Debug, Parser)]
struct Args {
    /// How often the service is restarted.
    #[arg(long, default_value_t = 1_000)]
    restarts: u32,
    /// How often it is reloaded, in turn with the restarts.
    #[arg(long, default_value_t = 1_000)]
    reloads: u32,
    /// Requests a second, of all clients together.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// The Debian release in the container.
    #[arg(long, default_value = "trixie", value_parser = ["bookworm", "trixie"])]
    release: String,
    /// Ends after so many minutes, however many restarts there were.
    #[arg(long)]
    minutes: Option<u64>,
    /// Chooses the pauses between restarts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also writes the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Longest pause between two restarts or reloads, in milliseconds.
const PAUSE_MS: u64 = 300;

fn main() {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("SOAK_CALLED_FROM") {
        std::env::set_current_dir(here).expect("go back to where this was called");
    }
    let bed = Bed::boot(&args.release, "soak-restarts");
    let doors = [Door::unix(&bed), Door::tcp(&bed)];
    let witnesses = Witnesses::start(&bed);
    let runner = bed.main_pid("taskdaemon-runner.service");
    // What a task leaves behind is its own account of having run.
    let mark = "echo $TASKDAEMON_TASK_ID $TASKDAEMON_ATTEMPT >>/tmp/ran";
    let body = submission(&["sh", "-c", mark]);
    let begun = Instant::now();
    let mut done = Done::default();
    let (tally, told) = while_asked(&doors, args.rate, &body, |tally| {
        done = alternate(&args, &bed, tally);
    });
    let figures = Figures::of(&args, begun.elapsed(), &done, &tally);
    figures.print();
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", figures.json())).expect("write the figures");
    }
    tally.flawless();
    assert_eq!(
        bed.main_pid("taskdaemon-runner.service"),
        runner,
        "one runner through all of it"
    );
    let crashes = bed.sh("systemctl show --property=NRestarts --value taskdaemon.service");
    assert_eq!(crashes, "0", "the daemon never ended by itself");
    witnesses.ran_through(&bed);
    let ran = all_ran_once(&bed, &told);
    println!(
        "{ran} submitted tasks ran, each once; {} tasks ran through all of it",
        witness::TASKS
    );
}

/// What was done, and when.
#[derive(Default)]
struct Done {
    restarts: Vec<(Instant, Duration)>,
    reloads: Vec<(Instant, Duration)>,
}

/// Restarts and reloads in turn, with pauses of no pattern, until there were enough or time is over.
fn alternate(args: &Args, bed: &Bed, tally: &Tally) -> Done {
    let begun = Instant::now();
    let limit = args
        .minutes
        .map(|minutes| Duration::from_secs(minutes * 60));
    let mut done = Done::default();
    let mut random = args.seed;
    for turn in 0..args.restarts.max(args.reloads) {
        for (act, most, times) in [
            ("restart", args.restarts, &mut done.restarts),
            ("reload", args.reloads, &mut done.reloads),
        ] {
            if turn >= most {
                continue;
            }
            // Knuth's multiplier; the upper bits are the random ones.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis((random >> 33) % PAUSE_MS));
            let at = Instant::now();
            bed.ok(&["systemctl", act, "taskdaemon.service"]);
            times.push((at, at.elapsed()));
        }
        if turn % 100 == 99 {
            let failed = tally.failures().len();
            eprintln!(
                "{} restarts, {} reloads, {failed} failures",
                done.restarts.len(),
                done.reloads.len()
            );
        }
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
    }
    done
}

/// Each task that a client was told of has run, and no task has run twice.
fn all_ran_once(bed: &Bed, told: &[u64]) -> usize {
    let status = wait_until("nothing is unfinished", Duration::from_secs(120), || {
        let status = parse(&bed.ok(&["taskdaemon", "status", "--json"]));
        let open = ["queued", "running", "scheduled", "stopping", "blocked"];
        open.iter()
            .all(|state| status["tasks"][*state] == 0)
            .then_some(status)
    });
    assert_eq!(status["tasks"]["succeeded"], told.len(), "{status}");
    let text = std::fs::read_to_string(bed.root().join("tmp/ran")).expect("what ran");
    let mut ran = BTreeMap::new();
    for line in text.lines() {
        let (id, attempt) = line.split_once(' ').expect("a whole line");
        assert_eq!(attempt, "1", "{line}");
        let before = ran.insert(id.parse::<u64>().expect("a number"), ());
        assert_eq!(before, None, "ran twice: {line}");
    }
    for id in told {
        assert!(ran.contains_key(id), "acknowledged and never ran: {id}");
    }
    ran.len()
}

/// What is printed at the end.
struct Figures {
    release: String,
    lasted: Duration,
    restarts: Vec<Duration>,
    reloads: Vec<Duration>,
    answered: BTreeMap<&'static str, u64>,
    failed: usize,
    announced: u64,
    /// Waits of requests that a restart was in the way of.
    stalled: Vec<Duration>,
    /// Waits of all requests.
    waits: Vec<Duration>,
}

impl Figures {
    fn of(args: &Args, lasted: Duration, done: &Done, tally: &Tally) -> Self {
        let waits = tally.waits.lock().expect("waits").clone();
        let hit = |(asked, taken): &&(Instant, Duration)| {
            let after = done
                .restarts
                .partition_point(|(at, took)| *at + *took < *asked);
            let next = done.restarts.get(after);
            next.is_some_and(|(at, _)| *at <= *asked + *taken)
        };
        let sorted = |waits: Vec<Duration>| {
            let mut waits = waits;
            waits.sort_unstable();
            waits
        };
        let lengths =
            |times: &[(Instant, Duration)]| sorted(times.iter().map(|(_, took)| *took).collect());
        Self {
            release: args.release.clone(),
            lasted,
            restarts: lengths(&done.restarts),
            reloads: lengths(&done.reloads),
            answered: tally.answered(),
            failed: tally.failures().len(),
            announced: tally.announced.load(Ordering::Relaxed),
            stalled: sorted(waits.iter().filter(hit).map(|(_, taken)| *taken).collect()),
            waits: sorted(waits.iter().map(|(_, taken)| *taken).collect()),
        }
    }

    fn requests(&self) -> u64 {
        self.answered.values().sum()
    }

    fn print(&self) {
        let minutes = self.lasted.as_secs_f64() / 60.0;
        println!(
            "{}: {} restarts, {} reloads in {minutes:.1} min, {} requests ({:.0}/s), {} failed",
            self.release,
            self.restarts.len(),
            self.reloads.len(),
            self.requests(),
            f64::from(u32::try_from(self.requests()).unwrap_or(u32::MAX))
                / self.lasted.as_secs_f64(),
            self.failed
        );
        for (what, answered) in &self.answered {
            println!("  {answered:>8} answered: {what}");
        }
        println!(
            "  {:>8} kept connections were told that they end",
            self.announced
        );
        for (what, times) in [
            ("a restart took", &self.restarts),
            ("a reload took", &self.reloads),
            ("a request that met a restart waited", &self.stalled),
            ("any request waited", &self.waits),
        ] {
            let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(times, part));
            println!(
                "  {what}: p50 {p50:.1?}, p99 {p99:.1?}, at most {most:.1?} ({} times)",
                times.len()
            );
        }
    }

    fn json(&self) -> Value {
        let times = |times: &[Duration]| {
            let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(times, part).as_secs_f64());
            json!({ "count": times.len(), "p50_seconds": p50, "p99_seconds": p99, "most_seconds": most })
        };
        json!({
            "release": self.release,
            "seconds": self.lasted.as_secs_f64(),
            "answered": self.answered,
            "failed": self.failed,
            "announced": self.announced,
            "restarts": times(&self.restarts),
            "reloads": times(&self.reloads),
            "stalled": times(&self.stalled),
            "waits": times(&self.waits),
        })
    }
}

/// The part of sorted times that lies below the result.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts far below 2^52, and not negative"
)]
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    let place = place.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or_default()
}
