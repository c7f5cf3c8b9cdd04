//! Verbs about a task and those that hang on it: `show`, `cancel`, `retry`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;

use crate::api::graph::{ChangedInfo, GraphInfo, NodeInfo};
use crate::model::depend::in_order;

use super::tasks::{self, number};
use super::text::{command, escape, shorten};
use super::{Outcome, Setting};

/// Tasks printed of a graph.
const SHOWN: usize = 200;
/// Levels that are told apart by their indentation.
const DEPTH: usize = 12;

/// A task to show.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Number of the task
    #[arg(value_parser = number)]
    id: i64,
    /// Show what it waits for, what waits for it, and so on
    #[arg(long)]
    graph: bool,
}

/// `show`.
pub(super) async fn show(args: &ShowArgs, setting: &Setting) -> Outcome {
    if !args.graph {
        return tasks::show(args.id, setting).await;
    }
    let path = format!("/v1/tasks/{}/graph", args.id);
    let answer = setting.client()?.get(&path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else {
        out.write_all(draw(&answer.read()?).as_bytes())?;
    }
    Ok(0)
}

/// `cancel` and `retry` of a task and those behind it.
pub(super) async fn change(id: i64, verb: &str, setting: &Setting) -> Outcome {
    let path = format!("/v1/tasks/{id}/{verb}?dependants=true");
    let answer = setting.client()?.post(&path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else {
        let changed: ChangedInfo = answer.read()?;
        let (task, others) = (changed.task, changed.dependants_changed);
        writeln!(
            out,
            "task {} {}, and {others} behind it",
            task.id, task.state
        )?;
    }
    Ok(0)
}

/// A graph for people: each task once, below everything it waits for, the
/// further in the more stands before it.
fn draw(graph: &GraphInfo) -> String {
    let pairs: Vec<_> = graph
        .edges
        .iter()
        .map(|one| (one.task, one.after))
        .collect();
    let mut parents: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for edge in &graph.edges {
        let any = if edge.wants == "any" { ":any" } else { "" };
        let word = format!("{}{any}", edge.after);
        parents.entry(edge.task).or_default().push(word);
    }
    let nodes: BTreeMap<i64, &NodeInfo> = graph.nodes.iter().map(|one| (one.id, one)).collect();
    let order = in_order(nodes.keys().copied(), &pairs);
    let depths = depths(&order, &pairs);
    let mut out = String::new();
    for node in order.iter().take(SHOWN).filter_map(|id| nodes.get(id)) {
        let depth = depths.get(&node.id).copied().unwrap_or_default();
        let after = parents.get(&node.id).map_or(&[][..], Vec::as_slice);
        let mark = if node.id == graph.task { '>' } else { ' ' };
        let indent = "  ".repeat(depth.min(DEPTH));
        out.push_str(&format!("{mark} {indent}{}\n", line(node, after)));
    }
    if order.len() > SHOWN {
        let more = order.len() - SHOWN;
        out.push_str(&format!("(and {more} more tasks; --json lists all)\n"));
    }
    if graph.cut {
        out.push_str("(the graph is larger than what is shown here)\n");
    }
    out
}

/// How many stand before each one in the longest row.
fn depths(order: &[i64], pairs: &[(i64, i64)]) -> BTreeMap<i64, usize> {
    let mut children: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (child, parent) in pairs {
        children.entry(*parent).or_default().push(*child);
    }
    let mut depths: BTreeMap<i64, usize> = BTreeMap::new();
    for id in order {
        let own = depths.get(id).copied().unwrap_or_default();
        for child in children.get(id).map_or(&[][..], Vec::as_slice) {
            let depth = depths.entry(*child).or_default();
            *depth = (*depth).max(own + 1);
        }
    }
    depths
}

fn line(node: &NodeInfo, after: &[String]) -> String {
    let name = match &node.name {
        Some(name) => escape(name),
        None => command(&node.command),
    };
    let mut line = format!("{} {} {}", node.id, node.state, shorten(&name, 40));
    if !after.is_empty() {
        let some: Vec<&str> = after.iter().take(4).map(String::as_str).collect();
        line.push_str(&format!("  after {}", some.join(", ")));
        if after.len() > some.len() {
            line.push_str(&format!(" and {} more", after.len() - some.len()));
        }
    }
    let message = node.message.as_deref().unwrap_or_default();
    if !message.is_empty() {
        line.push_str(&format!("  ({})", shorten(&escape(message), 60)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::graph::EdgeInfo;

    #[test]
    fn each_task_is_drawn_once_below_what_it_waits_for() {
        let node = |id, state: &str| NodeInfo {
            id,
            name: Some(format!("n{id}\u{1b}[2J")),
            queue: "q".to_owned(),
            state: state.to_owned(),
            message: (state == "skipped").then(|| "task 1 failed: exit code 7".to_owned()),
            command: vec![],
        };
        let edge = |task, after, wants: &str| EdgeInfo {
            task,
            after,
            wants: wants.to_owned(),
            met: false,
        };
        let graph = GraphInfo {
            task: 3,
            nodes: vec![
                node(1, "failed"),
                node(2, "skipped"),
                node(3, "blocked"),
                node(4, "running"),
            ],
            edges: vec![edge(2, 1, "ok"), edge(3, 2, "any"), edge(3, 4, "ok")],
            cut: false,
        };
        let wanted = "  1 failed n1\\x1b[2J\n  \
                      4 running n4\\x1b[2J\n    \
                      2 skipped n2\\x1b[2J  after 1  (task 1 failed: exit code 7)\n\
                      >     3 blocked n3\\x1b[2J  after 2:any, 4\n";
        assert_eq!(draw(&graph), wanted);
    }
}
