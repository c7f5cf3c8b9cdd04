//! Verbs about the daemon itself: status and reload. With a pid file,
//! status and reload are what scripts of init systems expect.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use nix::sys::signal::Signal;

use crate::api::admin::{AgentCount, Status};
use crate::api::number::Stamp;
use crate::daemon::pidfile::{self, Found};
use crate::daemon::record::{Phase, Record};
use crate::run::own;
use crate::runner::pidfd::Process;

use super::page::utc;
use super::start::{Which, pid_failure};
use super::text::escape;
use super::{Failure, Outcome, Setting, not_in_json, online};

/// Which daemon is meant.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Go by this pid file, and end as init scripts do: with 0 when the daemon
    /// runs, 1 when it died, 2 when it ended and a runner still has tasks, 3
    /// when it is not running, 4 when that cannot be told
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pid_file: Option<PathBuf>,
    /// Configuration file, with --pid-file
    #[arg(long, value_name = "FILE", requires = "pid_file")]
    config: Option<PathBuf>,
}

impl StatusArgs {
    /// The pid file that is meant, if one is.
    fn which(&self) -> Option<Which> {
        self.pid_file.as_ref().map(|path| Which {
            pid_file: Some(path.clone()),
            config: self.config.clone(),
        })
    }
}

/// `status`.
pub(super) fn status(args: &StatusArgs, setting: &Setting) -> Outcome {
    match args.which() {
        None => online(ask(setting)),
        Some(which) => {
            not_in_json(setting, "status --pid-file")?;
            by_pid_file(&which)
        }
    }
}

/// The codes are those of the Linux Standard Base.
fn by_pid_file(which: &Which) -> Outcome {
    let path = which.file()?;
    let found = match pidfile::look(&path) {
        Ok(found) => found,
        Err(error) => return Err(Failure::Code(4, error.to_string())),
    };
    let mut out = io::stdout();
    let runner = which
        .settings()
        .is_ok_and(|settings| own::lives(&settings.run.runner_socket));
    let code = match found {
        Found::Held(process) => {
            writeln!(out, "taskdaemon is running, pid {}", process.pid())?;
            if let Some(line) = healing(&process, &path) {
                writeln!(out, "{line}")?;
            }
            0
        }
        Found::Stale => {
            let path = path.display();
            writeln!(out, "taskdaemon is dead, and its pid file {path} is left")?;
            1
        }
        Found::Absent | Found::Unused if runner => {
            writeln!(
                out,
                "taskdaemon is not running; its runner is, and may have tasks"
            )?;
            2
        }
        Found::Absent | Found::Unused => {
            writeln!(out, "taskdaemon is not running")?;
            3
        }
    };
    Ok(code)
}

/// What a supervisor wrote down.
fn healing(process: &Process, pid_file: &std::path::Path) -> Option<String> {
    let record = Record::read(&Record::beside(pid_file))
        .filter(|record| i32::try_from(record.pid) == Ok(process.pid()));
    let Some(record) = record else {
        return Some("self-healing: disabled".to_owned());
    };
    let enabled = if record.heal { "enabled" } else { "disabled" };
    let phase = match record.phase {
        Phase::Running => String::new(),
        Phase::Starting => ", the daemon starts".to_owned(),
        Phase::Waiting { until, cool_off } => {
            let why = if cool_off { " after too many" } else { "" };
            format!(", the daemon is down; next restart{why}: {}", Stamp(until))
        }
    };
    let restarts = restarts(record.restarts);
    Some(format!("self-healing: {enabled}, {restarts}{phase}"))
}

fn restarts(count: u64) -> String {
    match count {
        1 => "1 restart".to_owned(),
        count => format!("{count} restarts"),
    }
}

async fn ask(setting: &Setting) -> Outcome {
    let answer = setting.client()?.get("/v1/status").await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let status: Status = answer.read()?;
    let (version, pid, phase) = (escape(&status.version), status.pid, escape(&status.phase));
    writeln!(
        out,
        "taskdaemon {version}, pid {pid}: {phase} since {}",
        utc(status.started_at)
    )?;
    if let Some(supervisor) = &status.supervisor {
        writeln!(
            out,
            "self-healing: enabled, {}; supervisor {}",
            restarts(supervisor.restarts),
            supervisor.pid
        )?;
    }
    let tasks: Vec<String> = status
        .tasks
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", escape(state)))
        .collect();
    let tasks = if tasks.is_empty() {
        "none".to_owned()
    } else {
        tasks.join(", ")
    };
    writeln!(out, "tasks   {tasks}")?;
    writeln!(
        out,
        "slots   {} of {} in use",
        status.slots.used, status.slots.total
    )?;
    if let Some(agents) = &status.agents {
        writeln!(out, "agents  {}", agents_in_words(agents))?;
    }
    match status.runner {
        None => writeln!(out, "runner  none connected: tasks wait")?,
        Some(runner) => {
            writeln!(
                out,
                "runner  {}, pid {}",
                escape(&runner.version),
                runner.pid
            )?;
            let missing: Vec<String> = runner
                .enforces
                .iter()
                .filter(|(_, can)| !**can)
                .map(|(name, _)| escape(name))
                .collect();
            if !missing.is_empty() {
                writeln!(
                    out,
                    "        not enforced on this host: {}",
                    missing.join(", ")
                )?;
            }
        }
    }
    Ok(0)
}

pub(super) fn agents_in_words(agents: &AgentCount) -> String {
    let all: u64 = agents.phases.iter().map(|(_, count)| count).sum();
    let phase = |(phase, count): &(String, u64)| {
        let until = agents.cooling_until.filter(|_| phase == "cooling_off");
        let until = until.map(|until| format!(" until {}", utc(until)));
        let phase = escape(phase).replace('_', " ");
        format!("{count} {phase}{}", until.unwrap_or_default())
    };
    let phases: Vec<_> = agents.phases.iter().map(phase).collect();
    format!("{all}: {}", phases.join(", "))
}

/// `reload`.
pub(super) fn reload(args: &StatusArgs, setting: &Setting) -> Outcome {
    let Some(which) = args.which() else {
        return online(reload_by_request(setting));
    };
    not_in_json(setting, "reload --pid-file")?;
    let path = which.file()?;
    let Found::Held(process) = pidfile::look(&path).map_err(|error| pid_failure(&error))? else {
        return Err(Failure::Code(69, "taskdaemon is not running".to_owned()));
    };
    // A signal has no answer: what is wrong is said before.
    which
        .settings()
        .map_err(|error| Failure::Config(error.to_string()))?;
    let pid = process.pid();
    process.signal(Signal::SIGHUP).map_err(|error| {
        Failure::Code(4, format!("cannot signal taskdaemon, pid {pid}: {error}"))
    })?;
    writeln!(
        io::stdout(),
        "asked taskdaemon, pid {pid}, to read its configuration again"
    )?;
    Ok(0)
}

async fn reload_by_request(setting: &Setting) -> Outcome {
    let answer = setting.client()?.post("/v1/reload").await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let changed: BTreeMap<String, Vec<String>> = answer.read()?;
    let changed = changed.get("changed").cloned().unwrap_or_default();
    if changed.is_empty() {
        writeln!(out, "reloaded: nothing changed")?;
    }
    for change in changed {
        writeln!(out, "reloaded: {}", escape(&change))?;
    }
    Ok(0)
}
