//! Effects to messages: opens the files of an attempt and hands them over.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::engine::command::Command;
use crate::engine::effect::{Batch, Effect, Order};
use crate::model::attempt::{AttemptKey, Ended, Launch};
use crate::model::capture;
use crate::runner::client::Sender;
use crate::runner::protocol::ToRunner;

use super::input::{self, Missing};
use super::instances::Instances;
use super::options::Options;
use super::profile::{Job, report};
use super::stock::Stock;
use super::sweep::Sweeper;

/// Mask of a task that names none: group may read, others nothing.
const UMASK: u32 = 0o027;

/// How long there is nothing to do before files are made ahead.
const LULL: Duration = Duration::from_millis(5);

/// Carries out effects.
pub(super) struct Launcher {
    output: PathBuf,
    stock: Stock,
    sweeper: Sweeper,
    output_cap: u64,
    /// Directory of the runners' sockets.
    sockets: PathBuf,
    instances: Arc<Instances>,
    attached: Receiver<Sender>,
    commands: SyncSender<Command>,
    runner: Option<Sender>,
}

impl Launcher {
    pub(super) fn new(
        options: &Options,
        output: PathBuf,
        attached: Receiver<Sender>,
        commands: SyncSender<Command>,
        instances: Arc<Instances>,
        sweeper: Sweeper,
    ) -> Self {
        let sockets = options.runner_socket.parent().map(Path::to_owned);
        Self {
            stock: Stock::new(output.clone()),
            sweeper,
            output,
            output_cap: options.output_cap.bytes(),
            sockets: sockets.unwrap_or_default(),
            instances,
            attached,
            commands,
            runner: None,
        }
    }

    /// Works until the engine is gone.
    pub(super) fn carry_out(mut self, effects: &Receiver<Batch>) {
        for batch in effects {
            self.each(batch);
            // What was launched last needs the processor more than the stock.
            while let Ok(batch) = effects.recv_timeout(LULL) {
                self.each(batch);
            }
            self.stock.fill();
        }
    }

    fn each(&mut self, batch: Batch) {
        let effects = match batch.commit {
            Some(commit) => self.ahead(batch.effects, &commit),
            None => batch.effects,
        };
        for effect in effects {
            self.effect(effect);
        }
        if self.stock.is_low() {
            self.stock.fill();
        }
    }

    /// Has the runner get ready what goes ahead, while the commit is on its way
    /// to the disk, and waits for that. What is still to be done comes back.
    fn ahead(&mut self, effects: Vec<Effect>, commit: &PipeReader) -> Vec<Effect> {
        let patient = self.runner.as_ref().is_some_and(Sender::has_patience);
        // What follows an introduction is for another runner than this one, and
        // a number that is used again must be forgotten first.
        let ahead = patient && !effects.contains(&Effect::Attach);
        let forgotten: HashSet<_> = effects.iter().filter_map(Effect::forgets).collect();
        let goes_ahead = |effect: &mut Effect| {
            let Effect::Launch(order) = &*effect else {
                return false;
            };
            ahead && effect.goes_ahead() && !forgotten.contains(&order.key)
        };
        let mut rest = effects;
        for effect in rest.extract_if(.., goes_ahead).collect::<Vec<_>>() {
            if let Effect::Launch(order) = effect {
                self.launch(&order, Some(commit));
            }
        }
        if is_kept(commit) { rest } else { Vec::new() }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            // One introduction, one connection, in this order: what follows
            // was decided for this one, even if there is a newer already.
            Effect::Attach => self.runner = self.attached.try_recv().ok(),
            Effect::Launch(order) => match order.spec.profile.clone() {
                Some(profile) => self.launch_alone(order, profile),
                None => self.launch(&order, None),
            },
            Effect::Terminate(key) => {
                let signal = libc::SIGTERM;
                self.say(key, ToRunner::Signal { key, signal });
            }
            Effect::Kill(key) => self.say(key, ToRunner::Kill { key }),
            Effect::Freeze(key) => self.say(key, ToRunner::Freeze { key }),
            Effect::Thaw(key) => self.say(key, ToRunner::Thaw { key }),
            Effect::Acknowledge(key) => {
                failpoint!("run/acknowledge/before");
                self.say(key, ToRunner::Ack { key });
                failpoint!("run/acknowledge/after");
            }
            Effect::Erase(key) => self.sweeper.erase(key),
            Effect::Seek { key, group } => self.instances.seek(key, group),
            Effect::Met { visit, verdict } => self.instances.met(visit, verdict),
        }
    }

    /// Says something about an attempt to the runner that has it. Without one
    /// nothing is said: the next one is asked again for what is still wanted.
    fn say(&mut self, key: AttemptKey, message: ToRunner) {
        match self.instances.get(key) {
            Some(instance) => instance.say(message),
            None => self.send(&message, &[]),
        }
    }

    fn launch_alone(&self, order: Box<Order>, profile: String) {
        let job = Job {
            order,
            profile,
            sockets: self.sockets.clone(),
            output: self.output.clone(),
            output_cap: self.output_cap,
            commands: self.commands.clone(),
            instances: Arc::clone(&self.instances),
        };
        job.start();
    }

    fn send(&mut self, message: &ToRunner, files: &[BorrowedFd<'_>]) {
        let Some(runner) = &mut self.runner else {
            return;
        };
        if let Err(error) = runner.send(message, files) {
            tracing::debug!(%error, "the runner's connection is gone");
            // What was lost here is found missing at the next introduction;
            // so there must be one, also where only the sending failed.
            drop(runner.shutdown());
            self.runner = None;
        }
    }

    /// Has the runner start an attempt, but not before this commit.
    fn launch(&mut self, order: &Order, commit: Option<&PipeReader>) {
        if self.runner.is_none() {
            return;
        }
        match files(&mut self.stock, &self.output, order) {
            Ok(files) => {
                let launch = ToRunner::Launch(Launch {
                    after_commit: commit.is_some(),
                    ..message(order, self.output_cap)
                });
                if self.runner.as_ref().is_some_and(|to| !to.can_say(&launch)) {
                    let why = "the runner is older than the daemon and makes no calls; restart \
                               taskdaemon-runner when its tasks are over";
                    let ended = Ended::not_started(why.to_owned(), true, clock::now());
                    report(&self.commands, order.key, None, ended);
                    return;
                }
                failpoint!("run/launch/before");
                let mut files: Vec<_> = files.iter().map(File::as_fd).collect();
                files.extend(commit.map(PipeReader::as_fd));
                self.send(&launch, &files);
                failpoint!("run/launch/after");
            }
            // An attempt whose files cannot be made never reaches a runner.
            Err(unmade) => {
                let now = clock::now();
                let ended = match unmade {
                    Unmade::Scarce(why) => Ended::not_started(why, true, now),
                    Unmade::Unfed(why) => Ended::unfed(why, now),
                };
                report(&self.commands, order.key, None, ended);
            }
        }
    }
}

/// Waits for a commit: whether it is on disk.
fn is_kept(commit: &PipeReader) -> bool {
    let mut fds = [PollFd::new(commit.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::NONE).is_err() {}
    let [pipe] = fds;
    pipe.revents()
        .is_some_and(|seen| seen.contains(PollFlags::POLLIN))
}

pub(super) fn send(runner: &mut Sender, message: &ToRunner, files: &[File]) -> io::Result<()> {
    let files: Vec<_> = files.iter().map(File::as_fd).collect();
    runner.send(message, &files)
}

pub(super) fn message(order: &Order, output_cap: u64) -> Launch {
    let spec = &order.spec;
    Launch {
        key: order.key,
        argv: order.ours.clone().unwrap_or_else(|| spec.argv.clone()),
        env: environment(order),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        asked_by: order.owner,
        umask: spec.umask.unwrap_or(UMASK),
        limits: spec.limits.clone(),
        output_cap: spec.output_cap.unwrap_or(output_cap),
        stdin: input::is_there(order),
        own: order.ours.is_some(),
        after_commit: false,
    }
}

/// The variables of an attempt. Our own program gets none of those that are for
/// what a task runs: the runner starts it with nothing else.
fn environment(order: &Order) -> Vec<(String, String)> {
    let spec = &order.spec;
    // Stable over attempts, so that receivers of effects can recognise a repeat.
    let key = order
        .task_key
        .clone()
        .unwrap_or_else(|| format!("task-{}", order.key.task));
    let key = ("TASKDAEMON_KEY".to_owned(), key);
    if order.ours.is_some() {
        return vec![key];
    }
    let own = spec.env.iter();
    let mut env: Vec<_> = own
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    env.push(key);
    if let Some(request) = &spec.request {
        env.push(("TASKDAEMON_REQUEST".to_owned(), request.clone()));
    }
    let unset = |(name, _): &&(String, String)| !spec.env.contains_key(name);
    env.extend(order.variables.iter().filter(unset).cloned());
    if let Some(ms) = spec.heartbeat_ms {
        // As a service manager says it; the runner names the socket.
        let micros = ms.saturating_mul(1_000).to_string();
        env.push(("WATCHDOG_USEC".to_owned(), micros));
    }
    env
}

/// Why the files that an attempt takes could not be made.
pub(super) enum Unmade {
    /// The host was short of something.
    Scarce(String),
    /// What it was to read of another task is not whole.
    Unfed(String),
}

/// The capture file, and standard input where there is one; `dir` has the
/// capture files of all.
pub(super) fn files(stock: &mut Stock, dir: &Path, order: &Order) -> Result<Vec<File>, Unmade> {
    let scarce = |what: &str, error: &io::Error| {
        Unmade::Scarce(format!("could not make the {what}: {error}"))
    };
    // First, so that nothing is left of an attempt that has none.
    let input = input::input(dir, order).map_err(|missing| match missing {
        Missing::Scarce(error) => scarce("standard input", &error),
        Missing::Lost(why) => Unmade::Unfed(why),
    })?;
    let file = stock.file(&capture::file_name(order.key));
    let file = file.map_err(|error| scarce("output file", &error))?;
    Ok([file].into_iter().chain(input).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;
    use crate::model::id::TaskId;
    use crate::runner::client::{Connection, Receiver as FromThem};

    fn connection() -> (Sender, FromThem, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let (sender, receiver) = Connection::from_stream(ours).split().expect("split");
        (sender, receiver, theirs)
    }

    fn launcher(attached: Receiver<Sender>) -> Launcher {
        let (commands, _) = mpsc::sync_channel(1);
        let instances = Arc::default();
        Launcher::new(
            &Options::default(),
            PathBuf::new(),
            attached,
            commands,
            instances,
            Sweeper::idle(),
        )
    }

    #[test]
    fn two_runners_introduced_at_once_leave_the_newer_one_attached() {
        let (attach, attached) = mpsc::sync_channel(8);
        let mut launcher = launcher(attached);
        let (older, ..) = connection();
        let (newer, _, mut theirs) = connection();
        attach.send(older).expect("room");
        attach.send(newer).expect("room");
        launcher.effect(Effect::Attach);
        launcher.effect(Effect::Attach);
        let key = AttemptKey {
            task: TaskId(1),
            number: 1,
        };
        launcher.effect(Effect::Kill(key));
        theirs.set_nonblocking(true).expect("set");
        let mut word = [0; 64];
        assert!(io::Read::read(&mut theirs, &mut word).is_ok_and(|len| len > 0));
    }

    #[test]
    fn a_connection_that_cannot_be_written_to_is_ended_for_the_listener_too() {
        let (attach, attached) = mpsc::sync_channel(8);
        let mut launcher = launcher(attached);
        let (sender, mut receiver, theirs) = connection();
        theirs.shutdown(std::net::Shutdown::Read).expect("shut");
        attach.send(sender).expect("room");
        launcher.effect(Effect::Attach);
        let key = AttemptKey {
            task: TaskId(1),
            number: 1,
        };
        launcher.effect(Effect::Kill(key));
        assert!(receiver.recv().is_ok_and(|word| word.is_none()));
    }
}
