//! What in our own unit is not as it should be, as far as a process can see it:
//! by what systemd hands over and what it leaves out, and by what may be
//! written. What only the service manager knows, such as `TimeoutStopSec=`, is
//! not asked: that takes D-Bus, which the daemon does without.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process;

use nix::unistd::geteuid;

use crate::config::Config;

/// What there is to see of the unit before anything is taken out of the
/// environment.
#[derive(Debug, Clone, Copy)]
struct Unit {
    notify: bool,
    sockets: bool,
    root: bool,
}

/// Whether systemd itself has executed this process; a variable that a child
/// of such a process inherits names another one.
fn is_ours() -> bool {
    is_this(env::var_os("SYSTEMD_EXEC_PID").as_deref())
}

fn is_this(pid: Option<&OsStr>) -> bool {
    let pid = pid.and_then(OsStr::to_str).and_then(|pid| pid.parse().ok());
    pid == Some(process::id())
}

/// Mistakes of the unit that show in the environment, each with the line that
/// mends it.
pub(super) fn mistakes() -> Vec<String> {
    if !is_ours() {
        return Vec::new();
    }
    let unit = Unit {
        notify: env::var_os("NOTIFY_SOCKET").is_some(),
        sockets: env::var_os("LISTEN_FDS").is_some(),
        root: geteuid().is_root(),
    };
    unit.mistakes()
}

impl Unit {
    fn mistakes(self) -> Vec<String> {
        let rows = [
            (
                !self.notify,
                "systemd does not hear when this daemon is ready, hangs or stops: set Type=notify \
                 in its unit",
            ),
            (
                !self.sockets,
                "systemd passed no socket, so clients are refused while this daemon restarts: \
                 enable taskdaemon-api.socket, whose Service= must name this unit",
            ),
            (
                self.root,
                "the daemon runs as root, which it has no use for: set User=taskdaemon in its unit",
            ),
        ];
        let wrong = rows.into_iter().filter(|(is_wrong, _)| *is_wrong);
        wrong.map(|(_, line)| line.to_owned()).collect()
    }
}

/// Paths of the settings that others look for in vain, because the unit has a
/// `/tmp` of its own.
pub(super) fn hidden(config: &Config) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let run = &config.run;
    let shared = [
        ("run.runner_socket", &run.runner_socket),
        ("run.report_socket", &run.report_socket),
    ];
    let shared = shared
        .into_iter()
        .filter(|(_, path)| is_hidden(&mounts, path));
    let told = shared.map(|(key, path)| {
        format!(
            "{key}: nobody else sees {}: the unit has PrivateTmp=yes; choose a path below /run",
            path.display()
        )
    });
    told.collect()
}

/// Whether a path is in a directory that systemd made for this unit alone.
fn is_hidden(mounts: &str, path: &Path) -> bool {
    ["/tmp", "/var/tmp"].iter().any(|place| {
        let private = |line: &str| {
            let mut words = line.split(' ').skip(3);
            let (root, at) = (words.next(), words.next());
            at == Some(place) && root.is_some_and(|root| root.contains("/systemd-private-"))
        };
        path.starts_with(place) && mounts.lines().any(private)
    })
}

/// What to change in the unit, where an error is likely its doing.
pub(super) fn advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<io::Error>()?;
    let is_read_only = error.raw_os_error() == Some(libc::EROFS);
    (is_read_only && is_ours()).then_some(
        "; ProtectSystem= of its unit closes what StateDirectory=, RuntimeDirectory= or \
         ReadWritePaths= does not name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bi_62_each_mistake_of_the_unit_names_the_line_that_mends_it() {
        let good = Unit {
            notify: true,
            sockets: true,
            root: false,
        };
        assert_eq!(good.mistakes(), Vec::<String>::new());
        for (unit, line) in [
            (
                Unit {
                    notify: false,
                    ..good
                },
                "Type=notify",
            ),
            (
                Unit {
                    sockets: false,
                    ..good
                },
                "taskdaemon-api.socket",
            ),
            (Unit { root: true, ..good }, "User=taskdaemon"),
        ] {
            let found = unit.mistakes();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(line), "{found:?}");
        }
    }

    #[test]
    fn bi_63_a_path_in_a_private_tmp_is_hidden_and_no_other_is() {
        let private = "22 1 254:0 /tmp/systemd-private-3f-taskdaemon.service-x/tmp /tmp rw - ext4 /dev/x rw\n";
        let shared = "22 1 0:30 / /tmp rw,nosuid - tmpfs tmpfs rw\n";
        for (mounts, path, hidden) in [
            (private, "/tmp/runner.sock", true),
            (private, "/run/taskdaemon/runner.sock", false),
            (private, "/tmpfile", false),
            (private, "/var/tmp/runner.sock", false),
            (shared, "/tmp/runner.sock", false),
            ("", "/tmp/runner.sock", false),
        ] {
            assert_eq!(
                is_hidden(mounts, Path::new(path)),
                hidden,
                "{path} {mounts}"
            );
        }
    }
}
