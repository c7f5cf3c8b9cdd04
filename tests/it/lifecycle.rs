//! A daemon by hand, where no service manager runs: going to the background,
//! pid files, and what scripts of init systems expect. With real processes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::json;

use crate::bed::request;
use crate::cli::text;
use crate::ground::{Ground, lives, signal, stat, write};

/// Somebody who must not be signalled.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").spawn().expect("sleep"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("small")
    }

    fn is_well(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_forked_daemon_is_ready_in_a_session_of_its_own_and_stop_waits_for_it() {
    let ground = Ground::new(&[]);
    assert_eq!(ground.verb("status", &[]).0, 3, "before");
    let pid = ground.start(&[]);
    assert!(ground.get("/ready").is_some(), "ready when start returns");
    assert_eq!(ground.daemon(), pid);
    let written = fs::read_to_string(ground.pid_file()).expect("pid file");
    assert_eq!(written, format!("{pid}\n"));
    let fields = stat(pid).expect("alive");
    let session = fields[3].parse::<i32>().expect("a number");
    assert_ne!(
        session, pid,
        "no leader of its session: it can get no terminal"
    );
    assert_ne!(Some(&fields[3]), stat(1).as_ref().map(|init| &init[3]));
    let own = i32::try_from(std::process::id()).expect("small");
    assert_ne!(Some(&fields[3]), stat(own).as_ref().map(|own| &own[3]));
    assert_eq!(fields[4], "0", "no terminal");
    let at = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).expect("link");
    assert_eq!(at("cwd"), Path::new("/"));
    assert_eq!(at("fd/0"), Path::new("/dev/null"));
    assert_eq!(at("fd/1"), Path::new("/dev/null"));
    assert_eq!(at("fd/2"), ground.path("log"));

    let (code, said) = ground.verb("status", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("pid {pid}")), "{said}");
    assert!(said.contains("self-healing: disabled"), "{said}");
    let (code, said) = ground.verb("start", &["--fork"]);
    assert_eq!(code, 0, "started already is success: {said}");
    assert!(said.contains(&format!("already runs, pid {pid}")), "{said}");

    let (code, said) = ground.verb("stop", &[]);
    assert_eq!((code, lives(pid)), (0, false), "{said}");
    assert!(!ground.pid_file().exists());
    // The runner lives on for a moment, which is a code of its own.
    let (code, said) = ground.verb("status", &[]);
    assert!([2, 3].contains(&code), "{code}: {said}");
    assert_eq!(ground.verb("stop", &[]).0, 0, "stopped already is success");
}

#[test]
fn a_daemon_that_was_killed_is_dead_for_status_and_can_be_started_again() {
    let ground = Ground::new(&[]);
    let pid = ground.start(&[]);
    signal(pid, Signal::SIGKILL);
    ground.until("it is gone", || !lives(pid));
    let (code, said) = ground.verb("status", &[]);
    assert_eq!(code, 1, "{said}");
    let (code, said) = ground.verb("reload", &[]);
    assert_eq!(code, 69, "{said}");
    let again = ground.start(&[]);
    assert_ne!(again, pid);
    assert_eq!(ground.daemon(), again);
    signal(again, Signal::SIGKILL);
    ground.until("it is gone", || !lives(again));
    let (code, said) = ground.verb("stop", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("had not ended in order"), "{said}");
    assert!(!ground.pid_file().exists());
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let mut codes = Vec::new();
    for supervised in [&[][..], &["--supervised"]] {
        let ground = Ground::new(&[]);
        fs::create_dir_all(ground.path("run")).expect("directory");
        fs::write(ground.socket(), "not a socket").expect("write");
        let mut arguments = vec!["--fork"];
        arguments.extend_from_slice(supervised);
        let (code, said) = ground.verb("start", &arguments);
        assert!(said.contains("api.sock"), "{supervised:?}: {said}");
        assert!(said.contains("not a socket"), "{supervised:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(ground.verb("status", &[]).0, 3, "nothing is left");
        codes.push(code);
    }
    assert_eq!(codes, [75, 75]);

    let ground = Ground::new(&[("ENGINE__SLOTS", "0")]);
    let (code, said) = ground.verb("start", &["--fork"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("ENGINE__SLOTS"), "{said}");
    for (arguments, code, word) in [
        (&["--fork", "--user", "no-such-user"][..], 2, "no-such-user"),
        (&["--fork", "--umask", "8"], 2, "octal"),
        (&["--fork", "--directory", "/no/such"], 1, "/no/such"),
        (&["--fork", "--stderr", "/no/such/log"], 1, "/no/such/log"),
        (&["--fork", "--group", "root"], 2, "--user"),
    ] {
        let ground = Ground::new(&[]);
        let (got, said) = ground.verb("start", arguments);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert_eq!(ground.verb("status", &[]).0, 3);
    }
}

#[test]
fn bi_65_a_pid_file_that_is_none_is_refused_and_no_stranger_is_signalled() {
    let ground = Ground::new(&[]);
    let mut stranger = Stranger::new();
    let at = |name: &str| ground.path(name);
    write(&at("garbage"), "root:x:0:0\n");
    write(&at("long"), &"1".repeat(100));
    write(&at("negative"), "-1\n");
    let target = at("target");
    write(&target, &format!("{}\n", stranger.pid()));
    symlink(&target, at("symlink")).expect("link");
    fs::create_dir(at("directory")).expect("directory");
    nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o600)).expect("fifo");
    write(&at("two"), "");
    fs::hard_link(at("two"), at("hard")).expect("link");
    write(&at("open"), "");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(at("open"), open).expect("mode");
    // Other daemons lock theirs whole, in one of two ways.
    let flocked = write(&at("flocked"), &format!("{}\n", stranger.pid()));
    flocked.lock().expect("lock");
    let whole = write(&at("whole"), "");
    let lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).expect("small"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("small"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&whole, FcntlArg::F_SETLK(&lock)).expect("lock");
    for (name, word) in [
        ("garbage", "something else"),
        ("long", "something else"),
        ("negative", "something else"),
        ("symlink", "symbolic link"),
        ("directory", "directory"),
        ("fifo", "no regular file"),
        ("hard", "hard link"),
        ("open", "others"),
        ("flocked", "another program"),
        ("whole", "no taskdaemon"),
    ] {
        let before = fs::symlink_metadata(at(name)).expect("there").len();
        let (code, said) = ground.verb_at(&at(name), "start", &["--fork"]);
        assert_eq!(code, 4, "{name}: {said}");
        assert!(said.contains(word), "{name}: {said}");
        for verb in ["stop", "status", "reload"] {
            let (code, said) = ground.verb_at(&at(name), verb, &[]);
            let free = name == "flocked";
            assert!(code != 0 || free, "{verb} {name}: {said}");
        }
        if name != "flocked" {
            let after = fs::symlink_metadata(at(name)).expect("still there").len();
            assert_eq!(before, after, "{name} is as it was");
        }
    }
    // Empty, and a number that means somebody else by now: nobody holds them.
    for (name, content) in [
        ("empty", String::new()),
        ("stale", format!("{}\n", stranger.pid())),
    ] {
        write(&at(name), &content);
        let (code, said) = ground.verb_at(&at(name), "stop", &[]);
        assert_eq!(code, 0, "{name}: {said}");
        write(&at(name), &content);
        let (code, said) = ground.verb_at(&at(name), "start", &["--fork"]);
        assert_eq!(code, 0, "{name}: {said}");
        // Nothing that is written there is believed.
        fs::write(at(name), format!("{}\n", stranger.pid())).expect("write");
        let (code, said) = ground.verb_at(&at(name), "stop", &["--tasks"]);
        assert_eq!(code, 0, "{name}: {said}");
        assert!(said.contains("stopped"), "{name}: {said}");
    }
    assert!(stranger.is_well());
}

#[test]
fn fi_15_of_many_starts_at_once_one_becomes_the_daemon() {
    let ground = Ground::new(&[]);
    let pid_file = ground.pid_file().display().to_string();
    let children: Vec<_> = (0..12)
        .map(|_| {
            ground
                .command(&["start", "--fork", "--pid-file", &pid_file])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start")
        })
        .collect();
    let mut started = 0;
    let mut pids = std::collections::BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().expect("output");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        started += u32::from(said.contains("taskdaemon started"));
        let mut numbers = said.split(|c: char| !c.is_ascii_digit());
        pids.insert(numbers.find(|word| !word.is_empty()).map(str::to_owned));
    }
    assert_eq!(started, 1);
    assert_eq!(pids.len(), 1, "all name the same: {pids:?}");
}

#[test]
fn restart_and_reload_work_by_pid_file() {
    let ground = Ground::new(&[]);
    let config = ground.path("config.toml");
    fs::write(&config, "engine.slots = 3\n").expect("write");
    let file = config.display().to_string();
    let first = ground.start(&["--config", &file]);
    let log = ground.path("log").display().to_string();
    let slots = || {
        ground
            .get("/v1/status")
            .map(|s| s["slots"]["total"].clone())
    };
    fs::write(&config, "engine.slots = 5\n").expect("write");
    let (code, said) = ground.verb("reload", &["--config", &file]);
    assert_eq!(code, 0, "{said}");
    ground.until("the new setting counts", || slots() == Some(json!(5)));
    fs::write(&config, "engine.slots = 0\n").expect("write");
    let (code, said) = ground.verb("reload", &["--config", &file]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("config.toml"), "{said}");
    fs::write(&config, "engine.slots = 7\n").expect("write");
    let (code, said) = ground.verb("restart", &["--fork", "--stderr", &log, "--config", &file]);
    assert_eq!(code, 0, "{said}");
    assert!(!lives(first), "{said}");
    assert_ne!(ground.daemon(), first);
    assert_eq!(slots(), Some(json!(7)));
}

#[test]
fn sigusr2_opens_the_log_again_and_sigusr1_says_how_things_are() {
    let ground = Ground::new(&[]);
    let pid = ground.start(&[]);
    fs::rename(ground.path("log"), ground.path("old")).expect("rename");
    signal(pid, Signal::SIGUSR2);
    ground.until("there is a new log", || {
        ground.log().contains("opened the log")
    });
    signal(pid, Signal::SIGUSR1);
    ground.until("the state is there", || ground.log().contains("Snapshot"));
    let old = fs::read_to_string(ground.path("old")).expect("old");
    assert!(old.contains("is ready"), "{old}");
    assert!(!old.contains("Snapshot"), "{old}");
}

#[test]
fn fi_50_a_second_sigterm_hurries_and_both_are_one_orderly_stop() {
    let ground = Ground::new(&[("API__DRAIN", "25s")]);
    let pid = ground.start(&[]);
    let body = json!({"command": ["sleep", "600"]});
    let (status, task) = request(&ground.socket(), "POST", "/v1/tasks", Some(&body)).expect("ask");
    assert_eq!(status, 201, "{task}");
    // Somebody waits for the end of it, which holds a drain up.
    let path = format!("/v1/tasks/{}/wait", task["id"]);
    let socket = ground.socket();
    let client = std::thread::spawn(move || request(&socket, "GET", &path, None).is_ok());
    ground.until("the task runs", || {
        ground
            .get(&format!("/v1/tasks/{}", task["id"]))
            .is_some_and(|task| task["state"] == "running")
    });
    let begun = taskdaemon::clock::instant();
    signal(pid, Signal::SIGTERM);
    ground.until("it stops", || ground.log().contains("taskdaemon stops"));
    signal(pid, Signal::SIGTERM);
    ground.until("it is gone", || !lives(pid));
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "before the drain"
    );
    assert!(!ground.pid_file().exists(), "in order");
    drop(client.join());
    // The task noticed nothing.
    ground.start(&[]);
    let task = ground
        .get(&format!("/v1/tasks/{}", task["id"]))
        .expect("kept");
    assert_eq!(task["state"], "running", "{task}");
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
}

#[test]
fn signals_before_anybody_listens_are_not_lost() {
    let ground = Ground::new(&[]);
    let config = ground.path("config.toml");
    fs::write(&config, "engine.slots = 3\n").expect("write");
    for _ in 0..5 {
        let mut daemon = ground
            .command(&["run", "--config"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        let pid = i32::try_from(daemon.id()).expect("small");
        // It is past its first step when it holds them back.
        ground.until("signals are held back", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let mask = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            };
            let hangup = 1;
            [mask("SigBlk:"), mask("SigCgt:")]
                .into_iter()
                .flatten()
                .any(|mask| mask & hangup != 0)
        });
        signal(pid, Signal::SIGHUP);
        signal(pid, Signal::SIGTERM);
        let status = daemon.wait().expect("wait");
        assert_eq!(status.code(), Some(0), "stopped in order");
    }
}

#[test]
fn what_the_caller_had_open_is_not_held_by_the_daemon() {
    let ground = Ground::new(&[]);
    let lock = ground.path("lock");
    let pid_file = ground.pid_file().display().to_string();
    let start = ground.command(&["start", "--fork", "--pid-file", &pid_file]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 9>\"$0\"; flock --nonblock 9 && \"$@\""])
        .arg(&lock)
        .arg(start.get_program())
        .args(start.get_args());
    shell.envs(
        start
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = shell.output().expect("shell");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lock = fs::File::open(&lock).expect("lock");
    assert!(
        lock.try_lock().is_ok(),
        "the lock has ended with the caller"
    );
}
