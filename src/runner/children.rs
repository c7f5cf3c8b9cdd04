//! The life of an attempt inside the runner, once it was started: read, ended,
//! cleaned up, reported.
//!
//! An attempt is over when its first process was reaped, nothing of it runs
//! any more, and its pipes are at their end or had their time. Then, and only
//! then, its end is told.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use super::held::{Process, State};
use super::poll::Timer;
use super::protocol::FromRunner;
use super::serve::Runner;
use super::sys::{self, Status};
use super::tree::{self, Family};
use crate::model::attempt::{AttemptKey, Ended, Exit, Usage};
use crate::model::capture::Stream;

/// How long the pipes are read after everything of the attempt should be gone:
/// whoever still holds them is outside of it.
const DRAIN: Duration = Duration::from_secs(2);
/// Looks after which an empty cgroup that cannot be removed is left behind.
const LOOKS_MAX: u32 = 12;

impl Runner {
    /// Reads one share of an output. True when there may be more.
    pub(super) fn on_output(&mut self, id: u32, stream: Stream) -> bool {
        let Some(held) = self.held.get(id) else {
            return false;
        };
        let key = held.key;
        let Some(live) = held.live() else {
            return false;
        };
        let pipe = match stream {
            Stream::Out => &mut live.out,
            Stream::Err => &mut live.err,
        };
        let Some(file) = pipe else {
            return false;
        };
        match file.read(&mut self.room.read) {
            Ok(0) => {}
            Ok(len) => {
                let bytes = self.room.read.get(..len).unwrap_or_default();
                let at = (self.clock)();
                live.capture
                    .take(key, stream, at, bytes, &mut self.room.write);
                return true;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return true,
            Err(error) => {
                tracing::warn!(task = %key.task, attempt = key.number, %error, "cannot read output");
            }
        }
        self.poll.forget(&*file);
        *pipe = None;
        if live.exit.is_some() {
            self.advance(id);
        }
        false
    }

    /// The first process ended.
    pub(super) fn on_exit(&mut self, id: u32) {
        self.hear_exec(id);
        let without_groups = self.launcher.base.is_none();
        let Some(live) = self.held.live(id) else {
            return;
        };
        if live.exit.is_some() {
            return;
        }
        let pid = live.pid();
        let Process::Own(pidfd) = &live.process else {
            self.hear_call(id);
            return;
        };
        if without_groups {
            // Its number is its own until it is reaped.
            sys::signal_group(pid, libc::SIGKILL);
        }
        let exit = match sys::reap(pidfd.as_fd()) {
            Ok(None) => return,
            Ok(Some(Status::Code(code))) => Exit::Code { code },
            Ok(Some(Status::Signal(signal))) => Exit::Signal { signal },
            Err(error) => {
                let key = live.launch.key;
                tracing::error!(task = %key.task, attempt = key.number, pid, %error, "cannot learn how a task ended");
                Exit::Lost
            }
        };
        let exit = match live.fault.take() {
            Some((error, scarce)) => Exit::Spawn {
                error,
                scarce,
                undecided: false,
                denied: false,
            },
            None => exit,
        };
        failpoint!("runner/exit/reaped");
        self.poll.forget(pidfd);
        live.exit = Some((exit, (self.clock)()));
        self.advance(id);
    }

    /// Whoever still holds the pipes had their time.
    pub(super) fn on_drained(&mut self, id: u32) {
        let Some(live) = self.held.live(id) else {
            return;
        };
        for pipe in [live.out.take(), live.err.take()].into_iter().flatten() {
            self.poll.forget(&pipe);
        }
        self.advance(id);
    }

    /// Moves an attempt whose first process is gone towards its end.
    pub(super) fn advance(&mut self, id: u32) {
        let Some(live) = self.held.live(id) else {
            return;
        };
        if live.exit.is_none() {
            return;
        }
        if !live.empty && !self.clear(id) {
            if let Some(live) = self.held.live(id) {
                let wait = live.next_look();
                self.poll.arm(Timer::Retry(id), wait);
            }
            self.arm_drain(id);
            return;
        }
        let Some(live) = self.held.live(id) else {
            return;
        };
        live.empty = true;
        if live.out.is_some() || live.err.is_some() {
            // What is still in the pipes is read at once; their end comes with
            // it unless somebody outside holds them.
            for stream in [Stream::Out, Stream::Err] {
                let mut shares = 0;
                while shares < 2 && self.on_output(id, stream) {
                    shares += 1;
                }
            }
            self.arm_drain(id);
            return;
        }
        self.finish(id);
    }

    fn arm_drain(&mut self, id: u32) {
        let open = self
            .held
            .live(id)
            .is_some_and(|live| live.out.is_some() || live.err.is_some());
        if open && !self.poll.armed(Timer::Drain(id)) {
            self.poll.arm(Timer::Drain(id), DRAIN);
        }
    }

    /// Ends what is left of an attempt. True when nothing is.
    fn clear(&mut self, id: u32) -> bool {
        let (leaders, others) = (self.held.leaders(), self.callers.pids());
        let Some(live) = self.held.live(id) else {
            return true;
        };
        let key = live.launch.key;
        if !live.is_alone() {
            return true;
        }
        let (Some(base), Some(group)) = (&self.launcher.base, &live.group) else {
            let family = Family {
                key,
                leader: live.number(),
                leaders: &leaders,
                others: &others,
            };
            if tree::members(family).is_empty() {
                return true;
            }
            tree::signal_all(|| tree::members(family), libc::SIGKILL);
            return false;
        };
        live.used = base.counted(group);
        let Err(error) = base.remove(group) else {
            return true;
        };
        if base.populated(group) {
            base.kill(group);
            return false;
        }
        // Empty, but the kernel is not done with it yet.
        let give_up = live.looks >= LOOKS_MAX;
        if give_up {
            tracing::warn!(task = %key.task, attempt = key.number, %group, %error, "cannot remove an empty cgroup");
        }
        give_up
    }

    fn finish(&mut self, id: u32) {
        self.last_notices(id);
        let Some(held) = self.held.get(id) else {
            return;
        };
        let key = held.key;
        let Some(live) = held.live() else {
            return;
        };
        let Some((exit, at)) = live.exit.take() else {
            return;
        };
        live.capture.finish(key, at, &mut self.room.write);
        // Anybody may write one; what our own program says of itself counts.
        let own = live.launch.own;
        let notices = live.notices.as_mut().filter(|_| own);
        let receipt = notices.and_then(|notices| notices.receipt());
        let counts = live.capture.counts();
        let ended = Ended {
            exit,
            oom: live.used.oom,
            interrupted: live.interrupted,
            unrecorded: live.unrecorded,
            at,
            usage: Usage {
                cpu_micros: live.used.cpu_micros,
                memory_peak: live.used.memory_peak,
                output_kept: counts.kept,
                output_dropped: counts.dropped,
            },
            receipt,
        };
        tracing::debug!(task = %key.task, attempt = key.number, exit = ?ended.exit, "ended");
        let live = std::mem::replace(&mut held.state, State::Over(ended));
        failpoint!("runner/report/before");
        self.report(id);
        self.spent.push(live);
        self.poll.disarm(Timer::Drain(id));
        self.poll.disarm(Timer::Retry(id));
    }

    /// Tells how an attempt ended, if somebody listens.
    pub(super) fn report(&mut self, id: u32) {
        let Some(held) = self.held.get(id) else {
            return;
        };
        let Some(ended) = held.over() else {
            return;
        };
        let message = FromRunner::Ended {
            key: held.key,
            started: held.started.clone(),
            ended: ended.clone(),
        };
        self.say(&message);
    }

    /// The daemon has committed the end.
    pub(super) fn acknowledged(&mut self, key: AttemptKey) {
        let Some(id) = self.held.id(key) else {
            return;
        };
        if self.held.live(id).is_some() {
            tracing::warn!(task = %key.task, attempt = key.number, "acknowledged before its end: ignored");
            return;
        }
        failpoint!("runner/acknowledge/before");
        self.held.remove(id);
    }

    /// Sends a signal to every process of an attempt.
    pub(super) fn signal(&mut self, id: u32, signal: i32) {
        let (leaders, others) = (self.held.leaders(), self.callers.pids());
        let Some(live) = self.held.live(id) else {
            return;
        };
        if !live.is_alone() {
            self.hang_up(id, Exit::Signal { signal });
            return;
        }
        match (&self.launcher.base, &live.group) {
            (Some(base), Some(group)) if signal == libc::SIGKILL => base.kill(group),
            (Some(base), Some(group)) => tree::signal_all(|| base.members(group), signal),
            _ => {
                let family = Family {
                    key: live.launch.key,
                    leader: live.number(),
                    leaders: &leaders,
                    others: &others,
                };
                tree::signal_all(|| tree::members(family), signal);
            }
        }
    }

    /// Freezes every process of an attempt, or thaws it.
    pub(super) fn freeze(&mut self, id: u32, freeze: bool) {
        let Some(live) = self.held.live(id) else {
            return;
        };
        if let Process::Shared { line, .. } = &live.process {
            line.iter().for_each(|line| line.freeze(freeze));
            return;
        }
        let (Some(base), Some(group)) = (&self.launcher.base, &live.group) else {
            return;
        };
        let key = live.launch.key;
        match base.freeze(group, freeze) {
            Ok(()) => {
                let frozen = base.frozen(group);
                tracing::debug!(task = %key.task, attempt = key.number, freeze, frozen, "freezing or thawing");
            }
            Err(error) => {
                tracing::error!(task = %key.task, attempt = key.number, freeze, %error, "cannot freeze or thaw a task");
            }
        }
    }

    /// Thaws whatever is frozen: a signal reaches it then.
    pub(super) fn thaw_all(&mut self) {
        for id in self.held.live_ids() {
            self.freeze(id, false);
        }
    }

    /// Ended children that are no attempt's first process.
    pub(super) fn reap(&mut self) {
        // Each round reaps one first process, so this ends.
        let known = |runner: &Self| [runner.held.leaders(), runner.callers.pids()].concat();
        while let Some(pid) = tree::reap_orphans(&known(self)) {
            if let Some(caller) = self.callers.of(pid) {
                self.on_caller_exit(caller);
                if self.callers.of(pid).is_some() {
                    return;
                }
                continue;
            }
            let id = self
                .held
                .iter()
                .find(|(_, held)| held.leader() == Some(pid))
                .map(|(id, _)| id);
            let Some(id) = id else {
                return;
            };
            self.on_exit(id);
            if self.held.leaders().contains(&pid) {
                return;
            }
        }
    }
}
