//! What is known from outside: which submits were acknowledged, and which attempts really ran.
//!
//! The journal is a file that is only added to, and so are the marks, one line for each attempt, written by the tasks'
//! own shells. The daemon's word is compared with both, and its own counts are believed by nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::host::{Host, append};

/// How a task has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    /// Whoever asked for it was told that it is cancelled.
    Cancelled,
    /// It succeeds, and may be removed from then on.
    Swept,
}

impl Fate {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Succeeds, "succeeds"),
        (Self::Cancelled, "cancelled"),
        (Self::Swept, "swept"),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(fate, _)| *fate == self)
            .map_or("", |(_, word)| word)
    }
}

/// Writes down that a submit was acknowledged.
pub(crate) fn acknowledged(host: &Host, key: &str, id: i64, fate: Fate) {
    let line = format!("{key} {id} {}\n", fate.word());
    let mut file = append(&host.path("acknowledged"));
    file.write_all(line.as_bytes()).expect("write it down");
}

/// The shell words by which a task says that an attempt of it runs.
pub(crate) fn mark(host: &Host, key: &str) -> String {
    let marks = host.path("marks");
    format!("echo {key} $TASKDAEMON_ATTEMPT >> {}", marks.display())
}

/// Tells what was survived, also to `tests/run`, which adds it up.
pub(crate) fn tell(line: &str) {
    println!("{line}");
    if let Some(file) = std::env::var_os("FAULTS_FIGURES") {
        writeln!(append(Path::new(&file)), "{line}").expect("write it down");
    }
}

/// What the judge found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) attempts: usize,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    /// Attempts that ended without the runner's word.
    pub(crate) interrupted: usize,
}

impl Verdict {
    /// One line with the figures, and the end of the test if one is bad.
    pub(crate) fn hold(&self, faults: usize, what: &str) {
        let line = format!(
            "{what}: {faults} survived, {} acknowledged, {} attempts, {} interrupted, {} lost, {} doubled",
            self.acknowledged,
            self.attempts,
            self.interrupted,
            self.lost.len(),
            self.doubled.len()
        );
        tell(&line);
        assert!(self.lost.is_empty(), "lost: {:#?}", self.lost);
        assert!(self.doubled.is_empty(), "doubled: {:#?}", self.doubled);
        assert!(self.acknowledged > 0, "nothing was acknowledged");
    }
}

/// Attempts by key, from the marks; what is there twice ran twice.
fn marks(host: &Host, verdict: &mut Verdict) -> BTreeMap<String, BTreeSet<u64>> {
    let text = fs::read_to_string(host.path("marks")).unwrap_or_default();
    let mut all: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (key, number) = line.split_once(' ').expect("key and attempt");
        let number = number.parse().expect("a number");
        verdict.attempts += 1;
        if !all.entry(key.to_owned()).or_default().insert(number) {
            verdict
                .doubled
                .push(format!("attempt {number} of {key} ran twice"));
        }
    }
    all
}

/// Compares what was acknowledged and what ran with what the daemon says, when nothing is unfinished.
pub(crate) fn judge(host: &Host) -> Verdict {
    let mut verdict = Verdict::default();
    let marks = marks(host, &mut verdict);
    let text = fs::read_to_string(host.path("acknowledged")).unwrap_or_default();
    let mut told: BTreeMap<&str, i64> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (key, id, fate) = (words.next(), words.next(), words.next());
        let (Some(key), Some(id), Some(word)) = (key, id, fate) else {
            panic!("a line of the journal: {line}");
        };
        let id: i64 = id.parse().expect("a number");
        let fate = Fate::ALL.iter().find(|(_, known)| *known == word);
        let fate = fate.expect("a fate").0;
        if let Some(before) = told.insert(key, id)
            && before != id
        {
            let why = format!("{key} is task {before} and task {id}");
            verdict.doubled.push(why);
        }
        verdict.acknowledged += 1;
        let ran = marks.get(key).cloned().unwrap_or_default();
        check(host, (key, id, fate), &ran, &mut verdict);
    }
    verdict
}

/// One task: that it is there, how it ended, and that what ran is what is written down.
fn check(
    host: &Host,
    (key, id, fate): (&str, i64, Fate),
    ran: &BTreeSet<u64>,
    verdict: &mut Verdict,
) {
    let (status, task) = host.get(&format!("/v1/tasks/{id}")).expect("an answer");
    if status == 404 && fate == Fate::Swept {
        if ran.is_empty() {
            verdict
                .lost
                .push(format!("{key} was removed and never ran"));
        }
        return;
    }
    let attempts = task["attempts"].as_array().cloned().unwrap_or_default();
    verdict.interrupted += lost(&task);
    let put_aside = is_put_aside(host, &task);
    let wanted = match fate {
        Fate::Succeeds | Fate::Swept => "succeeded",
        Fate::Cancelled => "cancelled",
    };
    if status != 200 || task["state"] != wanted && !put_aside {
        verdict
            .lost
            .push(format!("{key} should have {wanted}: {status} {task}"));
        return;
    }
    let known: BTreeSet<u64> = attempts.iter().filter_map(number).collect();
    if !ran.is_subset(&known) {
        let why = format!("{key}: ran {ran:?}, and known are {known:?}: {task}");
        verdict.doubled.push(why);
    }
    // An attempt that ended by itself has run. One that was lost or cancelled may not have come so far.
    let by_itself = attempts.iter().filter(|one| one["exit_code"].is_i64());
    let by_itself: BTreeSet<u64> = by_itself.filter_map(number).collect();
    if !by_itself.is_subset(ran) {
        let why = format!("{key}: ran {ran:?}, and {by_itself:?} are said to have ended");
        verdict.lost.push(why);
    }
}

/// Attempts that ended without the runner's word.
fn lost(task: &Value) -> usize {
    let attempts = task["attempts"].as_array().into_iter().flatten();
    attempts.filter(|one| one["outcome"] == "lost").count()
}

/// Whether it was put aside, as is promised: after three interruptions, or behind a task that was.
fn is_put_aside(host: &Host, task: &Value) -> bool {
    if lost(task) >= 3 && task["outcome"]["class"] == "poison" {
        return true;
    }
    let parents = task["after"].as_array().into_iter().flatten();
    let ids = parents.filter_map(|link| link["task"].as_i64());
    task["state"] == "skipped"
        && ids.into_iter().any(|id| {
            let (_, parent) = host.get(&format!("/v1/tasks/{id}")).expect("an answer");
            is_put_aside(host, &parent)
        })
}

fn number(attempt: &Value) -> Option<u64> {
    attempt["number"].as_u64()
}
