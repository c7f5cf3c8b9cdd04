//! `list`: tasks in columns, as wide as the terminal, page by page.

use std::io::{self, IsTerminal as _, Write};

use clap::{Args as ClapArgs, ValueEnum};

use crate::api::dto::{Page, TaskInfo};
use crate::api::number::Stamp;
use crate::clock;
use crate::model::time::Time;

use super::page::{Color, Users, ago, color_of, cut, fit, terminal_width, utc, width};
use super::tasks::{parameter, said};
use super::text::{command, escape};
use super::{Outcome, Setting, complain};

/// Most tasks that are asked for at once.
const PAGE: u32 = 1000;
/// What a column that gives way keeps.
const NARROWEST: usize = 6;

/// Which tasks.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only these states, such as queued,running
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only names that contain this
    #[arg(long)]
    name: Option<String>,
    /// Only this label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Option<String>,
    /// Only tasks of this user (admins)
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// What to show of each
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        conflicts_with = "json",
        default_value = "id,state,queue,created,name,command,reason"
    )]
    columns: Vec<Column>,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

/// Something to show of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    Id,
    State,
    Queue,
    Priority,
    Created,
    Due,
    Started,
    Ended,
    Owner,
    Name,
    Labels,
    Key,
    Group,
    Deadline,
    Tries,
    Progress,
    Command,
    Reason,
}

impl Column {
    fn head(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_uppercase())
    }

    /// Whether it may be cut where there is no room.
    const fn gives_way(self) -> bool {
        matches!(
            self,
            Self::Name | Self::Labels | Self::Key | Self::Group | Self::Command | Self::Reason
        )
    }
}

/// How to show.
struct Style {
    columns: Vec<Column>,
    color: bool,
    /// On a terminal: as of when, and how wide it is.
    terminal: Option<(Time, usize)>,
    users: Users,
    /// How wide the columns of earlier pages were.
    widths: Vec<usize>,
}

impl Style {
    fn time(&self, stamp: Option<Stamp>) -> String {
        match (stamp, self.terminal) {
            (None, _) => "-".to_owned(),
            (Some(stamp), Some((now, _))) => ago(stamp.0, now),
            (Some(stamp), None) => utc(stamp),
        }
    }

    fn cell(&mut self, task: &TaskInfo, column: Column) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        match column {
            Column::Id => task.id.to_string(),
            Column::State => escape(&task.state),
            Column::Queue => escape(&task.queue),
            Column::Priority => task.priority.to_string(),
            Column::Created => self.time(Some(task.created_at)),
            Column::Due => self.time(Some(task.due_at)),
            Column::Started => self.time(task.started_at),
            Column::Ended => self.time(task.ended_at),
            Column::Owner => escape(&self.users.name(task.owner)),
            Column::Name => or_dash(task.name.as_deref().map(escape)),
            Column::Labels => {
                let pairs = task.labels.0.iter();
                let pairs: Vec<String> = pairs
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                or_dash(Some(escape(&pairs.join(","))).filter(|text| !text.is_empty()))
            }
            Column::Key => or_dash(task.key.as_deref().map(escape)),
            Column::Group => or_dash(task.group.as_deref().map(escape)),
            Column::Deadline => self.time(task.deadline),
            Column::Tries => format!("{}/{}", task.run.tries, task.run.max_attempts),
            Column::Progress => or_dash(task.progress.map(|percent| format!("{percent} %"))),
            Column::Command => command(&task.run.words()),
            Column::Reason => match (&task.reason, &task.outcome) {
                (Some(_), _) => escape(&said(task)),
                (None, Some(outcome)) => escape(&outcome.message),
                (None, None) => String::new(),
            },
        }
    }

    /// A page in lines; the first one has a heading.
    fn lines(&mut self, tasks: &[TaskInfo], first: bool) -> String {
        let columns = self.columns.clone();
        let mut rows: Vec<Vec<String>> = Vec::new();
        if first {
            rows.push(columns.iter().map(|column| column.head()).collect());
        }
        for task in tasks {
            rows.push(
                columns
                    .iter()
                    .map(|column| self.cell(task, *column))
                    .collect(),
            );
        }
        self.widths.resize(columns.len(), 0);
        for row in &rows {
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        let mut widths = self.widths.clone();
        if let Some((_, room)) = self.terminal {
            let may: Vec<bool> = columns.iter().map(|column| column.gives_way()).collect();
            fit(&mut widths, &may, room, NARROWEST);
        }
        let mut out = String::new();
        for (place, row) in rows.iter().enumerate() {
            let heading = first && place == 0;
            out.push_str(&self.line(row, &widths, heading));
            out.push('\n');
        }
        out
    }

    fn line(&self, row: &[String], widths: &[usize], heading: bool) -> String {
        let mut line = String::new();
        let mut gap = 0;
        for ((cell, width_of), column) in row.iter().zip(widths).zip(&self.columns) {
            let shown = match self.terminal {
                Some(_) => cut(cell, *width_of),
                None => cell.clone(),
            };
            if shown.is_empty() {
                gap += width_of + 2;
                continue;
            }
            line.push_str(&" ".repeat(gap));
            gap = width_of.saturating_sub(width(&shown)) + 2;
            match color_of(cell) {
                Some(color) if self.color && !heading && *column == Column::State => {
                    line.push_str(&format!("\x1b[{color}m{shown}\x1b[0m"));
                }
                Some(_) | None => line.push_str(&shown),
            }
        }
        line
    }
}

/// `list`.
pub(super) async fn list(args: &Args, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut style = Style {
        columns: args.columns.clone(),
        color: args.color.applies(&stdout),
        terminal: terminal.then(|| (clock::now(), terminal_width())),
        users: Users::default(),
        widths: Vec::new(),
    };
    let mut out = stdout.lock();
    let mut cursor: Option<String> = None;
    let mut left = if args.all { u32::MAX } else { args.limit };
    let mut first = true;
    while left > 0 {
        let path = list_path(args, left.min(PAGE), cursor.as_deref());
        let page: Page = client.get(&path).await?.read()?;
        if !args.all {
            let shown = u32::try_from(page.tasks.len()).unwrap_or(u32::MAX);
            left = left.saturating_sub(shown);
        }
        if setting.json {
            for task in &page.tasks {
                serde_json::to_writer(&mut out, task).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        } else {
            out.write_all(style.lines(&page.tasks, first).as_bytes())?;
        }
        for id in &page.damaged {
            complain(&format!("task {id} cannot be shown: its row is damaged"));
        }
        first = false;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if cursor.is_some() {
        out.flush()?;
        complain(&format!(
            "only the newest {} are shown; --all shows the others, too",
            args.limit
        ));
    }
    Ok(0)
}

fn list_path(args: &Args, limit: u32, cursor: Option<&str>) -> String {
    let mut path = format!("/v1/tasks?limit={limit}");
    let parameters = [
        ("state", args.state.as_deref()),
        ("queue", args.queue.as_deref()),
        ("name", args.name.as_deref()),
        ("label", args.label.as_deref()),
        ("owner", args.owner.as_deref()),
        ("cursor", cursor),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            parameter(&mut path, name, value);
        }
    }
    path
}
