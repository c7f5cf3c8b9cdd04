//! The spine, measured: what a durable task costs beside the limits of the
//! same machine, in one run.
//!
//! A program, not a test: it prints what it finds and ends with 0 whether the
//! goals are met or not. Everything is measured in several rounds, product and
//! yardstick in turn, and the median is shown. Disks differ by a factor of a
//! hundred and other work disturbs; the ratios hold where the figures do not.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod bare;
#[expect(dead_code, reason = "the plans use more of it")]
mod daemon;
mod disk;
mod drain;
#[expect(dead_code, reason = "the plans use more of it")]
mod http;
mod latency;
mod load;
mod process;
#[expect(dead_code, reason = "other benchmarks have goals of other kinds")]
mod report;
mod start;
mod submit;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use report::Report;

/// Measures the spine of taskdaemon beside the limits of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Also writes everything, with each round's samples, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the databases go, on the disk to be measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Rounds of which the median is shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these parts: submit, drain, latency, start.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Serves as the yardstick of the submits, in this directory.
    #[arg(long, hide = true)]
    serve_bare: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Submit,
    Drain,
    Latency,
    Start,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(dir) = &args.serve_bare {
        return bare::serve(dir);
    }
    // `tests/bench` says where it was called; cargo itself moves to the package.
    if let Some(here) = std::env::var_os("BENCH_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("spine-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    disk::spread(base.path());
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let mut report = Report::new("spine", ["taskdaemon", "yardstick"], args.rounds);
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        let dir = base.path().join(round.to_string());
        std::fs::create_dir(&dir)?;
        if wanted(Part::Submit) {
            submit::round(&dir, round, &mut report).context("submits")?;
        }
        if wanted(Part::Drain) {
            drain::round(&dir, round, &mut report).context("drain")?;
        }
        if wanted(Part::Latency) {
            latency::round(&dir, round, &mut report).context("latency")?;
        }
    }
    if wanted(Part::Start) {
        eprintln!("start and memory");
        start::measure(base.path(), args.rounds, &mut report).context("start")?;
    }
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
