//! Floor 1: the runner, the process that owns children.
//!
//! One small synchronous process around epoll. It starts what it is told to
//! start, keeps the output within its cap and the end of each attempt until
//! the daemon has committed it, and decides nothing. It is started inetd-style:
//! descriptor 0 is a listening socket (the shared runner, which daemons connect
//! to) or a connection (a runner for one attempt, in a sandbox of systemd's).
//! What tasks say about themselves it hears on a socket for each (`mailbox.rs`,
//! `notices.rs`); a thread exists only while it lets go of what they sent there.
//! `client.rs` is the daemon's end, `line.rs` has that of the processes which
//! make calls of models; nothing here knows the store, reads a
//! clock, or runs on an asynchronous runtime.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::time::Time;

pub mod alive;
mod begin;
mod calls;
mod capabilities;
mod capture;
mod cgroup;
mod child;
mod children;
pub mod client;
mod environment;
mod held;
mod launch;
pub mod line;
mod link;
mod mailbox;
mod mark;
mod notices;
mod own;
pub mod pidfd;
mod place;
pub mod policy;
mod poll;
pub mod protocol;
mod renew;
mod serve;
mod spawn;
mod start;
mod sys;
mod talk;
mod tree;
mod users;
mod wire;
mod words;

/// How a runner works. Kept over a renewal, but for `resume`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// File that says who may run tasks as whom.
    pub policy: PathBuf,
    /// Whom tasks run as.
    pub users: Users,
    /// Whether attempts get cgroups.
    pub cgroup: CgroupMode,
    /// Where the daemon is found again by a runner that has no listening
    /// socket.
    pub report_socket: PathBuf,
    /// User the daemon runs as, besides root and the runner's own user the
    /// only one that may connect.
    pub daemon_user: Option<String>,
    /// Time between SIGTERM and SIGKILL when the runner is told to stop.
    pub grace: Duration,
    /// How long a shared runner with nothing to do waits for a connection.
    pub idle: Duration,
    /// Whether a runner on a connection serves many attempts, until that
    /// connection ends, instead of one.
    pub stay: bool,
    /// Descriptor with the state of the program that this one replaces.
    #[serde(skip)]
    pub resume: Option<RawFd>,
}

/// Whom tasks run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// Whom the policy file allows, where the runner has the right to switch.
    #[default]
    Policy,
    /// The runner's own user, always.
    Own,
}

/// Whether attempts get cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// Where the runner's own group is delegated to it, or holds it alone.
    #[default]
    Auto,
    /// Always; below a group made for this runner where none is delegated.
    /// Not to start without.
    Require,
    /// Never.
    Off,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: PathBuf::from("/etc/taskdaemon/run-as.toml"),
            users: Users::Policy,
            cgroup: CgroupMode::Auto,
            report_socket: PathBuf::from("/run/taskdaemon/report/report.sock"),
            daemon_user: Some("taskdaemon".to_owned()),
            grace: Duration::from_secs(10),
            idle: Duration::from_secs(5),
            stay: false,
            resume: None,
        }
    }
}

/// Runs the runner until there is nothing left for it to do.
///
/// Takes over descriptor 0, the signal mask and the reaping of all children:
/// to be called on the only thread of a process.
///
/// # Errors
/// Only at the start: descriptor 0 is no socket, cgroups are required and
/// absent, or the state to resume from cannot be read. Later failures concern
/// one attempt or one connection and are reported there.
pub fn serve(options: Options, clock: fn() -> Time) -> anyhow::Result<()> {
    let mut runner = match options.resume {
        Some(state) => renew::resume(state, clock)?,
        None => serve::Runner::start(options, clock)?,
    };
    runner.run()
}

/// Reads frames as both ends of a connection do, without a connection, and
/// says how many there are.
///
/// # Errors
/// What came is no message; nothing after it can be trusted.
pub fn read_messages(bytes: &[u8]) -> std::io::Result<usize> {
    let mut count = 0;
    let mut inbox = wire::Inbox::default();
    inbox.push(bytes);
    while inbox.next::<protocol::ToRunner>()?.is_some() {
        count += 1;
    }
    let mut inbox = wire::Inbox::default();
    inbox.push(bytes);
    while inbox.next::<protocol::FromRunner>()?.is_some() {
        count += 1;
    }
    Ok(count)
}
