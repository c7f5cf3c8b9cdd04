//! What there is to see of the host, its daemon and who asks. Nothing is changed,
//! and what cannot be found out is left out.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Uri;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::utsname::uname;
use nix::unistd::{Gid, Group, User, geteuid, getgroups};

use crate::api::admin::Status;
use crate::api::health::PartInfo;
use crate::client::Client;
use crate::client::target::Target;
use crate::config::{self, Config, Sources};
use crate::engine::prompts::Provider as Configured;
use crate::model::doctor::facts::{Caller, Cgroups, Daemon, Facts, Place, Provider, Told, Unit};
use crate::model::health::Level;
use crate::runner::policy;

use crate::cli::{Failure, Setting, online};

/// The group to which the system's daemon listens.
const GROUP: &str = "taskdaemon";
/// Whom tasks may run as.
const POLICY: &str = "/etc/taskdaemon/run-as.toml";
/// Units that a running daemon needs.
const UNITS: [&str; 3] = [
    "taskdaemon.service",
    "taskdaemon-api.socket",
    "taskdaemon-runner.socket",
];
/// Longest wait for a provider to take a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at everything.
pub(super) fn look(file: Option<PathBuf>, setting: &Setting) -> Result<Facts, Failure> {
    let target = Target::find(setting.host.as_deref(), &setting.tls)?;
    let named = file.is_some();
    let loaded = config::load(&sources(file, target.is_systems()));
    let config = match &loaded {
        Ok(_) => Some(Ok(())),
        // What only root may read is no fault of it.
        Err(error) if !named && !is_root() && error.message.contains("ermission denied") => None,
        Err(error) => Some(Err(error.to_string())),
    };
    let loaded = loaded.ok().map(|loaded| loaded.config);
    let is_here = Path::new("/run/systemd/system").is_dir();
    let providers = loaded.iter().flat_map(|config| &config.llm.providers);
    let places = |of: fn(&Config) -> &Path| loaded.as_ref().map(of).map(place).unwrap_or_default();
    Ok(Facts {
        version: crate::VERSION.to_owned(),
        kernel: kernel(),
        systemd: is_here.then(systemd).flatten(),
        cgroups: cgroups(),
        clock: clock(),
        journal: Path::new("/run/systemd/journal/socket").exists(),
        caller: caller(&target),
        config,
        policy: policy::fault(Path::new(POLICY)),
        state: places(|config| &config.state_dir),
        runtime: places(|config| &config.runtime_dir),
        units: if is_here { units(&target) } else { Vec::new() },
        daemon: Some(daemon(target)),
        providers: providers.map(provider).collect(),
    })
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// The settings of the daemon that is meant: those of the host, whoever asks.
fn sources(file: Option<PathBuf>, is_systems: bool) -> Sources {
    let mut sources = Sources::of_process(file);
    if is_systems {
        let state = "/var/lib/taskdaemon".into();
        sources.variables.insert("STATE_DIRECTORY".into(), state);
    }
    sources
}

fn kernel() -> Option<(u32, u32)> {
    let name = uname().ok()?;
    let mut numbers = name
        .release()
        .to_str()?
        .split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// What a program of the host prints.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn systemd() -> Option<u32> {
    let said = said("systemctl", &["--version"])?;
    let version = said.split_whitespace().nth(1)?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn cgroups() -> Cgroups {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Cgroups::V2;
    }
    let old = ["memory", "unified", "systemd"];
    if old.iter().any(|tree| root.join(tree).is_dir()) {
        return Cgroups::Old;
    }
    Cgroups::None
}

/// Whether the kernel is told the right time, by whoever does that here.
fn clock() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let said = said(
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
    )?;
    match said.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Who asks the system's daemon; every other asks for a right of its own.
fn caller(target: &Target) -> Caller {
    if is_root() || !target.is_systems() {
        return Caller::Free;
    }
    let Ok(Some(group)) = Group::from_name(GROUP) else {
        return Caller::Free;
    };
    if getgroups().is_ok_and(|all| all.contains(&group.gid)) || Gid::effective() == group.gid {
        return Caller::Member;
    }
    let user = User::from_uid(geteuid()).ok().flatten();
    match user {
        Some(user) if group.mem.contains(&user.name) => Caller::Later,
        _ => Caller::Stranger,
    }
}

/// A directory; the disk is that of the nearest one above that is there.
fn place(path: &Path) -> Place {
    let mode = fs::metadata(path).ok();
    let disk = path.ancestors().find_map(|path| statvfs(path).ok());
    Place {
        path: path.display().to_string(),
        mode: mode.map(|meta| meta.permissions().mode()),
        bytes: disk.map(|disk| {
            let unit = disk.fragment_size();
            (disk.blocks_available() * unit, disk.blocks() * unit)
        }),
        files: disk.map(|disk| (disk.files_available(), disk.files())),
        read_only: disk.is_some_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY)),
    }
}

/// Our units, where the service manager has any of them.
fn units(target: &Target) -> Vec<Unit> {
    let mut words = vec![
        "show",
        "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload",
    ];
    if target.is_own() {
        words.push("--user");
    } else if !target.is_systems() {
        return Vec::new();
    }
    words.extend(UNITS);
    let said = said("systemctl", &words).unwrap_or_default();
    said.split("\n\n").filter_map(unit).collect()
}

fn unit(text: &str) -> Option<Unit> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_owned())
    };
    if value("LoadState")? == "not-found" {
        return None;
    }
    Some(Unit {
        name: value("Id")?,
        active: value("ActiveState")?,
        enabled: value("UnitFileState").unwrap_or_default(),
        stale: value("NeedDaemonReload")? == "yes",
    })
}

/// What the daemon says of itself, or why it says nothing.
fn daemon(target: Target) -> Result<Daemon, String> {
    let client = Client::new(target);
    let mut told = None;
    let asked = online(async {
        let status: Status = client.get("/v1/status").await?.read()?;
        let health = client.health().await?;
        told = Some((status, health));
        Ok(0)
    });
    asked.map_err(|failure| failure.to_string())?;
    let (status, health) = told.ok_or("it said nothing")?;
    let parts = health.parts.iter().map(part);
    let lacks = |runner: &crate::api::admin::Runner| {
        let missing = runner.enforces.iter().filter(|(_, can)| !**can);
        missing.map(|(name, _)| name.clone()).collect()
    };
    Ok(Daemon {
        version: status.version,
        lacks: status.runner.as_ref().map(lacks).unwrap_or_default(),
        runner: status.runner.map(|runner| runner.version),
        parts: parts.filter(|part| part.level > Level::Healthy).collect(),
    })
}

fn part(part: &PartInfo) -> Told {
    let levels = [Level::Healthy, Level::Degraded, Level::Unhealthy];
    let level = levels.into_iter().find(|level| level.word() == part.status);
    Told {
        name: part.name.clone(),
        level: level.unwrap_or(Level::Degraded),
        why: part.why.clone(),
    }
}

fn provider(provider: &Configured) -> Provider {
    let place = provider.base_url.parse::<Uri>().ok().and_then(|uri| {
        let port = match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        };
        Some((uri.host()?.to_owned(), uri.port_u16().unwrap_or(port)))
    });
    let connect = |(host, port): (String, u16)| {
        let host = host.trim_matches(['[', ']']);
        let mut found = (host, port)
            .to_socket_addrs()
            .map_err(|error| error.to_string())?;
        let address = found.next().ok_or("its name has no address")?;
        let connected = TcpStream::connect_timeout(&address, PATIENCE);
        connected
            .map(|_| address.ip().is_loopback())
            .map_err(|error| error.to_string())
    };
    let reached = place
        .ok_or_else(|| "its address has no host".to_owned())
        .and_then(connect);
    // A file in a directory that is closed to us may well be there.
    let is_there = |file: &PathBuf| file.try_exists().unwrap_or(true);
    let file = provider.key_file.as_ref().is_some_and(is_there);
    Provider {
        name: provider.name.clone(),
        key: file || provider.key_credential.is_some(),
        here: reached.as_ref().is_ok_and(|here| *here),
        fault: reached.err(),
    }
}
