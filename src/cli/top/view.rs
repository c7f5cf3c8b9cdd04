//! A frame of `top`: what is known, drawn into a terminal of any size.
//!
//! Everything that comes from tasks or from the daemon passes through
//! [`escape`], so that nothing of it is obeyed by the terminal.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Row, Table, TableState};

use crate::api::dto::TaskInfo;
use crate::cli::page::{ago, color_of};
use crate::cli::tasks::said;
use crate::cli::text::{command, escape, shorten};
use crate::model::quantity::format_duration;

use super::scene::{Mode, Scene};

/// Most lines for queues.
const QUEUES: usize = 4;
/// Columns from which on there is room for all there is to say.
const WIDE: u16 = 72;
/// Longest text of one place: what is beyond is off any screen.
const TEXT_MAX: usize = 400;

/// Draws a scene.
pub fn draw(scene: &Scene, frame: &mut Frame<'_>) {
    let queues = queue_lines(scene);
    let height = u16::try_from(queues.len()).unwrap_or(0);
    let [head, middle, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(height),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(scene)), head);
    frame.render_widget(Paragraph::new(queues), middle);
    match &scene.mode {
        Mode::Log(id, lines) => draw_log(*id, lines, frame, body),
        Mode::Browse | Mode::Filter | Mode::Cancel(_) => draw_tasks(scene, frame, body),
    }
    frame.render_widget(Clear, foot);
    frame.render_widget(Paragraph::new(foot_line(scene)), foot);
}

const fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

const fn turned() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn head_lines(scene: &Scene) -> Vec<Line<'static>> {
    let Some(look) = &scene.look else {
        let told = scene.trouble.as_deref().unwrap_or("asking the daemon …");
        return vec![Line::raw(escape(told))];
    };
    let status = &look.status;
    let (version, phase) = (escape(&status.version), escape(&status.phase));
    let slots = format!(
        "{} of {} slots in use",
        status.slots.used, status.slots.total
    );
    let runner = if status.runner.is_some() {
        ""
    } else {
        ", no runner: tasks wait"
    };
    let title = Span::styled(format!("taskdaemon {version}"), bold());
    let state = match &scene.trouble {
        Some(trouble) => format!("  {}", escape(trouble)),
        None => format!("  {phase}, {slots}{runner}"),
    };
    let counts = status.tasks.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> = counts
        .map(|(state, count)| format!("{count} {}", escape(state)))
        .collect();
    vec![
        Line::from(vec![title, Span::raw(state)]),
        Line::raw(counts.join(", ")),
    ]
}

fn queue_lines(scene: &Scene) -> Vec<Line<'static>> {
    let queues = scene.look.as_ref().map(|look| look.queues.as_slice());
    let queues = queues.unwrap_or_default();
    let mut lines: Vec<Line<'static>> = queues
        .iter()
        .take(QUEUES)
        .map(|queue| {
            let name = shorten(&escape(&queue.name), 24);
            let waiting = queue.blocked + queue.scheduled + queue.queued;
            let figures = format!("{:>4} running {waiting:>6} waiting", queue.running);
            let state = match (queue.paused, queue.draining) {
                (false, false) => "",
                (true, false) => "  paused",
                (false, true) => "  draining",
                (true, true) => "  paused, draining",
            };
            Line::raw(format!("queue {name:<24} {figures}{state}"))
        })
        .collect();
    if queues.len() > QUEUES {
        lines.push(Line::raw(format!(
            "and {} more queues",
            queues.len() - QUEUES
        )));
    }
    lines
}

fn draw_tasks(scene: &Scene, frame: &mut Frame<'_>, area: Rect) {
    let tasks = scene.tasks();
    let wide = area.width >= WIDE;
    let columns = [
        ("ID", Constraint::Length(7), true),
        ("STATE", Constraint::Length(9), true),
        ("QUEUE", Constraint::Length(10), wide),
        ("TIME", Constraint::Length(9), true),
        ("DONE", Constraint::Length(5), wide),
        ("NAME", Constraint::Fill(2), true),
        ("SAYS", Constraint::Fill(3), true),
    ];
    let shown = || columns.iter().filter(|(_, _, shown)| *shown);
    let head = Row::new(shown().map(|(name, ..)| *name)).style(bold());
    let rows = tasks.iter().map(|task| {
        let cells = cells(task, scene).into_iter().zip(&columns);
        Row::new(cells.filter_map(|(cell, (.., shown))| shown.then_some(cell)))
    });
    let widths: Vec<Constraint> = shown().map(|(_, width, _)| *width).collect();
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(turned());
    let mut state = TableState::new().with_selected(scene.place());
    frame.render_stateful_widget(table, area, &mut state);
}

fn cells(task: &TaskInfo, scene: &Scene) -> [Span<'static>; 7] {
    let now = scene.now;
    let time = match (task.started_at, task.ended_at) {
        (Some(started), _) => {
            // Whole seconds: nobody reads milliseconds that jump.
            let seconds = now.since(started.0).as_secs();
            format_duration(std::time::Duration::from_secs(seconds))
        }
        (None, Some(ended)) => ago(ended.0, now),
        (None, None) => ago(task.due_at.0.max(task.created_at.0), now),
    };
    let name = match &task.name {
        Some(name) => escape(name),
        None => command(&task.run.words()),
    };
    let says = match &task.outcome {
        Some(outcome) if task.ended_at.is_some() => escape(&outcome.message),
        _ => escape(&says(task)),
    };
    let style = match color_of(&task.state) {
        Some(color) if scene.color => Style::new().fg(Color::Indexed(color_index(color))),
        Some(_) | None => Style::new(),
    };
    [
        Span::raw(task.id.to_string()),
        Span::styled(escape(&task.state), style),
        Span::raw(escape(&task.queue)),
        Span::raw(time),
        Span::raw(
            task.progress
                .map_or_else(String::new, |done| format!("{done:.0} %")),
        ),
        Span::raw(shorten(&name, TEXT_MAX)),
        Span::raw(shorten(&says, TEXT_MAX)),
    ]
}

/// What a task says of itself, or why it waits.
fn says(task: &TaskInfo) -> String {
    match (&task.status, task.reason_code.as_deref()) {
        (Some(status), _) => status.clone(),
        (None, Some("running")) => String::new(),
        (None, _) => said(task),
    }
}

/// The palette's number of a foreground colour.
const fn color_index(color: u8) -> u8 {
    match color {
        30..=37 => color - 30,
        90..=97 => color - 82,
        other => other,
    }
}

fn draw_log(id: i64, lines: &[String], frame: &mut Frame<'_>, area: Rect) {
    let room = usize::from(area.height).saturating_sub(1);
    let hidden = lines.len().saturating_sub(room);
    let mut shown = vec![Line::styled(format!("the last lines of task {id}"), bold())];
    if lines.is_empty() {
        shown.push(Line::raw("(no output)"));
    }
    let last = lines.iter().skip(hidden);
    shown.extend(last.map(|line| Line::raw(shorten(&escape(line), TEXT_MAX))));
    frame.render_widget(Paragraph::new(shown), area);
}

fn foot_line(scene: &Scene) -> Line<'static> {
    match &scene.mode {
        Mode::Filter => Line::styled(format!("filter: {}_", escape(&scene.filter)), turned()),
        Mode::Cancel(id) => Line::styled(format!("cancel task {id}? [y/N]"), turned()),
        Mode::Log(..) => Line::raw("any key: back"),
        Mode::Browse => match &scene.note {
            Some(note) => Line::styled(escape(note), bold()),
            None if !scene.filter.is_empty() => Line::raw(format!(
                "only `{}` (Esc: all)  q quit  c cancel  p pause  r retry  l log",
                escape(&scene.filter)
            )),
            None => {
                Line::raw("q quit  arrows move  c cancel  p pause/resume  r retry  l log  / filter")
            }
        },
    }
}
