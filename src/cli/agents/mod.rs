//! `agent`: processes that are kept running.

mod add;
mod apply;
mod show;

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;

use crate::api::agents::told::{AgentInfo, AgentPage, InstanceInfo};
use crate::client::{Answer, Client};
use crate::clock;

use super::text::escape;
use super::{Failure, Outcome, Setting, complain, logs};

/// Pause between two looks for the next run of an agent whose log is followed.
const LOOK: Duration = Duration::from_millis(500);

/// What to do about agents.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make an agent, and start it
    Add(Box<add::AddArgs>),
    /// Make agents as a file has them; shows the difference first
    Apply(apply::ApplyArgs),
    /// List agents
    List,
    /// Show one agent
    Show(Which),
    /// Print what its latest run wrote
    Logs(LogsArgs),
    /// Start it; ends a wait after too many ends
    Start(Several),
    /// Stop it, and leave it so
    Stop(Several),
    /// Stop it, and start it anew
    Restart(Several),
    /// Stop it, and forget it; tasks that were its runs stay
    Remove(Several),
}

/// An agent.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name or number of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
}

/// Some agents.
#[derive(Debug, Args)]
pub(super) struct Several {
    /// Names or numbers of the agents
    #[arg(value_name = "AGENT", required = true)]
    agents: Vec<String>,
    /// Do not wait until it has come to pass
    #[arg(long)]
    no_wait: bool,
}

/// Which agent's output.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// Go on, from one run to the next
    #[arg(short, long)]
    follow: bool,
    /// Of this instance
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    instance: u32,
}

/// `agent`.
pub(super) async fn agent(verb: Verb, setting: &Setting) -> Outcome {
    match verb {
        Verb::Add(args) => add::add(*args, setting).await,
        Verb::Apply(args) => apply::apply(&args, setting).await,
        Verb::List => list(setting).await,
        Verb::Show(which) => show::show(&path(&which.agent)?, setting).await,
        Verb::Logs(args) => follow(&args, setting).await,
        Verb::Start(several) => change(&several, "start", setting).await,
        Verb::Stop(several) => change(&several, "stop", setting).await,
        Verb::Restart(several) => change(&several, "restart", setting).await,
        Verb::Remove(several) => change(&several, "remove", setting).await,
    }
}

fn path(name: &str) -> Result<String, Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Failure::Usage(format!(
            "`{name}` is no name of an agent; `taskdaemon agent list` shows them"
        )));
    }
    Ok(format!("/v1/agents/{name}"))
}

/// Every agent, page by page; of the caller alone, where that is wanted.
async fn all(client: &Client, mine: bool) -> Result<Vec<AgentInfo>, Failure> {
    let mut agents = Vec::new();
    let mut next = None;
    loop {
        let path = match next {
            None => format!("/v1/agents?limit=1000&mine={mine}"),
            Some(cursor) => format!("/v1/agents?limit=1000&mine={mine}&cursor={cursor}"),
        };
        let page: AgentPage = client.get(&path).await?.read()?;
        agents.extend(page.agents);
        next = page.next;
        if next.is_none() {
            return Ok(agents);
        }
    }
}

async fn list(setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let mut out = io::stdout().lock();
    let agents = all(&client, false).await?;
    if setting.json {
        for agent in &agents {
            serde_json::to_writer(&mut out, agent).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(0);
    }
    out.write_all(show::table_of(&agents, clock::now()).as_bytes())?;
    Ok(0)
}

async fn change(several: &Several, verb: &str, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let mut worst = 0;
    for name in &several.agents {
        match change_one(&client, name, verb, several.no_wait, setting).await {
            Ok(code) => worst = worst.max(code),
            Err(failure) if several.agents.len() == 1 => return Err(failure),
            Err(failure) => {
                complain(&failure.to_string());
                worst = worst.max(failure.code());
            }
        }
    }
    Ok(worst)
}

async fn change_one(
    client: &Client,
    name: &str,
    verb: &str,
    no_wait: bool,
    setting: &Setting,
) -> Outcome {
    let path = path(name)?;
    let answer = match verb {
        "remove" => client.change(Method::DELETE, &path, None).await?,
        verb => client.post(&format!("{path}/{verb}")).await?,
    };
    let mut agent: AgentInfo = answer.read()?;
    if no_wait || setting.json {
        return say(&answer, setting);
    }
    let mut asked = Some(answer);
    let mut told = String::new();
    while !settled(&agent, verb) {
        tokio::time::sleep_until((clock::instant() + LOOK).into()).await;
        // By number: one that is made anew under this name is another.
        match client.get(&format!("/v1/agents/{}", agent.id)).await {
            Ok(answer) => {
                agent = answer.read()?;
                asked = Some(answer);
                // What lasts says on a terminal what it waits for.
                let stands = show::standing(&agent, clock::now());
                if io::stderr().is_terminal() && stands != told && !settled(&agent, verb) {
                    complain(&format!("agent {}: {stands}", agent.name));
                    told = stands;
                }
            }
            Err(error) => match Failure::from(error) {
                failure if verb == "remove" && failure.code() == 3 => break,
                failure => return Err(failure),
            },
        }
    }
    if verb == "remove" {
        writeln!(io::stdout().lock(), "agent {} removed", escape(&agent.name))?;
        return Ok(0);
    }
    asked.map_or(Ok(0), |answer| say(&answer, setting))
}

/// Whether what was asked has come to pass, or will not for now.
fn settled(agent: &AgentInfo, verb: &str) -> bool {
    let is = |one: &InstanceInfo, words: &[&str]| words.contains(&one.phase.as_str());
    let over = ["stopped", "completed", "failed"];
    match verb {
        "stop" | "remove" => agent.instances.iter().all(|one| is(one, &over)),
        _ => !agent
            .instances
            .iter()
            .any(|one| is(one, &["starting", "stopping", "cleaning_up"])),
    }
}

/// An agent in a line, or as it came.
fn say(answer: &Answer, setting: &Setting) -> Outcome {
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let agent: AgentInfo = answer.read()?;
    let name = escape(&agent.name);
    writeln!(
        out,
        "agent {name}: {}",
        show::standing(&agent, clock::now())
    )?;
    Ok(0)
}

async fn follow(args: &LogsArgs, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let path = path(&args.which.agent)?;
    let mut last = None;
    loop {
        let agent: AgentInfo = client.get(&path).await?.read()?;
        let index = args.instance as usize - 1;
        let Some(instance) = agent.instances.get(index) else {
            return Err(Failure::Usage(format!(
                "agent {} has {} instances",
                escape(&agent.name),
                agent.instances.len()
            )));
        };
        match instance.task.filter(|task| Some(*task) != last) {
            Some(task) => {
                if last.is_some() {
                    complain(&format!("agent {} runs again: task {task}", agent.name));
                }
                logs::logs(&logs::Args::of(task, args.follow), setting).await?;
                last = Some(task);
            }
            None if last.is_none() && !args.follow => {
                complain(&format!("agent {} has not run yet", agent.name));
                return Ok(0);
            }
            None => tokio::time::sleep_until((clock::instant() + LOOK).into()).await,
        }
        if !args.follow {
            return Ok(0);
        }
    }
}
