//! The judgement of a host.

use crate::model::health::Level;

use super::facts::{Caller, Cgroups, Daemon, Facts, Place, Provider, Unit};
use super::finding::{Finding, bad, ok, warn};

/// The systemd of the oldest release that is tested.
const SYSTEMD: u32 = 252;
/// The kernel with all that cgroups of tasks need.
const KERNEL: (u32, u32) = (5, 14);
/// Less than one part in so many free is little.
const LITTLE: u64 = 20;
/// So few bytes free are too few, however large the disk is.
const FEW_BYTES: u64 = 256 << 20;
/// So many bytes free are enough, however large the disk is.
const MANY_BYTES: u64 = 5 << 30;

/// Judges a host, in the order in which its faults are to be mended.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![kernel(facts), systemd(facts), cgroups(facts)];
    found.extend(clock(facts));
    found.extend(journal(facts));
    found.extend(config(facts));
    found.push(match &facts.policy {
        None => ok("run-as", "the policy on users is safe and understood"),
        Some(fault) => bad(
            "run-as",
            fault,
            "mend it as root; until then tasks wait instead of being run as somebody else",
        ),
    });
    found.extend(state(&facts.state));
    found.extend(runtime(&facts.runtime));
    found.extend(facts.units.iter().map(unit));
    found.extend(caller(facts.caller));
    match &facts.daemon {
        None => {}
        Some(Ok(told)) => found.extend(daemon(facts, told)),
        Some(Err(why)) => found.push(bad(
            "daemon",
            why,
            "`taskdaemon start` or `systemctl start taskdaemon`; what it says when it ends is in \
             `journalctl -u taskdaemon`",
        )),
    }
    found.extend(facts.providers.iter().map(provider));
    found
}

fn kernel(facts: &Facts) -> Finding {
    let (least, newest) = KERNEL;
    match facts.kernel {
        None => warn("kernel", "its version is unknown", "look at `uname -r`"),
        Some((major, minor)) if (major, minor) < KERNEL => warn(
            "kernel",
            format!("Linux {major}.{minor} cannot end a whole cgroup at once"),
            format!("run Linux {least}.{newest} or newer"),
        ),
        Some((major, minor)) => ok("kernel", format!("Linux {major}.{minor}")),
    }
}

fn systemd(facts: &Facts) -> Finding {
    match facts.systemd {
        None => ok(
            "systemd",
            "systemd does not run this host: `taskdaemon start` is the way",
        ),
        Some(version) if version < SYSTEMD => warn(
            "systemd",
            format!("systemd {version} is older than the units are made for"),
            format!("run systemd {SYSTEMD} or newer (Debian 12 has it)"),
        ),
        Some(version) => ok("systemd", format!("systemd {version}")),
    }
}

fn cgroups(facts: &Facts) -> Finding {
    match facts.cgroups {
        Cgroups::V2 => ok("cgroups", "one cgroup tree, version 2"),
        Cgroups::Old => warn(
            "cgroups",
            "the host uses cgroups of version 1, in which tasks have no limits",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Cgroups::None => warn(
            "cgroups",
            "there is no cgroup tree: tasks have no limits and cannot be paused",
            "mount one: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn clock(facts: &Facts) -> Option<Finding> {
    Some(if facts.clock? {
        ok("clock", "the clock is kept right")
    } else {
        warn(
            "clock",
            "nothing keeps the clock right: schedules fire when it says so",
            "timedatectl set-ntp true, or install chrony",
        )
    })
}

fn journal(facts: &Facts) -> Option<Finding> {
    facts.systemd?;
    Some(if facts.journal {
        ok("journal", "the journal takes messages")
    } else {
        warn(
            "journal",
            "the journal's socket is not there: what the daemon says goes to standard error",
            "systemctl start systemd-journald.socket",
        )
    })
}

fn config(facts: &Facts) -> Option<Finding> {
    Some(match facts.config.as_ref()? {
        Ok(()) => ok("config", "the configuration is understood"),
        Err(fault) => bad(
            "config",
            fault,
            "mend that line; `taskdaemon config check` looks again",
        ),
    })
}

fn state(place: &Place) -> Vec<Finding> {
    let path = &place.path;
    let mut found = Vec::new();
    match place.mode {
        None => found.push(warn(
            "state",
            format!("{path} is not there yet, or closed to you"),
            "the daemon makes it when it starts; as root one sees more",
        )),
        Some(mode) if mode & 0o077 != 0 => found.push(bad(
            "state",
            format!("{path} is open to others (mode {:04o})", mode & 0o7777),
            format!("chmod 0700 {path}"),
        )),
        Some(_) => found.push(ok("state", format!("{path} is the daemon's alone"))),
    }
    if place.read_only {
        found.push(bad(
            "disk",
            format!("the file system of {path} is read-only"),
            "look at `dmesg` for its errors, and mount it for writing again",
        ));
    }
    if let Some((free, all)) = place.bytes {
        let mib = free >> 20;
        let fix = format!("make room, or move state_dir; `du -xh {path}` says what is there");
        found.push(if free < FEW_BYTES {
            bad("disk", format!("{mib} MiB are left for {path}"), fix)
        } else if free < MANY_BYTES && free < all / LITTLE {
            warn("disk", format!("{mib} MiB are left for {path}"), fix)
        } else {
            ok("disk", format!("{mib} MiB are left for {path}"))
        });
    }
    if let Some((free, all)) = place.files.filter(|(_, all)| *all > 0) {
        found.push(if free < all / LITTLE {
            warn(
                "inodes",
                format!("{free} of {all} files can still be made on the disk of {path}"),
                "remove files; each attempt of a task needs one",
            )
        } else {
            ok("inodes", format!("{free} files can still be made"))
        });
    }
    found
}

fn runtime(place: &Place) -> Option<Finding> {
    let mode = place.mode?;
    let path = &place.path;
    Some(if mode & 0o022 != 0 {
        bad(
            "sockets",
            format!(
                "others may put sockets into {path} (mode {:04o})",
                mode & 0o7777
            ),
            format!("chmod go-w {path}"),
        )
    } else {
        ok("sockets", format!("{path} is closed to others' sockets"))
    })
}

fn unit(unit: &Unit) -> Finding {
    let Unit {
        name,
        active,
        enabled,
        stale,
    } = unit;
    let what = format!("{name} is {active}, {enabled}");
    if *stale {
        return warn(
            "units",
            format!("{name} has changed since systemd read it"),
            format!("systemctl daemon-reload && systemctl restart {name}"),
        );
    }
    match active.as_str() {
        "failed" => bad(
            "units",
            what,
            format!("`systemctl status {name}` says why; then systemctl restart {name}"),
        ),
        "active" if enabled == "disabled" => warn(
            "units",
            format!("{name} is active, and does not start with the host"),
            format!("systemctl enable {name}"),
        ),
        "active" | "activating" | "reloading" => ok("units", what),
        _ => bad("units", what, format!("systemctl enable --now {name}")),
    }
}

fn caller(caller: Caller) -> Option<Finding> {
    match caller {
        Caller::Free => None,
        Caller::Member => Some(ok("group", "you are in group taskdaemon")),
        Caller::Later => Some(warn(
            "group",
            "you are in group taskdaemon, and this login does not know it yet",
            "log in again, or: newgrp taskdaemon",
        )),
        Caller::Stranger => Some(bad(
            "group",
            "you are not in group taskdaemon, to which the system's daemon listens",
            "as root: adduser USER taskdaemon; then log in again",
        )),
    }
}

fn daemon(facts: &Facts, told: &Daemon) -> Vec<Finding> {
    let version = &told.version;
    let mut found = vec![if *version == facts.version {
        ok("daemon", format!("the daemon answers, version {version}"))
    } else {
        let own = &facts.version;
        warn(
            "daemon",
            format!("the daemon is version {version}, and this program {own}"),
            "systemctl restart taskdaemon; running tasks go on",
        )
    }];
    match &told.runner {
        // The daemon says that itself, as a part of it that is not well.
        None => {}
        Some(runner) if runner != version => found.push(warn(
            "runner",
            format!("the runner is version {runner}, and the daemon {version}"),
            "systemctl restart taskdaemon: the runner renews itself then; running tasks go on",
        )),
        Some(runner) => found.push(ok(
            "runner",
            format!("a runner is connected, version {runner}"),
        )),
    }
    if !told.lacks.is_empty() {
        found.push(warn(
            "limits",
            format!("not enforced on this host: {}", told.lacks.join(", ")),
            "the runner needs root and a cgroup with Delegate=yes: use its unit, and see \
             `systemctl cat taskdaemon-runner`; for a user's own daemon, `systemctl edit \
             user@.service` with Delegate=cpu memory pids",
        ));
    }
    if told.parts.is_empty() {
        found.push(ok("health", "all parts of the daemon are well"));
    }
    for part in &told.parts {
        let why = part.why.as_deref().unwrap_or_else(|| part.level.word());
        let what = format!("{}: {why}", part.name);
        let fix = match part.name.as_str() {
            "store" => "`taskdaemon health --check-db` says whether the database is sound",
            "disk" => "make room; tasks are taken again by themselves",
            "runner" => {
                "systemctl start taskdaemon-runner.socket; `journalctl -u taskdaemon-runner`"
            }
            "run_as" => "mend /etc/taskdaemon/run-as.toml as root",
            "schedules" => "raise engine.schedule_rate or engine.slots, or spread the times",
            "certificate" => "renew api.tls_certificate, and `taskdaemon reload`",
            name if name.starts_with("provider ") => {
                "`taskdaemon provider list` says what it waits for"
            }
            _ => "`taskdaemon health` says since when, and the journal what happened",
        };
        found.push(if part.level == Level::Unhealthy {
            bad("health", what, fix)
        } else {
            warn("health", what, fix)
        });
    }
    found
}

fn provider(provider: &Provider) -> Finding {
    let name = &provider.name;
    match &provider.fault {
        Some(fault) => warn(
            "providers",
            format!("{name} cannot be reached from here: {fault}"),
            "look at its base_url in section [llm], the network and its firewall",
        ),
        None if !provider.key && !provider.here => warn(
            "providers",
            format!("{name} is asked without a key"),
            "set key_file or key_credential of it in section [llm]",
        ),
        None => ok("providers", format!("{name} can be reached")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::doctor::facts::Told;
    use crate::model::doctor::finding::{Verdict, worst};

    /// A host on which nothing is wrong.
    fn well() -> Facts {
        let unit = |name: &str| Unit {
            name: name.to_owned(),
            active: "active".to_owned(),
            enabled: "enabled".to_owned(),
            stale: false,
        };
        Facts {
            version: "1".to_owned(),
            kernel: Some((6, 1)),
            systemd: Some(252),
            cgroups: Cgroups::V2,
            clock: Some(true),
            journal: true,
            caller: Caller::Member,
            config: Some(Ok(())),
            policy: None,
            state: Place {
                path: "/s".to_owned(),
                mode: Some(0o700),
                bytes: Some((100 << 30, 200 << 30)),
                files: Some((1_000, 2_000)),
                read_only: false,
            },
            runtime: Place {
                path: "/r".to_owned(),
                mode: Some(0o755),
                ..Place::default()
            },
            units: vec![unit("taskdaemon.service")],
            daemon: Some(Ok(Daemon {
                version: "1".to_owned(),
                runner: Some("1".to_owned()),
                ..Daemon::default()
            })),
            providers: vec![Provider {
                name: "p".to_owned(),
                key: true,
                ..Provider::default()
            }],
        }
    }

    fn daemon(change: impl FnOnce(&mut Daemon)) -> Option<Result<Daemon, String>> {
        let mut daemon = well().daemon?.ok()?;
        change(&mut daemon);
        Some(Ok(daemon))
    }

    fn part(name: &str, level: Level) -> Told {
        Told {
            name: name.to_owned(),
            level,
            why: Some("why".to_owned()),
        }
    }

    #[test]
    fn a_host_on_which_all_is_well_has_no_fault() {
        let found = judge(&well());
        assert_eq!(worst(&found), Verdict::Ok, "{found:#?}");
        assert!(found.iter().all(|one| one.fix.is_none()));
        assert!(found.len() >= 14, "all was looked at: {found:#?}");
    }

    type Row = (fn(&mut Facts), Verdict, &'static str, &'static str);

    /// What is changed of a host that is well; how bad that is, under which topic, and a
    /// word of what mends it.
    const FAULTS: [Row; 30] = [
        (
            |f| f.kernel = Some((5, 10)),
            Verdict::Warn,
            "kernel",
            "5.14",
        ),
        (|f| f.kernel = None, Verdict::Warn, "kernel", "uname"),
        (|f| f.systemd = Some(247), Verdict::Warn, "systemd", "252"),
        (
            |f| f.cgroups = Cgroups::Old,
            Verdict::Warn,
            "cgroups",
            "unified",
        ),
        (
            |f| f.cgroups = Cgroups::None,
            Verdict::Warn,
            "cgroups",
            "mount",
        ),
        (|f| f.clock = Some(false), Verdict::Warn, "clock", "set-ntp"),
        (|f| f.journal = false, Verdict::Warn, "journal", "journald"),
        (
            |f| f.config = Some(Err("x".to_owned())),
            Verdict::Bad,
            "config",
            "config check",
        ),
        (
            |f| f.policy = Some("x".to_owned()),
            Verdict::Bad,
            "run-as",
            "root",
        ),
        (
            |f| f.state.mode = Some(0o755),
            Verdict::Bad,
            "state",
            "chmod 0700 /s",
        ),
        (|f| f.state.mode = None, Verdict::Warn, "state", "root"),
        (|f| f.state.read_only = true, Verdict::Bad, "disk", "dmesg"),
        (
            |f| f.state.bytes = Some((1 << 20, 1 << 40)),
            Verdict::Bad,
            "disk",
            "room",
        ),
        (
            |f| f.state.bytes = Some((1 << 30, 1 << 40)),
            Verdict::Warn,
            "disk",
            "room",
        ),
        (
            |f| f.state.files = Some((1, 1_000)),
            Verdict::Warn,
            "inodes",
            "remove",
        ),
        (
            |f| f.runtime.mode = Some(0o777),
            Verdict::Bad,
            "sockets",
            "chmod go-w /r",
        ),
        (
            |f| f.units[0].active = "failed".to_owned(),
            Verdict::Bad,
            "units",
            "systemctl status",
        ),
        (
            |f| f.units[0].active = "inactive".to_owned(),
            Verdict::Bad,
            "units",
            "enable --now",
        ),
        (
            |f| f.units[0].enabled = "disabled".to_owned(),
            Verdict::Warn,
            "units",
            "enable",
        ),
        (
            |f| f.units[0].stale = true,
            Verdict::Warn,
            "units",
            "daemon-reload",
        ),
        (
            |f| f.caller = Caller::Later,
            Verdict::Warn,
            "group",
            "log in again",
        ),
        (
            |f| f.caller = Caller::Stranger,
            Verdict::Bad,
            "group",
            "adduser",
        ),
        (
            |f| f.daemon = Some(Err("x".to_owned())),
            Verdict::Bad,
            "daemon",
            "start",
        ),
        (
            |f| f.version = "2".to_owned(),
            Verdict::Warn,
            "daemon",
            "restart",
        ),
        (
            |f| f.daemon = daemon(|d| d.runner = Some("0".to_owned())),
            Verdict::Warn,
            "runner",
            "renews",
        ),
        (
            |f| f.daemon = daemon(|d| d.lacks = vec!["memory".to_owned()]),
            Verdict::Warn,
            "limits",
            "Delegate",
        ),
        (
            |f| f.daemon = daemon(|d| d.parts = vec![part("store", Level::Unhealthy)]),
            Verdict::Bad,
            "health",
            "--check-db",
        ),
        (
            |f| f.daemon = daemon(|d| d.parts = vec![part("runner", Level::Degraded)]),
            Verdict::Warn,
            "health",
            "taskdaemon-runner",
        ),
        (
            |f| f.providers[0].fault = Some("x".to_owned()),
            Verdict::Warn,
            "providers",
            "base_url",
        ),
        (
            |f| f.providers[0].key = false,
            Verdict::Warn,
            "providers",
            "key_file",
        ),
    ];

    #[test]
    fn each_fault_of_a_host_is_found_alone_and_names_what_mends_it() {
        for (change, verdict, topic, word) in FAULTS {
            let mut facts = well();
            change(&mut facts);
            let found = judge(&facts);
            let faults: Vec<_> = found
                .iter()
                .filter(|one| one.verdict != Verdict::Ok)
                .collect();
            let [fault] = faults.as_slice() else {
                panic!("one fault of {topic}: {faults:#?}");
            };
            assert_eq!((fault.verdict, fault.topic), (verdict, topic), "{fault:?}");
            let fix = fault.fix.as_deref().unwrap_or_default();
            assert!(fix.contains(word), "{fault:?}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_there_is_no_fault() {
        let facts = Facts {
            systemd: None,
            clock: None,
            journal: false,
            caller: Caller::Free,
            units: Vec::new(),
            daemon: None,
            providers: Vec::new(),
            ..well()
        };
        assert_eq!(worst(&judge(&facts)), Verdict::Ok);
    }
}
