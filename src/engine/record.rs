//! What the record says beside the kind of each event, and the commands that
//! are about the record.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::model::event::{Event as Row, Kind};
use crate::model::id::TaskId;
use crate::model::origin::Origin;
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::bulk::Order;
use super::command::{Command, Error, Reply};
use super::handle::Handle;
use super::retention::Options;

/// Commands about the record.
#[derive(Debug)]
pub enum Ask {
    /// Keep so much of what is over, from now on.
    Retain(Options),
    /// One change for many tasks.
    Bulk(Order),
    /// Something happened that is about no task.
    Note(Note),
    /// Write something, so that it is seen whether that can be done.
    Probe {
        /// How far the wall clock is ahead of the time since boot, in
        /// microseconds: what is written.
        lead: i64,
        /// Answered when it is on disk.
        reply: Reply<()>,
    },
    /// Which attempts of the tasks in a range have output that is kept?
    WithOutput {
        /// The first task.
        first: TaskId,
        /// The last task.
        last: TaskId,
        /// Task and number of each, in order.
        reply: Reply<Vec<(TaskId, u32)>>,
    },
}

/// Something for the record that is about no task.
#[derive(Debug)]
pub struct Note {
    /// What.
    pub kind: Kind,
    /// Uid of who asked for it.
    pub actor: Option<u32>,
    /// By which process and request.
    pub origin: Origin,
    /// What the kind alone does not say.
    pub data: Value,
    /// Answered when it is on disk, where somebody waits for that.
    pub reply: Option<Reply<()>>,
}

impl Handle {
    /// Writes something; answers when it is on disk.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn probe(&self) -> Result<(), Error> {
        let lead = clock::lead();
        self.ask(|reply| Command::Record(Ask::Probe { lead, reply }))
            .await
    }
}

impl<S: Store> Engine<S> {
    pub(super) fn ask_record(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        match ask {
            Ask::Note(note) => {
                self.origin = note.origin;
                self.note(note.kind, note.actor, &note.data, now)?;
                self.origin = Origin::NONE;
                self.answers.extend(note.reply.map(Answer::Done));
            }
            Ask::Retain(options) => self.retain(options),
            Ask::Bulk(order) => self.begin_bulk(order),
            Ask::Probe { lead, reply } => {
                let boot = self.boot.clone();
                self.store.keep_lead(&boot, lead)?;
                self.answers.push(Answer::Done(reply));
            }
            Ask::WithOutput { first, last, reply } => {
                let kept = self.store.attempts_with_output(first, last)?;
                self.answers.push(Answer::WithOutput(reply, kept));
            }
        }
        Ok(())
    }

    /// Writes a row about a task.
    pub(super) fn record(
        &mut self,
        task: &Task,
        kind: Kind,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        self.record_with(task, kind, actor, facts(task, kind), now)
    }

    /// Writes a row about a task, with facts of its own.
    pub(super) fn record_with(
        &mut self,
        task: &Task,
        kind: Kind,
        actor: Option<u32>,
        data: Option<String>,
        now: Time,
    ) -> Result<(), store::Error> {
        self.store.record(&Row {
            at: now,
            task: task.id,
            attempt: task.attempt,
            kind,
            actor,
            origin: self.origin,
            owner: task.owner,
            queue: task.queue.clone(),
            data,
        })
    }

    /// Writes a row that is about no task. Who asked may read it, and admins.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        actor: Option<u32>,
        data: &Value,
        now: Time,
    ) -> Result<(), store::Error> {
        self.store.record(&Row {
            at: now,
            task: TaskId(0),
            attempt: 0,
            kind,
            actor,
            origin: self.origin,
            owner: actor.unwrap_or(0),
            queue: String::new(),
            data: Some(data.to_string()),
        })
    }
}

/// The facts that go with an event, as a JSON object: the name where a task
/// comes or ends, and how it went where an attempt is judged.
pub(super) fn facts(task: &Task, kind: Kind) -> Option<String> {
    let (named, judged) = match kind {
        Kind::Submitted | Kind::Removed => (true, false),
        Kind::Changed(state) if state.is_terminal() => (true, true),
        // Behind an attempt that failed or was cut short.
        Kind::Changed(State::Scheduled | State::Queued) => (false, task.attempt > 0),
        Kind::Changed(_)
        | Kind::CancelAsked
        | Kind::RetryAsked
        | Kind::PauseAsked
        | Kind::ResumeAsked
        | Kind::Edited
        | Kind::TickLeftOut
        | Kind::ScheduleChanged
        | Kind::AgentChanged
        | Kind::QueueChanged
        | Kind::Reloaded
        | Kind::Denied => (false, false),
    };
    let mut facts = Map::new();
    if let (Kind::Submitted, Some(user)) = (kind, &task.spec.user) {
        facts.insert("run_as".to_owned(), json!(user));
    }
    if let (true, Some(name)) = (named, &task.name) {
        facts.insert("name".to_owned(), json!(name));
    }
    if let (true, Some(outcome)) = (judged, &task.outcome) {
        facts.insert("class".to_owned(), json!(outcome.class.word()));
        facts.insert("exit_code".to_owned(), json!(outcome.exit_code));
        facts.insert("signal".to_owned(), json!(outcome.signal));
        facts.insert("message".to_owned(), json!(outcome.message));
    }
    (!facts.is_empty()).then(|| Value::Object(facts).to_string())
}
