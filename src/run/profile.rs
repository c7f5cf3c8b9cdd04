//! An attempt in a sandbox profile: a connection to the profile's socket, on
//! which the service manager starts a runner for this one attempt.
//!
//! One thread for each, because connecting, handing over and listening all may
//! wait, and none of them for another attempt. A runner speaks before it reads;
//! so a connection that ends without its hello has begun nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::clock;
use crate::engine::command::Command;
use crate::engine::effect::Order;
use crate::model::attempt::{AttemptKey, Ended, Exit, Launch, Started};
use crate::model::time::Time;
use crate::runner::client::{Connection, Receiver};
use crate::runner::protocol::{FromRunner, Hello, ToRunner};

use super::instances::{Instance, Instances};
use super::launch::{self, Unmade};
use super::stock::Stock;

/// First and longest wait before another try to get a runner.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a runner is tried for before the task gives its slot to others.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a fresh runner may take to read its launch.
const HANDOVER: Duration = Duration::from_secs(30);
/// How long a runner may take to read a word; nobody waits longer for it.
pub(super) const WORD: Duration = Duration::from_secs(1);
/// Shortest time between two notices of one attempt that the engine hears.
const NOTICE_GAP: Duration = Duration::from_millis(20);
/// Longest text that is taken from a runner, in bytes.
const TEXT_MAX: usize = 4096;
/// Stack of a thread that only talks.
pub(super) const STACK: usize = 256 * 1024;

/// An attempt to be run in a profile.
pub(super) struct Job {
    pub(super) order: Box<Order>,
    pub(super) profile: String,
    /// Directory of the shared runner's socket, where the profiles' are too.
    pub(super) sockets: PathBuf,
    pub(super) output: PathBuf,
    pub(super) output_cap: u64,
    pub(super) commands: SyncSender<Command>,
    pub(super) instances: Arc<Instances>,
}

/// Why there is no runner, and whether there may be one later.
enum Refused {
    Full(String),
    Never(String),
    Unfed(String),
}

impl Job {
    /// Starts the thread that sees the attempt to its end.
    pub(super) fn start(self) {
        let instance = Arc::new(Instance::default());
        let key = self.order.key;
        self.instances.add(key, Arc::clone(&instance));
        let (commands, instances) = (self.commands.clone(), Arc::clone(&self.instances));
        let thread = std::thread::Builder::new()
            .name("instance".to_owned())
            .stack_size(STACK)
            .spawn(move || self.run(&instance));
        if let Err(error) = thread {
            instances.remove(key);
            let error = format!("could not start a thread for the attempt: {error}");
            report(&commands, key, None, not_begun(error, true));
        }
    }

    fn run(self, instance: &Instance) {
        let key = self.order.key;
        let ended = match self.begin(instance) {
            Ok(receiver) => listen(key, receiver, &self.commands),
            Err(Refused::Full(why)) => Some((None, not_begun(why, true))),
            Err(Refused::Never(why)) => Some((None, not_begun(why, false))),
            Err(Refused::Unfed(why)) => Some((None, Ended::unfed(why, clock::now()))),
        };
        if let Some((started, ended)) = ended {
            report(&self.commands, key, started, ended);
        }
        self.instances.remove(key);
    }

    /// Finds a runner and hands the attempt over. The runner has spoken when
    /// this returns.
    fn begin(&self, instance: &Instance) -> Result<Receiver, Refused> {
        let path = self.sockets.join(format!("run-{}.sock", self.profile));
        let launch = launch::message(&self.order, self.output_cap);
        let begun = clock::instant();
        let mut wait = RETRY.0;
        loop {
            let why = match self.hand_over(&path, &launch, instance) {
                Ok(receiver) => return Ok(receiver),
                Err(Refused::Full(why)) => why,
                Err(refused) => return Err(refused),
            };
            instance.pause(wait);
            wait = (wait * 2).min(RETRY.1);
            if !instance.wanted() || clock::instant().duration_since(begun) > PATIENCE {
                return Err(Refused::Full(why));
            }
        }
    }

    fn hand_over(
        &self,
        path: &Path,
        launch: &Launch,
        instance: &Instance,
    ) -> Result<Receiver, Refused> {
        let profile = &self.profile;
        let connection =
            Connection::connect(path).map_err(|error| no_way(profile, path, &error))?;
        let files = launch::files(
            &mut Stock::new(self.output.clone()),
            &self.output,
            &self.order,
        )
        .map_err(|unmade| match unmade {
            Unmade::Scarce(why) => Refused::Never(why),
            Unmade::Unfed(why) => Refused::Unfed(why),
        })?;
        let turned_away = |error: Option<io::Error>| {
            let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
            Refused::Full(format!(
                "no runner came up in profile {profile}{error}: there are MaxConnections= of \
                 taskdaemon-run-{profile}.socket, or its unit cannot start"
            ))
        };
        let gone = |error| turned_away(Some(error));
        let (mut sender, mut receiver) = connection.split().map_err(gone)?;
        let limit = |time| receiver.stream().set_write_timeout(Some(time));
        limit(HANDOVER).map_err(gone)?;
        let hello = sender.send(&ToRunner::Hello(Hello::ours()), &[]);
        hello.map_err(gone)?;
        let sent = launch::send(&mut sender, &ToRunner::Launch(launch.clone()), &files);
        sent.map_err(gone)?;
        limit(WORD).map_err(gone)?;
        instance.connected(sender);
        match receiver.recv() {
            Ok(Some(FromRunner::Hello(hello))) if Hello::ours().understands(&hello.hello) => {
                instance.knows(&hello.hello);
                Ok(receiver)
            }
            Ok(Some(_)) => Err(Refused::Never(format!(
                "the runner of profile {profile} is of another version"
            ))),
            Ok(None) => {
                instance.disconnected();
                Err(turned_away(None))
            }
            Err(error) => {
                instance.disconnected();
                Err(gone(error))
            }
        }
    }
}

/// Why a profile's socket cannot be connected to.
fn no_way(profile: &str, path: &Path, error: &io::Error) -> Refused {
    let path = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        return Refused::Never(format!(
            "there is no profile {profile} on this host: no socket {path}"
        ));
    }
    if error.kind() == io::ErrorKind::ConnectionRefused {
        // The socket's unit is being restarted, or was stopped.
        return Refused::Full(format!(
            "nobody listens at {path}; see taskdaemon-run-{profile}.socket"
        ));
    }
    Refused::Never(format!("cannot connect to {path}: {error}"))
}

/// Tells the engine what one runner says of its own attempt, and nothing else
/// that it may say. What is left to be told when it is gone comes back: an
/// attempt whose end nobody told is lost.
pub(super) fn listen(
    key: AttemptKey,
    mut receiver: Receiver,
    commands: &SyncSender<Command>,
) -> Option<(Option<Started>, Ended)> {
    let mut begun = false;
    let mut over = false;
    let mut last_notice = None;
    loop {
        let command = match receiver.recv() {
            Ok(Some(FromRunner::Started { key: of, started })) if of == key && !begun => {
                begun = true;
                let started = believable_start(started);
                Command::Started { key, started }
            }
            Ok(Some(FromRunner::Notified {
                key: of,
                notice,
                at,
            })) if of == key && !over => {
                space_out(&mut last_notice);
                let notice = notice.bounded();
                let at = believable_time(at);
                Command::Notified { key, notice, at }
            }
            Ok(Some(FromRunner::Ended {
                key: of,
                started,
                ended,
            })) if of == key && !over => {
                over = true;
                Command::Ended {
                    key,
                    started: started.map(believable_start),
                    ended: believable_end(ended),
                }
            }
            Ok(Some(_)) => continue,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(task = %key.task, attempt = key.number, %error, "a runner's words cannot be read");
                break;
            }
        };
        if commands.send(command).is_err() {
            return None;
        }
    }
    (!over).then(|| (None, Ended::lost(clock::now())))
}

/// The end of an attempt of which nothing has begun; `turned_away` when it is
/// to be tried again.
fn not_begun(error: String, turned_away: bool) -> Ended {
    Ended {
        interrupted: turned_away,
        ..Ended::not_started(error, false, clock::now())
    }
}

pub(super) fn report(
    commands: &SyncSender<Command>,
    key: AttemptKey,
    started: Option<Started>,
    ended: Ended,
) {
    let command = Command::Ended {
        key,
        started,
        ended,
    };
    if commands.send(command).is_err() {
        tracing::debug!(task = %key.task, "the engine ended before it heard of an end");
    }
}

/// A runner in a profile shares its user with the task, so it is not trusted
/// to keep to sizes that the store can hold.
fn believable_start(mut started: Started) -> Started {
    started.user = shortened(started.user);
    started.cgroup = started.cgroup.map(shortened);
    started.at = believable_time(started.at);
    started
}

fn believable_time(at: Time) -> Time {
    at.min(clock::now()).max(Time::default())
}

/// Lets some time pass between two notices. A runner keeps more of it by
/// itself; one that a task has made to say anything waits here, and with it
/// nobody but its own attempt.
fn space_out(last: &mut Option<Instant>) {
    loop {
        let passed = last.map_or(NOTICE_GAP, |last| clock::instant().duration_since(last));
        match NOTICE_GAP.checked_sub(passed) {
            None | Some(Duration::ZERO) => break,
            Some(left) => std::thread::park_timeout(left),
        }
    }
    *last = Some(clock::instant());
}

fn believable_end(mut ended: Ended) -> Ended {
    let most = i64::MAX.unsigned_abs();
    let usage = &mut ended.usage;
    usage.cpu_micros = usage.cpu_micros.map(|count| count.min(most));
    usage.memory_peak = usage.memory_peak.map(|count| count.min(most));
    usage.output_kept = usage.output_kept.min(most);
    usage.output_dropped = usage.output_dropped.min(most);
    ended.at = believable_time(ended.at);
    // Our own calls run in none.
    ended.receipt = None;
    if let Exit::Spawn {
        error,
        undecided,
        denied,
        ..
    } = &mut ended.exit
    {
        // It asks no policy, and must not keep others from starting.
        (*undecided, *denied) = (false, false);
        let whole = std::mem::take(error);
        *error = shortened(whole);
    }
    ended
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;
    use crate::model::attempt::Usage;
    use crate::model::id::TaskId;
    use crate::model::notice::{EXTEND_MAX_US, Notice, PROGRESS_DONE, STATUS_MAX};

    #[test]
    fn what_a_task_could_make_its_runner_say_fits_the_store() {
        let huge = Usage {
            cpu_micros: Some(u64::MAX),
            memory_peak: Some(u64::MAX),
            output_kept: u64::MAX,
            output_dropped: u64::MAX,
        };
        let ended = believable_end(Ended {
            exit: Exit::Spawn {
                error: "\u{fc}".repeat(TEXT_MAX),
                scarce: false,
                undecided: false,
                denied: false,
            },
            usage: huge,
            ..Ended::lost(clock::now())
        });
        assert_eq!(ended.usage.output_kept, i64::MAX.unsigned_abs());
        assert_eq!(ended.usage.memory_peak, Some(i64::MAX.unsigned_abs()));
        let Exit::Spawn { error, .. } = ended.exit else {
            panic!("another end");
        };
        assert_eq!(error.len(), TEXT_MAX);
    }

    #[test]
    fn a_runner_of_one_attempt_speaks_for_it_alone_and_within_limits() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_, receiver) = Connection::from_stream(ours).split().unwrap();
        let (commands, heard) = mpsc::sync_channel(8);
        let own = AttemptKey {
            task: TaskId(7),
            number: 1,
        };
        let other = AttemptKey { number: 2, ..own };
        for key in [other, own] {
            let text = "\u{1b}".repeat(TEXT_MAX);
            let message = FromRunner::Notified {
                key,
                notice: Notice {
                    status: Some(text),
                    progress: Some(u16::MAX),
                    extend_us: Some(u64::MAX),
                    ..Notice::default()
                },
                at: Time::from_micros(i64::MAX),
            };
            let frame = serde_json::to_vec(&message).unwrap();
            let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
            (&theirs).write_all(&len).unwrap();
            (&theirs).write_all(&frame).unwrap();
        }
        drop(theirs);
        let ended = listen(own, receiver, &commands);
        assert!(ended.is_some());
        drop(commands);
        let heard: Vec<_> = heard.iter().collect();
        let [Command::Notified { key, notice, at }] = heard.as_slice() else {
            panic!("{heard:?}");
        };
        assert_eq!(*key, own);
        assert!(*at <= clock::now());
        assert_eq!(notice.status, Some(" ".repeat(STATUS_MAX)));
        assert_eq!(notice.progress, Some(PROGRESS_DONE));
        assert_eq!(notice.extend_us, Some(EXTEND_MAX_US));
    }
}
