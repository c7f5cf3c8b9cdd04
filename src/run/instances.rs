//! Runners of single attempts, as the threads of this room share them: who is
//! talked to, who is sought, who came and waits for the engine's verdict.
//!
//! An attempt is in one of these at a time, so that it is either adopted or
//! given up, and never both.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::engine::effect::Verdict;
use crate::model::attempt::AttemptKey;
use crate::runner::client::Sender;
use crate::runner::protocol::{Hello, ToRunner};

/// Visitors of one uid that may be without a verdict; the next one is closed,
/// and a runner comes again.
const WAITING_MAX: u32 = 8;
/// Uids that are told of in the log, once each.
const STRANGERS_MAX: usize = 64;

/// The lock's content, also when a thread panicked with it: everything in here
/// is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to one runner.
#[derive(Debug, Default)]
pub(super) struct Instance {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    /// Absent before the runner is connected.
    sender: Option<Sender>,
    /// The last that was asked of it: with anything, the attempt is not wanted.
    asked: Option<ToRunner>,
    /// Whether the attempt is to stand still; nothing before it was asked to.
    frozen: Option<ToRunner>,
}

impl Instance {
    fn open(sender: Sender) -> Self {
        let instance = Self::default();
        lock(&instance.line).sender = Some(sender);
        instance
    }

    /// Says something to the runner, or leaves it for when there is one.
    pub(super) fn say(&self, message: ToRunner) {
        let mut line = lock(&self.line);
        if let Some(sender) = &mut line.sender {
            speak(sender, &message);
        }
        if matches!(message, ToRunner::Freeze { .. } | ToRunner::Thaw { .. }) {
            line.frozen = Some(message);
        } else {
            line.asked = Some(message);
            self.changed.notify_all();
        }
    }

    /// Whether nobody has asked for the attempt's end yet.
    pub(super) fn wanted(&self) -> bool {
        lock(&self.line).asked.is_none()
    }

    /// Waits; shorter when the attempt's end is asked for.
    pub(super) fn pause(&self, wait: Duration) {
        let line = lock(&self.line);
        if line.asked.is_none() {
            drop(self.changed.wait_timeout(line, wait));
        }
    }

    /// The launch is on its way; whatever was asked meanwhile goes after it.
    pub(super) fn connected(&self, mut sender: Sender) {
        let mut line = lock(&self.line);
        if let Some(message) = &line.asked {
            speak(&mut sender, message);
        }
        line.sender = Some(sender);
    }

    /// The runner has said what it understands: what had to wait for that goes
    /// now.
    pub(super) fn knows(&self, hello: &Hello) {
        let mut line = lock(&self.line);
        let frozen = line.frozen.clone();
        if let Some(sender) = &mut line.sender {
            sender.know(hello);
            if let Some(message) = frozen {
                speak(sender, &message);
            }
        }
    }

    /// The connection is gone and nothing has begun.
    pub(super) fn disconnected(&self) {
        lock(&self.line).sender = None;
    }
}

/// A runner that does not take it has lost its connection: its reader sees
/// the end.
fn speak(sender: &mut Sender, message: &ToRunner) {
    if let Err(error) = sender.send(message, &[]) {
        tracing::debug!(%error, "a runner of one attempt cannot be talked to");
        drop(sender.shutdown());
    }
}

/// What a visitor hears.
#[derive(Debug)]
pub(super) enum Answer {
    /// Its attempt is this one, and it may speak.
    Adopted(AttemptKey),
    /// It is to end this attempt.
    End(AttemptKey, Sender),
}

/// Someone at the report socket.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) uid: u32,
    pub(super) sender: Sender,
    /// Where its thread waits; closed without a word for a stranger.
    pub(super) answer: SyncSender<Answer>,
}

#[derive(Debug)]
pub(super) struct Sought {
    pub(super) group: Option<String>,
    pub(super) since: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<AttemptKey, Arc<Instance>>,
    sought: HashMap<AttemptKey, Sought>,
    visits: HashMap<u64, Visitor>,
    last_visit: u64,
    /// Visitors without a verdict, by uid.
    unmet: HashMap<u32, u32>,
    strangers: HashSet<u32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Instances {
    inner: Mutex<Inner>,
    seeking: Condvar,
}

impl Instances {
    pub(super) fn add(&self, key: AttemptKey, instance: Arc<Instance>) {
        lock(&self.inner).live.insert(key, instance);
    }

    pub(super) fn remove(&self, key: AttemptKey) {
        lock(&self.inner).live.remove(&key);
    }

    pub(super) fn get(&self, key: AttemptKey) -> Option<Arc<Instance>> {
        lock(&self.inner).live.get(&key).cloned()
    }

    pub(super) fn seek(&self, key: AttemptKey, group: Option<String>) {
        let since = clock::instant();
        lock(&self.inner)
            .sought
            .insert(key, Sought { group, since });
        self.seeking.notify_all();
    }

    /// Waits until something is sought, and gives up what `gone` says is gone.
    pub(super) fn give_up(&self, gone: impl Fn(&Sought) -> bool) -> Vec<AttemptKey> {
        let mut inner = lock(&self.inner);
        while inner.sought.is_empty() {
            inner = self
                .seeking
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let lost = inner.sought.extract_if(|_, sought| gone(sought));
        lost.map(|(key, _)| key).collect()
    }

    /// Whether someone may wait for a verdict. Each that may has to
    /// [`leave`](Self::leave).
    pub(super) fn enter(&self, uid: u32) -> bool {
        let mut inner = lock(&self.inner);
        let waiting = inner.unmet.entry(uid).or_default();
        if *waiting >= WAITING_MAX {
            return false;
        }
        *waiting += 1;
        true
    }

    pub(super) fn leave(&self, uid: u32) {
        let mut inner = lock(&self.inner);
        if let Some(waiting) = inner.unmet.get_mut(&uid) {
            *waiting -= 1;
            if *waiting == 0 {
                inner.unmet.remove(&uid);
            }
        }
    }

    /// Has a visitor wait for the verdict under a number.
    pub(super) fn visit(&self, visitor: Visitor) -> u64 {
        let mut inner = lock(&self.inner);
        inner.last_visit += 1;
        let visit = inner.last_visit;
        inner.visits.insert(visit, visitor);
        visit
    }

    /// Does as the engine says. An attempt that was given up meanwhile is not
    /// adopted any more.
    pub(super) fn met(&self, visit: u64, verdict: Verdict) {
        let mut inner = lock(&self.inner);
        let Some(mut visitor) = inner.visits.remove(&visit) else {
            return;
        };
        let key = match verdict {
            Verdict::Adopt(key) | Verdict::End(key) => key,
            Verdict::Away => {
                if inner.strangers.len() < STRANGERS_MAX && inner.strangers.insert(visitor.uid) {
                    tracing::warn!(
                        "uid {} came to the report socket and is not the runner it says it is; \
                         it is not answered",
                        visitor.uid
                    );
                }
                return;
            }
        };
        speak(&mut visitor.sender, &ToRunner::Hello(Hello::ours()));
        let adopted = matches!(verdict, Verdict::Adopt(_)) && inner.sought.remove(&key).is_some();
        let answer = if adopted {
            let instance = Arc::new(Instance::open(visitor.sender));
            inner.live.insert(key, instance);
            Answer::Adopted(key)
        } else {
            Answer::End(key, visitor.sender)
        };
        // Its thread waits, or has ended together with the process.
        drop(visitor.answer.try_send(answer));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::model::id::TaskId;
    use crate::runner::client::Connection;

    const KEY: AttemptKey = AttemptKey {
        task: TaskId(7),
        number: 1,
    };

    /// What a runner of one attempt reads, by the order of its words.
    fn read(mut theirs: UnixStream) -> Vec<&'static str> {
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).expect("read");
        let seen = String::from_utf8_lossy(&seen).into_owned();
        let mut found: Vec<_> = ["\"freeze\"", "\"thaw\"", "\"kill\""]
            .into_iter()
            .filter_map(|word| Some((seen.find(word)?, word)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, word)| word).collect()
    }

    fn sender() -> (Sender, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let (sender, _) = Connection::from_stream(ours).split().expect("split");
        (sender, theirs)
    }

    #[test]
    fn an_attempt_frozen_before_its_runner_is_there_is_still_wanted_and_frozen_then() {
        let instance = Instance::default();
        instance.say(ToRunner::Freeze { key: KEY });
        assert!(instance.wanted());
        let (sender, theirs) = sender();
        instance.connected(sender);
        instance.knows(&Hello::ours());
        instance.say(ToRunner::Kill { key: KEY });
        assert!(!instance.wanted());
        drop(instance);
        assert_eq!(read(theirs), ["\"freeze\"", "\"kill\""]);
    }

    #[test]
    fn a_runner_of_one_attempt_too_old_to_freeze_is_not_asked_to() {
        let instance = Instance::default();
        let (sender, theirs) = sender();
        instance.connected(sender);
        instance.knows(&Hello {
            max: 1,
            ..Hello::ours()
        });
        instance.say(ToRunner::Freeze { key: KEY });
        instance.say(ToRunner::Thaw { key: KEY });
        instance.say(ToRunner::Kill { key: KEY });
        drop(instance);
        assert_eq!(read(theirs), ["\"kill\""]);
    }
}
