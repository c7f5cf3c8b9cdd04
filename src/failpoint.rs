//! Named points at which a test ends this process, as a crash would.
//!
//! They exist only with the cargo feature `failpoints`, which nothing that is shipped has; without it they are nothing
//! at all. The variable [`DIRECTORY`] names a directory. Each time a process comes by a point, the file of its name
//! there, with dots for slashes, grows by one byte; when the file `order` there holds the name and an action, it is
//! removed and obeyed: `kill` ends the process by SIGKILL, `panic` panics, `pause` holds the thread up.

/// A point where the process may be ended.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        fail::fail_point!($name);
    };
}

/// Variable with the directory where hits are counted and kills are asked for.
pub const DIRECTORY: &str = "FAILPOINT_DIRECTORY";

/// How long `pause` holds a thread up.
pub const PAUSE: std::time::Duration = std::time::Duration::from_secs(6);

/// Every point there is, in alphabetical order.
pub const POINTS: [&str; 62] = [
    "api/submit/after",
    "api/submit/before",
    "daemon/boot/recovered",
    "daemon/notify/before",
    "daemon/ready/after",
    "daemon/ready/before",
    "daemon/reload/applied",
    "daemon/reload/checked",
    "daemon/reload/half",
    "daemon/stop/before",
    "daemon/stop/drained",
    "engine/agent/run",
    "engine/answers/after",
    "engine/bulk/found",
    "engine/claim/after",
    "engine/commit/after",
    "engine/commit/before",
    "engine/effects/after",
    "engine/effects/before",
    "engine/hook/before",
    "engine/prune/after",
    "engine/recover/before",
    "engine/release/before",
    "engine/retention/begun",
    "engine/runner/up",
    "engine/tick/after",
    "engine/tick/before",
    "run/acknowledge/after",
    "run/acknowledge/before",
    "run/erase/before",
    "run/launch/after",
    "run/launch/before",
    "run/report/after",
    "run/report/before",
    "run/runner/found",
    "run/runner/started",
    "run/sweep/before",
    "runner/acknowledge/before",
    "runner/exit/reaped",
    "runner/launch/after",
    "runner/launch/before",
    "runner/report/before",
    "store/attempt/begun",
    "store/attempt/ended",
    "store/backup/checked",
    "store/backup/copied",
    "store/backup/named",
    "store/ballast/made",
    "store/begin/after",
    "store/checkpoint/after",
    "store/checkpoint/before",
    "store/commit/after",
    "store/commit/before",
    "store/insert/after",
    "store/lock/taken",
    "store/migrate/after",
    "store/migrate/applied",
    "store/migrate/before",
    "store/migrate/numbered",
    "store/open/checked",
    "store/open/settled",
    "store/save/after",
];

/// Has every point count its hits, and obey, if the environment asks for it.
#[cfg(feature = "failpoints")]
pub fn arm() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    for point in POINTS {
        let dir = dir.clone();
        // The name is one of a list without repetitions, and the action a function: nothing here can be refused.
        drop(fail::cfg_callback(point, move || hit(&dir, point)));
    }
}

/// Counts, and ends the process if this is the one.
#[cfg(feature = "failpoints")]
#[expect(
    clippy::panic,
    reason = "a panic is one of the faults, and this is no production code"
)]
fn hit(dir: &std::path::Path, point: &str) {
    use std::io::Write as _;

    let count = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join(point.replace('/', ".")));
    if let Ok(mut count) = count {
        drop(count.write_all(b"."));
    }
    let order = dir.join("order");
    let text = std::fs::read_to_string(&order).unwrap_or_default();
    let Some((_, action)) = text.split_once(' ').filter(|(name, _)| *name == point) else {
        return;
    };
    // Whoever removes the order obeys it: one process, once.
    if std::fs::remove_file(&order).is_err() {
        return;
    }
    match action {
        "panic" => std::panic::panic_any(point.to_owned()),
        "pause" => std::thread::park_timeout(PAUSE),
        _ => {
            let signal = nix::sys::signal::Signal::SIGKILL;
            let _not_reached = nix::sys::signal::raise(signal).is_err();
        }
    }
}
