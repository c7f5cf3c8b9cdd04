//! The roof: what the command line says, done and printed.
//!
//! Parsing, dispatch and printing, one file per group of verbs; no rules. Exit
//! codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 69 no daemon,
//! 75 try again, 78 configuration; `wait` and its kin end with the task's own.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client::target::Target;
use crate::client::tls::Files;
use crate::client::{self, Client};

mod activity;
mod agents;
mod batch;
mod call;
mod certificates;
mod completions;
mod deliver;
mod demo;
mod doctor;
mod edit;
mod file;
mod graph;
mod hand_in;
mod health;
mod home;
mod hooks;
mod interrupt;
mod jobs;
mod launch;
mod list;
mod logs;
mod man;
mod misread;
mod openapi;
mod page;
mod process;
mod prompt;
mod providers;
mod queues;
mod record;
mod schedules;
mod service;
mod several;
mod start;
mod status;
mod submit;
mod tasks;
mod tend;
pub mod text;
mod token;
pub mod top;
mod web;

/// A durable task queue, scheduler and supervisor for a Linux host.
#[derive(Debug, Parser)]
#[command(name = "taskdaemon", version = crate::VERSION, max_term_width = 100)]
struct Cli {
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        help = "The daemon: system, user (your own), unix:/path, or http://127.0.0.1:8377 or \
                https://… with TASKDAEMON_TOKEN; otherwise TASKDAEMON_HOST, otherwise the \
                system's where it is open to you, else your own"
    )]
    host: Option<String>,
    #[command(flatten)]
    tls: certificates::Tls,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// The runner's arguments, read alone: what reading all verbs leaves of the
/// heap, some hundred pages full of holes, would be copied with every fork.
#[derive(Debug, Parser)]
#[command(name = "taskdaemon", bin_name = "taskdaemon runner", version = crate::VERSION, max_term_width = 100)]
struct RunnerCli {
    #[command(flatten)]
    args: process::RunnerArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Hand in a command to be run
    Submit(Box<submit::Args>),
    /// Ask a language model
    Prompt(Box<prompt::Args>),
    /// List tasks, newest first
    List(list::Args),
    /// Show one task with its attempts, and what it waits for
    Show(graph::ShowArgs),
    /// Print what a task wrote
    Logs(logs::Args),
    /// Wait until tasks are over, and end with the exit code of one, or 0 if all succeeded
    Wait(several::IdsArgs),
    /// Cancel tasks, or all that a filter selects
    Cancel(record::Meant),
    /// Run tasks again that are over, or all that a filter selects
    Retry(record::Meant),
    /// Remove tasks that are over, with all that is known of them but the events
    #[command(visible_alias = "discard")]
    Prune(record::Filter),
    /// Freeze running tasks; their clocks stand still
    Pause(several::IdsArgs),
    /// Let paused tasks go on
    Resume(several::IdsArgs),
    /// Change a task that waits: by options, or in your editor
    Edit(Box<edit::Args>),
    /// Watch queues and tasks, and act on them
    Top,
    /// Open the web page for a browser on this host, until Ctrl-C
    Web(web::Args),
    /// Print what happened, and with --follow what happens
    Events(record::EventsArgs),
    /// Print what happened of late, newest first
    Activity(activity::Args),
    /// Copy the database while it is in use, and check the copy
    Backup(record::BackupArgs),
    /// Look at queues, and set their limits
    #[command(subcommand)]
    Queue(queues::Verb),
    /// Look at models, who serves them, and what is left of their limits
    #[command(subcommand)]
    Provider(providers::Verb),
    /// Make tasks at set times
    #[command(subcommand)]
    Schedule(schedules::Verb),
    /// Keep processes running: agents, workers, bots
    #[command(subcommand)]
    Agent(agents::Verb),
    /// Start a daemon by hand, in the background
    Start(Box<start::StartArgs>),
    /// Stop a daemon that was started by hand; running tasks go on
    Stop(start::StopArgs),
    /// Stop a daemon that was started by hand, and start it again
    Restart(Box<start::StartArgs>),
    /// Show what the daemon is doing
    Status(status::StatusArgs),
    /// Ask whether the daemon is well, or check its database
    Health(health::Args),
    /// Look at the host and the daemon, and say what is wrong and what mends it
    Doctor(doctor::Args),
    /// Make the daemon read its configuration again
    Reload(status::StatusArgs),
    /// Make tokens for the API over TCP
    #[command(subcommand)]
    Token(token::Verb),
    /// Look at the configuration
    Config(process::ConfigArgs),
    /// Print what makes another service manager start the daemon
    ServiceFile(service::Args),
    /// Print what completes commands in a shell
    Completions(completions::Args),
    /// Print the description of the HTTP API, an OpenAPI document
    Openapi,
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man(man::Args),
    /// See it work: a daemon of its own, killed and started again
    Demo,
    /// Send the request on standard input: what a webhook's task runs
    #[command(hide = true)]
    Deliver,
    /// Make the call on standard input: what a prompt's task runs
    #[command(hide = true)]
    Call,
    /// Look after an agent from beside it: what its task runs where a probe wants that
    #[command(hide = true)]
    Tend(tend::Args),
    /// Be the daemon, in the foreground
    Run(process::RunArgs),
    /// Be the runner, the process that owns the tasks' processes
    Runner(process::RunnerArgs),
}

/// Why a verb did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something failed, with an exit code of its own.
    #[error("{1}")]
    Code(u8, String),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Client(error) => client_code(error),
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
            Self::Io(_) => 1,
            Self::Code(code, _) => *code,
        }
    }

    /// The reader of our output went away, which is no news to anyone.
    fn is_broken_pipe(&self) -> bool {
        let (Self::Io(error) | Self::Client(client::Error::Write(error))) = self else {
            return false;
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }
}

fn client_code(error: &client::Error) -> u8 {
    match error {
        client::Error::Unreachable(..) => 69,
        client::Error::Lost => 75,
        client::Error::Strange(_) | client::Error::Write(_) => 1,
        client::Error::Usage(_) => 2,
        client::Error::Refused(wire, _) => match (wire.status, wire.code.as_str()) {
            (_, "config_refused") => 78,
            (404, _) => 3,
            (401 | 403 | 409 | 422, _) => 4,
            (400 | 405 | 413 | 415 | 416 | 421, _) => 2,
            (408 | 429 | 503 | 507, _) => 75,
            _ => 1,
        },
    }
}

/// What a verb ends with.
pub(crate) type Outcome = Result<u8, Failure>;

/// Refuses `--json` where there is nothing to say in it.
pub(crate) fn not_in_json(setting: &Setting, verb: &str) -> Result<(), Failure> {
    if setting.json {
        return Err(Failure::Usage(format!(
            "`{verb}` has no JSON form: leave out --json"
        )));
    }
    Ok(())
}

/// How a verb was called.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    host: Option<String>,
    tls: Files,
    json: bool,
}

impl Setting {
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(Target::find(self.host.as_deref(), &self.tls)?))
    }
}

/// Does what the arguments say.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|verb| verb == "runner") {
        return match RunnerCli::try_parse_from(args.into_iter().skip(1)) {
            Ok(cli) => told(process::runner(cli.args)),
            Err(error) => misread::misread(&error),
        };
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return misread::misread(&error),
    };
    let setting = Setting {
        host: cli.host,
        tls: cli.tls.into(),
        json: cli.json,
    };
    told(match cli.verb {
        Some(verb) => dispatch(verb, &setting),
        None => home::home(&setting),
    })
}

/// Says why, where it failed.
fn told(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.is_broken_pipe() {
                complain(&failure.to_string());
            }
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(verb: Verb, setting: &Setting) -> Outcome {
    match verb {
        Verb::Submit(args) => online(submit::submit(&args, setting)),
        Verb::Prompt(args) => online(prompt::prompt(&args, setting)),
        Verb::List(args) => online(list::list(&args, setting)),
        Verb::Show(args) => online(graph::show(&args, setting)),
        Verb::Logs(args) => online(logs::logs(&args, setting)),
        Verb::Wait(args) => online(several::wait(&args, setting)),
        Verb::Cancel(args) => online(record::change(&args, "cancel", setting)),
        Verb::Retry(args) => online(record::change(&args, "retry", setting)),
        Verb::Prune(args) => online(record::bulk(&args, "discard", setting)),
        Verb::Pause(args) => online(several::change(&args, "pause", setting)),
        Verb::Resume(args) => online(several::change(&args, "resume", setting)),
        Verb::Edit(args) => online(edit::edit(&args, setting)),
        Verb::Top => online(top::top(setting)),
        Verb::Web(args) => web::web(&args, setting),
        Verb::Events(args) => online(record::events(&args, setting)),
        Verb::Activity(args) => online(activity::activity(&args, setting)),
        Verb::Backup(args) => record::backup(&args, setting),
        Verb::Queue(verb) => online(queues::queue(verb, setting)),
        Verb::Provider(verb) => online(providers::provider(verb, setting)),
        Verb::Schedule(verb) => online(schedules::schedule(verb, setting)),
        Verb::Agent(verb) => online(agents::agent(verb, setting)),
        Verb::Start(args) => not_in_json(setting, "start").and_then(|()| start::start(*args)),
        Verb::Stop(args) => not_in_json(setting, "stop").and_then(|()| start::stop(&args)),
        Verb::Restart(args) => not_in_json(setting, "restart").and_then(|()| start::restart(*args)),
        Verb::Status(args) => status::status(&args, setting),
        Verb::Health(args) => health::health(&args, setting),
        Verb::Doctor(args) => doctor::doctor(&args, setting),
        Verb::Reload(args) => status::reload(&args, setting),
        Verb::ServiceFile(args) => service::service_file(&args, setting),
        Verb::Completions(args) => completions::completions(&args, setting),
        Verb::Openapi => openapi::openapi(),
        Verb::Man(args) => man::man(&args, setting),
        Verb::Demo => demo::demo(),
        Verb::Deliver => online(deliver::deliver()),
        Verb::Call => online(call::call()),
        Verb::Tend(args) => tend::tend(&args),
        Verb::Token(verb) => token::token(verb, setting),
        Verb::Config(args) => process::config(&args, setting),
        Verb::Run(args) => process::run(&args),
        Verb::Runner(args) => process::runner(args),
    }
}

/// How many tasks the bytes of a job file ask for. The name's ending says what
/// they are.
///
/// # Errors
/// What is wrong with them, and where.
pub fn count_jobs(name: &Path, bytes: &[u8]) -> Result<usize, String> {
    jobs::read(name, bytes).map(|jobs| jobs.len())
}

/// Runs a conversation with the daemon. Boxed, so that there is one copy of the
/// runtime's loop for all verbs, and no function that all of them are put into.
fn online<'a>(conversation: impl Future<Output = Outcome> + 'a) -> Outcome {
    let conversation: Pin<Box<dyn Future<Output = Outcome> + 'a>> = Box::pin(conversation);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(conversation)
}

/// One line on standard error; when even that is closed, nobody is listening.
pub(crate) fn complain(message: &str) {
    drop(io::stderr().write_all(complaint(message).as_bytes()));
}

/// What is complained of, as it is printed.
fn complaint(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(text::escape).collect();
    format!("taskdaemon: {}\n", lines.join("\n"))
}
