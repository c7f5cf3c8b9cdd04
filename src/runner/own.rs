//! What the daemon has run for itself, as its own user: calls of models, which
//! take a key that no task may see. No policy is asked, since whoever is that
//! user may do so anyway.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use super::environment::{block, ours};
use super::launch::{Launcher, NotStarted, program};
use super::policy::Denied;
use super::spawn::{self, Child, Plan};
use super::users::{Account, Accounts, nameless};
use super::words::Words;
use crate::model::attempt::{Launch, Limits};
use crate::model::time::Time;

/// Refuses what is not a call, and nothing else: whoever has taken the daemon
/// over shall not get its user a process outside of the daemon's walls.
pub(super) fn is_call(launch: &Launch, program: &Path) -> Result<(), Denied> {
    let known = |(name, _): &(String, String)| name == "TASKDAEMON_KEY";
    if let [first, verb] = launch.argv.as_slice()
        && Path::new(first) == program
        && verb == "call"
        && launch.env.iter().all(known)
    {
        return Ok(());
    }
    let why = "as its own user the daemon may have nothing but calls of models run";
    Err(Denied::from(why.to_owned()))
}

/// The daemon's user of this name, or this process's own where it is the only
/// one that it can be.
pub(super) fn account(
    accounts: &mut Accounts,
    daemon: Option<&str>,
    now: Time,
) -> Result<Rc<Account>, Denied> {
    let failed = |error| Denied::undecided(format!("cannot look users up: {error}"));
    if let Some(name) = daemon {
        let account = accounts.by_name(name, now).map_err(failed)?;
        let unknown = || Denied::from(format!("the daemon's user, {name}, is not known here"));
        return account.ok_or_else(unknown);
    }
    let uid = nix::unistd::getuid().as_raw();
    let account = accounts.by_uid(uid, now).map_err(failed)?;
    Ok(account.unwrap_or_else(|| Rc::new(nameless(uid))))
}

/// A process of ours that makes calls.
#[derive(Debug)]
pub(super) struct CallerStarted {
    pub(super) child: Child,
    pub(super) group: Option<String>,
}

impl Launcher {
    /// Whom a call runs as, if it is one.
    pub(super) fn account_of_call(
        &mut self,
        launch: &Launch,
        now: Time,
    ) -> Result<Rc<Account>, NotStarted> {
        let program = program(launch)?;
        self.account(launch, now)
            .map_err(|denied| NotStarted::denied(program, &denied))
    }

    /// Starts the process that makes the calls which come to `desk`.
    pub(super) fn start_caller(
        &self,
        account: &Account,
        desk: &OwnedFd,
        group: &str,
    ) -> io::Result<CallerStarted> {
        let program = self.program.display().to_string();
        let env = ours(account, self.given(None));
        let directory = match &self.base {
            Some(base) => Some(base.create(group, &Limits::default())?),
            None => None,
        };
        let said = io::stderr().as_fd().try_clone_to_owned();
        let plan = Plan {
            argv: Words::of([program.as_str(), "call"]).map_err(io::Error::other)?,
            env: block(&env).map_err(io::Error::other)?,
            paths: Words::of([program.as_str()]).map_err(io::Error::other)?,
            cwd: CString::from(c"/"),
            cwd_optional: true,
            stdio: [
                desk.as_fd(),
                self.null.as_fd(),
                said.as_ref().unwrap_or(&self.null).as_fd(),
            ],
            cgroup: directory.as_ref().map(AsFd::as_fd),
            become_user: self.become_user(account),
            umask: 0o077,
            files: self.files(),
            reset_oom: self.reset_oom,
            die_with: self.base.is_none().then(|| nix::unistd::getpid().as_raw()),
            commit: None,
            alone: false,
        };
        let child = spawn::spawn(&plan).inspect_err(|_| {
            if let Some(base) = &self.base {
                base.remove(group).ok();
            }
        })?;
        Ok(CallerStarted {
            child,
            group: directory.map(|_| group.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::AttemptKey;
    use crate::model::id::TaskId;

    #[test]
    fn as_the_daemons_user_nothing_but_a_call_is_run() {
        let program = Path::new("/usr/bin/taskdaemon");
        let mut call = Launch {
            key: AttemptKey {
                task: TaskId(7),
                number: 1,
            },
            argv: vec!["/usr/bin/taskdaemon".to_owned(), "call".to_owned()],
            env: vec![("TASKDAEMON_KEY".to_owned(), "task-7".to_owned())],
            cwd: None,
            user: None,
            asked_by: 0,
            umask: 0o022,
            limits: Limits::default(),
            output_cap: 1,
            stdin: true,
            own: true,
            after_commit: false,
        };
        assert!(is_call(&call, program).is_ok());
        let mut loaded = call.clone();
        loaded
            .env
            .push(("LD_PRELOAD".to_owned(), "/tmp/x".to_owned()));
        assert!(is_call(&loaded, program).is_err());
        for argv in [
            vec!["/usr/bin/taskdaemon", "run"],
            vec!["/usr/bin/taskdaemon", "call", "x"],
            vec!["/tmp/taskdaemon", "call"],
            vec!["sh"],
        ] {
            call.argv = argv.into_iter().map(str::to_owned).collect();
            assert!(is_call(&call, program).is_err(), "{:?}", call.argv);
        }
    }
}
