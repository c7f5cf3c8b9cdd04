//! Spans: what happened, from when until when, as a trace tells it. They are
//! made of records that are complete, and say nothing of what a task runs or
//! asks: no arguments, no output, no words of others.

use super::attempt::{Attempt, AttemptKey, Class, Outcome};
use super::ledger::Call;
use super::receipt::{End, Receipt};
use super::task::Task;
use super::time::Time;
use super::trace::{SpanId, Trace, TraceId};

/// What a span is to the one above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A part of its work.
    Internal,
    /// Its request, as its receiver sees it.
    Server,
    /// A request of it, as it sees that itself.
    Client,
    /// What it handed in, done later.
    Consumer,
}

/// What is known of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// In words.
    Text(String),
    /// In numbers.
    Number(i64),
    /// In microseconds, told in seconds.
    Micros(u64),
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Fact {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Fact {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Fact {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its number there.
    pub id: SpanId,
    /// The span above it.
    pub parent: Option<SpanId>,
    /// The flags of its trace.
    pub flags: u8,
    /// What others want passed on.
    pub state: String,
    /// What it is called: one of few names.
    pub name: String,
    /// What it is to the one above it.
    pub kind: Kind,
    /// When it began.
    pub begun: Time,
    /// When it was over.
    pub ended: Time,
    /// What is known of it.
    pub facts: Vec<(&'static str, Fact)>,
    /// What happened in it, and when.
    pub moments: Vec<(&'static str, Time)>,
    /// Why it failed, where it did.
    pub fault: Option<String>,
}

impl Span {
    /// One of a trace, about which nothing is known yet. It is not over before
    /// it began, whatever was done to the clock.
    #[must_use]
    pub fn new(
        trace: &Trace,
        (id, parent): (SpanId, Option<SpanId>),
        (kind, name): (Kind, String),
        (begun, ended): (Time, Time),
    ) -> Self {
        Self {
            trace: trace.id,
            id,
            parent,
            flags: trace.flags,
            state: trace.state.clone(),
            name,
            kind,
            begun,
            ended: ended.max(begun),
            facts: Vec::new(),
            moments: Vec::new(),
            fault: None,
        }
    }

    /// The same, of which one more thing is known.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: impl Into<Fact>) -> Self {
        self.facts.push((name, fact.into()));
        self
    }

    /// The same, of which one more thing may be known.
    #[must_use]
    pub fn with_any(self, name: &'static str, fact: Option<impl Into<Fact>>) -> Self {
        match fact {
            Some(fact) => self.with(name, fact),
            None => self,
        }
    }

    /// The same, in which something happened.
    fn when(mut self, name: &'static str, at: Option<Time>) -> Self {
        self.moments.extend(at.map(|at| (name, at)));
        self
    }

    /// The same as it went: a word for why it failed, and what of that is a
    /// number.
    fn went(self, outcome: &Outcome) -> Self {
        let class = outcome.class.word();
        let failed = !matches!(outcome.class, Class::Success | Class::Cancelled);
        let fault = match (outcome.exit_code, outcome.signal) {
            (_, Some(signal)) => format!("{class}: signal {signal}"),
            (Some(code), None) if code != 0 => format!("{class}: code {code}"),
            (Some(_) | None, None) => class.to_owned(),
        };
        let span = self.with("taskdaemon.class", class);
        if !failed {
            return span;
        }
        Self {
            fault: Some(fault),
            ..span.with("error.type", class)
        }
    }

    /// The same with what is known of the task that it is about.
    fn about(self, task: &Task) -> Self {
        self.with("taskdaemon.task.id", task.id.0)
            .with("taskdaemon.queue", task.queue.as_str())
    }
}

/// When the current round of a task began.
fn round(task: &Task, trace: &Trace) -> Time {
    trace.round.map_or(task.created, |round| round.at)
}

/// A task that is over, from when it was handed in.
#[must_use]
pub fn of_task(task: &Task, trace: &Trace) -> Span {
    let ids = (trace.task(task.id), trace.parent);
    let what = (Kind::Consumer, format!("task {}", task.queue));
    let begun = round(task, trace);
    let times = (begun, task.ended.unwrap_or(begun));
    let first = trace.round.map_or(0, |round| round.after);
    let span = Span::new(trace, ids, what, times)
        .about(task)
        .with_any("taskdaemon.task.name", task.name.as_deref())
        .with("taskdaemon.task.owner", task.owner)
        .with("taskdaemon.task.state", task.state.word())
        .with(
            "taskdaemon.task.attempts",
            task.attempt.saturating_sub(first),
        )
        .with_any(
            "taskdaemon.schedule.id",
            task.tick.map(|tick| tick.schedule.0),
        )
        .with_any("taskdaemon.agent.id", task.spec.run.map(|run| run.agent.0));
    match &task.outcome {
        Some(outcome) => span.went(outcome),
        None => span,
    }
}

/// An attempt of a task that is over, from its launch.
#[must_use]
pub fn of_attempt(task: &Task, attempt: &Attempt, trace: &Trace) -> Span {
    let ids = (trace.attempt(attempt.key), Some(trace.task(task.id)));
    let what = (Kind::Internal, format!("attempt {}", task.queue));
    let times = (attempt.claimed, attempt.ended.unwrap_or(attempt.claimed));
    let started = attempt.started.as_ref();
    let span = Span::new(trace, ids, what, times)
        .about(task)
        .with("taskdaemon.attempt", attempt.key.number)
        .with_any("process.pid", started.map(|started| started.pid))
        .with_any(
            "process.owner",
            started.map(|started| started.user.as_str()),
        )
        .with_any(
            "taskdaemon.cpu.time",
            attempt.usage.cpu_micros.map(Fact::Micros),
        )
        .with_any("taskdaemon.memory.peak", attempt.usage.memory_peak)
        .when("started", started.map(|started| started.at));
    let Some(outcome) = &attempt.outcome else {
        return span;
    };
    let code = outcome.exit_code.map(i64::from);
    let signal = outcome.signal.map(i64::from);
    span.with_any("process.exit.code", code)
        .with_any("taskdaemon.signal", signal)
        .went(outcome)
}

/// The time before an attempt that is claimed now, since the one before it
/// ended or the task came.
///
/// `hangs` says whether it had to wait for other tasks. Its moment `ready` says
/// from when on it waited for a slot, or for its model.
#[must_use]
pub fn of_wait(
    task: &Task,
    (last, hangs): (Option<&Attempt>, bool),
    now: Time,
    trace: &Trace,
) -> Span {
    let begun = round(task, trace);
    let again = last.and_then(|last| last.ended).filter(|at| *at >= begun);
    let since = again.unwrap_or(begun);
    let due = task.due.max(since);
    let reason = match (due > since, again.is_some()) {
        (true, true) => "backoff",
        (true, false) if hangs => "dependencies",
        (true, false) => "start",
        (false, _) if task.spec.prompt.is_some() => "model",
        (false, _) => "slot",
    };
    let key = task.attempt_key();
    let ids = (trace.wait(key), Some(trace.task(task.id)));
    let what = (Kind::Internal, format!("wait {}", task.queue));
    Span::new(trace, ids, what, (since, now))
        .about(task)
        .with("taskdaemon.attempt", key.number)
        .with("taskdaemon.wait.reason", reason)
        .when("ready", Some(due))
}

/// Who is asked in a call of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'c> {
    /// The provider's name here.
    pub provider: &'c str,
    /// What that one calls the model.
    pub model: &'c str,
    /// Its address.
    pub base_url: &'c str,
}

/// A call of a model that is over, in the words of OpenTelemetry's conventions.
#[must_use]
pub fn of_call(
    call: &Call,
    asked: Asked<'_>,
    receipt: Option<&Receipt>,
    ended: Time,
    trace: &Trace,
) -> Span {
    let AttemptKey { task, number } = call.key;
    let ids = (trace.call(call.id), Some(trace.attempt(call.key)));
    let what = (Kind::Client, format!("chat {}", asked.model));
    let (host, port) = address(asked.base_url);
    let end = receipt.map(|receipt| receipt.end);
    let span = Span::new(trace, ids, what, (call.at, ended))
        .with("gen_ai.operation.name", "chat")
        .with("gen_ai.provider.name", asked.provider)
        .with("gen_ai.request.model", asked.model)
        .with_any("gen_ai.usage.input_tokens", receipt.and_then(|is| is.input))
        .with_any(
            "gen_ai.usage.output_tokens",
            receipt.and_then(|is| is.output),
        )
        .with("server.address", host)
        .with_any("server.port", port.map(i64::from))
        .with("taskdaemon.task.id", task.0)
        .with("taskdaemon.attempt", number);
    if end == Some(End::Answered) {
        return span;
    }
    let word = end.map_or("unknown", End::word);
    Span {
        fault: Some(word.to_owned()),
        ..span.with("error.type", word)
    }
}

/// Host and port of an address.
fn address(url: &str) -> (&str, Option<u16>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let default = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        Some(_) | None => (authority, Some(default)),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::accept::accept;
    use crate::model::id::TaskId;
    use crate::model::spec::NewTask;
    use crate::model::trace::{Share, drawn};

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_wait_says_since_when_and_what_for() {
        let mut task = accept(TaskId(1), &NewTask::default(), false, at(10));
        task.attempt = 1;
        let trace = Trace::begun(drawn(&[1; 32], 0).0, Share::ALL);
        let told = |task: &Task, hangs| {
            let span = of_wait(task, (None, hangs), at(30), &trace);
            let reason = span.facts.last().map(|(_, fact)| fact.clone());
            (span.begun, span.moments, reason)
        };
        let ready = |seconds| vec![("ready", at(seconds))];
        let slot = Some(Fact::from("slot"));
        assert_eq!(told(&task, false), (at(10), ready(10), slot));
        task.due = at(20);
        let start = Some(Fact::from("start"));
        assert_eq!(told(&task, false), (at(10), ready(20), start));
        let others = Some(Fact::from("dependencies"));
        assert_eq!(told(&task, true), (at(10), ready(20), others));
        // A clock that was set back.
        let span = of_wait(&task, (None, false), at(3), &trace);
        assert_eq!((span.begun, span.ended), (at(10), at(10)));
    }

    #[test]
    fn a_provider_has_an_address_and_a_port() {
        for (url, host, port) in [
            ("http://127.0.0.1:8080/v1", "127.0.0.1", Some(8080)),
            ("https://models.example/v1", "models.example", Some(443)),
            ("http://[::1]:9/v1", "::1", Some(9)),
            ("http://[::1]", "::1", Some(80)),
        ] {
            assert_eq!(address(url), (host, port), "{url}");
        }
    }
}
