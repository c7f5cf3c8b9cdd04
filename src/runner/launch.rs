//! From a launch message to a running child: who it runs as, what it sees,
//! where it lives. The forking itself is `spawn.rs`.
//!
//! Everything that fails here is one sentence for the person who submitted
//! the task; nothing of it stops the runner.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::begin::Files;
use super::capabilities::Capabilities;
use super::cgroup::{self, Base};
use super::environment::{Given, block, environment, programs};
use super::held::Process;
use super::mailbox::{Mailbox, Mailboxes};
use super::notices::Ear;
use super::policy::{Denied, PolicyFile};
use super::protocol::Abilities;
use super::spawn::{self, Become, Fault, Plan, Step};
use super::start;
use super::users::{Account, Accounts, nameless};
use super::words::Words;
use super::{Options, Users, own};
use crate::model::attempt::{Launch, Limits};
use crate::model::time::Time;

/// What every launch needs and none changes.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) base: Option<Base>,
    pub(super) mailboxes: Option<Mailboxes>,
    /// What tasks bear where no cgroup holds them.
    pub(super) mark: Option<String>,
    pub(super) abilities: Abilities,
    policy: PolicyFile,
    users: Users,
    /// Name of the user that the daemon runs as.
    daemon: Option<String>,
    /// Our own program, the only one that is run as that user.
    pub(super) program: PathBuf,
    accounts: Accounts,
    pub(super) null: OwnedFd,
    files: (u64, u64),
    pub(super) reset_oom: bool,
    drop_bounding: u64,
    lang: Option<String>,
}

/// What was started, and our ends of its pipes.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) process: Process,
    /// Where a child says that `exec` failed.
    pub(super) exec: Option<File>,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) account: Rc<Account>,
    /// Name of its own cgroup.
    pub(super) group: Option<String>,
    /// Where what it says of itself is heard.
    pub(super) ear: Option<Ear>,
}

/// Why a launch came to nothing.
#[derive(Debug)]
pub(super) struct NotStarted {
    /// One sentence for whoever submitted the task.
    pub(super) why: String,
    /// The host was short of something; later it may work.
    pub(super) scarce: bool,
    /// Nobody could say as whom it may run.
    pub(super) undecided: bool,
    /// No rule of the policy allows it.
    pub(super) denied: bool,
}

impl NotStarted {
    /// The host was short of something.
    pub(super) fn short(why: String) -> Self {
        Self {
            scarce: true,
            ..Self::from(why)
        }
    }

    /// It may not run, or nobody could say whether it may.
    pub(super) fn denied(program: &str, denied: &Denied) -> Self {
        Self {
            undecided: denied.undecided,
            denied: denied.by_rule,
            ..Self::from(format!("could not run {program}: {}", denied.why))
        }
    }
}

impl From<String> for NotStarted {
    fn from(why: String) -> Self {
        Self {
            why,
            scarce: false,
            undecided: false,
            denied: false,
        }
    }
}

/// Whether an error says that the host is short of something just now.
pub(super) const fn is_scarce(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSPC
    )
}

impl Launcher {
    /// `files` are the limits of open files this process was started with.
    pub(super) fn new(
        options: &Options,
        base: Option<Base>,
        mailboxes: Option<Mailboxes>,
        files: (u64, u64),
    ) -> anyhow::Result<Self> {
        let capabilities = Capabilities::of_this_process();
        let mut abilities = Abilities {
            switch_user: options.users == Users::Policy && capabilities.can_switch(),
            ..Abilities::default()
        };
        if let Some(base) = &base {
            base.tell(&mut abilities);
        }
        let null = nix::fcntl::open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let protected = std::fs::read_to_string("/proc/self/oom_score_adj")
            .is_ok_and(|score| score.starts_with('-'));
        Ok(Self {
            base,
            mailboxes,
            mark: None,
            abilities,
            policy: PolicyFile::new(options.policy.clone()),
            users: options.users,
            daemon: options.daemon_user.clone(),
            program: start::own_program()?,
            accounts: Accounts::default(),
            null,
            files,
            reset_oom: protected,
            drop_bounding: capabilities.droppable(),
            lang: std::env::var("LANG").ok(),
        })
    }

    /// The limits of open files that children get.
    pub(super) const fn files(&self) -> (u64, u64) {
        self.files
    }

    /// How a child becomes its user; not at all where nobody can.
    pub(super) fn become_user<'a>(&self, account: &'a Account) -> Option<Become<'a>> {
        let drop_bounding = if account.uid == 0 {
            0
        } else {
            self.drop_bounding
        };
        self.abilities.switch_user.then_some(Become {
            uid: account.uid,
            gid: account.gid,
            groups: &account.groups,
            drop_bounding,
        })
    }

    /// Starts a child, or says in one sentence why not. Where it will be `alone`
    /// in this runner, it gets the processor until its program runs.
    pub(super) fn launch(
        &mut self,
        launch: &mut Launch,
        given: &Files,
        now: Time,
        alone: bool,
    ) -> Result<Launched, NotStarted> {
        let program = &program(launch)?.to_owned();
        let account = self
            .account(launch, now)
            .map_err(|denied| NotStarted::denied(program, &denied))?;
        let failed = |why: String| NotStarted::from(failure(program, &account.name, &why));
        let short = |what: &str, error: &io::Error| NotStarted {
            scarce: error
                .raw_os_error()
                .is_some_and(|number| is_scarce(Errno::from_raw(number))),
            ..failed(format!("{what}: {}", describe(error)))
        };
        let piped = |error| short("output pipe", &error);
        self.enforceable(&launch.limits).map_err(failed)?;
        let mailboxes = self.mailboxes.as_mut();
        let mailbox = mailboxes.and_then(|all| all.make(account.uid));
        let env = environment(launch, &account, self.given(mailbox.as_ref()));
        let (out, out_end) = spawn::pipe(self.abilities.switch_user).map_err(piped)?;
        let (err, err_end) = spawn::pipe(self.abilities.switch_user).map_err(piped)?;
        let group = self
            .group(launch)
            .map_err(|error| short("cgroup", &error))?;
        let (group, directory) = group.unzip();
        let plan = Plan {
            argv: Words::of(launch.argv.iter().map(String::as_str)).map_err(failed)?,
            paths: programs(program, &env).map_err(failed)?,
            env: block(&env).map_err(failed)?,
            cwd: string(launch.cwd.as_deref().unwrap_or(&account.home)).map_err(failed)?,
            cwd_optional: launch.cwd.is_none(),
            stdio: [
                given.stdin.as_ref().unwrap_or(&self.null).as_fd(),
                out_end.as_fd(),
                err_end.as_fd(),
            ],
            cgroup: directory.as_ref().map(AsFd::as_fd),
            become_user: self.become_user(&account),
            umask: launch.umask & 0o777,
            files: self.files,
            reset_oom: self.reset_oom,
            die_with: self.base.is_none().then(|| nix::unistd::getpid().as_raw()),
            commit: given.commit.as_ref().map(AsFd::as_fd),
            alone,
        };
        drop(env);
        launch.lighten();
        let child = spawn::spawn(&plan).map_err(|error| {
            if let (Some(base), Some(name)) = (&self.base, &group) {
                base.remove(name).ok();
            }
            short("fork", &error)
        })?;
        Ok(Launched {
            pid: child.pid,
            process: Process::Own(child.pidfd),
            exec: Some(child.exec),
            out,
            err,
            group,
            ear: mailbox.map(Ear::Mailbox),
            account: Rc::clone(&account),
        })
    }

    /// What is added to the environment of a task with this socket.
    pub(super) fn given<'a>(&'a self, mailbox: Option<&'a Mailbox>) -> Given<'a> {
        Given {
            lang: self.lang.as_deref(),
            socket: mailbox.map(Mailbox::path),
            mark: self.mark.as_deref(),
        }
    }

    /// Makes the attempt's cgroup, where there are any: its name and directory.
    fn group(&self, launch: &Launch) -> io::Result<Option<(String, OwnedFd)>> {
        let Some(base) = &self.base else {
            return Ok(None);
        };
        let name = cgroup::name(launch.key);
        let directory = base.create(&name, &launch.limits)?;
        Ok(Some((name, directory)))
    }

    /// Whom the task runs as.
    pub(super) fn account(&mut self, launch: &Launch, now: Time) -> Result<Rc<Account>, Denied> {
        let wanted = launch.user.as_deref();
        if launch.own {
            own::is_call(launch, &self.program)?;
            let daemon = self.daemon.as_deref();
            let daemon = daemon.filter(|_| self.abilities.switch_user);
            return own::account(&mut self.accounts, daemon, now);
        }
        if self.abilities.switch_user {
            return self
                .policy
                .judge(launch.asked_by, wanted, &mut self.accounts, now);
        }
        let uid = nix::unistd::getuid().as_raw();
        let asker = launch.asked_by;
        if self.users == Users::Own && asker != uid && asker != 0 {
            let why = format!(
                "uid {asker} may not: tasks run as the runner's own user, uid {uid}, and no policy \
                 is asked"
            );
            return Err(why.into());
        }
        let own = self
            .accounts
            .by_uid(uid, now)
            .map_err(|error| Denied::undecided(format!("cannot look users up: {error}")))?
            .unwrap_or_else(|| Rc::new(nameless(uid)));
        match wanted {
            Some(name) if name != own.name => {
                let why = match self.users {
                    Users::Own => "it was told to stay its own user",
                    Users::Policy => "it has no right to switch users",
                };
                let why = format!(
                    "the runner cannot run tasks as {name}: it runs as {}, and {why}",
                    own.name
                );
                Err(why.into())
            }
            _ => Ok(own),
        }
    }

    /// Refuses limits that nothing here would hold.
    fn enforceable(&self, limits: &Limits) -> Result<(), String> {
        let has = self.abilities;
        let asked = [
            ("memory", limits.memory.is_some(), has.memory),
            ("cpu", limits.cpu_milli.is_some(), has.cpu),
            ("pids", limits.pids.is_some(), has.pids),
        ];
        for (name, asked, there) in asked {
            if asked && !there {
                return Err(format!(
                    "a {name} limit is asked for, and the runner has no {name} controller to hold it"
                ));
            }
        }
        Ok(())
    }
}

fn failure(program: &str, user: &str, why: &str) -> String {
    format!("could not run {program} as user {user}: {why}")
}

pub(super) fn program(launch: &Launch) -> Result<&str, NotStarted> {
    let program = launch.argv.first().filter(|program| !program.is_empty());
    let none = || "could not run the task: it names no program".to_owned();
    Ok(program.ok_or_else(none)?)
}

/// The sentence for a fault the child reported.
pub(super) fn explain(fault: Fault, launch: &Launch, user: &str) -> String {
    let program = launch.argv.first().map_or("", String::as_str);
    let error = fault.errno.desc();
    let why = match fault.step {
        Step::Exec if fault.errno == Errno::ENOENT && !program.contains('/') => {
            "no program of that name in its PATH".to_owned()
        }
        Step::Exec => format!("exec: {error}"),
        Step::Interpreter => {
            "the file is there, but the interpreter or loader it names is not".to_owned()
        }
        Step::Chdir => {
            let cwd = launch.cwd.as_deref().unwrap_or("/");
            format!("chdir to {cwd}: {error}")
        }
        Step::Cgroup => format!("joining its cgroup: {error}"),
        Step::Session => format!("making a session: {error}"),
        Step::Stdio => format!("connecting its standard streams: {error}"),
        Step::Files => format!("limiting open files: {error}"),
        Step::Groups => format!("setting its groups: {error}"),
        Step::Gid => format!("setting its group: {error}"),
        Step::Uid => format!("setting its user: {error}"),
        Step::Capabilities => format!("dropping capabilities: {error}"),
        Step::StillRoot => "it could have become root again".to_owned(),
        Step::NoNewPrivs => format!("forbidding new privileges: {error}"),
        Step::ParentGone => "the runner ended".to_owned(),
        Step::Commit => "the daemon ended before it had recorded that it starts".to_owned(),
    };
    failure(program, user, &why)
}

pub(super) fn string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        format!("there is a NUL byte in {shown:?}")
    })
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::AttemptKey;
    use crate::model::id::TaskId;

    fn launch(env: &[(&str, &str)]) -> Launch {
        Launch {
            key: AttemptKey {
                task: TaskId(7),
                number: 2,
            },
            argv: vec!["true".to_owned()],
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            cwd: None,
            user: None,
            asked_by: 0,
            umask: 0o022,
            limits: Limits::default(),
            output_cap: 1,
            stdin: false,
            own: false,
            after_commit: false,
        }
    }

    #[test]
    fn faults_are_sentences() {
        let mut failing = launch(&[]);
        failing.argv = vec!["/x/y".to_owned()];
        failing.cwd = Some("/nowhere".to_owned());
        let fault = Fault {
            step: Step::Chdir,
            errno: Errno::ENOENT,
        };
        assert_eq!(
            explain(fault, &failing, "bob"),
            "could not run /x/y as user bob: chdir to /nowhere: No such file or directory"
        );
    }
}
