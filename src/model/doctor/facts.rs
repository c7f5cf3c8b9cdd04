//! What there is to know of a host, its daemon and who asks.

use crate::model::health::Level;

/// The cgroup trees of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// The unified one.
    V2,
    /// Old ones, whether beside the unified one or not.
    Old,
    /// None.
    #[default]
    None,
}

/// A directory and the disk under it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its path.
    pub path: String,
    /// Its rights, where it is there and may be looked at.
    pub mode: Option<u32>,
    /// Bytes that are free, and in all.
    pub bytes: Option<(u64, u64)>,
    /// Files that can be made, and that there can be; none where nobody counts.
    pub files: Option<(u64, u64)>,
    /// Whether its file system takes no writes.
    pub read_only: bool,
}

/// A unit of the service manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `active`, `inactive`, `failed` and so on.
    pub active: String,
    /// Whether it starts with the host: `enabled`, `disabled`, `static` and so on.
    pub enabled: String,
    /// Whether its file has changed since it was read.
    pub stale: bool,
}

/// A part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// How it says that it is.
    pub level: Level,
    /// Why.
    pub why: Option<String>,
}

/// What a daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// The version of its runner, where one is connected.
    pub runner: Option<String>,
    /// What the runner cannot enforce.
    pub lacks: Vec<String>,
    /// Parts that are not well.
    pub parts: Vec<Told>,
}

/// A provider of models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Why it cannot be reached.
    pub fault: Option<String>,
    /// Whether there is a key for it.
    pub key: bool,
    /// Whether it is on this host.
    pub here: bool,
}

/// Who asks, and by what right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caller {
    /// Root, or whoever needs no group.
    #[default]
    Free,
    /// A member of the group.
    Member,
    /// A member by the host's files, and not yet by this login.
    Later,
    /// Neither.
    Stranger,
}

/// What there is to be judged. What nobody could find out is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version of this program.
    pub version: String,
    /// The kernel's version.
    pub kernel: Option<(u32, u32)>,
    /// The version of systemd, where it runs the host.
    pub systemd: Option<u32>,
    /// The cgroup trees.
    pub cgroups: Cgroups,
    /// Whether the clock is kept right.
    pub clock: Option<bool>,
    /// Whether the journal takes messages.
    pub journal: bool,
    /// Who asks.
    pub caller: Caller,
    /// What is wrong with the configuration, if anything is.
    pub config: Option<Result<(), String>>,
    /// What is wrong with the policy on users.
    pub policy: Option<String>,
    /// Where tasks are kept.
    pub state: Place,
    /// Where sockets are.
    pub runtime: Place,
    /// Units, where systemd has them.
    pub units: Vec<Unit>,
    /// The daemon, or why it does not answer.
    pub daemon: Option<Result<Daemon, String>>,
    /// Providers of models.
    pub providers: Vec<Provider>,
}
