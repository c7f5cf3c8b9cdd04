//! The report socket: where runners of single attempts find a new daemon, and
//! the search for those that do not come.
//!
//! Everyone may connect, because the users of profiles have no names. A visitor
//! says which attempt it holds, the kernel says which user it is, and the
//! engine decides; until then nothing it says goes anywhere.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use crate::clock;
use crate::engine::command::Command;
use crate::model::attempt::{AttemptKey, Ended};
use crate::runner::alive;
use crate::runner::client::{Connection, Receiver, Sender};
use crate::runner::protocol::{FromRunner, ToRunner};

use super::instances::{Answer, Instances, Sought, Visitor};
use super::profile::{self, STACK, WORD};

/// How long a visitor may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// How long a runner whose attempt is not wanted may take to end it.
const FAREWELL: Duration = Duration::from_secs(30);
/// Time between two looks for what is sought.
const LOOK: Duration = Duration::from_secs(1);
/// How long an attempt is sought of which no cgroup is known. A runner tries
/// to come at least once a second.
const SEARCH: Duration = Duration::from_secs(10);
/// Pause after an error of the socket itself, such as no descriptor left.
const BREATH: Duration = Duration::from_millis(100);

/// Makes the socket. One that nobody answers on is left over and replaced.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::other("there is something that is not a socket"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::other("another daemon answers there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Takes visitors until the engine is gone.
pub(super) fn accept(
    listener: &UnixListener,
    commands: &SyncSender<Command>,
    instances: &Arc<Instances>,
) {
    let own = nix::unistd::getuid().as_raw();
    loop {
        let come = listener.accept().and_then(|(stream, _)| {
            let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
            Ok((stream, peer.uid()))
        });
        let (stream, uid) = match come {
            Ok(come) => come,
            Err(error) => {
                tracing::warn!(%error, "the report socket");
                std::thread::park_timeout(BREATH);
                continue;
            }
        };
        if !instances.enter(uid) {
            continue;
        }
        let visit = Visit {
            uid,
            trusted: uid == 0 || uid == own,
            commands: commands.clone(),
            instances: Arc::clone(instances),
        };
        let thread = std::thread::Builder::new()
            .name("instance".to_owned())
            .stack_size(STACK)
            .spawn(move || visit.receive(stream));
        if let Err(error) = thread {
            instances.leave(uid);
            tracing::warn!(%error, "no thread for a runner; it will come again");
        }
    }
}

/// One visitor's thread.
struct Visit {
    uid: u32,
    trusted: bool,
    commands: SyncSender<Command>,
    instances: Arc<Instances>,
}

impl Visit {
    fn receive(self, stream: UnixStream) {
        let met = self.introduce(stream);
        self.instances.leave(self.uid);
        match met {
            Ok((Answer::Adopted(key), receiver)) => self.serve(key, receiver),
            Ok((Answer::End(key, sender), receiver)) => {
                if let Err(error) = farewell(key, sender, receiver) {
                    tracing::debug!(task = %key.task, %error, "a runner that is not wanted is gone");
                }
            }
            Err(error) => tracing::debug!(uid = self.uid, %error, "a visitor is gone"),
        }
    }

    /// Hears who it is, and waits for the engine's word.
    fn introduce(&self, stream: UnixStream) -> io::Result<(Answer, Receiver)> {
        stream.set_read_timeout(Some(INTRODUCTION))?;
        stream.set_write_timeout(Some(WORD))?;
        let (mut sender, mut receiver) = Connection::from_stream(stream).split()?;
        let Some(FromRunner::Hello(hello)) = receiver.recv()? else {
            return Err(io::Error::other("it did not say who it is"));
        };
        let [key] = *hello.held.as_slice() else {
            return Err(io::Error::other("it does not hold one attempt"));
        };
        sender.know(&hello.hello);
        let (answer, answered) = mpsc::sync_channel(1);
        let visit = self.instances.visit(Visitor {
            uid: self.uid,
            sender,
            answer,
        });
        let (uid, trusted) = (self.uid, self.trusted);
        let dialled = Command::Dialled {
            visit,
            key,
            uid,
            trusted,
        };
        let asked = self.commands.send(dialled);
        asked.map_err(|_| io::Error::other("the daemon ends"))?;
        match answered.recv() {
            Ok(answer) => Ok((answer, receiver)),
            Err(_) => Err(io::Error::other("turned away")),
        }
    }

    fn serve(&self, key: AttemptKey, receiver: Receiver) {
        tracing::info!(
            message_id = crate::telemetry::id::RUNNER_FOUND,
            task = %key.task,
            attempt = key.number,
            "the runner of a single attempt is back"
        );
        let patient = receiver.stream().set_read_timeout(None);
        let ended = match patient {
            Ok(()) => profile::listen(key, receiver, &self.commands),
            Err(_) => Some((None, Ended::lost(clock::now()))),
        };
        if let Some((started, ended)) = ended {
            profile::report(&self.commands, key, started, ended);
        }
        self.instances.remove(key);
    }
}

/// Has a runner end an attempt that is over already, and forget it.
fn farewell(key: AttemptKey, mut sender: Sender, mut receiver: Receiver) -> io::Result<()> {
    receiver.stream().set_read_timeout(Some(FAREWELL))?;
    sender.send(&ToRunner::Kill { key }, &[])?;
    while let Some(message) = receiver.recv()? {
        if matches!(message, FromRunner::Ended { key: of, .. } if of == key) {
            sender.send(&ToRunner::Ack { key }, &[])?;
            break;
        }
    }
    Ok(())
}

/// Looks for what is sought, as long as something is.
pub(super) fn search(commands: &SyncSender<Command>, instances: &Instances) {
    loop {
        for key in instances.give_up(is_gone) {
            tracing::warn!(
                message_id = crate::telemetry::id::RUNNER_LOST,
                task = %key.task,
                attempt = key.number,
                "the runner of a single attempt is gone"
            );
            let ended = Ended::lost(clock::now());
            let command = Command::Ended {
                key,
                started: None,
                ended,
            };
            if commands.send(command).is_err() {
                return;
            }
        }
        std::thread::park_timeout(LOOK);
    }
}

/// A runner's own cgroup says whether it is there. Without one to look at, it
/// has its time to come.
fn is_gone(sought: &Sought) -> bool {
    match sought.group.as_deref().and_then(alive::inhabited) {
        Some(inhabited) => !inhabited,
        None => clock::instant().duration_since(sought.since) >= SEARCH,
    }
}
