//! `service-file`: what makes a service manager of another kind start the
//! daemon, all from one description.
//!
//! The unit of systemd and the script of System V are the shipped files. On the
//! others the daemon is supervised by us, because somebody has to keep the
//! runner, which has rights that the daemon has not.

use std::io::{self, Write};

use clap::ValueEnum;

use super::{Outcome, Setting, not_in_json};

/// For whom it is.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The kind of service manager
    #[arg(long, value_name = "KIND")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A unit, for /etc/systemd/system/taskdaemon.service
    Systemd,
    /// A script, for /etc/init.d/taskdaemon
    Sysv,
    /// A script, for /etc/init.d/taskdaemon on `OpenRC`
    Openrc,
    /// A property list, for /Library/LaunchDaemons
    Launchd,
    /// A script, for /etc/sv/taskdaemon/run
    Runit,
    /// A script, for the run file of a service directory
    S6,
}

const NAME: &str = "taskdaemon";
const ABOUT: &str = "Durable task daemon";
const PROGRAM: &str = "/usr/bin/taskdaemon";
const PID_FILE: &str = "/run/taskdaemon.pid";
/// Supervised by us, as a user of its own.
const START: [&str; 6] = [
    "start",
    "--supervised",
    "--user",
    "taskdaemon",
    "--group",
    "taskdaemon",
];
const UNIT: &str = include_str!("../../systemd/taskdaemon.service");
const INIT: &str = include_str!("../../deb/taskdaemon.init");

/// `service-file`.
pub(super) fn service_file(args: &Args, setting: &Setting) -> Outcome {
    not_in_json(setting, "service-file")?;
    io::stdout().write_all(text(args.format).as_bytes())?;
    Ok(0)
}

fn text(format: Format) -> String {
    let arguments = START.join(" ");
    match format {
        Format::Systemd => UNIT.to_owned(),
        Format::Sysv => INIT.to_owned(),
        Format::Openrc => format!(
            "#!/sbin/openrc-run\n\
             description=\"{ABOUT}\"\n\
             command=\"{PROGRAM}\"\n\
             command_args=\"{arguments} --fork --pid-file {PID_FILE}\"\n\
             pidfile=\"{PID_FILE}\"\n\
             retry=\"TERM/40\"\n\
             extra_started_commands=\"reload\"\n\n\
             depend() {{\n\
             \tneed localmount\n\
             \tafter bootmisc\n\
             }}\n\n\
             reload() {{\n\
             \tebegin \"Reloading {NAME}\"\n\
             \t\"{PROGRAM}\" reload --pid-file \"{PID_FILE}\"\n\
             \teend $?\n\
             }}\n"
        ),
        Format::Launchd => launchd(),
        Format::Runit => format!(
            "#!/bin/sh\n\
             # {ABOUT}. `sv hup {NAME}` reloads its configuration.\n\
             exec 2>&1\n\
             exec {PROGRAM} {arguments} --pid-file {PID_FILE}\n"
        ),
        Format::S6 => format!(
            "#!/bin/sh\n\
             # {ABOUT}. `s6-svc -h` reloads its configuration.\n\
             exec 2>&1\n\
             exec {PROGRAM} {arguments} --pid-file {PID_FILE}\n"
        ),
    }
}

fn launchd() -> String {
    let words = [PROGRAM].into_iter().chain(START);
    let words: String = words
        .map(|word| format!("    <string>{word}</string>\n"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n  \
         <key>Label</key>\n  <string>{NAME}</string>\n  \
         <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n  \
         <key>RunAtLoad</key>\n  <true/>\n  \
         <key>KeepAlive</key>\n  <true/>\n  \
         <key>ExitTimeOut</key>\n  <integer>40</integer>\n\
         </dict>\n\
         </plist>\n"
    )
}
