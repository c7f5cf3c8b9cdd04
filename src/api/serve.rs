//! The accept loop: who is let in, who makes room, how everyone is seen out.
//!
//! One task owns the list of connections; each connection is a task
//! of its own (`conn`), which ends by itself or is asked to.
//!
//! Listening sockets are never shut down here. Under systemd they outlive this
//! process, and whoever connects meanwhile waits for the next one.
//!
//! # What a client may rely on when the daemon stops in order
//!
//! - A connection that was not accepted yet is served by the next process.
//! - A request whose head has come is answered, at the latest when the time set
//!   as `drain` is over, and its answer says `Connection: close`.
//! - A connection stays open for half a second after an answer that did not say
//!   so, and after its own begin (`conn::KEPT`). A client that sends its next
//!   request in this time therefore never meets a closed connection.
//! - One that was without a request for longer is closed at once and without a
//!   word, as the idle time-out closes it at any other time; so is one whose
//!   next head has been on its way for longer. HTTP cannot announce that, and a
//!   client that pauses for so long has to be ready to ask again on a new
//!   connection (RFC 9112, 9.5).
//! - After a last answer the connection is closed for writing first and read for
//!   a moment longer: what a client has sent on does not cost it the answer.
//!
//! A daemon that is killed keeps none of this; then the idempotency key is what
//! makes it safe to ask again.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::KeepAlive;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock;

use super::Server;
use super::conn::{self, Gate};
use super::peer::{Peer, PeerKey};
use super::stream::{Activity, Stream};

/// How long a connection must have been without a request before it can be
/// closed to make room: the request of one just opened is on its way.
const SETTLED: Duration = Duration::from_millis(10);
/// Connections beyond the caps that are kept for admins on this host, so that
/// whoever has to look into a full house can get in.
const RESERVE: u32 = 16;
/// Pause of the accept loop when the process is out of descriptors and no
/// connection holds one, so that there is nothing to wait for.
const STARVED: Duration = Duration::from_millis(50);

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// On this host; the kernel says who connects.
    Unix(UnixListener),
    /// On an address; a token says who connects.
    Tcp(TcpListener),
}

impl Listener {
    /// Takes over a listening unix socket.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(socket)?))
    }

    /// Takes over a listening TCP socket.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(socket)?))
    }
}

/// How the last connections ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended by themselves.
    pub finished: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// Returns when the daemon stops.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same as one that said so.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Returns when the daemon has been stopping for so long.
pub(super) async fn stopped_for(shutdown: &mut watch::Receiver<bool>, wait: Duration) {
    stopped(shutdown).await;
    sleep_until(Instant::from_std(clock::instant()) + wait).await;
}

/// Serves until told to stop, then until the last connection has ended, at
/// most for the time set as `drain`.
pub(super) async fn serve(server: Server, listeners: Vec<Listener>) -> Drained {
    let mut shutdown = server.shared.shutdown.clone();
    let mut table = Table::new(server);
    let mut turn = 0;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = table.tasks.join_next_with_id() => table.forget(ended),
            accepted = accept(&listeners, &mut turn) => match accepted {
                Ok((stream, peer)) => table.admit(stream, peer).await,
                Err(error) => table.starve(&error).await,
            },
        }
    }
    table.drain().await
}

/// The next connection on any socket, each socket in turn.
async fn accept(listeners: &[Listener], turn: &mut usize) -> io::Result<(Stream, Peer)> {
    poll_fn(|cx| {
        *turn = turn.wrapping_add(1);
        for place in 0..listeners.len() {
            let index = turn.wrapping_add(place) % listeners.len();
            let accepted = match &listeners[index] {
                Listener::Unix(socket) => socket.poll_accept(cx).map(|accepted| {
                    let (stream, _) = accepted?;
                    let who = stream.peer_cred()?;
                    let (uid, gid) = (who.uid(), who.gid());
                    let pid = who.pid().and_then(|pid| u32::try_from(pid).ok());
                    Ok((Stream::Unix(stream), Peer::Unix { uid, gid, pid }))
                }),
                Listener::Tcp(socket) => socket.poll_accept(cx).map(|accepted| {
                    let (stream, address) = accepted?;
                    stream.set_nodelay(true)?;
                    // A client that vanished without a word is noticed.
                    setsockopt(&stream, KeepAlive, &true)?;
                    Ok((Stream::Tcp(stream), Peer::Tcp(address.ip())))
                }),
            };
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    })
    .await
}

/// An open connection.
struct Open {
    activity: Arc<Activity>,
    key: PeerKey,
}

/// Whether there is room for one more connection.
enum Room {
    /// There is.
    Made,
    /// Not before then.
    At(Instant),
    /// Every connection has a request.
    None,
}

/// The open connections, counted in all and by peer.
struct Table {
    server: Server,
    epoch: std::time::Instant,
    tasks: JoinSet<()>,
    open: HashMap<Id, Open>,
    peers: HashMap<PeerKey, u32>,
}

impl Table {
    fn new(server: Server) -> Self {
        Self {
            server,
            epoch: clock::instant(),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            peers: HashMap::new(),
        }
    }

    /// Lets a connection in, for which the longest-idle one may have to go.
    async fn admit(&mut self, stream: Stream, peer: Peer) {
        let settings = Arc::clone(&self.server.shared.settings.borrow());
        let key = peer.key();
        loop {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.forget(ended);
            }
            let mine = self.peers.get(&key).copied().unwrap_or(0);
            let all = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
            let caps = &settings.options;
            let within = |more| {
                mine < caps.connections_per_peer.saturating_add(more)
                    && all < caps.connections.saturating_add(more)
            };
            let room = if mine >= caps.connections_per_peer {
                self.evict(Some(key))
            } else if all >= caps.connections {
                self.evict(None)
            } else {
                Room::Made
            };
            match room {
                Room::Made => break,
                Room::At(time) => self.join_by(time).await,
                Room::None if settings.is_admin(peer) && within(RESERVE) => break,
                Room::None => return conn::turn_away(&stream),
            }
        }
        let activity = Arc::new(Activity::new(self.epoch));
        let gate = Gate::new(&self.server, peer, Arc::clone(&activity));
        let task = self.tasks.spawn(conn::open(stream, gate, settings));
        self.open.insert(task.id(), Open { activity, key });
        *self.peers.entry(key).or_insert(0) += 1;
    }

    /// Asks the connection to end that has been without a request for longest,
    /// of one peer or of all.
    fn evict(&mut self, of: Option<PeerKey>) -> Room {
        let idle = self
            .open
            .iter()
            .filter(|(_, open)| of.is_none_or(|key| open.key == key))
            .filter_map(|(id, open)| open.activity.idle_since().map(|since| (since, *id)))
            .min_by_key(|(since, _)| *since);
        let Some((since, id)) = idle else {
            return Room::None;
        };
        if since + SETTLED > Instant::from_std(clock::instant()) {
            return Room::At(since + SETTLED);
        }
        if let Some(open) = self.open.remove(&id) {
            open.activity.close.notify_one();
            self.leave(open.key);
        }
        Room::Made
    }

    /// Waits for a connection to end, until a time.
    async fn join_by(&mut self, time: Instant) {
        if self.tasks.is_empty() {
            sleep_until(time).await;
        } else if let Ok(Some(ended)) = timeout_at(time, self.tasks.join_next_with_id()).await {
            self.forget(ended);
        }
    }

    fn leave(&mut self, key: PeerKey) {
        if let Some(count) = self.peers.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&key);
            }
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!("a connection's task panicked; the others go on");
                }
                error.id()
            }
        };
        // One that was evicted is no longer in the list.
        if let Some(open) = self.open.remove(&id) {
            self.leave(open.key);
        }
    }

    /// After a failed accept: out of descriptors or memory, the way forward is
    /// that somebody goes. Other failures concern one connection only.
    async fn starve(&mut self, error: &io::Error) {
        let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        if !error
            .raw_os_error()
            .is_some_and(|code| codes.contains(&code))
        {
            tracing::debug!(%error, "a connection was lost before it was accepted");
            return;
        }
        tracing::warn!(%error, open = self.open.len(), "no room for a connection");
        self.evict(None);
        self.join_by(Instant::from_std(clock::instant()) + STARVED)
            .await;
    }

    /// Sees everyone out: each connection is told, and ends when `conn` says so.
    async fn drain(mut self) -> Drained {
        let limit = self.server.shared.settings.borrow().options.drain;
        let deadline = Instant::from_std(clock::instant()) + limit;
        let mut drained = Drained::default();
        for open in self.open.values() {
            open.activity.close.notify_one();
        }
        while let Ok(Some(ended)) = timeout_at(deadline, self.tasks.join_next_with_id()).await {
            self.forget(ended);
            drained.finished += 1;
        }
        drained.cut = self.tasks.len();
        self.tasks.shutdown().await;
        drained
    }
}
