//! SOAK-11: from each older version up to this one, under load and with tasks
//! that run, and the way back, which a newer schema closes.
//!
//! The older versions are packages, such as `deb/build` makes of an older
//! checkout. With each a container is booted; the rest is what an administrator
//! does.

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
mod witness;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use bed::{Bed, wait_until};
use clients::{all_succeeded_once, while_asked};
use doors::{Door, submission};
use witness::Witnesses;

/// Upgrades from older packages under load, and the refused way back.
#[derive(Debug, Parser)]
struct Args {
    /// A package of an older version; once for each.
    #[arg(long, required = true)]
    from: Vec<PathBuf>,
    /// The Debian release in the container.
    #[arg(long, default_value = "trixie", value_parser = ["bookworm", "trixie"])]
    release: String,
    /// Requests a second, of all clients together.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("SOAK_CALLED_FROM") {
        std::env::set_current_dir(here).expect("go back to where this was called");
    }
    for from in &args.from {
        let bed = Bed::boot_bare(&args.release, "soak-ladder");
        bed.install(from);
        climb(&args, &bed, from);
    }
}

fn climb(args: &Args, bed: &Bed, from: &Path) {
    let version = || bed.ok(&["taskdaemon", "--version"]);
    let older = version();
    let witnesses = Witnesses::start(bed);
    let runner = bed.main_pid("taskdaemon-runner.service");
    let doors = [Door::unix(bed), Door::tcp(bed)];
    let body = submission(&["true"]);
    let mut took = Duration::ZERO;
    let (tally, told) = while_asked(&doors, args.rate, &body, |_| {
        let begun = Instant::now();
        bed.install(&host::package());
        took = begun.elapsed();
        std::thread::sleep(Duration::from_secs(2));
    });
    let answered = tally.flawless();
    let newer = version();
    assert_eq!(
        bed.main_pid("taskdaemon-runner.service"),
        runner,
        "one runner"
    );
    all_succeeded_once(&doors[0], &told);
    println!(
        "{older} to {newer} in {took:.1?}: {answered} requests answered, none failed; {} tasks submitted meanwhile ran once",
        told.len()
    );
    println!("back to {older}: {}", back(bed, from));
    witnesses.are_alive(bed);
    bed.install(&host::package());
    wait_until("the daemon is back", Duration::from_secs(20), || {
        bed.as_user("alice", &["health"])
            .status
            .success()
            .then_some(())
    });
    witnesses.ran_through(bed);
    println!(
        "and up again: {} tasks ran through all of it",
        witness::TASKS
    );
}

/// Installs the older package again; what became of that.
fn back(bed: &Bed, from: &Path) -> &'static str {
    let file = bed.root().join("var/lib/taskdaemon/taskdaemon.db");
    std::fs::copy(from, bed.root().join("package.deb")).expect("copy the package");
    bed.ok(&["systemctl", "stop", "taskdaemon.service"]);
    let before = host::database(&file);
    let _status = bed.run(&["dpkg", "-i", "/package.deb"]);
    let unit = wait_until(
        "it has started or given up",
        Duration::from_secs(30),
        || {
            let unit = bed.ok(&[
                "systemctl",
                "show",
                "--property=ActiveState,ExecMainStatus",
                "taskdaemon.service",
            ]);
            (unit.contains("=active") || unit.contains("=failed")).then_some(unit)
        },
    );
    if unit.contains("=active") {
        return "possible, the schema is the same";
    }
    assert!(unit.contains("ExecMainStatus=78"), "{unit}");
    let journal = bed.ok(&[
        "journalctl",
        "--unit=taskdaemon",
        "--no-pager",
        "--output=cat",
    ]);
    assert!(
        journal.contains("install the newer taskdaemon again"),
        "{journal}"
    );
    // The first programs wrote the log back into the file before they refused it: nothing is lost by that.
    if host::database(&file) == before {
        "refused, the files untouched, and the journal says what to do"
    } else {
        "refused, the log written back into the file, and the journal says what to do"
    }
}
