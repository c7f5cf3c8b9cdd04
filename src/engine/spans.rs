//! Spans of what happens to tasks, for traces: made of the records of a turn,
//! and handed on once those are on disk. Nothing is made where nobody wants any.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::model::attempt::AttemptKey;
use crate::model::ledger::Call;
use crate::model::receipt::Receipt;
use crate::model::span::{self, Asked, Span};
use crate::model::spec::NewTask;
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::model::trace::{Context, Round, Share, SpanId, Trace, drawn};
use crate::store::{self, Store};

use super::Engine;
use super::handle::Handle;

/// Spans that may wait for whoever passes them on.
const WAITING: usize = 4_096;

/// Where spans go in: a cheap clone that never waits.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: mpsc::Sender<Span>,
    source: Arc<Source>,
    share: Share,
}

/// What all clones share.
struct Source {
    secret: [u8; 32],
    given: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(…)")
    }
}

impl Intake {
    /// An intake and its other end. Of new traces, this share is kept; numbers
    /// are drawn of the secret, which no other process may have.
    #[must_use]
    pub fn new(secret: [u8; 32], share: Share) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(WAITING);
        let source = Arc::new(Source {
            secret,
            given: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let intake = Self {
            queue,
            source,
            share,
        };
        (intake, spans)
    }

    /// A new trace, and the number of a span.
    #[must_use]
    pub fn begin(&self) -> (Trace, SpanId) {
        let count = self.source.given.fetch_add(1, Ordering::Relaxed);
        let (trace, span) = drawn(&self.source.secret, count);
        (Trace::begun(trace, self.share), span)
    }

    /// Takes a span in, or counts it as dropped where there is no room.
    pub fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.lost(1);
        }
    }

    /// Counts spans that nobody will see.
    pub fn lost(&self, spans: u64) {
        self.source.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// Counts spans that a collector has.
    pub fn sent(&self, spans: u64) {
        self.source.sent.fetch_add(spans, Ordering::Relaxed);
    }

    /// How many spans a collector has, and how many nobody will see.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.source.sent), of(&self.source.dropped))
    }
}

impl Handle {
    /// Where spans go in, where somebody wants any.
    #[must_use]
    pub const fn intake(&self) -> Option<&Intake> {
        self.intake.as_ref()
    }
}

/// The spans of a turn.
#[derive(Debug, Default)]
pub(super) struct Spans {
    intake: Option<Intake>,
    made: Vec<Span>,
}

impl Spans {
    /// Hands on what was made.
    pub(super) fn send(&mut self) {
        if let Some(intake) = &self.intake {
            self.made.drain(..).for_each(|span| intake.take(span));
        }
    }

    /// The trace of a task, where its spans are wanted.
    fn wanted(&self, task: &Task) -> Option<Trace> {
        self.intake.as_ref()?;
        let trace = task.spec.trace.as_ref();
        trace.filter(|trace| trace.is_sampled()).cloned()
    }
}

/// The number of a task's trace, for the log.
pub(super) fn name(task: &Task) -> Option<String> {
    task.spec.trace.as_ref().map(|trace| trace.id.to_string())
}

/// What was read; none where the row is damaged. Whoever needs it will find that
/// out: a span is no reason to put a task aside.
pub(super) fn readable<T>(read: Result<T, store::Error>) -> Result<Option<T>, store::Error> {
    match read {
        Err(store::Error::Damaged { .. }) => Ok(None),
        read => read.map(Some),
    }
}

impl<S: Store> Engine<S> {
    /// Makes spans from now on.
    pub fn set_intake(&mut self, intake: Option<Intake>) {
        self.spans.intake = intake;
    }

    /// A new task in a trace: that of the request which it comes of, or a new one.
    pub(super) fn traced<'t>(&self, new: Cow<'t, NewTask>) -> Cow<'t, NewTask> {
        if new.spec.trace.is_some() {
            return new;
        }
        // Runs of agents go on when what was asked for is long over.
        let place = self.origin.place.filter(|_| new.spec.run.is_none());
        let place = place.map(|place| Trace::of(place, ""));
        let begin = || Some(self.spans.intake.as_ref()?.begin().0);
        let Some(trace) = place.or_else(begin) else {
            return new;
        };
        let mut new = new.into_owned();
        new.spec.trace = Some(trace);
        Cow::Owned(new)
    }

    /// Variables by which an attempt joins the trace of its task. Where nobody
    /// wants spans of it, it stands where the task does.
    pub(super) fn trace_variables(&self, task: &Task) -> Vec<(String, String)> {
        let Some(trace) = &task.spec.trace else {
            return Vec::new();
        };
        let own = self.spans.intake.is_some();
        let own = own.then(|| trace.attempt(task.attempt_key()));
        let Some(span) = own.or(trace.parent) else {
            return Vec::new();
        };
        let state = (!trace.state.is_empty()).then(|| trace.state.clone());
        let state = state.map(|state| ("TRACESTATE".to_owned(), state));
        let parent = ("TRACEPARENT".to_owned(), trace.at(span).to_string());
        std::iter::once(parent).chain(state).collect()
    }

    /// The place in its trace of what follows from the end of a task.
    pub(super) fn trace_below(&self, task: &Task) -> Option<Trace> {
        let trace = task.spec.trace.as_ref()?;
        let own = self.spans.intake.is_some();
        let span = own.then(|| trace.task(task.id)).or(trace.parent);
        Some(trace.below(span))
    }

    /// Makes the spans of a task that was moved: of the attempt that is over, of
    /// the wait that is, and of the task itself.
    pub(super) fn trace_step(
        &mut self,
        (before, key): (State, AttemptKey),
        task: &Task,
        now: Time,
    ) -> Result<(), store::Error> {
        let Some(trace) = self.spans.wanted(task) else {
            return Ok(());
        };
        if before.is_live() && !task.state.is_live() {
            let attempts = readable(self.store.attempts(task.id))?.unwrap_or_default();
            let ended = attempts.iter().rfind(|attempt| attempt.key == key);
            let span = ended.map(|ended| span::of_attempt(task, ended, &trace));
            self.spans.made.extend(span);
        }
        if before == State::Queued && task.state == State::Running {
            let attempts = match task.attempt {
                ..=1 => Vec::new(),
                _ => readable(self.store.attempts(task.id))?.unwrap_or_default(),
            };
            let parents = readable(self.store.parents(task.id))?;
            let hangs = parents.is_some_and(|parents| !parents.is_empty());
            let span = span::of_wait(task, (attempts.last(), hangs), now, &trace);
            self.spans.made.push(span);
        }
        if task.state.is_terminal() && !before.is_terminal() {
            self.spans.made.push(span::of_task(task, &trace));
        }
        Ok(())
    }

    /// Begins a new round of a task that was over and is run again: it stays in
    /// its trace, where its first round has a span already.
    pub(super) fn trace_round(&mut self, task: Task, now: Time) -> Result<Task, store::Error> {
        if task.spec.trace.is_none() {
            return Ok(task);
        }
        let mut renewed = task.clone();
        let spec = Arc::make_mut(&mut renewed.spec);
        if let Some(trace) = &mut spec.trace {
            let before = trace.round.map_or(0, |round| round.number);
            trace.round = Some(Round {
                number: before.saturating_add(1),
                after: task.attempt,
                at: now,
            });
        }
        self.store.save_edit(&task, &renewed)?;
        Ok(renewed)
    }

    /// Makes the span of a call of a model that is over, unless it was before; below
    /// the place in the same trace that whoever asked has named.
    pub(super) fn trace_call(
        &mut self,
        call: &Call,
        (receipt, place): (Option<&Receipt>, Option<Context>),
        ended: Time,
    ) -> Result<(), store::Error> {
        if self.spans.intake.is_none() || call.over.is_some() {
            return Ok(());
        }
        let task = readable(self.store.task(call.key.task))?.flatten();
        let trace = task.and_then(|task| self.spans.wanted(&task));
        if let (Some(trace), Some(target)) = (trace, self.prompts.target(&call.model)) {
            let asked = Asked {
                provider: &target.provider.name,
                model: &target.model.model,
                base_url: &target.provider.base_url,
            };
            let place = place.filter(|place| place.trace == trace.id);
            let span = span::of_call(call, asked, receipt, ended, &trace);
            self.spans.made.push(Span {
                parent: place.map(|place| place.span).or(span.parent),
                ..span
            });
        }
        Ok(())
    }
}
