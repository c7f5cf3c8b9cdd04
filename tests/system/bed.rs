//! A booted Debian with the package on it: made for one test, gone after it, also when the test panics.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::host;

/// Beds made by this process.
static BEDS: AtomicU32 = AtomicU32::new(0);

/// A container that runs one release, with users `alice` (may submit) and `mallory` (may not).
pub(crate) struct Bed {
    name: String,
    dir: PathBuf,
    nspawn: Child,
    leader: u32,
    /// System V's init instead of systemd.
    sysv: bool,
}

impl Bed {
    /// Boots a container and installs the package in it.
    pub(crate) fn boot(release: &str, test: &str) -> Self {
        let bed = Self::boot_bare(release, test);
        bed.install(&host::package());
        bed
    }

    /// Boots a container without the package.
    pub(crate) fn boot_bare(release: &str, test: &str) -> Self {
        sweep();
        let test = test.rsplit("::").next().unwrap_or(test);
        // A machine's name has at most 64 bytes; the number tells tests of one process apart.
        let test: String = test.replace('_', "-").chars().take(40).collect();
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("td-{test}-{number}-{}", std::process::id());
        let dir = host::beds().join(&name);
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(part)).expect("bed directory");
        }
        let layers = format!(
            "lowerdir={},upperdir={dir}/upper,workdir={dir}/work",
            host::base_tree(release).display(),
            dir = dir.display()
        );
        host::must(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &layers])
                .arg(dir.join("root")),
        );
        let nspawn = start_container(&name, &dir);
        let mut bed = Self {
            name,
            dir,
            nspawn,
            leader: 0,
            sysv: release.ends_with("-sysv"),
        };
        bed.leader = bed.wait_for_leader();
        bed.wait_for_boot(release);
        bed.ok(&["useradd", "--create-home", "alice"]);
        bed.ok(&["useradd", "--create-home", "mallory"]);
        bed
    }

    fn wait_for_leader(&self) -> u32 {
        // The manager's socket is there before it answers; until then systemctl fails instead of waiting.
        wait_until(
            "the container has a first process",
            Duration::from_secs(20),
            || {
                let leader = *host::children(self.nspawn.id()).first()?;
                fs::write(self.dir.join("leader"), leader.to_string()).expect("leader file");
                let there = if self.sysv {
                    "run/initctl"
                } else {
                    "run/systemd/private"
                };
                Path::new(&format!("/proc/{leader}/root/{there}"))
                    .exists()
                    .then_some(leader)
            },
        )
    }

    fn wait_for_boot(&self, release: &str) {
        if self.sysv {
            // It has gone through the scripts of that runlevel when it says so and none is left.
            wait_until("the runlevel is reached", Duration::from_secs(60), || {
                let level = self.run(&["runlevel"]);
                let busy = self.run(&["pgrep", "--full", "/etc/init.d/rc"]);
                let said = String::from_utf8_lossy(&level.stdout).into_owned();
                (said.trim() == "N 2" && !busy.status.success()).then_some(())
            });
            return;
        }
        let state = self.run(&["systemctl", "is-system-running", "--wait"]);
        assert!(state.status.success(), "{release} did not boot: {state:?}");
    }

    /// Installs a package as an administrator would, and lets alice submit. Gives what was said.
    pub(crate) fn install(&self, package: &Path) -> String {
        fs::copy(package, self.root().join("package.deb")).expect("copy the package");
        let done = self.run(&["dpkg", "-i", "/package.deb"]);
        assert!(done.status.success(), "dpkg -i: {done:?}");
        self.ok(&["usermod", "--append", "--groups", "taskdaemon", "alice"]);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// The container's root directory, seen from here.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader))
    }

    /// The container's files under their names on this machine, for programs that follow links; what the container has
    /// mounted is not among them.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The container's network, seen from here.
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.leader))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.leader.to_string(),
                "--all",
                "--",
                "env",
                "-i",
            ])
            .args([
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C.UTF-8",
                "HOME=/root",
            ])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command in the container as root.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("nsenter")
    }

    /// Runs a command that must succeed and returns what it printed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        host::must(&mut self.command(words))
    }

    /// Kills the main process of a unit without warning. It alone is named: systemd would look for others in the unit's
    /// cgroup, and on Linux a process that is just going is listed there as number 0, which systemd 252 takes for an
    /// input/output error.
    pub(crate) fn kill_main(&self, unit: &str) {
        let words = ["kill", "--kill-whom=main", "--signal=KILL", unit];
        self.ok(&[&["systemctl"], &words[..]].concat());
    }

    /// Runs shell text that must succeed.
    pub(crate) fn sh(&self, text: &str) -> String {
        self.ok(&["sh", "-c", text])
    }

    /// Runs `taskdaemon` as a user of the container.
    pub(crate) fn as_user(&self, user: &str, words: &[&str]) -> Output {
        let mut all = vec!["runuser", "-u", user, "--", "taskdaemon"];
        all.extend_from_slice(words);
        self.run(&all)
    }

    /// Runs `taskdaemon` as alice; it must succeed.
    pub(crate) fn alice(&self, words: &[&str]) -> String {
        let mut all = vec!["runuser", "-u", "alice", "--", "taskdaemon"];
        all.extend_from_slice(words);
        self.ok(&all)
    }

    /// Submits a command as alice and returns the id. `options` come before the command.
    pub(crate) fn submit(&self, options: &[&str], script: &str) -> String {
        let mut words = vec!["submit", "--json"];
        words.extend_from_slice(options);
        words.extend_from_slice(&["--", "sh", "-c", script]);
        let task = parse(&self.alice(&words));
        id_of(&task)
    }

    /// The task as `show --json` tells it to root, who sees the tasks of all users.
    pub(crate) fn task(&self, id: &str) -> Value {
        parse(&self.ok(&["taskdaemon", "show", id, "--json"]))
    }

    /// Waits until a task has ended for good.
    pub(crate) fn ended(&self, id: &str, limit: Duration) -> Value {
        wait_until(&format!("task {id} has ended"), limit, || {
            let task = self.task(id);
            let ended = ["succeeded", "failed", "cancelled", "skipped", "expired"];
            ended.contains(&task["state"].as_str()?).then_some(task)
        })
    }

    /// Waits until a task runs.
    pub(crate) fn running(&self, id: &str) -> Value {
        wait_until(&format!("task {id} runs"), Duration::from_secs(10), || {
            let task = self.task(id);
            (task["state"] == "running").then_some(task)
        })
    }

    /// The main process of a unit, by its number inside the container.
    pub(crate) fn main_pid(&self, unit: &str) -> String {
        self.ok(&["systemctl", "show", "--property=MainPID", "--value", unit])
    }

    /// Whether a unit is active.
    pub(crate) fn active(&self, unit: &str) -> bool {
        self.run(&["systemctl", "is-active", "--quiet", unit])
            .status
            .success()
    }

    /// Resident memory of a unit's main process in KiB.
    pub(crate) fn memory_kib(&self, unit: &str) -> u64 {
        let text = self.sh(&format!("grep VmRSS: /proc/{}/status", self.main_pid(unit)));
        text.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .expect("VmRSS")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader != 0 && self.sysv {
            let log = self.run(&["sh", "-c", "tail -n 60 /var/log/taskdaemon/*; ps ax"]);
            eprintln!(
                "--- the log of {}\n{}",
                self.name,
                String::from_utf8_lossy(&log.stdout)
            );
        } else if std::thread::panicking() && self.leader != 0 {
            let journal = self.run(&[
                "journalctl",
                "--no-pager",
                "--lines=60",
                "--output=short-precise",
            ]);
            eprintln!(
                "--- the journal of {}\n{}",
                self.name,
                String::from_utf8_lossy(&journal.stdout)
            );
        }
        if self.leader != 0 {
            if self.sysv {
                end_container(self.leader);
            } else {
                let _asked = self.run(&["systemctl", "poweroff"]);
            }
        }
        let limit = Instant::now() + Duration::from_secs(15);
        while Instant::now() < limit && !matches!(self.nspawn.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Ok(None) = self.nspawn.try_wait() {
            end_container(self.leader);
            let _killed = self.nspawn.kill();
            let _reaped = self.nspawn.wait();
        }
        clear_away(&self.dir);
    }
}

/// The number of a task, as it is written on a command line.
pub(crate) fn id_of(task: &Value) -> String {
    task["id"]
        .as_u64()
        .unwrap_or_else(|| panic!("no id in {task}"))
        .to_string()
}

/// What a command printed, as JSON.
pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}

/// Asks again and again until there is an answer; without one in time the test fails.
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?}, but never: {what}"
        );
        std::thread::sleep(Duration::from_millis(40));
    }
}

fn start_container(name: &str, dir: &Path) -> Child {
    let log = fs::File::create(dir.join("console")).expect("console file");
    let mut command = Command::new("systemd-nspawn");
    command
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .args([
            "--register=no",
            "--quiet",
            "--private-network",
            "--boot",
            "--console=pipe",
        ])
        .arg(format!("--machine={name}"))
        .arg("--directory")
        .arg(dir.join("root"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("console"))
        .stderr(log);
    if host::has_systemd() {
        return command.spawn().expect("systemd-nspawn");
    }
    // Nobody gives the container a cgroup, and two containers in one would be in each other's way.
    let group = host::cgroup_tree().expect("a cgroup v2 tree").join(name);
    fs::create_dir_all(&group).expect("cgroup");
    let mut wrapped = Command::new("sh");
    wrapped
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
        .arg(group.join("cgroup.procs"))
        .arg(command.get_program())
        .arg("--keep-unit")
        .args(command.get_args())
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(
            fs::File::options()
                .append(true)
                .open(dir.join("console"))
                .expect("console"),
        )
        .stderr(Stdio::null());
    wrapped.spawn().expect("systemd-nspawn")
}

/// Ends a container's first process; the kernel ends all others with it.
fn end_container(leader: u32) {
    if let Ok(pid) = i32::try_from(leader)
        && pid > 1
    {
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn clear_away(dir: &Path) {
    let mounted = dir.join("root");
    for _ in 0..20 {
        if Command::new("umount")
            .arg(&mounted)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let still_mounted = fs::read_to_string("/proc/self/mounts")
        .is_ok_and(|mounts| mounts.contains(&*mounted.to_string_lossy()));
    if !still_mounted {
        let _removed = fs::remove_dir_all(dir);
    }
    if let (Some(tree), Some(name)) = (host::cgroup_tree(), dir.file_name()) {
        let group = tree.join(name);
        if group.is_dir() {
            let _removed = Command::new("find")
                .arg(&group)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Clears away what test processes left that were themselves killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(host::beds()) else {
        return;
    };
    for dir in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let owner = name.rsplit('-').next().unwrap_or_default();
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        let leader = fs::read_to_string(dir.join("leader"))
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        // The number may belong to another process by now; a container of ours says so in its cgroup.
        if let Some(leader) = leader
            && fs::read_to_string(format!("/proc/{leader}/cgroup"))
                .is_ok_and(|text| text.contains(&name))
        {
            end_container(leader);
        }
        clear_away(&dir);
    }
}
