//! `agent apply`: agents as a file has them.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use crate::api::agents::asked::AskedAgent;
use crate::api::agents::told::{AgentInfo, Difference};
use crate::api::json::plain;
use crate::client::Client;

use crate::cli::text::escape;
use crate::cli::{Failure, Outcome, Setting, file};

/// Longest file of agents, in bytes.
const FILE_MAX: usize = 1024 * 1024;

/// Which file, and how much of it.
#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// TOML or YAML file with a list under `agent`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only show the difference
    #[arg(long)]
    dry_run: bool,
    /// Remove your agents that are not in the file
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agents {
    #[serde(alias = "agents")]
    agent: Vec<AskedAgent>,
}

fn read(path: &Path) -> Result<Vec<AskedAgent>, Failure> {
    let text = file::text("file", path, FILE_MAX)?;
    let name = path.display();
    let ending = path.extension().and_then(|ending| ending.to_str());
    let agents: Agents = match ending {
        Some("yaml" | "yml") => serde_yaml_ng::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{name}: {}", plain(&error.to_string()))))?,
        Some(_) | None => toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or_default();
                before.matches('\n').count() + 1
            });
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            Failure::Usage(format!("{name}{line}: {}", plain(error.message())))
        })?,
    };
    let mut names = BTreeSet::new();
    for agent in &agents.agent {
        if !names.insert(&agent.name) {
            let twice = escape(&agent.name);
            return Err(Failure::Usage(format!(
                "{name}: agent `{twice}` stands twice"
            )));
        }
    }
    Ok(agents.agent)
}

/// `agent apply`.
pub(super) async fn apply(args: &ApplyArgs, setting: &Setting) -> Outcome {
    let asked = read(&args.file)?;
    let client = setting.client()?;
    // All of it is looked at before the first is changed.
    let mut changes = Vec::new();
    for agent in &asked {
        let difference: Difference = send(&client, agent, true).await?.read()?;
        changes.push(difference);
    }
    let gone = match args.prune {
        true => surplus(&client, &asked).await?,
        false => Vec::new(),
    };
    show(&changes, &gone, setting)?;
    if args.dry_run {
        return Ok(0);
    }
    for (agent, difference) in asked.iter().zip(&changes) {
        if difference.change != "none" {
            send(&client, agent, false).await?;
        }
    }
    for agent in gone {
        let path = format!("/v1/agents/{}", agent.id);
        client.change(Method::DELETE, &path, None).await?;
    }
    Ok(0)
}

async fn send(
    client: &Client,
    agent: &AskedAgent,
    dry_run: bool,
) -> Result<crate::client::Answer, Failure> {
    let asked = AskedAgent {
        replace: true,
        dry_run,
        ..agent.clone()
    };
    let body = serde_json::to_vec(&asked).map_err(io::Error::from)?;
    let sent = client.change(Method::POST, "/v1/agents", Some(body.into()));
    sent.await.map_err(|error| {
        let failure = Failure::from(error);
        Failure::Code(
            failure.code(),
            format!("agent {}: {failure}", escape(&agent.name)),
        )
    })
}

/// The caller's agents that are not in the file.
async fn surplus(client: &Client, asked: &[AskedAgent]) -> Result<Vec<AgentInfo>, Failure> {
    // Whose they are is the daemon's to say: over TCP, a token does.
    let mut all = super::all(client, true).await?;
    all.retain(|agent| !agent.removed && asked.iter().all(|one| one.name != agent.name));
    Ok(all)
}

fn show(changes: &[Difference], gone: &[AgentInfo], setting: &Setting) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if setting.json {
        let removed = gone.iter().map(|agent| Difference {
            name: agent.name.clone(),
            change: "remove".to_owned(),
            fields: Vec::new(),
        });
        for difference in changes.iter().cloned().chain(removed) {
            serde_json::to_writer(&mut out, &difference).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    let mut same = 0;
    for difference in changes {
        let name = escape(&difference.name);
        match difference.change.as_str() {
            "none" => same += 1,
            "add" => writeln!(out, "+ {name}")?,
            _ => writeln!(out, "~ {name}")?,
        }
        for (field, before, after) in &difference.fields {
            let (before, after) = (escape(&before.to_string()), escape(&after.to_string()));
            writeln!(out, "    {}: {before} -> {after}", escape(field))?;
        }
    }
    for agent in gone {
        writeln!(out, "- {}", escape(&agent.name))?;
    }
    if same > 0 {
        writeln!(out, "{same} unchanged")?;
    }
    Ok(())
}
