//! FI-02: a daemon under a mixed load is killed at random times, many times, and judged from outside at the end.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people, which watches a real daemon in real time"
)]

#[path = "../../it/bed.rs"]
#[expect(dead_code, reason = "only its requests are used")]
mod bed;
#[path = "../../faults/draw.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod draw;
#[path = "../../faults/host.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod host;
#[path = "../../faults/journal.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod journal;
#[path = "../../faults/load.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod load;

use std::time::Duration;

use clap::Parser;

use draw::Draws;
use host::Host;
use journal::judge;
use load::Load;

/// Kills after which everything comes to its end and is judged, on one directory.
const HISTORY: u32 = 100;
/// Longest life of a daemon, in milliseconds.
const LONGEST_MS: u64 = 1_000;

/// Kills a daemon at random times.
#[derive(Debug, Parser)]
struct Args {
    /// How often.
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// Clients that submit.
    #[arg(long, default_value_t = 4)]
    clients: u64,
    /// Replays the run that printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(draw::seed);
    let mut draws = Draws::new(seed);
    let mut done = 0;
    let mut acknowledged = 0;
    while done < args.kills {
        let most = HISTORY.min(args.kills - done);
        let mut host = Host::started();
        let load = Load::start(&host, "client", args.clients, draws.next());
        for _ in 0..most {
            std::thread::park_timeout(Duration::from_millis(draws.below(LONGEST_MS)));
            host.kill();
            host.start();
        }
        load.stop();
        host.settle();
        done += most;
        let verdict = judge(&host);
        verdict.hold(usize::try_from(most).expect("small"), "kills");
        assert_eq!(
            verdict.interrupted, 0,
            "no kill of the daemon costs an attempt"
        );
        acknowledged += verdict.acknowledged;
    }
    println!("{done} kills survived, {acknowledged} acknowledged, 0 lost, 0 doubled (seed {seed})");
}
