//! The runner as a process of its own: real children, real sockets, both with
//! cgroups (where this machine allows them) and without. Nothing sleeps to
//! wait; every wait is for an event, with a deadline.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use taskdaemon::model::attempt::{AttemptKey, Ended, Exit, Launch, Limits, Started};
use taskdaemon::model::capture::{Decoder, Record, Stream};
use taskdaemon::model::id::TaskId;
use taskdaemon::runner::client::{Connection, Receiver, Sender};
use taskdaemon::runner::protocol::{FromRunner, Hello, RunnerHello, ToRunner};
use taskdaemon::runner::{CgroupMode, Options, Users};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

fn deadline() -> PollTimeout {
    PollTimeout::try_from(DEADLINE).unwrap()
}

pub(crate) fn root() -> bool {
    nix::unistd::getuid().is_root()
}

pub(crate) fn key(task: i64) -> AttemptKey {
    AttemptKey {
        task: TaskId(task),
        number: 1,
    }
}

pub(crate) fn launch(task: i64, argv: &[&str]) -> Launch {
    Launch {
        key: key(task),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: Some("/".to_owned()),
        user: None,
        asked_by: nix::unistd::getuid().as_raw(),
        umask: 0o027,
        limits: Limits::default(),
        output_cap: 1024 * 1024,
        stdin: false,
        own: false,
        after_commit: false,
    }
}

pub(crate) fn shell(task: i64, script: &str) -> Launch {
    launch(task, &["/bin/sh", "-c", script])
}

/// Own user, no cgroups, short times.
pub(crate) fn options() -> Options {
    Options {
        users: Users::Own,
        cgroup: CgroupMode::Off,
        grace: Duration::from_millis(300),
        ..Options::default()
    }
}

/// Directory of the cgroup v2 group these tests run in.
fn own_group() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(|mount| Path::new(mount).join(own))
        .find(|group| group.join("cgroup.procs").exists())
}

/// A cgroup of a test's own, gone with it.
pub(crate) struct TestGroup(pub(crate) PathBuf);

impl TestGroup {
    pub(crate) fn new() -> Option<Self> {
        let name = tempfile::Builder::new().prefix("td-test-").tempdir().ok()?;
        let group = own_group()?.join(name.path().file_name()?);
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        group.0.join("cgroup.kill").exists().then_some(group)
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            fs::remove_dir(entry.path()).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

/// Whether this machine lets tests make cgroups.
pub(crate) fn cgroups() -> bool {
    TestGroup::new().is_some()
}

/// The ways a runner can work here.
pub(crate) fn modes() -> Vec<CgroupMode> {
    let mut modes = vec![CgroupMode::Off];
    if cgroups() {
        modes.push(CgroupMode::Require);
    }
    modes
}

/// A runner that was started inetd-style on a listening socket.
pub(crate) struct Running {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn start(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("runner.sock")).unwrap();
        let child = start(options, listener.into());
        Self { dir, child }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("runner.sock")
    }

    /// Connects and introduces itself.
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::meet(Connection::connect(&self.path()).unwrap())
    }

    pub(crate) fn capture(&self, task: i64) -> PathBuf {
        self.dir.path().join(format!("{task}.cap"))
    }

    /// What a task wrote: bytes of both streams as they came, and dropped.
    pub(crate) fn output(&self, task: i64) -> Output {
        Output::read(&self.capture(task))
    }

    pub(crate) fn launch(&self, daemon: &mut Daemon, launch: Launch) {
        self.launch_with(daemon, launch, None);
    }

    pub(crate) fn launch_with(&self, daemon: &mut Daemon, launch: Launch, stdin: Option<File>) {
        let file = File::create(self.capture(launch.key.task.0)).unwrap();
        let mut fds = vec![file.as_fd()];
        fds.extend(stdin.as_ref().map(AsFd::as_fd));
        daemon.sender.send(&ToRunner::Launch(launch), &fds).unwrap();
    }

    /// Launches and waits for the end.
    pub(crate) fn run(&self, daemon: &mut Daemon, launch: Launch) -> Ended {
        let key = launch.key;
        self.launch(daemon, launch);
        let ended = daemon.ended(key).1;
        daemon.send(&ToRunner::Ack { key });
        ended
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How many descriptors the runner has open; nobody but root may look.
    pub(crate) fn open_files(&self) -> Option<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?;
        Some(open.count())
    }

    /// Waits until no more than so many are open: they are closed after the end is told.
    fn until_open(&self, most: usize) {
        let begun = taskdaemon::clock::instant();
        while let Some(count) = self.open_files().filter(|count| *count > most) {
            assert!(begun.elapsed() < DEADLINE, "{count} descriptors stay open");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Waits for the runner itself to end.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        wait_gone(self.pid());
        let status = nix::sys::wait::waitpid(self.pid(), None).unwrap();
        match status {
            nix::sys::wait::WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(self.pid(), Signal::SIGTERM).ok();
            kill(self.pid(), Signal::SIGTERM).ok();
            if !gone(self.pid()) {
                self.child.kill().ok();
            }
            self.child.wait().ok();
        }
    }
}

pub(crate) fn start(options: &Options, input: OwnedFd) -> Child {
    Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args([
            "runner",
            "--options",
            &serde_json::to_string(options).unwrap(),
        ])
        .env("SECRET_OF_THE_RUNNER", "must not be seen")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::from(input))
        .spawn()
        .unwrap()
}

/// The daemon's end, with deadlines.
pub(crate) struct Daemon {
    sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) hello: RunnerHello,
}

impl Daemon {
    pub(crate) fn meet(connection: Connection) -> Self {
        Self::meet_as(connection, &Hello::ours())
    }

    /// The same as somebody else.
    pub(crate) fn meet_as(connection: Connection, own: &Hello) -> Self {
        let (mut sender, mut receiver) = connection.split().unwrap();
        receiver.stream().set_read_timeout(Some(DEADLINE)).unwrap();
        sender.send(&ToRunner::Hello(own.clone()), &[]).unwrap();
        let hello = match receiver.recv().unwrap().unwrap() {
            FromRunner::Hello(hello) => hello,
            other => panic!("{other:?} before hello"),
        };
        sender.know(&hello.hello);
        Self {
            sender,
            receiver,
            hello,
        }
    }

    pub(crate) fn send(&mut self, message: &ToRunner) {
        self.sender.send(message, &[]).unwrap();
    }

    pub(crate) fn send_with(&mut self, message: &ToRunner, fds: &[BorrowedFd<'_>]) {
        self.sender.send(message, fds).unwrap();
    }

    pub(crate) fn recv(&mut self) -> FromRunner {
        self.receiver.recv().unwrap().expect("the runner hung up")
    }

    pub(crate) fn ended(&mut self, wanted: AttemptKey) -> (Option<Started>, Ended) {
        loop {
            if let FromRunner::Ended {
                key,
                started,
                ended,
            } = self.recv()
                && key == wanted
            {
                return (started, ended);
            }
        }
    }

    pub(crate) fn started(&mut self, wanted: AttemptKey) -> Started {
        loop {
            match self.recv() {
                FromRunner::Started { key, started } if key == wanted => return started,
                FromRunner::Ended { key, ended, .. } if key == wanted => panic!("{ended:?}"),
                _ => {}
            }
        }
    }

    /// Waits for the runner to close the connection.
    pub(crate) fn hung_up(&mut self) {
        while let Ok(Some(_)) = self.receiver.recv() {}
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
    all: Vec<u8>,
    dropped: u64,
    over: bool,
}

impl Output {
    fn read(path: &Path) -> Self {
        let mut decoder = Decoder::new();
        decoder.push(&fs::read(path).unwrap());
        let mut output = Self::default();
        while let Some(record) = decoder.next_record().unwrap() {
            match record {
                Record::Data { stream, bytes, .. } => {
                    output.all.extend_from_slice(bytes);
                    match stream {
                        Stream::Out => output.out.extend_from_slice(bytes),
                        Stream::Err => output.err.extend_from_slice(bytes),
                    }
                }
                Record::Gap { dropped, .. } => output.dropped += dropped,
                Record::End { .. } => output.over = true,
            }
        }
        assert_eq!(decoder.pending(), 0);
        output
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// A named pipe by which a task says that it got somewhere.
pub(crate) struct Gate {
    path: PathBuf,
    pub(crate) file: File,
}

impl Gate {
    pub(crate) fn new(running: &Running, name: &str) -> Self {
        let path = running.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self { path, file }
    }

    /// Waits for a line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            assert_ne!(
                poll(&mut fds, deadline()).unwrap(),
                0,
                "nobody came to the gate"
            );
            let mut byte = [0];
            self.file.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim().to_owned()
    }

    pub(crate) fn pid(&mut self) -> Pid {
        Pid::from_raw(self.line().parse().unwrap())
    }

    pub(crate) fn show(&self) -> String {
        self.path.display().to_string()
    }
}

/// Waits until a process is no more (or a zombie); false after the deadline.
pub(crate) fn gone(pid: Pid) -> bool {
    let raw = unsafe_pidfd(pid);
    let Some(fd) = raw else { return true };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, deadline()).unwrap() == 1
}

fn wait_gone(pid: Pid) {
    assert!(gone(pid), "process {pid} is still there");
}

#[expect(unsafe_code, reason = "no safe wrapper for pidfd_open in nix")]
fn unsafe_pidfd(pid: Pid) -> Option<OwnedFd> {
    // SAFETY: takes two numbers, returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn code(ended: &Ended) -> i32 {
    match ended.exit {
        Exit::Code { code } => code,
        ref other => panic!("{other:?}"),
    }
}

pub(crate) fn spawn_error(ended: &Ended) -> String {
    match &ended.exit {
        Exit::Spawn { error, .. } => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runner_that_stays_its_own_user_serves_no_other() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut others = launch(1, &["true"]);
    others.asked_by = 54_321;
    let error = spawn_error(&running.run(&mut daemon, others));
    assert!(error.contains("uid 54321 may not"), "{error}");
}

#[test]
fn exit_codes_and_signals_come_back() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        assert_eq!(daemon.hello.abilities.cgroup, cgroup == CgroupMode::Require);
        assert_eq!(code(&running.run(&mut daemon, launch(1, &["true"]))), 0);
        assert_eq!(code(&running.run(&mut daemon, shell(2, "exit 7"))), 7);
        assert_eq!(code(&running.run(&mut daemon, shell(3, "exit 255"))), 255);
        for (task, signal) in [(4, 9), (5, 15), (6, 34)] {
            let ended = running.run(&mut daemon, shell(task, &format!("kill -{signal} $$")));
            assert_eq!(ended.exit, Exit::Signal { signal });
            assert!(!ended.oom && !ended.interrupted);
        }
    }
}

#[test]
fn what_cannot_run_is_explained() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let dir = running.dir.path();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).unwrap();
        path.display().to_string()
    };
    let script = file("bad-shebang", "#!/no/such/interpreter\n", 0o755);
    let plain = file("plain", "hello", 0o644);
    let text = file("text", "hello", 0o755);
    let directory = dir.display().to_string();
    let rows: [(&[&str], &str); 8] = [
        (
            &["/no/such/program"],
            "could not run /no/such/program as user ",
        ),
        (&["/no/such/program"], "exec: No such file or directory"),
        (&["no-such-program"], "no program of that name in its PATH"),
        (&[&directory], "exec: Permission denied"),
        (&[&plain], "exec: Permission denied"),
        (&[&text], "exec: Exec format error"),
        (&[&script], "interpreter"),
        (&[], "names no program"),
    ];
    for (task, (argv, part)) in (1..).zip(rows) {
        let error = spawn_error(&running.run(&mut daemon, launch(task, argv)));
        assert!(error.contains(part), "{error}");
    }
    let mut lost = launch(20, &["true"]);
    lost.cwd = Some("/nowhere".to_owned());
    let error = spawn_error(&running.run(&mut daemon, lost));
    assert!(
        error.ends_with("chdir to /nowhere: No such file or directory"),
        "{error}"
    );
    let mut other = launch(21, &["true"]);
    other.user = Some("somebody-else".to_owned());
    let error = spawn_error(&running.run(&mut daemon, other));
    assert!(
        error.contains("cannot run tasks as somebody-else"),
        "{error}"
    );
    let nul = launch(22, &["echo", "a\0b"]);
    let error = spawn_error(&running.run(&mut daemon, nul));
    assert!(error.contains("NUL byte"), "{error}");
    // The one after all of these runs.
    assert_eq!(code(&running.run(&mut daemon, launch(23, &["true"]))), 0);
}

#[test]
fn limits_that_nobody_would_hold_are_refused() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let limits = [
        Limits {
            memory: Some(1 << 20),
            ..Limits::default()
        },
        Limits {
            cpu_milli: Some(500),
            ..Limits::default()
        },
        Limits {
            pids: Some(5),
            ..Limits::default()
        },
    ];
    for (task, limits) in (1..).zip(limits) {
        let mut launch = launch(task, &["true"]);
        launch.limits = limits;
        let error = spawn_error(&running.run(&mut daemon, launch));
        assert!(error.contains("limit is asked for"), "{error}");
    }
}

#[test]
fn standard_input_is_the_tasks_own_or_nothing() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut reader = launch(1, &["cat"]);
    reader.stdin = true;
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(b"for the task\n").unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    running.launch_with(&mut daemon, reader, Some(input));
    assert_eq!(code(&daemon.ended(key(1)).1), 0);
    assert_eq!(running.output(1).out, b"for the task\n");
    assert_eq!(code(&running.run(&mut daemon, launch(2, &["cat"]))), 0);
    assert_eq!(
        running.output(2),
        Output {
            over: true,
            ..Output::default()
        }
    );
}

#[test]
fn output_is_kept_exactly_and_in_order() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    // Each write waits until the one before was read, so order is decided.
    let script = format!(
        "printf 'a\\000\\377\\033[2J'; sync() {{ echo > {0}; read x < {0}.back; }}; sync; printf b >&2; sync; printf c",
        gate.show()
    );
    let mut back = Gate::new(&running, "gate.back");
    running.launch(&mut daemon, shell(1, &script));
    let mut seen = 0;
    for expected in [7, 8] {
        gate.line();
        // Wait for the bytes in the file: no event for that but the file.
        while seen < expected {
            seen = Output::read_some(&running.capture(1));
        }
        back.file.write_all(b"\n").unwrap();
    }
    let ended = daemon.ended(key(1)).1;
    assert_eq!(code(&ended), 0);
    let output = running.output(1);
    assert_eq!(output.all, b"a\0\xff\x1b[2Jbc");
    assert_eq!(output.err, b"b");
    assert_eq!(
        (ended.usage.output_kept, ended.usage.output_dropped),
        (9, 0)
    );
    assert!(output.over);
    back.file.flush().unwrap();
}

impl Output {
    /// Bytes of data in a file that still grows.
    fn read_some(path: &Path) -> usize {
        let mut decoder = Decoder::new();
        decoder.push(&fs::read(path).unwrap());
        let mut seen = 0;
        while let Some(record) = decoder.next_record().unwrap() {
            if let Record::Data { bytes, .. } = record {
                seen += bytes.len();
            }
        }
        seen
    }
}

#[test]
fn a_flood_is_capped_with_head_tail_and_gap() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut flood = shell(1, "printf head; head -c 50000000 /dev/zero; printf tail");
        flood.output_cap = 100_000;
        let ended = running.run(&mut daemon, flood);
        assert_eq!(code(&ended), 0);
        let output = running.output(1);
        assert_eq!(ended.usage.output_kept, 100_000 + 65_536);
        assert_eq!(ended.usage.output_dropped, 50_000_008 - 165_536);
        assert_eq!(output.dropped, ended.usage.output_dropped);
        assert!(output.out.starts_with(b"head") && output.out.ends_with(b"tail"));
        let memory = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        let peak: u64 = memory
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmHWM:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .unwrap();
        assert!(peak < 64 * 1024, "{peak} kB");
    }
}

#[test]
fn a_task_may_close_its_output_and_go_on() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    let script = format!(
        "echo said; exec >&- 2>&-; echo on > {}; exit 4",
        gate.show()
    );
    running.launch(&mut daemon, shell(1, &script));
    assert_eq!(gate.line(), "on");
    assert_eq!(code(&daemon.ended(key(1)).1), 4);
    assert_eq!(running.output(1).text(), "said\n");
}

#[test]
fn what_a_task_leaves_behind_ends_with_it() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut gate = Gate::new(&running, "gate");
        let mut go = Gate::new(&running, "go");
        // Holds the pipes, in a session of its own, orphaned.
        let script = format!(
            "setsid sh -c 'sh -c \"echo \\$\\$ > {0}; exec sleep 300\" & exit'; read x < {1}; exit 3",
            gate.show(),
            go.show(),
        );
        running.launch(&mut daemon, shell(1, &script));
        let left = gate.pid();
        go.file.write_all(b"\n").unwrap();
        assert_eq!(code(&daemon.ended(key(1)).1), 3);
        wait_gone(left);
    }
}

#[test]
fn a_kill_reaches_every_process() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut gate = Gate::new(&running, "gate");
        let script = format!(
            "trap '' TERM; setsid sh -c \"trap '' TERM; echo \\$\\$ > {0}; sleep 300; sleep 300\" & echo $$ > {0}; wait; wait",
            gate.show()
        );
        running.launch(&mut daemon, shell(1, &script));
        let pids = [gate.pid(), gate.pid()];
        // One beside it that must not notice.
        let mut other = Gate::new(&running, "other");
        running.launch(
            &mut daemon,
            shell(2, &format!("echo $$ > {}; sleep 300", other.show())),
        );
        let neighbour = other.pid();
        daemon.send(&ToRunner::Signal {
            key: key(1),
            signal: 15,
        });
        daemon.send(&ToRunner::Kill { key: key(1) });
        assert_eq!(daemon.ended(key(1)).1.exit, Exit::Signal { signal: 9 });
        for pid in pids {
            wait_gone(pid);
        }
        assert!(kill(neighbour, None).is_ok());
        daemon.send(&ToRunner::Signal {
            key: key(2),
            signal: 15,
        });
        assert_eq!(daemon.ended(key(2)).1.exit, Exit::Signal { signal: 15 });
    }
}

#[test]
fn a_task_sees_three_descriptors_and_an_allow_list() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        // `ls` itself opens one more.
        let ended = running.run(
            &mut daemon,
            shell(1, "ls -l /proc/self/fd | wc -l; ls /proc/self/fd"),
        );
        assert_eq!(code(&ended), 0);
        assert_eq!(running.output(1).text().replace('\n', " "), "5 0 1 2 3 ");
        let mut asked = launch(2, &["env"]);
        asked.env = vec![("A".to_owned(), "b c\nd".to_owned())];
        assert_eq!(code(&running.run(&mut daemon, asked)), 0);
        let text = running.output(2).text();
        assert!(!text.contains("SECRET"), "{text}");
        assert!(text.contains("A=b c\nd\n"), "{text}");
        assert!(
            text.contains("TASKDAEMON_TASK_ID=2\nTASKDAEMON_ATTEMPT=1\n"),
            "{text}"
        );
        let names: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        for name in names {
            let known = [
                "PATH",
                "HOME",
                "USER",
                "LOGNAME",
                "SHELL",
                "LANG",
                "A",
                "d",
                "TASKDAEMON_TASK_ID",
                "TASKDAEMON_ATTEMPT",
                "NOTIFY_SOCKET",
                "TASKDAEMON_MARK",
            ];
            assert!(known.contains(&name), "{name}");
        }
        let script = "umask; grep -E 'NoNewPrivs|SigBlk|SigIgn' /proc/self/status; ulimit -Sn";
        assert_eq!(code(&running.run(&mut daemon, shell(3, script))), 0);
        let text = running.output(3).text();
        let soft = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .unwrap()
            .0;
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            [
                "0027",
                "SigBlk:",
                "0000000000000000",
                "SigIgn:",
                "0000000000000000",
                "NoNewPrivs:",
                "1",
                &soft.to_string()
            ],
        );
    }
}

#[test]
fn reports_wait_for_the_daemon_and_come_until_acknowledged() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    running.launch(
        &mut daemon,
        shell(1, &format!("read x < {}; exit 5", gate.show())),
    );
    let started = daemon.started(key(1));
    // A last word before the daemon dies: it counts.
    running.launch(&mut daemon, shell(2, "exit 6"));
    let instance = daemon.hello.instance.clone();
    drop(daemon);
    gate.file.write_all(b"go\n").unwrap();
    wait_gone(Pid::from_raw(started.pid.cast_signed()));
    for _ in 0..3 {
        let mut daemon = running.daemon();
        assert_eq!(daemon.hello.instance, instance);
        assert_eq!(daemon.hello.held, [key(1), key(2)]);
        assert_eq!(code(&daemon.ended(key(1)).1), 5);
        assert_eq!(code(&daemon.ended(key(2)).1), 6);
    }
    let mut daemon = running.daemon();
    daemon.send(&ToRunner::Ack { key: key(1) });
    daemon.send(&ToRunner::Ack { key: key(1) });
    daemon.send(&ToRunner::Ack { key: key(77) });
    let daemon = running.daemon();
    assert_eq!(daemon.hello.held, [key(2)]);
}

#[test]
fn a_start_is_told_for_itself_or_by_the_end_and_never_after_it() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    let script = format!("read x < {}", gate.show());
    running.launch(&mut daemon, shell(1, &script));
    // Nothing else happens, and it is told.
    let alone = daemon.started(key(1));
    for task in 2..=100 {
        running.launch(&mut daemon, launch(task, &["true"]));
    }
    let mut over = Vec::new();
    while over.len() < 99 {
        match daemon.recv() {
            FromRunner::Started { key, .. } => assert!(!over.contains(&key), "{key:?}"),
            FromRunner::Ended { key, started, .. } => {
                assert!(started.is_some(), "{key:?} began");
                over.push(key);
            }
            other => panic!("{other:?}"),
        }
    }
    gate.file.write_all(b"\n").unwrap();
    assert_eq!(daemon.ended(key(1)).0, Some(alone));
}

#[test]
fn a_newer_connection_replaces_the_older_after_its_last_words() {
    let running = Running::start(&options());
    let mut old = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    for task in 1..=20 {
        running.launch(&mut old, shell(task, &format!("read x < {}", gate.show())));
    }
    let new = running.daemon();
    assert_eq!(new.hello.held, (1..=20).map(key).collect::<Vec<_>>());
    old.hung_up();
    gate.file.write_all(&[b'\n'; 20]).unwrap();
    let mut new = new;
    for task in 1..=20 {
        new.send(&ToRunner::Kill { key: key(task) });
    }
    let mut left: Vec<_> = (1..=20).map(key).collect();
    while !left.is_empty() {
        if let FromRunner::Ended { key, .. } = new.recv() {
            left.retain(|other| *other != key);
        }
    }
}

#[test]
fn a_second_launch_of_the_same_attempt_changes_nothing() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    let script = format!("echo once; echo up > {0}; read x < {0}.go", gate.show());
    let mut go = Gate::new(&running, "gate.go");
    running.launch(&mut daemon, shell(1, &script));
    assert_eq!(gate.line(), "up");
    let path = running.dir.path().join("second");
    let file = File::create(&path).unwrap();
    let again = ToRunner::Launch(shell(1, &script));
    daemon.sender.send(&again, &[file.as_fd()]).unwrap();
    go.file.write_all(b"\n").unwrap();
    assert_eq!(code(&daemon.ended(key(1)).1), 0);
    // Also once it is over.
    daemon.sender.send(&again, &[file.as_fd()]).unwrap();
    daemon.send(&ToRunner::Ack { key: key(1) });
    assert_eq!(code(&running.run(&mut daemon, launch(2, &["true"]))), 0);
    assert_eq!(running.output(1).text(), "once\n");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn bad_frames_end_the_connection_and_nothing_else() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    running.launch(
        &mut daemon,
        shell(1, &format!("echo $$ > {}; sleep 300", gate.show())),
    );
    let task = gate.pid();
    let hello = serde_json::to_vec(&ToRunner::Hello(Hello::ours())).unwrap();
    let stranger = br#"{"say":"hello","min":900,"max":901,"version":"9","pid":1}"#.to_vec();
    let early = br#"{"say":"renew"}"#.to_vec();
    let framed = |body: &[u8]| {
        let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    };
    let bad = [
        framed(b"not json"),
        framed(b""),
        framed(br#"{"say":"dance"}"#),
        framed(&stranger),
        framed(&early),
        u32::MAX.to_le_bytes().to_vec(),
        [framed(&hello), framed(b"[]")].concat(),
    ];
    for bytes in bad {
        let mut stream = UnixStream::connect(running.path()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
    }
    // In pieces, and cut off.
    let mut stream = UnixStream::connect(running.path()).unwrap();
    for byte in framed(&hello) {
        stream.write_all(&[byte]).unwrap();
    }
    stream.write_all(&framed(&early)[..9]).unwrap();
    drop(stream);
    assert!(kill(task, None).is_ok());
    let mut daemon = running.daemon();
    daemon.send(&ToRunner::Kill { key: key(1) });
    daemon.ended(key(1));
}

#[test]
fn a_runner_with_nothing_to_do_goes() {
    let running = Running::start(&Options {
        idle: Duration::from_millis(50),
        ..options()
    });
    let mut daemon = running.daemon();
    assert_eq!(code(&running.run(&mut daemon, launch(1, &["true"]))), 0);
    drop(daemon);
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn told_to_stop_it_interrupts_reports_and_goes() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut gate = Gate::new(&running, "gate");
        let deaf = format!(
            "trap '' TERM; echo up > {}; while :; do sleep 1; done",
            gate.show()
        );
        running.launch(&mut daemon, shell(1, &deaf));
        gate.line();
        let polite = format!(
            "trap 'exit 9' TERM; echo up > {}; while :; do sleep 300 & wait; done",
            gate.show()
        );
        running.launch(&mut daemon, shell(2, &polite));
        gate.line();
        kill(running.pid(), Signal::SIGTERM).unwrap();
        // Said before any end that follows from it, or it would be started again here.
        loop {
            match daemon.recv() {
                FromRunner::Leaving => break,
                FromRunner::Ended { key, .. } => panic!("{key:?} ended first"),
                _ => {}
            }
        }
        let first = daemon.ended(key(2)).1;
        assert_eq!((code(&first), first.interrupted), (9, true));
        running.launch(&mut daemon, launch(3, &["true"]));
        let refused = daemon.ended(key(3)).1;
        assert!(refused.interrupted && spawn_error(&refused).contains("stopping"));
        let second = daemon.ended(key(1)).1;
        assert_eq!(
            (second.exit, second.interrupted),
            (Exit::Signal { signal: 9 }, true)
        );
        for task in 1..=3 {
            daemon.send(&ToRunner::Ack { key: key(task) });
        }
        assert_eq!(running.exit_code(), Some(0));
    }
}

#[test]
fn renewal_keeps_children_output_and_reports() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut gate = Gate::new(&running, "gate");
        let mut go = Gate::new(&running, "go");
        let script = format!(
            "head -c 200000 /dev/zero; echo before; echo up > {}; read x < {}; echo after; exit 7",
            gate.show(),
            go.show()
        );
        let mut slow = shell(1, &script);
        slow.output_cap = 1000;
        running.launch(&mut daemon, slow);
        gate.line();
        running.launch(&mut daemon, shell(2, "exit 3"));
        assert_eq!(code(&daemon.ended(key(2)).1), 3);
        let before = daemon.hello.clone();
        for _ in 0..3 {
            daemon.send(&ToRunner::Renew);
            daemon.hung_up();
            daemon = running.daemon();
            assert_eq!(daemon.hello.instance, before.instance);
            assert_eq!(daemon.hello.hello.pid, before.hello.pid);
            assert_eq!(daemon.hello.abilities, before.abilities);
            assert_eq!(daemon.hello.held.len(), 2);
            // Live first, then what nobody acknowledged.
            daemon.started(key(1));
            assert_eq!(code(&daemon.ended(key(2)).1), 3);
        }
        // A new one starts as well as the old one did.
        assert_eq!(
            code(&running.run(&mut daemon, shell(3, "ls /proc/self/fd | wc -l"))),
            0
        );
        assert_eq!(running.output(3).text(), "4\n");
        go.file.write_all(b"\n").unwrap();
        let ended = daemon.ended(key(1)).1;
        assert_eq!(code(&ended), 7);
        let text = running.output(1);
        assert!(text.out.ends_with(b"before\nafter\n"));
        assert_eq!(text.out.len() as u64 + text.dropped, 200_013);
        running.until_open(12);
    }
}

#[test]
fn a_connected_runner_serves_one_attempt_and_dials_back() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.sock");
    let options = Options {
        report_socket: report.clone(),
        ..options()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = start(&options, theirs.into());
    let running = Running { dir, child };
    let mut daemon = Daemon::meet(Connection::from_stream(ours));
    let mut gate = Gate::new(&running, "gate");
    running.launch(
        &mut daemon,
        shell(1, &format!("read x < {}; exit 8", gate.show())),
    );
    daemon.started(key(1));
    let instance = daemon.hello.instance.clone();
    drop(daemon);
    // Nobody there for a while, then somebody is.
    let listener = UnixListener::bind(&report).unwrap();
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, deadline()).unwrap(), 1);
    let (stream, _) = listener.accept().unwrap();
    let mut daemon = Daemon::meet(Connection::from_stream(stream));
    assert_eq!(daemon.hello.instance, instance);
    assert_eq!(daemon.hello.held, [key(1)]);
    gate.file.write_all(b"\n").unwrap();
    assert_eq!(code(&daemon.ended(key(1)).1), 8);
    daemon.send(&ToRunner::Ack { key: key(1) });
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn started_on_no_socket_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .arg("runner")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no socket"));
}

/// Options of a runner that switches users by a policy file of this text.
pub(crate) fn with_policy(dir: &Path, text: &str) -> Options {
    let policy = dir.join("run-as.toml");
    fs::write(&policy, text).unwrap();
    Options {
        policy,
        users: Users::Policy,
        ..options()
    }
}

/// Whether the kernel has keyrings, and no filter stands before them.
#[expect(unsafe_code, reason = "no safe wrapper asks for a keyring")]
fn has_keyrings() -> bool {
    // SAFETY: asks for the number of this user's keyring.
    let found = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_GET_KEYRING_ID,
            libc::KEY_SPEC_USER_KEYRING,
            0,
        )
    };
    found >= 0
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn root_runs_tasks_as_the_user_the_policy_names() {
    if !root() {
        return;
    }
    for cgroup in modes() {
        let files = tempfile::tempdir().unwrap();
        let text = "default = \"nobody\"\n[[allow]]\nwho = [\"user:root\"]\nas = [\"daemon\"]\n";
        let options = with_policy(files.path(), text);
        let running = Running::start(&Options { cgroup, ..options });
        let mut daemon = running.daemon();
        assert!(daemon.hello.abilities.switch_user);
        let script = "id -un; id -G; grep -E '^Cap|^Uid|^Groups' /proc/self/status; echo out > /dev/stdout; echo $HOME $USER";
        assert_eq!(code(&running.run(&mut daemon, shell(1, script))), 0);
        let text = running.output(1).text();
        assert!(text.starts_with("nobody\n65534\n"), "{text}");
        assert!(text.contains("out\n"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("Cap")) {
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
        let mut keys = BTreeSet::new();
        for task in [8, 9] {
            let script = "grep -s ' _ses: ' /proc/keys | cut -d ' ' -f 1";
            assert_eq!(code(&running.run(&mut daemon, shell(task, script))), 0);
            let text = running.output(task).text();
            assert_eq!(text.lines().count(), usize::from(has_keyrings()), "{text}");
            assert!(
                keys.insert(text.clone()) || !has_keyrings(),
                "not its own: {text}"
            );
        }
        let mut other = shell(2, "id -un");
        other.user = Some("daemon".to_owned());
        assert_eq!(code(&running.run(&mut daemon, other.clone())), 0);
        assert_eq!(running.output(2).text(), "daemon\n");
        for (task, user, part) in [
            (3, "root", "may not run tasks as root"),
            (4, "bin", "may not"),
            (5, "no-such-user", "may not"),
        ] {
            let mut refused = other.clone();
            refused.key = key(task);
            refused.user = Some(user.to_owned());
            let ended = running.run(&mut daemon, refused);
            assert!(matches!(
                ended.exit,
                Exit::Spawn {
                    undecided: false,
                    ..
                }
            ));
            let error = spawn_error(&ended);
            assert!(error.contains(part), "{error}");
        }
        // The file is read again when it changed. One that cannot be read
        // forbids nothing: tasks wait until it is mended.
        let undecided = |ended: &Ended| {
            matches!(
                ended.exit,
                Exit::Spawn {
                    undecided: true,
                    ..
                }
            )
        };
        let path = files.path().join("run-as.toml");
        fs::write(&path, "default = \"nobody\"\n\n[[alow]]\n").unwrap();
        let ended = running.run(&mut daemon, shell(6, "id"));
        assert!(undecided(&ended), "{ended:?}");
        let error = spawn_error(&ended);
        assert!(
            error.contains("run-as.toml:3: unknown field `alow`"),
            "{error}"
        );
        fs::write(&path, "").unwrap();
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&path, writable).unwrap();
        let ended = running.run(&mut daemon, shell(7, "id"));
        assert!(undecided(&ended), "{ended:?}");
        let error = spawn_error(&ended);
        assert!(error.contains("can be written by others"), "{error}");
    }
}

#[test]
fn strangers_may_not_connect() {
    if !root() {
        return;
    }
    let running = Running::start(&options());
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(running.dir.path(), mode(0o755)).unwrap();
    fs::set_permissions(running.path(), mode(0o666)).unwrap();
    let (sender, receiver) = mpsc::sync_channel(1);
    let path = running.path();
    // A thread of its own may be somebody else; the raw call changes only it.
    let thread = std::thread::spawn(move || {
        become_nobody();
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        sender.send(all).unwrap();
    });
    let seen = receiver.recv_timeout(DEADLINE).unwrap();
    assert_eq!(seen, b"", "a stranger was told {} bytes", seen.len());
    thread.join().unwrap();
    running.daemon();
}

#[expect(unsafe_code, reason = "credentials of one thread only")]
pub(crate) fn become_nobody() {
    // SAFETY: changes the calling thread's credentials and nothing else.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(done, 0);
}

#[test]
fn cgroups_of_ended_attempts_are_gone() {
    if !cgroups() {
        return;
    }
    let running = Running::start(&Options {
        cgroup: CgroupMode::Require,
        ..options()
    });
    let mut daemon = running.daemon();
    running.launch(&mut daemon, shell(1, "cat /proc/self/cgroup"));
    let (started, ended) = daemon.ended(key(1));
    assert_eq!(code(&ended), 0);
    let shown = started.unwrap().cgroup.unwrap();
    assert!(running.output(1).text().contains(&format!("0::{shown}\n")));
    assert!(ended.usage.cpu_micros.is_some());
    for mount in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        assert!(
            !Path::new(mount)
                .join(shown.trim_start_matches('/'))
                .exists()
        );
    }
}

/// Starts a runner as systemd would in a unit's own group.
pub(crate) fn start_in(group: &TestGroup, options: &Options, dir: tempfile::TempDir) -> Running {
    let path = dir.path().join("runner.sock");
    fs::remove_file(&path).ok();
    let listener = UnixListener::bind(path).unwrap();
    let child = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&group.0)
        .args([env!("CARGO_BIN_EXE_taskdaemon"), "runner", "--options"])
        .arg(serde_json::to_string(options).unwrap())
        .env("RUST_LOG", "error")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    Running { dir, child }
}

#[test]
fn alone_in_its_group_it_uses_it_and_ends_what_a_killed_one_left() {
    let Some(group) = TestGroup::new() else {
        return;
    };
    let options = Options {
        cgroup: CgroupMode::Auto,
        ..options()
    };
    let mut running = start_in(&group, &options, tempfile::tempdir().unwrap());
    let mut daemon = running.daemon();
    assert!(daemon.hello.abilities.cgroup);
    let mut gate = Gate::new(&running, "gate");
    running.launch(
        &mut daemon,
        shell(1, &format!("echo $$ > {}; sleep 300", gate.show())),
    );
    let task = gate.pid();
    assert!(group.0.join("task-1-1").exists() && group.0.join("runner").exists());
    let first = daemon.hello.instance.clone();
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert!(kill(task, None).is_ok(), "the task went with its runner");
    let dir = std::mem::replace(&mut running.dir, tempfile::tempdir().unwrap());
    let running = start_in(&group, &options, dir);
    let daemon = running.daemon();
    assert!(daemon.hello.abilities.cgroup);
    assert_ne!(daemon.hello.instance, first);
    assert_eq!(daemon.hello.held, []);
    wait_gone(task);
}

/// Starts another runner on a socket whose runner was killed.
fn after_a_kill(mut running: Running) -> Running {
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    fs::remove_file(running.path()).unwrap();
    let listener = UnixListener::bind(running.path()).unwrap();
    running.child = start(&options(), listener.into());
    running
}

#[test]
fn without_cgroups_a_fresh_runner_ends_what_a_killed_ones_tasks_had_started() {
    let (running, other) = (Running::start(&options()), Running::start(&options()));
    let mut gate = Gate::new(&running, "gate");
    let mut pids = Vec::new();
    // A grandchild in a session of its own, one renewal apart, and one of
    // another runner, which is a stranger here.
    for (task, running) in [(1, &running), (2, &running), (3, &other)] {
        let mut daemon = running.daemon();
        let script = format!(
            "setsid sh -c 'echo $$ > {}; exec sleep 300' & wait",
            gate.show()
        );
        running.launch(&mut daemon, shell(task, &script));
        pids.push(gate.pid());
        daemon.send(&ToRunner::Renew);
        daemon.hung_up();
    }
    running.daemon();
    let stranger = pids.pop().unwrap();
    let unmarked = Command::new("sleep").arg("300").env_clear().spawn();
    let mut unmarked = unmarked.unwrap();
    let running = after_a_kill(running);
    let daemon = running.daemon();
    assert_eq!(daemon.hello.held, []);
    // Before the first word: nothing can be run beside it.
    for pid in pids {
        assert!(ended(pid), "process {pid} lives on");
    }
    assert!(!ended(stranger) && unmarked.try_wait().unwrap().is_none());
    unmarked.kill().unwrap();
    unmarked.wait().unwrap();
}

/// Whether a process is no more, or a zombie.
fn ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[test]
fn a_mark_that_others_could_know_is_not_used() {
    let mut running = Running::start(&options());
    let mut daemon = running.daemon();
    let mark = |running: &Running, daemon: &mut Daemon, task| {
        let script = "echo $TASKDAEMON_MARK";
        assert_eq!(code(&running.run(daemon, shell(task, script))), 0);
        running.output(task).text()
    };
    let first = mark(&running, &mut daemon, 1);
    assert_eq!(first.len(), 33, "{first}");
    let path = running.path().with_extension("mark");
    assert_eq!(fs::read_to_string(&path).unwrap(), first.trim());
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&path, open).unwrap();
    running = after_a_kill(running);
    let mut daemon = running.daemon();
    let second = mark(&running, &mut daemon, 1);
    assert_ne!(first, second);
    running = after_a_kill(running);
    let mut daemon = running.daemon();
    assert_eq!(mark(&running, &mut daemon, 1), second);
}

#[test]
fn a_group_shared_with_others_is_left_alone() {
    let running = Running::start(&Options {
        cgroup: CgroupMode::Auto,
        ..options()
    });
    let daemon = running.daemon();
    assert!(!daemon.hello.abilities.cgroup);
}

#[test]
fn many_short_tasks_leave_no_zombie_and_no_descriptor() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        running.run(&mut daemon, launch(1_000_000, &["true"]));
        let before = running.open_files();
        let script = "sh -c 'sh -c true & true' & true";
        for task in 1..=200 {
            running.launch(&mut daemon, shell(task, script));
        }
        let mut left = 200;
        while left > 0 {
            if let FromRunner::Ended { key, ended, .. } = daemon.recv() {
                assert_eq!(code(&ended), 0);
                daemon.send(&ToRunner::Ack { key });
                left -= 1;
            }
        }
        // One more round, so that everything said before was heard.
        running.run(&mut daemon, launch(1_000_001, &["true"]));
        running.until_open(before.unwrap_or_default());
        let children = format!("/proc/{0}/task/{0}/children", running.pid());
        assert_eq!(fs::read_to_string(children).unwrap().trim(), "");
    }
}
