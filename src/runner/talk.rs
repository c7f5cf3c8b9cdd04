//! The runner's side of the conversation: who may connect, what is said first,
//! what is done about each message.
//!
//! At most one daemon is connected. A newer connection replaces the older one,
//! whose last words are heard first: a launch that a dying daemon has written
//! is a launch.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::link::{Broken, Link, More};
use super::poll::{Timer, Token};
use super::protocol::{FromRunner, Hello, RunnerHello, ToRunner};
use super::serve::{DIAL, Door, Runner};
use crate::model::attempt::AttemptKey;

/// Most turns' worth of reading on a connection that is about to be closed:
/// far more than a socket holds.
const LAST_WORDS: u32 = 256;

impl Runner {
    pub(super) fn accept(&mut self) {
        let Door::Listener(listener) = &self.door else {
            return;
        };
        match listener.accept() {
            Ok((stream, _)) => self.connect(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // Out of descriptors, most likely. Asking again at once would
                // change nothing and take all time from the tasks.
                tracing::error!(%error, "cannot accept a connection: trying again soon");
                self.poll.forget(listener);
                self.poll.arm(Timer::Dial, DIAL.1);
            }
        }
    }

    /// Looks for the daemon: at its report socket, or again at the own one.
    pub(super) fn dial(&mut self) {
        if let Door::Listener(listener) = &self.door {
            if let Err(error) = self.poll.watch(listener, Token::Listener) {
                tracing::error!(%error, "cannot watch the listening socket: trying again soon");
                self.poll.arm(Timer::Dial, DIAL.1);
            }
            return;
        }
        if self.link.is_some() {
            return;
        }
        match dial(&self.options.report_socket) {
            Ok(stream) => self.connect(stream),
            Err(error) => tracing::debug!(%error, "the daemon is not there"),
        }
    }

    /// Takes a connection, and tells the daemon all there is to know. The one
    /// before it is dead or dying; what it said still counts.
    pub(super) fn connect(&mut self, stream: UnixStream) {
        let daemon_uid = self.options.daemon_user.clone().and_then(|name| {
            let account = nix::unistd::User::from_name(&name).ok()??;
            Some(account.uid.as_raw())
        });
        let mut link = match Link::new(stream, daemon_uid) {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, "connection refused");
                return;
            }
        };
        self.drain_link();
        link.say(&FromRunner::Hello(self.hello()));
        if let Err(error) = self.poll.watch(link.fd(), Token::Link) {
            tracing::error!(%error, "cannot watch a connection");
            return;
        }
        self.link = Some(link);
        if self.stopping {
            self.say(&FromRunner::Leaving);
        }
        for (id, started) in self.known() {
            match started {
                Some(message) => self.say(&message),
                None => self.report(id),
            }
        }
        self.begun.clear();
    }

    /// Every attempt, with the message of its start if it is live.
    fn known(&self) -> Vec<(u32, Option<FromRunner>)> {
        self.held
            .iter()
            .filter(|(_, held)| held.over().is_some() || held.started.is_some())
            .map(|(id, held)| {
                let started = held.started.clone().filter(|_| held.over().is_none());
                let key = held.key;
                (
                    id,
                    started.map(|started| FromRunner::Started { key, started }),
                )
            })
            .collect()
    }

    /// The file that says as whom tasks may run, where it is asked.
    fn policy(&self) -> Option<String> {
        let asks = self.launcher.abilities.switch_user;
        let path = self.options.policy.to_str().filter(|_| asks);
        path.map(str::to_owned)
    }

    fn hello(&self) -> RunnerHello {
        RunnerHello {
            hello: Hello::ours(),
            instance: self.identity.instance.clone(),
            boot: self.identity.boot.clone(),
            abilities: self.launcher.abilities,
            policy: self.policy(),
            held: self.held.iter().map(|(_, held)| held.key).collect(),
        }
    }

    /// Reads this turn's share of what the daemon says, and does it.
    pub(super) fn hear(&mut self) {
        self.hear_some();
    }

    /// Reads all that is left on the connection, does it, and closes it.
    pub(super) fn drain_link(&mut self) {
        self.hear_rest();
        self.flush();
        self.close("replaced");
    }

    /// The daemon's last words; not for ever, should it be alive after all.
    fn hear_rest(&mut self) {
        for _ in 0..LAST_WORDS {
            if self.hear_some() == More::No {
                return;
            }
        }
    }

    fn hear_some(&mut self) -> More {
        let Some(link) = &mut self.link else {
            return More::No;
        };
        let read = link.read();
        loop {
            let Some(link) = &mut self.link else {
                return More::No;
            };
            match link.next() {
                Ok(Some((message, fds))) => self.obey(message, fds),
                Ok(None) => break,
                Err(broken) => {
                    self.close(broken);
                    return More::No;
                }
            }
        }
        match read {
            Ok(more) => more,
            Err(Broken::Closed) => {
                self.close(Broken::Closed);
                More::No
            }
            Err(broken) => {
                self.close(broken);
                More::No
            }
        }
    }

    fn obey(&mut self, message: ToRunner, fds: Vec<OwnedFd>) {
        let Some(link) = &mut self.link else {
            return;
        };
        if !link.greeted && !matches!(message, ToRunner::Hello(_)) {
            self.close("it did not say who it is");
            return;
        }
        match message {
            ToRunner::Hello(hello) if hello.understands(&Hello::ours()) => {
                link.greeted = true;
                link.speaks = hello.max;
                self.dial_wait = DIAL.0;
                self.tell_everything();
            }
            ToRunner::Hello(hello) => {
                let ours = Hello::ours();
                tracing::error!(
                    "daemon {} speaks protocols {} to {}, this runner ({}) speaks {} to {}: not served",
                    hello.version,
                    hello.min,
                    hello.max,
                    ours.version,
                    ours.min,
                    ours.max
                );
                self.close("no common protocol");
            }
            ToRunner::Launch(launch) => self.launch(launch, fds),
            ToRunner::Signal { key, signal } => self.signal_key(key, signal),
            ToRunner::Kill { key } => self.signal_key(key, libc::SIGKILL),
            ToRunner::Freeze { key } => self.freeze_key(key, true),
            ToRunner::Thaw { key } => self.freeze_key(key, false),
            ToRunner::Ack { key } => self.acknowledged(key),
            ToRunner::Renew => self.renew = true,
        }
    }

    fn signal_key(&mut self, key: AttemptKey, signal: i32) {
        match self.held.id(key) {
            Some(id) => self.signal(id, signal),
            None => {
                tracing::debug!(task = %key.task, attempt = key.number, signal, "not held: no signal sent");
            }
        }
    }

    fn freeze_key(&mut self, key: AttemptKey, freeze: bool) {
        match self.held.id(key) {
            Some(id) => self.freeze(id, freeze),
            None => {
                tracing::debug!(task = %key.task, attempt = key.number, freeze, "not held: not frozen or thawed");
            }
        }
    }

    fn close(&mut self, why: impl std::fmt::Display) {
        if let Some(link) = self.link.take() {
            self.poll.forget(link.fd());
            tracing::debug!(%why, "connection closed");
        }
    }

    /// Says something to the daemon, if it is there.
    pub(super) fn say(&mut self, message: &FromRunner) {
        if let Some(link) = &mut self.link {
            link.say(message);
        }
    }

    pub(super) fn flush(&mut self) {
        let Some(link) = &mut self.link else {
            return;
        };
        if let Err(error) = link.flush() {
            // What was written before the daemon died may still be unread;
            // reading comes to its end by itself.
            tracing::debug!(%error, "cannot write to the daemon");
            self.drain_unwritable();
            return;
        }
        if link.behind() != link.waiting {
            link.waiting = link.behind();
            let changed = self.poll.want_write(link.fd(), Token::Link, link.waiting);
            if let Err(error) = changed {
                self.close(error);
            }
        }
    }

    /// The daemon does not read any more: hear its last words, and close.
    fn drain_unwritable(&mut self) {
        self.hear_rest();
        self.close("cannot be written to");
    }
}

/// Connects without ever waiting: a full queue is an error like another.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let stream = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(
        std::os::fd::AsRawFd::as_raw_fd(&stream),
        &UnixAddr::new(path)?,
    )?;
    Ok(UnixStream::from(stream))
}
