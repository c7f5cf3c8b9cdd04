//! What a bed needs from the machine it stands on: base images, packages, the cgroup tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program of this machine and returns what it printed; anything but success ends the test.
pub(crate) fn must(command: &mut Command) -> String {
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        done.status.success(),
        "{command:?}: {}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
}

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The tree of a release that was installed and never booted; made on first use.
pub(crate) fn base_tree(release: &str) -> PathBuf {
    let printed = must(Command::new(checkout().join("tests/system/base")).arg(release));
    PathBuf::from(printed.lines().last().expect("base prints a path"))
}

/// The directory of all beds. Its file system must allow an overlay, so it lies beside the base trees.
pub(crate) fn beds() -> PathBuf {
    std::env::var_os("SYSTEM_TEST_CACHE")
        .map_or_else(
            || PathBuf::from("/var/cache/taskdaemon-test"),
            PathBuf::from,
        )
        .join("beds")
}

/// The package under test: what `tests/run` has built, else built now.
pub(crate) fn package() -> PathBuf {
    built("SYSTEM_TEST_DEB", &[])
}

/// Where Prometheus and its tool are, out of Debian's package.
pub(crate) fn prometheus() -> PathBuf {
    PathBuf::from(must(&mut Command::new(
        checkout().join("tests/system/prometheus"),
    )))
}

/// The same program as a package of a higher version. Only the upgrade matters here, so it is the quick build.
pub(crate) fn next_package() -> PathBuf {
    built(
        "SYSTEM_TEST_NEXT_DEB",
        &["--version", NEXT_VERSION, "--profile", "dev"],
    )
}

/// The version that [`next_package`] has.
pub(crate) const NEXT_VERSION: &str = "99.0.0";

fn built(variable: &str, arguments: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    // Tests run side by side, the package is built once.
    let lock = fs::File::create(std::env::temp_dir().join("taskdaemon-test-package.lock"))
        .expect("lock file");
    lock.lock().expect("lock");
    let printed = must(Command::new(checkout().join("deb/build")).args(arguments));
    PathBuf::from(printed.lines().last().expect("deb/build prints a path"))
}

/// A database and its log, as they are on disk.
pub(crate) fn database(file: &Path) -> [Vec<u8>; 2] {
    let log = file.with_extension("db-wal");
    [file, &log].map(|file| fs::read(file).unwrap_or_default())
}

/// Where this machine has its cgroup v2 tree: alone, or beside the old one.
pub(crate) fn cgroup_tree() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(PathBuf::from)
}

/// Whether a service manager gives the container a cgroup, or the bed has to.
pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The processes that a process has started and that still are there.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}
