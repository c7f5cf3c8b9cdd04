//! Verbs that make this process something else, or look at what would make it
//! so: run, runner, config.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::config::{self, Sources, print};
use crate::daemon::identity::Identity;
use crate::daemon::notify::Notify;
use crate::daemon::process::{Output, be_init, take_pipe};
use crate::daemon::{self, Origin};
use crate::{clock, runner};

use super::{Failure, Outcome, Setting, not_in_json};

/// Settings of the daemon that the command line may give.
#[derive(Debug, Args)]
pub(super) struct Given {
    /// Configuration file [default: /etc/taskdaemon/config.toml as root,
    /// else ~/.config/taskdaemon/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where tasks and their output are kept
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where sockets are
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// What to log, such as `debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// File for standard error, where the log goes; SIGUSR2 opens it again
    #[arg(long, value_name = "FILE")]
    stderr: Option<PathBuf>,
    /// File for standard output
    #[arg(long, value_name = "FILE")]
    stdout: Option<PathBuf>,
}

/// How to be the daemon.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    given: Given,
    /// Restarts so far; given by a supervisor, which reads standard output
    #[arg(long, hide = true)]
    restarts: Option<u64>,
}

impl Given {
    /// Where settings come from.
    pub(super) fn sources(&self) -> io::Result<Sources> {
        let mut sources = Sources::of_process(absolute(self.config.as_ref())?);
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
        ] {
            if let Some(path) = absolute(path.as_ref())? {
                sources = sources.with_flag(key, path.display().to_string());
            }
        }
        if let Some(filter) = &self.log {
            sources = sources.with_flag("log", filter.clone());
        }
        Ok(sources)
    }

    /// The same for another process, in another directory.
    pub(super) fn arguments(&self) -> io::Result<Vec<OsString>> {
        let mut arguments = vec![OsString::from("run")];
        let mut add = |name: &str, value: OsString| {
            arguments.push(name.into());
            arguments.push(value);
        };
        for (name, path) in [
            ("--config", &self.config),
            ("--state-dir", &self.state_dir),
            ("--runtime-dir", &self.runtime_dir),
            ("--stdout", &self.stdout),
            ("--stderr", &self.stderr),
        ] {
            if let Some(path) = absolute(path.as_ref())? {
                add(name, path.into());
            }
        }
        if let Some(filter) = &self.log {
            add("--log", filter.into());
        }
        Ok(arguments)
    }

    /// The files that standard output and standard error go to.
    pub(super) fn output(&self, owner: Option<&Identity>) -> io::Result<Output> {
        Ok(Output {
            stdout: absolute(self.stdout.as_ref())?,
            stderr: absolute(self.stderr.as_ref())?,
            owner: owner.map(|owner| owner.uid),
        })
    }

    /// The configuration file that is named.
    pub(super) fn config(&self) -> Option<PathBuf> {
        self.config.clone()
    }
}

fn absolute(path: Option<&PathBuf>) -> io::Result<Option<PathBuf>> {
    path.map(std::path::absolute).transpose()
}

/// How the runner works. The service manager needs none of these.
#[derive(Debug, Args)]
pub(super) struct RunnerArgs {
    /// Descriptor with the state of the program that this one replaces
    #[arg(long, hide = true)]
    resume: Option<RawFd>,
    /// Whom tasks run as: `policy` or `own`
    #[arg(long, value_name = "WHOM", value_parser = users)]
    users: Option<runner::Users>,
    /// Every option at once, as JSON
    #[arg(long, hide = true, value_name = "JSON")]
    options: Option<String>,
}

/// What to do with the configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Check it, and say where it is wrong
    Check {
        /// Configuration file [default: /etc/taskdaemon/config.toml as root,
        /// else ~/.config/taskdaemon/config.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print what is in force, and where each setting comes from
    Show {
        /// Configuration file [default: /etc/taskdaemon/config.toml as root,
        /// else ~/.config/taskdaemon/config.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a file with every setting, its default and its meaning
    Default,
}

/// `run`.
pub(super) fn run(args: &RunArgs) -> Outcome {
    if let Some(code) = be_init()? {
        return Ok(code);
    }
    let output = args.given.output(None)?;
    let mut origin = Origin {
        output,
        ..Origin::default()
    };
    if let Some(restarts) = args.restarts {
        origin.supervisor = Some((Notify::to_parent(take_pipe()?)?, restarts));
    }
    origin.output.open()?;
    daemon::run(args.given.sources()?, origin)
        .map(|()| 0)
        .map_err(|error| Failure::Code(error.exit_code(), daemon::explain(&error)))
}

fn users(word: &str) -> Result<runner::Users, String> {
    match word {
        "policy" => Ok(runner::Users::Policy),
        "own" => Ok(runner::Users::Own),
        _ => Err("must be `policy` or `own`".to_owned()),
    }
}

/// `runner`.
pub(super) fn runner(args: RunnerArgs) -> Outcome {
    let mut options = match &args.options {
        Some(json) => serde_json::from_str(json)
            .map_err(|error| Failure::Usage(format!("--options: {error}")))?,
        None => runner::Options::default(),
    };
    options.resume = args.resume;
    options.users = args.users.unwrap_or(options.users);
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    runner::serve(options, clock::now)
        .map(|()| 0)
        .map_err(|error| Failure::Code(1, format!("{error:#}")))
}

/// That nothing is wrong, and with what: a user has another file than the host.
fn valid(loaded: &config::Loaded) -> String {
    const HOST: &str = "/etc/taskdaemon/config.toml";
    let files: Vec<String> = loaded
        .files()
        .map(|path| path.display().to_string())
        .collect();
    let mut text = if files.is_empty() {
        "the configuration is valid; no file was read\n".to_owned()
    } else {
        format!("the configuration is valid: {}\n", files.join(", "))
    };
    for note in &loaded.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if Path::new(HOST).exists() && !files.iter().any(|file| file == HOST) {
        text.push_str(&format!(
            "note: this is not the system daemon's; check that with --config {HOST}\n"
        ));
    }
    text
}

/// `config`.
pub(super) fn config(args: &ConfigArgs, setting: &Setting) -> Outcome {
    let load = |file: &Option<PathBuf>| {
        config::load(&Sources::of_process(file.clone()))
            .map_err(|error| Failure::Config(error.to_string()))
    };
    let mut out = io::stdout().lock();
    match &args.verb {
        ConfigVerb::Check { config } => {
            let loaded = load(config)?;
            crate::api::check(loaded.config.api.clone())
                .map_err(|error| Failure::Config(error.to_string()))?;
            if setting.json {
                writeln!(out, "{{\"ok\":true}}")?;
            } else {
                out.write_all(valid(&loaded).as_bytes())?;
            }
        }
        ConfigVerb::Show { config } => {
            not_in_json(setting, "config show")?;
            out.write_all(print::show(&load(config)?).as_bytes())?;
        }
        ConfigVerb::Default => {
            not_in_json(setting, "config default")?;
            out.write_all(print::default_text().as_bytes())?;
        }
    }
    Ok(0)
}
