//! Verbs that make this process something else, or look at what would make it
//! so: run, runner, config.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::config::{self, Sources, print};
use crate::{clock, daemon, runner};

use super::{Failure, Outcome, Setting, not_in_json};

/// Settings of the daemon that the command line may give.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
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
pub(super) fn run(args: RunArgs) -> Outcome {
    let mut sources = Sources::of_process(args.config);
    let dir = |path: PathBuf| std::path::absolute(path).map(|path| path.display().to_string());
    if let Some(path) = args.state_dir {
        sources = sources.with_flag("state_dir", dir(path)?);
    }
    if let Some(path) = args.runtime_dir {
        sources = sources.with_flag("runtime_dir", dir(path)?);
    }
    if let Some(filter) = args.log {
        sources = sources.with_flag("log", filter);
    }
    daemon::run(sources)
        .map(|()| 0)
        .map_err(|error| Failure::Code(error.exit_code(), chain(&error)))
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
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
