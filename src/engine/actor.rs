//! The engine's thread: wait for a command or the next deadline, take what is
//! waiting, turn once, hand on what follows.
//!
//! Group commit needs no timer here: while one commit is on its way to the
//! disk, the next commands gather.

use std::io::PipeReader;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::model::time::Time;
use crate::store::disk::{Disk, Room};
use crate::store::{self, Store};

use super::clocks::Lead;
use super::command::{Command, Error};
use super::effect::{Batch, Effect};
use super::handle::Handle;
use super::hooks::Hooks;
use super::options::Options;
use super::promise::Promise;
use super::prompts::Prompts;
use super::retention;
use super::spans::Intake;
use super::wal::Wal;
use super::{Engine, reader};

/// Most commands of one turn: bounds how long an answer can wait for others'.
const BATCH: usize = 1_024;
/// Longest sleep. Deadlines are wall-clock times, and a clock that is being kept
/// right runs at most a two-thousandth faster than the one that sleep goes by.
/// That it was set is told by whoever watches it, see [`clock::watch`].
const SLEEP: Duration = Duration::from_secs(60);
/// Pause between two looks at a full disk.
const NAP: Duration = Duration::from_secs(1);
/// Pause before effects that were kept back are offered again.
const RETRY: Duration = Duration::from_millis(1);
/// Longest time that the news of a start waits for company.
const LATE: Duration = Duration::from_millis(10);
/// Effect lists that may wait for the run room before they are kept back here.
const EFFECTS: usize = 64;

/// A started engine, as its owner sees it.
#[derive(Debug)]
pub struct Running {
    /// The door for everyone.
    pub handle: Handle,
    /// What is to be done in the world, in order.
    pub effects: Receiver<Batch>,
    /// The engine's thread; it ends after `Command::Shutdown`, or when the
    /// store fails.
    pub thread: JoinHandle<Result<(), store::Error>>,
}

/// What the engine begins with.
#[derive(Debug)]
pub struct Settings {
    /// How much at once, how much waiting.
    pub engine: Options,
    /// What follows a task's end.
    pub hooks: Hooks,
    /// Which models there are.
    pub prompts: Prompts,
    /// How long what is over is kept.
    pub retention: retention::Options,
    /// The disk that all is written to.
    pub disk: Disk,
    /// Where spans go in, where somebody wants any.
    pub intake: Option<Intake>,
}

/// Recovers and starts the engine over a store. `reader` is another way into
/// the same store, for questions that change nothing.
///
/// # Errors
/// The store could not be recovered, or a thread not be started.
pub fn start<S: Store + Send + 'static>(
    store: S,
    reader: S,
    settings: Settings,
    boot: String,
) -> Result<Running, store::Error> {
    let most = usize::try_from(settings.engine.commands).unwrap_or(usize::MAX);
    let (commands, inbox) = mpsc::sync_channel(most);
    let (effects, outbox) = mpsc::sync_channel(EFFECTS);
    let mut engine = Engine::new(store, settings.engine, boot);
    engine.set_hooks(settings.hooks);
    engine.set_prompts(settings.prompts);
    engine.retain(settings.retention);
    engine.set_intake(settings.intake.clone());
    let mut held = Held::new(settings.disk, most);
    held.recover(&mut engine)?;
    let snapshot = engine.watch();
    let queries = reader::start(reader, snapshot.clone())?;
    // Nothing is ever sent: that the sender is gone says that the engine is.
    let (living, alive) = watch::channel(());
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let _living = living;
            turn_until_over(engine, &inbox, &effects, held)
        })
        .map_err(|source| store::Error::File {
            act: "start a thread over",
            path: "the database".into(),
            source,
        })?;
    let handle = Handle::new(commands, queries, snapshot, alive, settings.intake);
    Ok(Running {
        handle,
        effects: outbox,
        thread,
    })
}

fn turn_until_over<S: Store>(
    mut engine: Engine<S>,
    inbox: &Receiver<Command>,
    outbox: &SyncSender<Batch>,
    mut held: Held,
) -> Result<(), store::Error> {
    let mut next = Some(clock::now());
    let mut watched = Lead::default();
    // Effects that the run room had no room for. Bounded by what can be live:
    // a slot yields a launch, its signals and an acknowledgement.
    let mut kept: Vec<Effect> = Vec::new();
    loop {
        let Some(mut batch) = take(inbox, next, !kept.is_empty(), &watched) else {
            return Ok(());
        };
        let was_told = !batch.is_empty();
        engine.park(&mut batch);
        // Nothing else was said. What is due is not put off by many who wait.
        let due = next.is_some_and(|at| at <= clock::now());
        if was_told && batch.is_empty() && kept.is_empty() && !due {
            continue;
        }
        // First of all, since what follows is judged by the clock.
        batch.splice(0..0, watched.follow(clock::lead()));
        let batch = match held.let_through(batch, &mut engine)? {
            Passed::Turn(batch) => batch,
            Passed::Nothing => {
                let now = clock::now();
                engine.tell(now);
                next = Some(now.after(NAP));
                continue;
            }
            Passed::End => return Ok(()),
        };
        let turned = engine.turn_ahead(batch, clock::now(), |effects| {
            if !kept.is_empty() || !effects.iter().any(Effect::goes_ahead) {
                return None;
            }
            // Without it they follow the commit.
            let (promise, commit) = Promise::new().ok()?;
            *effects = hand_on(outbox, std::mem::take(effects), Some(commit));
            effects.is_empty().then_some(promise)
        })?;
        failpoint!("engine/effects/before");
        next = turned.next;
        kept.extend(turned.effects);
        if !kept.is_empty() {
            kept = hand_on(outbox, kept, None);
        }
        failpoint!("engine/effects/after");
        if turned.over {
            return Ok(());
        }
    }
}

/// Gives the run room its work: what it has no room for comes back.
fn hand_on(
    outbox: &SyncSender<Batch>,
    effects: Vec<Effect>,
    commit: Option<PipeReader>,
) -> Vec<Effect> {
    match outbox.try_send(Batch { effects, commit }) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => Vec::new(),
        Err(TrySendError::Full(batch)) => batch.effects,
    }
}

/// What may go on to the engine.
enum Passed {
    /// This, in one turn.
    Turn(Vec<Command>),
    /// Nothing may be written now.
    Nothing,
    /// It was told to end.
    End,
}

/// Keeps the engine from writing to a full disk, to one that is read-only, or
/// while another process has the database: a commit that fails ends the
/// process, and the next one would find the same. What is asked for is refused, what is reported waits.
struct Held {
    disk: Disk,
    /// Reports that wait, first to last.
    back: Vec<Command>,
    most: usize,
    room: Room,
    /// What an earlier process left behind is settled.
    recovered: bool,
    /// Another process holds the database's lock.
    locked: bool,
    wal: Wal,
}

impl Held {
    fn new(disk: Disk, most: usize) -> Self {
        Self {
            disk,
            back: Vec::new(),
            most,
            room: Room::Ample,
            recovered: false,
            locked: false,
            wal: Wal::default(),
        }
    }

    /// Settles what an earlier process left behind, once that can be written.
    fn recover<S: Store>(&mut self, engine: &mut Engine<S>) -> Result<(), store::Error> {
        if !self.recovered && barred(self.disk.look()?).is_none() && self.enter(engine)? {
            engine.recover(clock::now())?;
            self.recovered = true;
        }
        Ok(())
    }

    fn let_through<S: Store>(
        &mut self,
        mut batch: Vec<Command>,
        engine: &mut Engine<S>,
    ) -> Result<Passed, store::Error> {
        let before = self.room;
        self.room = self.disk.look()?;
        tell(before, self.room);
        engine.disk(self.room);
        if let Some(why) = barred(self.room) {
            if self.hold(batch, &why) {
                return Ok(Passed::End);
            }
            // More are not taken in: whoever reports waits.
            while self.back.len() >= self.most && barred(self.disk.look()?).is_some() {
                std::thread::park_timeout(NAP);
            }
            return Ok(Passed::Nothing);
        }
        while !self.enter(engine)? {
            if self.hold(std::mem::take(&mut batch), &Error::Locked) {
                return Ok(Passed::End);
            }
            if self.back.len() < self.most {
                return Ok(Passed::Nothing);
            }
        }
        self.recover(engine)?;
        let log = self.disk.log_bytes();
        let is_long = self.disk.is_long(log);
        self.wal.judge(is_long.then_some(log), clock::instant());
        engine.log_length(log, is_long);
        if !self.back.is_empty() {
            batch.splice(0..0, self.back.drain(..));
        }
        Ok(Passed::Turn(batch))
    }

    /// Refuses what is asked for, and keeps what is reported. True if it was
    /// told to end.
    fn hold(&mut self, batch: Vec<Command>, why: &Error) -> bool {
        let mut over = false;
        for command in batch {
            over |= matches!(command, Command::Shutdown { .. });
            self.back.extend(command.refuse(why, clock::now()));
        }
        over
    }

    /// Begins what the turn will commit. False when another process holds the
    /// lock, after as long as the store waits for it.
    fn enter<S: Store>(&mut self, engine: &mut Engine<S>) -> Result<bool, store::Error> {
        let locked = match engine.store().begin() {
            Ok(()) => false,
            Err(error) if error.is_locked() => true,
            Err(error) => return Err(error),
        };
        match (std::mem::replace(&mut self.locked, locked), locked) {
            (false, true) => tracing::error!(
                "another process holds the lock of the database: nothing is recorded until it ends"
            ),
            (true, false) => tracing::info!("the database is ours again"),
            (true, true) | (false, false) => {}
        }
        engine.locked(locked);
        Ok(!locked)
    }
}

/// Why nothing may be written, if that is so.
fn barred(room: Room) -> Option<Error> {
    match room {
        Room::None(shortage) => Some(Error::DiskFull(shortage.into())),
        Room::ReadOnly => Some(Error::ReadOnly),
        Room::Ample | Room::Low(_) => None,
    }
}

/// Logs that the disk has become full or has room again.
fn tell(before: Room, now: Room) {
    match (before, now) {
        (Room::ReadOnly, Room::ReadOnly) => {}
        (_, Room::ReadOnly) => tracing::error!(
            "the file system of the state directory has become read-only: nothing is recorded \
             until it is mounted for writing again; see `dmesg` for the reason"
        ),
        (Room::ReadOnly, Room::Ample) => {
            tracing::info!("the file system can be written to again: new tasks are accepted");
        }
        (Room::ReadOnly, Room::Low(_) | Room::None(_)) => tell(Room::Ample, now),
        (Room::Ample, Room::Low(shortage)) => tracing::warn!(
            "the disk is nearly full ({} bytes free): no new tasks are accepted",
            shortage.free
        ),
        (Room::Ample | Room::Low(_), Room::None(shortage)) => tracing::error!(
            "the disk is full ({} bytes free): nothing is recorded until there is room",
            shortage.free
        ),
        (Room::Low(_) | Room::None(_), Room::Ample) => {
            tracing::info!("the disk has room again: new tasks are accepted");
        }
        (Room::None(_), Room::Low(_)) => tracing::warn!("running tasks are recorded again"),
        (Room::Ample, Room::Ample)
        | (Room::Low(_), Room::Low(_))
        | (Room::None(_), Room::None(_)) => {}
    }
}

/// Waits for the first command, then takes those that wait behind it; or for
/// the next deadline. `None` when nobody can send any more.
///
/// That an attempt runs is no reason for a commit of its own: nobody waits for
/// an answer, and its end says it again. It goes along with what comes next.
fn take(
    inbox: &Receiver<Command>,
    next: Option<Time>,
    kept: bool,
    watched: &Lead,
) -> Option<Vec<Command>> {
    let mut batch = Vec::new();
    loop {
        let nap = match (kept, batch.is_empty()) {
            (true, _) => RETRY,
            (false, false) => LATE,
            (false, true) => SLEEP,
        };
        let wait = next.map_or(nap, |at| at.since(clock::now()).min(nap));
        match inbox.recv_timeout(wait) {
            Ok(command) => batch.push(command),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                let due = next.is_some_and(|at| at <= clock::now());
                if kept || due || !batch.is_empty() || watched.is_other(clock::lead()) {
                    return Some(batch);
                }
                continue;
            }
        }
        batch.extend(inbox.try_iter().take(BATCH - 1));
        let can_wait = |command: &Command| matches!(command, Command::Started { .. });
        if batch.len() >= BATCH || !batch.iter().all(can_wait) {
            return Some(batch);
        }
    }
}
