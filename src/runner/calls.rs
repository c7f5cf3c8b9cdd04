//! Calls of models: attempts that share processes.
//!
//! What a call runs is our own program, and nearly all it does is wait. So a
//! launch of one is handed to a caller, a process of that program that makes
//! several at a time (`line.rs`), and all else about it is as with every
//! attempt. A caller has the daemon's user, a cgroup of its own and nothing of
//! any task; it is started when it is needed and let go when it was idle for a
//! while. One that ends all the same takes its calls along: they are lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Base};
use super::held::Process;
use super::launch::{Launched, NotStarted};
use super::line::{self, FromCaller, Line};
use super::notices::Ear;
use super::poll::{Timer, Token};
use super::serve::Runner;
use super::spawn::{self, Word};
use super::sys::{self, Status};
use super::users::Account;
use crate::model::attempt::{Exit, Launch};
use crate::model::notice::DATAGRAM_MAX;
use crate::model::time::Time;

/// Calls of one caller at once: no more than these are lost with it.
const CALLS_MAX: u32 = 16;
/// How long a caller without a call is kept.
const IDLE: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone, in milliseconds.
const PATIENCE_MS: u16 = 1000;
/// Messages of one call that are read in a turn.
const SHARE: usize = 64;

/// A process that makes calls.
#[derive(Debug)]
struct Caller {
    pid: i32,
    pidfd: OwnedFd,
    /// Where it says that `exec` failed.
    exec: Option<File>,
    uid: u32,
    group: Option<String>,
    /// Where it takes calls from. Without one it ends after its last.
    desk: Option<OwnedFd>,
    calls: u32,
}

/// All of them, by a number that is theirs in this runner's life.
#[derive(Debug, Default)]
pub(super) struct Callers {
    rows: BTreeMap<u32, Caller>,
    last: u32,
}

/// A caller over a renewal: it ends its calls, and takes no other.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    id: u32,
    pid: i32,
    pidfd: RawFd,
    uid: u32,
    group: Option<String>,
}

impl Callers {
    /// The process numbers of all.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.rows.values().map(|caller| caller.pid).collect()
    }

    /// Whose process number this is.
    pub(super) fn of(&self, pid: i32) -> Option<u32> {
        let mut all = self.rows.iter();
        all.find(|(_, caller)| caller.pid == pid).map(|(id, _)| *id)
    }

    /// Name of the cgroup of the caller that has a call.
    pub(super) fn group(&self, process: &Process) -> Option<&String> {
        let Process::Shared { caller, .. } = process else {
            return None;
        };
        self.rows.get(caller)?.group.as_ref()
    }

    /// Gives no more calls to a caller that has none: it ends.
    pub(super) fn retire(&mut self, id: u32) {
        if let Some(caller) = self.rows.get_mut(&id)
            && caller.calls == 0
        {
            caller.desk = None;
        }
    }

    /// Ends those that are left, as the last thing this runner does.
    pub(super) fn leave(&mut self, base: &Base) {
        for caller in std::mem::take(&mut self.rows).into_values() {
            let Some(group) = caller.group else {
                continue;
            };
            base.kill(&group);
            let mut fds = [PollFd::new(caller.pidfd.as_fd(), PollFlags::POLLIN)];
            let gone = poll(&mut fds, PATIENCE_MS).map_err(io::Error::from);
            if let Err(error) = gone.and_then(|_| base.remove(&group)) {
                tracing::debug!(%group, %error, "cannot remove the cgroup of a caller");
            }
        }
    }

    /// What stays open over a renewal.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rows.values().map(|caller| caller.pidfd.as_fd())
    }

    pub(super) fn saved(&self) -> Vec<Saved> {
        let saved = self.rows.iter().map(|(id, caller)| Saved {
            id: *id,
            pid: caller.pid,
            pidfd: caller.pidfd.as_raw_fd(),
            uid: caller.uid,
            group: caller.group.clone(),
        });
        saved.collect()
    }

    /// The caller with most calls that may have another: so that those who are
    /// not needed come to rest.
    fn free(&self, uid: u32) -> Option<u32> {
        let open = self.rows.iter().filter(|(_, caller)| {
            caller.desk.is_some() && caller.uid == uid && caller.calls < CALLS_MAX
        });
        open.max_by_key(|(_, caller)| caller.calls)
            .map(|(id, _)| *id)
    }
}

impl Runner {
    /// Hands a call to a caller.
    pub(super) fn call(
        &mut self,
        launch: &Launch,
        stdin: &OwnedFd,
        now: Time,
    ) -> Result<Launched, NotStarted> {
        let account = self.launcher.account_of_call(launch, now)?;
        let short = |error: io::Error| {
            NotStarted::short(format!("no process could be given a call: {error}"))
        };
        let (out, out_end) = spawn::pipe(false).map_err(short)?;
        let (err, err_end) = spawn::pipe(false).map_err(short)?;
        let (line, far) = Line::pair().map_err(short)?;
        let streams = [stdin.as_fd(), out_end.as_fd(), err_end.as_fd()];
        loop {
            let known = self.callers.free(account.uid);
            let id = match known {
                Some(id) => id,
                None => self.start_caller(&account).map_err(short)?,
            };
            let Some(caller) = self.callers.rows.get_mut(&id) else {
                return Err(short(io::ErrorKind::NotFound.into()));
            };
            let handed = match &caller.desk {
                Some(desk) => line::hand_over(desk, &far, streams),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match handed {
                Ok(()) => {
                    caller.calls += 1;
                    let pid = caller.pid;
                    let line = Some(line);
                    self.poll.disarm(Timer::Caller(id));
                    return Ok(Launched {
                        pid,
                        process: Process::Shared { line, caller: id },
                        exec: None,
                        out,
                        err,
                        account,
                        group: None,
                        ear: Some(Ear::Line),
                    });
                }
                // It is ending; there may be another.
                Err(_) if known.is_some() => caller.desk = None,
                Err(error) => return Err(short(error)),
            }
        }
    }

    fn start_caller(&mut self, account: &Account) -> io::Result<u32> {
        let (desk, theirs) = line::desk()?;
        self.callers.last = self.callers.last.wrapping_add(1);
        let id = self.callers.last;
        let name = cgroup::name_of_caller(id);
        let started = self.launcher.start_caller(account, &theirs, &name)?;
        let (pid, uid) = (started.child.pid, account.uid);
        tracing::debug!(pid, uid, "a process for calls");
        self.install_caller(
            id,
            Caller {
                pid,
                pidfd: started.child.pidfd,
                exec: Some(started.child.exec),
                uid,
                group: started.group,
                desk: Some(desk),
                calls: 0,
            },
        );
        Ok(id)
    }

    fn install_caller(&mut self, id: u32, caller: Caller) {
        if let Err(error) = self.poll.watch(&caller.pidfd, Token::Caller(id)) {
            tracing::error!(%error, "cannot watch a process for calls");
        }
        self.callers.rows.insert(id, caller);
    }

    /// Knows the callers of the program before this one.
    pub(super) fn restore_callers(&mut self, saved: Vec<Saved>) {
        for old in saved {
            self.callers.last = self.callers.last.max(old.id);
            match sys::adopt(old.pidfd) {
                Ok(pidfd) => self.install_caller(
                    old.id,
                    Caller {
                        pid: old.pid,
                        pidfd,
                        exec: None,
                        uid: old.uid,
                        group: old.group,
                        desk: None,
                        calls: 0,
                    },
                ),
                Err(error) => tracing::error!(%error, "a process for calls is not known any more"),
            }
        }
    }

    /// A call says something.
    pub(super) fn hear_call(&mut self, id: u32) {
        for _ in 0..SHARE {
            let Some(live) = self.held.live(id) else {
                return;
            };
            let Process::Shared {
                line: Some(line), ..
            } = &live.process
            else {
                return;
            };
            let room = self.room.read.get_mut(..=DATAGRAM_MAX).unwrap_or_default();
            let exit = match line.hear(room) {
                Ok(FromCaller::Notice(text)) => {
                    if let Some(notices) = &mut live.notices {
                        notices.hear(text, (self.clock)());
                    }
                    continue;
                }
                Ok(FromCaller::Exit(code)) => Exit::Code { code: code.into() },
                Ok(FromCaller::HungUp) => Exit::Lost,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "the line of a call is broken");
                    Exit::Lost
                }
            };
            self.hang_up(id, exit);
            return;
        }
        self.pass_on(id);
    }

    /// A call is over, or has to be.
    pub(super) fn hang_up(&mut self, id: u32, exit: Exit) {
        let Some(live) = self.held.live(id) else {
            return;
        };
        let Process::Shared { line, caller } = &mut live.process else {
            return;
        };
        let Some(line) = line.take() else {
            return;
        };
        let caller = *caller;
        self.poll.forget(&line);
        drop(line);
        if let Some(left) = self.callers.rows.get_mut(&caller) {
            left.calls = left.calls.saturating_sub(1);
            if exit == Exit::Lost {
                // It is ending, or something is wrong with it.
                left.desk = None;
            }
            if left.calls == 0 && left.desk.is_some() {
                self.poll.arm(Timer::Caller(caller), IDLE);
            }
        }
        live.exit = Some((exit, (self.clock)()));
        self.advance(id);
    }

    /// A caller ended.
    pub(super) fn on_caller_exit(&mut self, id: u32) {
        let Some(caller) = self.callers.rows.get_mut(&id) else {
            return;
        };
        let pid = caller.pid;
        match sys::reap(caller.pidfd.as_fd()) {
            Ok(None) => return,
            Ok(Some(Status::Code(0))) if caller.desk.is_none() => {}
            Ok(Some(how)) => {
                let exec = caller.exec.as_mut().map(spawn::hear);
                let fault = match exec {
                    Some(Word::Failed(fault)) => Some(fault),
                    Some(Word::Wait | Word::Runs) | None => None,
                };
                tracing::warn!(
                    pid,
                    ?how,
                    ?fault,
                    calls = caller.calls,
                    "a process that makes calls ended: those it had are lost, and made again"
                );
            }
            Err(error) => {
                tracing::error!(pid, %error, "cannot learn how a process for calls ended")
            }
        }
        self.poll.disarm(Timer::Caller(id));
        let Some(caller) = self.callers.rows.remove(&id) else {
            return;
        };
        self.poll.forget(&caller.pidfd);
        if let (Some(base), Some(group)) = (&self.launcher.base, &caller.group)
            && let Err(error) = base.remove(group)
        {
            tracing::debug!(%group, %error, "cannot remove the cgroup of a caller");
        }
    }
}
