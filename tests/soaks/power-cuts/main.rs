//! FI-03 and FI-04: power cuts at random times and behind syncs, many of them. Needs root and loop devices.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people, which watches a real daemon in real time"
)]

#[path = "../../it/bed.rs"]
#[expect(dead_code, reason = "only its requests are used")]
mod bed;
#[path = "../../faults/disk.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod disk;
#[path = "../../faults/draw.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod draw;
#[path = "../../faults/host.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod host;
#[path = "../../faults/inject.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod inject;
#[path = "../../faults/journal.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod journal;
#[path = "../../faults/load.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod load;
#[path = "../../faults/power.rs"]
mod power;

use std::process::ExitCode;

use clap::Parser;

use draw::Draws;
use power::{When, cuts};

/// Cuts on one disk, after which everything comes to its end and is judged.
const HISTORY: usize = 20;
/// Behind which syncs of a thread the power is cut at most.
const SYNCS: u64 = 40;

/// Cuts the power of a daemon's disk.
#[derive(Debug, Parser)]
struct Args {
    /// How often.
    #[arg(long, default_value_t = 500)]
    cuts: usize,
    /// Replays the run that printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(draw::seed);
    let mut draws = Draws::new(seed);
    let traced = inject::why_not().is_none();
    let (mut done, mut acknowledged) = (0, 0);
    while done < args.cuts {
        let most = HISTORY.min(args.cuts - done);
        let when = |draws: &mut Draws| match draws.below(3) {
            0 if traced => {
                let n = u32::try_from(draws.below(SYNCS)).expect("small");
                When::Sync(n + 1)
            }
            _ => When::Random,
        };
        let all: Vec<_> = (0..most).map(|_| when(&mut draws)).collect();
        let verdict = match cuts(&all, draws.next()) {
            Ok(verdict) => verdict,
            Err(why) => {
                eprintln!("power-cuts: no disk of its own: {why}");
                return ExitCode::FAILURE;
            }
        };
        verdict.hold(most, "power cuts");
        done += most;
        acknowledged += verdict.acknowledged;
    }
    println!(
        "{done} power cuts survived, {acknowledged} acknowledged, 0 lost, 0 doubled (seed {seed})"
    );
    ExitCode::SUCCESS
}
