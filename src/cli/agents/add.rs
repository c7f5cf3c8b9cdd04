//! `agent add`.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use hyper::Method;

use crate::api::agents::asked::{AskedAgent, AskedProbe, PhaseRule};
use crate::api::asked::Submit;
use crate::api::budgets::AgentRule;
use crate::api::number::{Cores, Span};
use crate::model::agent::phase::Phase;
use crate::model::agent::plan::{OnOom, Restart};
use crate::model::price::Money;
use crate::model::quantity::ByteSize;

use crate::cli::providers::budgets::money;
use crate::cli::submit::{pairs, utf8};
use crate::cli::{Failure, Outcome, Setting};

/// An agent to be made.
#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// When it is started again: always, on-failure, no [default: always]
    #[arg(long, value_name = "RULE", value_parser = restart)]
    restart: Option<Restart>,
    /// Exit codes after which it is not: 0,78
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    no_restart_on: Vec<i32>,
    /// What follows when it is killed for want of memory: restart, stop [default: restart]
    #[arg(long, value_name = "RULE", value_parser = on_oom)]
    on_oom: Option<OnOom>,
    /// Restarts in a row before the long pause [default: 5]
    #[arg(long, value_name = "COUNT")]
    max_restarts: Option<u32>,
    /// Wait before the first restart, which doubles, and the longest: 1s..60s
    #[arg(long, value_name = "FIRST..LONGEST", value_parser = backoff)]
    backoff: Option<(Span, Option<Span>)>,
    /// The long pause [default: 5m]
    #[arg(long, value_name = "DURATION")]
    cool_off: Option<Span>,
    /// Forget earlier ends once it has been up for so long [default: 1m]
    #[arg(long, value_name = "DURATION")]
    healthy_after: Option<Span>,
    /// It says READY=1 on its notify socket when it has started up
    #[arg(long)]
    notify: bool,
    /// Longest start-up, with --notify or a probe [default: 90s]
    #[arg(long, value_name = "DURATION")]
    start_timeout: Option<Span>,
    /// Longest silence on its notify socket (WATCHDOG=1) before it counts as stuck
    #[arg(long, value_name = "DURATION")]
    heartbeat: Option<Span>,
    /// Is idle after so long without output and use of CPU
    #[arg(long, value_name = "DURATION")]
    idle_after: Option<Span>,
    /// Is well while this address answers
    #[arg(long, value_name = "URL", group = "probe")]
    probe_http: Option<String>,
    /// Is well while this address takes connections
    #[arg(long, value_name = "HOST:PORT", group = "probe")]
    probe_tcp: Option<String>,
    /// Is well while this command, split at spaces, exits with 0
    #[arg(long, value_name = "COMMAND", group = "probe")]
    probe_command: Option<String>,
    /// Is well while this file is written to within the interval
    #[arg(long, value_name = "FILE", group = "probe")]
    probe_file: Option<String>,
    /// Pause between two looks [default: 10s]
    #[arg(long, value_name = "DURATION", requires = "probe")]
    probe_interval: Option<Span>,
    /// Longest wait for an answer [default: 5s]
    #[arg(long, value_name = "DURATION", requires = "probe")]
    probe_timeout: Option<Span>,
    /// Failures in a row after which it is restarted [default: 3]
    #[arg(long, value_name = "COUNT", requires = "probe")]
    probe_threshold: Option<u32>,
    /// So many of it at once [default: 1]
    #[arg(long, value_name = "COUNT")]
    instances: Option<u32>,
    /// Start when these agents are up; several with commas
    #[arg(long, value_name = "AGENT", value_delimiter = ',')]
    after: Vec<String>,
    /// Run this command, split at spaces, after each of its ends
    #[arg(long, value_name = "COMMAND")]
    on_stop: Option<String>,
    /// Its time limit [default: 30s]
    #[arg(long, value_name = "DURATION", requires = "on_stop")]
    on_stop_timeout: Option<Span>,
    #[command(flatten)]
    hooks: PhaseHooks,
    #[command(flatten)]
    allowance: Allowance,
    /// Take the place of your agent of that name
    #[arg(long)]
    replace: bool,
    /// Leave a new one stopped
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    process: Process,
}

/// What happens when it comes to stand somewhere.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("phase_hooks").multiple(true).args(["hook_command", "hook_webhook"])))]
struct PhaseHooks {
    /// When its state changes, run this program, once for each; it reads the change on standard input
    #[arg(long, value_name = "PROGRAM")]
    hook_command: Vec<String>,
    /// When its state changes, send a POST request there, once for each
    #[arg(long, value_name = "URL")]
    hook_webhook: Vec<String>,
    /// Do so at these states only [default: `cooling_off,failed`]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = phase, requires = "phase_hooks")]
    hook_on: Option<Vec<Phase>>,
}

/// What its calls of models may come to.
#[derive(Debug, Args)]
struct Allowance {
    /// With --llm, most tokens of all its calls in a day (UTC)
    #[arg(long, value_name = "COUNT", requires = "llm")]
    day_tokens: Option<u64>,
    /// With --llm, most money that its calls may come to in a day (UTC)
    #[arg(long, value_name = "AMOUNT", requires = "llm", value_parser = money)]
    day_cost: Option<Money>,
    /// With --llm, most tokens of all its calls in a minute
    #[arg(long, value_name = "COUNT", requires = "llm")]
    minute_tokens: Option<u64>,
}

/// What it runs, and within which limits.
#[derive(Debug, Args)]
struct Process {
    /// User to run as, if /etc/taskdaemon/run-as.toml allows it [default: as it says there]
    #[arg(long)]
    user: Option<String>,
    /// Working directory [default: the home of the user it runs as, not this directory]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Variable for the command, once for each; it inherits none of yours
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Label of its tasks, once for each
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Time between the request to end and the kill
    #[arg(long, value_name = "DURATION")]
    grace: Option<Span>,
    /// Memory limit: 512MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// CPU limit: 1.5 cores, or 150%
    #[arg(long, value_name = "CORES")]
    cpu: Option<Cores>,
    /// Limit on processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// Output kept of each run
    #[arg(long, value_name = "SIZE")]
    output_cap: Option<ByteSize>,
    /// Let its programs ask models, by `OPENAI_BASE_URL` or `ANTHROPIC_BASE_URL`
    #[arg(long)]
    llm: bool,
    /// Sandbox profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The command: a program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn restart(word: &str) -> Result<Restart, String> {
    match word {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "no" => Ok(Restart::No),
        _ => Err("must be always, on-failure or no".to_owned()),
    }
}

fn on_oom(word: &str) -> Result<OnOom, String> {
    match word {
        "restart" => Ok(OnOom::Restart),
        "stop" => Ok(OnOom::Stop),
        _ => Err("must be restart or stop".to_owned()),
    }
}

fn phase(word: &str) -> Result<Phase, String> {
    let found = Phase::ALL.into_iter().find(|phase| phase.word() == word);
    found.ok_or_else(|| {
        let words = Phase::ALL.map(Phase::word).join(", ");
        format!("must be one of {words}")
    })
}

fn backoff(text: &str) -> Result<(Span, Option<Span>), String> {
    let span = |text: &str| text.parse::<Span>().map_err(|bad| bad.to_string());
    match text.split_once("..") {
        None => Ok((span(text)?, None)),
        Some((first, longest)) => Ok((span(first)?, Some(span(longest)?))),
    }
}

/// Words at spaces: what is more is for a file.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `agent add`.
pub(super) async fn add(args: AddArgs, setting: &Setting) -> Outcome {
    let body = serde_json::to_vec(&order(args)?).map_err(io::Error::from)?;
    let client = setting.client()?;
    let answer = client
        .change(Method::POST, "/v1/agents", Some(body.into()))
        .await?;
    super::say(&answer, setting)
}

fn order(args: AddArgs) -> Result<AskedAgent, Failure> {
    let probe = AskedProbe {
        http: args.probe_http,
        tcp: args.probe_tcp,
        command: args.probe_command.as_deref().map(words),
        file: args.probe_file,
        interval: args.probe_interval,
        timeout: args.probe_timeout,
        threshold: args.probe_threshold,
    };
    let (backoff, backoff_max) = args.backoff.unzip();
    let budget = AgentRule {
        tokens: args.allowance.day_tokens,
        cost: args.allowance.day_cost,
        tokens_per_minute: args.allowance.minute_tokens,
    };
    Ok(AskedAgent {
        name: args.agent,
        restart: args.restart,
        no_restart_on: args.no_restart_on,
        on_oom: args.on_oom,
        max_restarts: args.max_restarts,
        backoff,
        backoff_max: backoff_max.flatten(),
        cool_off: args.cool_off,
        healthy_after: args.healthy_after,
        notify: args.notify,
        start_timeout: args.start_timeout,
        idle_after: args.idle_after,
        instances: args.instances,
        after: args.after,
        probe: (probe != AskedProbe::default()).then_some(probe),
        on_stop: args.on_stop.as_deref().map(words).unwrap_or_default(),
        on_stop_timeout: args.on_stop_timeout,
        hooks: args.hooks.rules(),
        budget: (budget != AgentRule::default()).then_some(budget),
        replace: args.replace,
        stopped: args.stopped,
        dry_run: false,
        task: Some(process(args.process, args.heartbeat)?),
    })
}

impl PhaseHooks {
    fn rules(self) -> Option<Vec<PhaseRule>> {
        let on = self.hook_on;
        let commands = self.hook_command.into_iter().map(|program| PhaseRule {
            on: on.clone(),
            command: Some(vec![program]),
            webhook: None,
        });
        let webhooks = self.hook_webhook.into_iter().map(|url| PhaseRule {
            on: on.clone(),
            command: None,
            webhook: Some(url),
        });
        let all: Vec<_> = commands.chain(webhooks).collect();
        (!all.is_empty()).then_some(all)
    }
}

fn process(args: Process, heartbeat: Option<Span>) -> Result<Submit, Failure> {
    let cwd = match &args.cwd {
        Some(dir) => Some(utf8(std::path::absolute(dir)?.into_os_string(), "--cwd")?),
        None => None,
    };
    let command = args.command.into_iter().enumerate();
    let command = command
        .map(|(place, word)| utf8(word, &format!("argument {place} of the command")))
        .collect::<Result<_, _>>()?;
    Ok(Submit {
        command,
        env: pairs(&args.env, "--env")?,
        labels: pairs(&args.label, "--label")?,
        cwd,
        user: args.user,
        grace: args.grace,
        memory: args.memory,
        cpu: args.cpu,
        pids: args.pids,
        output_cap: args.output_cap,
        llm: args.llm,
        profile: args.profile,
        heartbeat,
        ..Submit::default()
    })
}
