//! A virtual machine with the package on it: made for one test, gone after it, also when the test panics.
//!
//! It is emulated, because a machine that tests are run on may itself be a virtual one. So nothing here is fast, and no
//! test may depend on that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::{Agent, Done};

/// Longest time from power on to a system that is up.
const BOOT: Duration = Duration::from_secs(300);
/// Longest time of one step inside, where nothing else is said.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// What the kernel is told: to be quick where being emulated makes it slow, and to start again after a panic.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 systemd.show_status=0 mitigations=off audit=0 apparmor=0 nowatchdog \
                      cryptomgr.notests";

/// A machine with users `alice` (may submit) and `mallory` (may not).
pub(crate) struct Machine {
    name: String,
    base: PathBuf,
    dir: PathBuf,
    qemu: Child,
    agent: Agent,
}

impl Machine {
    /// Boots a machine and installs the package on it.
    pub(crate) fn boot(release: &str) -> Self {
        sweep();
        // Short, because sockets are in it.
        let name = format!("{release}-{}", std::process::id());
        let base = base(release);
        let dir = machines().join(&name);
        fs::create_dir_all(&dir).expect("a directory for the machine");
        must(
            Command::new("cp")
                .arg("--sparse=always")
                .arg(base.join("disk"))
                .arg(dir.join("disk")),
        );
        install(&package(), &dir);
        let qemu = power_on(&base, &dir);
        let agent = Agent::new(&dir.join("agent"));
        let mut machine = Self {
            name,
            base,
            dir,
            qemu,
            agent,
        };
        machine.up();
        machine
    }

    /// Waits until the system is up.
    pub(crate) fn up(&mut self) {
        let start = Instant::now();
        let ended = self.qemu.try_wait().expect("wait");
        assert!(ended.is_none(), "the emulator ended: {ended:?}");
        self.agent.meet(BOOT);
        let state = self.run(&["systemctl", "is-system-running", "--wait"]);
        assert_eq!(state.out, "running", "{state:?}");
        println!("{}: up after {:?}", self.name, start.elapsed());
    }

    /// Takes the power away in the middle of whatever it does. What was not on its disk is gone.
    pub(crate) fn cut_power(&mut self) {
        self.qemu.kill().expect("kill the emulator");
        self.qemu.wait().expect("the emulator ends");
    }

    /// Boots again from the disk as it is.
    pub(crate) fn power_on(&mut self) {
        self.qemu = power_on(&self.base, &self.dir);
        self.up();
    }

    /// Boots again by its own means, and waits until it is up.
    pub(crate) fn reboot(&mut self) {
        let before = self.boot_id();
        // It may be gone before it has told that it goes.
        let _told = self.agent.run(&["systemctl", "reboot", "--no-block"]);
        wait_until("another boot answers", BOOT, || {
            self.agent.meet(BOOT);
            let now = self.boot_id();
            (!now.is_empty() && now != before).then_some(())
        });
        self.up();
    }

    pub(crate) fn boot_id(&mut self) -> String {
        let read = self.agent.run(&["cat", "/proc/sys/kernel/random/boot_id"]);
        // In the middle of a shutdown there is no answer.
        read.map(|done| done.out).unwrap_or_default()
    }

    /// The other end of a port of the machine, `/dev/vport*p2` inside.
    pub(crate) fn marks(&self) -> PathBuf {
        self.dir.join("marks")
    }

    /// Runs a command in the machine as root.
    pub(crate) fn run(&mut self, words: &[&str]) -> Done {
        let done = self.agent.run(words);
        done.unwrap_or_else(|| panic!("the machine ended under {words:?}"))
    }

    /// Runs a command that must succeed and returns what it printed.
    pub(crate) fn ok(&mut self, words: &[&str]) -> String {
        let done = self.run(words);
        let (out, err) = (&done.out, &done.err);
        assert_eq!(done.code, 0, "{words:?}: {out}\n{err}");
        done.out
    }

    /// Runs shell text that must succeed.
    pub(crate) fn sh(&mut self, text: &str) -> String {
        self.ok(&["sh", "-ec", text])
    }

    /// Runs `taskdaemon` as alice; it must succeed.
    pub(crate) fn alice(&mut self, words: &[&str]) -> String {
        let mut all = vec!["runuser", "-u", "alice", "--", "taskdaemon"];
        all.extend_from_slice(words);
        self.ok(&all)
    }

    /// Submits a command as alice and returns the id. `options` come before the command.
    pub(crate) fn submit(&mut self, options: &[&str], script: &str) -> String {
        let mut words = vec!["submit"];
        words.extend_from_slice(options);
        words.extend_from_slice(&["--", "sh", "-c", script]);
        self.alice(&words)
    }

    /// The task as `show --json` tells it to root, who sees the tasks of all users. A daemon that has just been started
    /// may take longer here than a client waits.
    pub(crate) fn task(&mut self, id: &str) -> Value {
        let text = wait_until(&format!("task {id} is shown"), STEP, || {
            let shown = self.run(&["taskdaemon", "show", id, "--json"]);
            assert!(matches!(shown.code, 0 | 69), "{shown:?}");
            (shown.code == 0).then_some(shown.out)
        });
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
    }

    /// Waits until a task has ended for good, asking as a client would that has nothing else to do.
    pub(crate) fn ended(&mut self, id: &str) -> Value {
        wait_until(&format!("task {id} has ended"), STEP * 2, || {
            let task = self.task(id);
            let ended = ["succeeded", "failed", "cancelled", "skipped", "expired"];
            ended.contains(&task["state"].as_str()?).then_some(task)
        })
    }

    /// Waits until a task is in a state.
    pub(crate) fn until(&mut self, id: &str, state: &str) -> Value {
        wait_until(&format!("task {id} is {state}"), STEP, || {
            let task = self.task(id);
            (task["state"] == state).then_some(task)
        })
    }

    /// The main process of a unit.
    pub(crate) fn main_pid(&mut self, unit: &str) -> String {
        self.ok(&["systemctl", "show", "--property=MainPID", "--value", unit])
    }
}

impl Machine {
    /// Prints what the machine has to say of a check that failed.
    pub(crate) fn tell(&mut self) {
        let console = fs::read_to_string(self.dir.join("console")).unwrap_or_default();
        let mut end: Vec<&str> = console.lines().rev().take(30).collect();
        end.reverse();
        eprintln!("--- the console of {}\n{}", self.name, end.join("\n"));
        if matches!(self.qemu.try_wait(), Ok(None)) {
            let journal = [
                "journalctl",
                "--no-pager",
                "--lines=80",
                "--output=short-precise",
            ];
            let journal = self.agent.run(&journal).map(|done| done.out);
            eprintln!("--- its journal\n{}", journal.unwrap_or_default());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _killed = self.qemu.kill();
        let _reaped = self.qemu.wait();
        let _removed = fs::remove_dir_all(&self.dir);
    }
}

/// Starts the emulator; it ends with this test, however that ends.
///
/// The disk has no cache beside the machine's own: what the machine was told is written has left this process.
fn power_on(base: &Path, dir: &Path) -> Child {
    for socket in ["agent", "marks"] {
        let _left = fs::remove_file(dir.join(socket));
    }
    let port = |name: &str| {
        format!(
            "socket,id={name},server=on,wait=off,path={}",
            dir.join(name).display()
        )
    };
    let pid = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        // The plain processor of the architecture: emulating more costs time, and some of it breaks kernels.
        .args(["-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", "1G"])
        .arg("-kernel")
        .arg(base.join("vmlinuz"))
        .arg("-initrd")
        .arg(base.join("initrd"))
        .args(["-append", KERNEL])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=virtio,cache=directsync",
            dir.join("disk").display()
        ))
        .arg("-serial")
        .arg(format!("file:{}", dir.join("console").display()))
        .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
        .arg("-chardev")
        .arg(port("agent"))
        .args([
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ])
        .arg("-chardev")
        .arg(port("marks"))
        .args(["-device", "virtserialport,chardev=marks,name=marks"])
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64");
    fs::write(dir.join("pid"), pid.id().to_string()).expect("pid file");
    pid
}

/// Installs the package on the disk, as root and into the groups that tests want, before anything boots from it: an
/// emulated processor takes a minute for the scripts of a package.
fn install(package: &Path, dir: &Path) {
    let root = dir.join("root");
    fs::create_dir_all(&root).expect("a place to mount");
    fs::copy(package, dir.join("package.deb")).expect("the package");
    // Its own mounts, so that they end with it.
    must(
        Command::new("unshare")
            .args(["--mount", "sh", "-ec", INSTALL])
            .current_dir(dir),
    );
}

/// What makes a disk without the package one with it, in the machine's directory.
const INSTALL: &str = "mount -o loop disk root; cp package.deb root/; \
                       chroot root dpkg -i /package.deb; \
                       chroot root useradd --create-home --groups taskdaemon alice; \
                       chroot root useradd --create-home mallory; \
                       rm root/package.deb; umount root";

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
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a program of this machine and returns what it printed; anything but success ends the test.
fn must(command: &mut Command) -> String {
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

/// Where the kernel, its initrd and the disk of a release are; made on first use.
fn base(release: &str) -> PathBuf {
    let printed = must(Command::new(checkout().join("tests/vm/base")).arg(release));
    PathBuf::from(printed.lines().last().expect("base prints a path"))
}

/// The package under test: what `tests/run` has built, else built now.
fn package() -> PathBuf {
    if let Some(path) = std::env::var_os("SYSTEM_TEST_DEB") {
        return PathBuf::from(path);
    }
    let printed = must(&mut Command::new(checkout().join("deb/build")));
    PathBuf::from(printed.lines().last().expect("deb/build prints a path"))
}

/// The directory of all machines, beside what they are made from.
fn machines() -> PathBuf {
    std::env::var_os("SYSTEM_TEST_CACHE")
        .map_or_else(
            || PathBuf::from("/var/cache/taskdaemon-test"),
            PathBuf::from,
        )
        .join("machines")
}

/// Clears away what test processes left that were themselves killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(machines()) else {
        return;
    };
    for dir in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.rsplit('-').next().unwrap_or_default();
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        let pid = fs::read_to_string(dir.join("pid"))
            .ok()
            .and_then(|text| text.parse::<i32>().ok());
        // The number may belong to another process by now; an emulator of ours names its disk.
        if let Some(pid) = pid
            && fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|text| text.contains(&*dir.to_string_lossy()))
        {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _removed = fs::remove_dir_all(&dir);
    }
}
