//! Power cuts: a daemon under load on a disk of its own loses that disk's power and all its processes at once.

use std::time::Duration;

use crate::disk::Disk;
use crate::draw::Draws;
use crate::host::Host;
use crate::inject::Tracer;
use crate::journal::{Verdict, judge};
use crate::load::Load;

/// Size of the disk.
const MIB: u64 = 96;
/// Longest time from the daemon being ready to the cut.
const LONGEST_MS: u64 = 600;

/// When the power goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// At some time after the daemon is ready.
    Random,
    /// When a thread of the daemon has made its n-th sync since its start, and has done nothing after it.
    Sync(u32),
}

/// Cuts the power once for each `when` of one history, and judges at its end.
pub(crate) fn cuts(all: &[When], seed: u64) -> Result<Verdict, String> {
    let mut draws = Draws::new(seed);
    let mut host = Host::new();
    let disk = Disk::make(&host.path(""), MIB, &[])?;
    host.place_state(&disk.place().join("state"));
    let load = Load::start(&host, "power", 3, draws.next());
    for (number, when) in all.iter().enumerate() {
        match when {
            When::Random => {
                host.run_under(&[]);
                host.start();
                let pause = Duration::from_millis(draws.below(LONGEST_MS));
                std::thread::park_timeout(pause);
            }
            When::Sync(n) => stop_at_sync(&mut host, *n, number),
        }
        disk.cut();
        host.kill_all();
        disk.recover();
    }
    host.run_under(&[]);
    host.start();
    load.stop();
    host.settle();
    let database = rusqlite::Connection::open(host.database()).expect("open");
    let said: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("check");
    assert_eq!(said, "ok");
    drop(database);
    let verdict = judge(&host);
    // Before its disk.
    drop(host);
    drop(disk);
    Ok(verdict)
}

/// Has the daemon stand still behind a sync.
fn stop_at_sync(host: &mut Host, n: u32, number: usize) {
    let trace = host.path(&format!("syncs-{number}"));
    let trace = trace.display().to_string();
    let inject = format!("inject=fdatasync,fsync:signal=SIGSTOP:when={n}");
    let under = Tracer::under(&trace, "trace=fdatasync,fsync", &inject);
    host.run_under(&under.iter().map(String::as_str).collect::<Vec<_>>());
    host.spawn();
    host.until("it stands still behind a sync", |_| {
        let said = std::fs::read_to_string(&trace).unwrap_or_default();
        said.contains("SIGSTOP")
    });
}
