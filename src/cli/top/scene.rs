//! What `top` shows and what its keys do, as values: no terminal, no daemon.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::api::admin::Status;
use crate::api::dto::TaskInfo;
use crate::api::queues::QueueInfo;
use crate::model::time::Time;

/// What the daemon has told at one look.
#[derive(Debug, Clone)]
pub struct Look {
    /// The daemon's own figures.
    pub status: Status,
    /// Tasks: those with a live attempt, those that wait, and the latest ones
    /// that ended badly.
    pub tasks: Vec<TaskInfo>,
    /// Queues that have tasks, or start or take none.
    pub queues: Vec<QueueInfo>,
    /// When it was.
    pub at: Time,
}

/// What keys mean just now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mode {
    /// They move, and ask for things.
    #[default]
    Browse,
    /// They are letters of the filter.
    Filter,
    /// They answer whether this task is to be cancelled.
    Cancel(i64),
    /// They leave the log of a task, whose last lines are these.
    Log(i64, Vec<String>),
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To end.
    Quit,
    /// To change a task: `cancel`, `pause`, `resume` or `retry`.
    Change(i64, &'static str),
    /// The last lines of a task's output.
    Log(i64),
}

/// All that a frame shows.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// The latest look; none before the first.
    pub look: Option<Look>,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    /// What became of the latest wish.
    pub note: Option<String>,
    /// Only tasks in whose number, state, queue, name or command this is.
    pub filter: String,
    /// The task that keys are about.
    pub selected: Option<i64>,
    /// What keys mean.
    pub mode: Mode,
    /// Whether to use colours.
    pub color: bool,
    /// The clock.
    pub now: Time,
}

impl Scene {
    /// The tasks that the filter leaves, in the order of the page.
    #[must_use]
    pub fn tasks(&self) -> Vec<&TaskInfo> {
        let tasks = self.look.iter().flat_map(|look| &look.tasks);
        tasks.filter(|task| self.shows(task)).collect()
    }

    fn shows(&self, task: &TaskInfo) -> bool {
        let parts = [
            task.id.to_string(),
            task.state.clone(),
            task.queue.clone(),
            task.name.clone().unwrap_or_default(),
            task.run.words().join(" "),
        ];
        self.filter.is_empty() || parts.iter().any(|part| part.contains(&self.filter))
    }

    /// Place of the selected task on the page.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        let tasks = self.tasks();
        let selected = self.selected?;
        tasks.iter().position(|task| task.id == selected)
    }

    /// Takes what the daemon has told. The selection stays with its task; when
    /// that is gone, with its place.
    pub fn take(&mut self, look: Look) {
        let place = self.place().unwrap_or(0);
        self.look = Some(look);
        self.trouble = None;
        if self.place().is_none() {
            self.select(place);
        }
    }

    fn select(&mut self, place: usize) {
        let tasks = self.tasks();
        let last = tasks.len().saturating_sub(1);
        self.selected = tasks.get(place.min(last)).map(|task| task.id);
    }

    fn step(&mut self, by: isize) {
        let place = self.place().unwrap_or(0);
        self.select(place.saturating_add_signed(by));
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Wish::Quit);
        }
        if key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
        {
            return None;
        }
        match self.mode.clone() {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => {
                self.type_filter(key.code);
                None
            }
            Mode::Cancel(id) => {
                self.mode = Mode::Browse;
                let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                if !yes {
                    self.note = Some(format!("task {id} goes on"));
                }
                yes.then_some(Wish::Change(id, "cancel"))
            }
            Mode::Log(..) => {
                self.mode = Mode::Browse;
                None
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most keys of a keyboard mean nothing here"
    )]
    fn browse(&mut self, key: KeyCode) -> Option<Wish> {
        self.note = None;
        let selected = self.place().and(self.selected);
        match key {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('c') => self.mode = selected.map_or(Mode::Browse, Mode::Cancel),
            KeyCode::Char('r') => return selected.map(|id| Wish::Change(id, "retry")),
            KeyCode::Char('l') | KeyCode::Enter => return selected.map(Wish::Log),
            KeyCode::Char('p') => {
                let tasks = self.tasks();
                let task = self.place().and_then(|place| tasks.get(place))?;
                let verb = if task.state == "paused" {
                    "resume"
                } else {
                    "pause"
                };
                return Some(Wish::Change(task.id, verb));
            }
            _ => {}
        }
        None
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most keys of a keyboard mean nothing here"
    )]
    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            KeyCode::Enter => self.mode = Mode::Browse,
            _ => {}
        }
        if self.place().is_none() {
            self.select(0);
        }
    }
}
