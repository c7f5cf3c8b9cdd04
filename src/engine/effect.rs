//! Everything that leaves the engine for the world, to be done after its commit.

use std::io::PipeReader;
use std::sync::Arc;

use crate::model::attempt::AttemptKey;
use crate::model::prompt::Call;
use crate::model::spec::Spec;

/// An attempt to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub key: AttemptKey,
    /// Uid of the task's owner, for the run-as policy.
    pub owner: u32,
    /// The task's idempotency key, which its process is told.
    pub task_key: Option<String>,
    /// What to run.
    pub spec: Arc<Spec>,
    /// Our own program and its arguments, which run as the daemon's user, where
    /// those stand for what the task asks.
    pub ours: Option<Vec<String>>,
    /// Variables that it gets where it does not name them itself.
    pub variables: Vec<(String, String)>,
    /// Its standard input.
    pub stdin: Option<Vec<u8>>,
    /// The call that our own program reads instead.
    pub call: Option<Box<Call>>,
    /// What it reads of another task.
    pub feed: Option<Feed>,
}

/// What an attempt reads of another task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// The standard output of this attempt.
    Output(AttemptKey),
    /// Nothing, so it cannot be started: why.
    Missing(String),
}

/// What becomes of a runner that came to the report socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its attempt is live and its own: it is listened to.
    Adopt(AttemptKey),
    /// Its attempt is over, or must be: nothing it says counts, and it is told
    /// to end.
    End(AttemptKey),
    /// It is not who it says: it gets no answer.
    Away,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A runner was accepted: what follows is for it.
    Attach,
    /// Start an attempt. Repeating it is harmless: a runner starts an attempt
    /// once.
    Launch(Box<Order>),
    /// Ask every process of an attempt to end.
    Terminate(AttemptKey),
    /// End every process of an attempt.
    Kill(AttemptKey),
    /// Stop every process of an attempt where it is.
    Freeze(AttemptKey),
    /// Let a frozen attempt go on.
    Thaw(AttemptKey),
    /// The attempt's end is on disk.
    Acknowledge(AttemptKey),
    /// The attempt's output is not kept any more.
    Erase(AttemptKey),
    /// An attempt in a sandbox profile is live, and its runner has to find
    /// this daemon or be found gone.
    Seek {
        /// Which.
        key: AttemptKey,
        /// Its cgroup, if it is known to have one.
        group: Option<String>,
    },
    /// The answer to [`Dialled`](super::command::Command::Dialled).
    Met {
        /// Which visit.
        visit: u64,
        /// What becomes of it.
        verdict: Verdict,
    },
}

impl Effect {
    /// Whether it can be got ready while its commit is on its way to the disk:
    /// the launch of a process of its own, by the shared runner.
    #[must_use]
    pub fn goes_ahead(&self) -> bool {
        matches!(self, Self::Launch(order) if order.spec.profile.is_none() && order.ours.is_none())
    }

    /// Which attempt the runner may forget by it.
    #[must_use]
    pub const fn forgets(&self) -> Option<AttemptKey> {
        if let Self::Acknowledge(key) = self {
            return Some(*key);
        }
        None
    }
}

/// What follows from one turn, in order.
#[derive(Debug)]
pub struct Batch {
    /// What is to be done.
    pub effects: Vec<Effect>,
    /// Where it comes ahead of its commit: where that is waited for. Nothing of
    /// the batch may be done before, and nothing at all if it never comes; what
    /// [goes ahead](Effect::goes_ahead) is made ready as far as it can be.
    pub commit: Option<PipeReader>,
}
