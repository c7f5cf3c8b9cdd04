//! What the record says beside the kind of each event, and the commands that
//! are about the record.

use serde_json::{Map, Value, json};

use crate::model::event::Kind;
use crate::model::id::TaskId;
use crate::model::task::{State, Task};
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::bulk::Order;
use super::command::Reply;
use super::retention::Options;

/// Commands about the record.
#[derive(Debug)]
pub enum Ask {
    /// Keep so much of what is over, from now on.
    Retain(Options),
    /// One change for many tasks.
    Bulk(Order),
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

impl<S: Store> Engine<S> {
    pub(super) fn ask_record(&mut self, ask: Ask) -> Result<(), store::Error> {
        match ask {
            Ask::Retain(options) => self.retain(options),
            Ask::Bulk(order) => self.begin_bulk(order),
            Ask::WithOutput { first, last, reply } => {
                let kept = self.store.attempts_with_output(first, last)?;
                self.answers.push(Answer::WithOutput(reply, kept));
            }
        }
        Ok(())
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
        | Kind::TickLeftOut => (false, false),
    };
    let mut facts = Map::new();
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
