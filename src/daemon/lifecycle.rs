//! The daemon at work: what it tells the service manager, how it obeys signals,
//! and the ladder by which it stops.
//!
//! Stopping saves nothing, because every state was saved when it came about:
//! requests are seen out, the engine commits its last turn, and the process
//! ends. Running tasks belong to their runner and do not notice.

use std::path::PathBuf;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::api::admin::{Reload, Supervisor};
use crate::api::serve::{Drained, Listener as Socket};
use crate::api::{Server, State};
use crate::config::daemon::Options;
use crate::config::{Config, Sources};
use crate::engine::command::{Caller, Command, Error as EngineError};
use crate::engine::handle::Handle;
use crate::engine::prompts::Door;
use crate::engine::snapshot::Snapshot;
use crate::model::task;
use crate::runner::policy;
use crate::{clock, telemetry, web};

use super::agents;
use super::monitor::{Event, Monitor};
use super::notify::Notify;
use super::passed::Listener;
use super::process::Output;
use super::relay;
use super::reload::Reloader;
use super::service::Systemd;
use super::signals::{Signal, Signals};
use super::wellbeing::watch_wellbeing;
use super::{Error, Origin, system};

/// Shortest time between two status texts.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// Reload requests that may wait.
const RELOADS: usize = 8;
/// Time beyond the drain that the last steps may take.
const MARGIN: Duration = Duration::from_secs(5);

/// What the daemon works with.
pub struct Parts<'a> {
    /// Where settings come from, to read them again.
    pub sources: Sources,
    /// The settings.
    pub settings: Config,
    /// What the service manager handed over.
    pub systemd: Systemd,
    /// Who started this process, where no service manager did.
    pub origin: Origin,
    /// Who wants to know of changes.
    pub monitor: Monitor,
    /// The sockets to serve.
    pub listeners: Vec<Listener>,
    /// Where tasks ask models, and what their badges are made with.
    pub relay: Option<std::net::TcpListener>,
    /// The same for the engine.
    pub door: Option<Door>,
    /// The log.
    pub log: &'a telemetry::Guard,
    /// Signals, caught since before there was anything to lose.
    pub signals: Signals,
    /// The engine.
    pub handle: Handle,
    /// Directory of the capture files.
    pub output: PathBuf,
    /// Our own program's file.
    pub program: String,
}

/// Serves until a signal, or a failed engine, ends it.
///
/// # Errors
/// It could not begin to serve.
pub async fn serve(parts: Parts<'_>) -> Result<(), Error> {
    let handle = parts.handle.clone();
    let served = begin(parts).await;
    failpoint!("daemon/stop/drained");
    // Whatever happened, the engine ends in order.
    let (reply, done) = oneshot::channel();
    let told = handle.commands().send(Command::Shutdown { reply });
    if told.is_ok() && timeout(MARGIN, done).await.is_err() {
        tracing::warn!("the engine did not end in {MARGIN:?}; its last turn may be unfinished");
    }
    served
}

async fn begin(parts: Parts<'_>) -> Result<(), Error> {
    let mut signals = parts.signals;
    let interval = parts.systemd.watchdog_interval();
    let notify = parts.systemd.notify;
    let sockets = sockets(parts.listeners)?;
    let output = parts.output.clone();
    let (stop, stopping) = watch::channel(false);
    let (ask, asked) = mpsc::channel(RELOADS);
    let state = State {
        handle: parts.handle.clone(),
        output_dir: parts.output,
        reload: ask,
        version: crate::VERSION,
        supervisor: supervisor(&parts.origin),
        denied: policy::denied,
        pages: Some(web::PAGES),
    };
    let server = Server::new(parts.settings.api.clone(), state, stopping)
        .map_err(|error| system("set up the API")(std::io::Error::other(error.to_string())))?;
    let mut reloader = Reloader {
        sources: parts.sources,
        started: parts.settings.clone(),
        settings: parts.settings,
        handle: parts.handle.clone(),
        program: parts.program,
        door: parts.door.clone(),
        tuner: server.tuner(),
        log: parts.log,
    };
    let serving = tokio::spawn(server.serve(sockets));
    let relaying = begin_relay(parts.relay.zip(parts.door), &parts.handle)?;
    tell_clock(&parts.handle).map_err(system("watch the clock"))?;
    let text = status(&parts.handle.snapshot());
    failpoint!("daemon/ready/before");
    notify.ready(&text);
    let notify = lasting(notify, &parts.origin);
    let (options, current) = watch::channel(reloader.settings.daemon.clone());
    let told = tell_status(parts.handle.watch(), notify.clone());
    let fed = feed_watchdog(parts.handle.clone(), notify.clone(), interval);
    let well = watch_wellbeing(parts.handle.watch(), current, parts.monitor.clone());
    let mut background = vec![tokio::spawn(told), tokio::spawn(fed), tokio::spawn(well)];
    background.push(tokio::spawn(agents::watch(parts.handle.clone(), output)));
    background.extend(relaying);
    say_ready(&text);
    failpoint!("daemon/ready/after");
    let mut duty = Duty {
        reloader: &mut reloader,
        handle: &parts.handle,
        notify: &notify,
        output: &parts.origin.output,
        monitor: &parts.monitor,
        options,
    };
    duty.obey(&mut signals, asked).await;
    failpoint!("daemon/stop/before");
    say_stopping(&notify);
    for task in background {
        task.abort();
    }
    // As it is now: a reload may have changed it.
    let drain = reloader.settings.api.drain;
    notify.extend_timeout(drain + MARGIN);
    stop.send_replace(true);
    see_out(serving, drain, &mut signals).await;
    Ok(())
}

/// Answers tasks that ask models, where there is a door for them.
fn begin_relay(
    door: Option<(std::net::TcpListener, Door)>,
    handle: &Handle,
) -> Result<Option<JoinHandle<()>>, Error> {
    let Some((listener, door)) = door else {
        return Ok(None);
    };
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.map_err(system("wait for tasks that ask models"))?;
    let serving = relay::serve(listener, handle.clone(), door.stamp);
    Ok(Some(tokio::spawn(serving)))
}

/// A caller that only waited for READY hears no more.
fn lasting(notify: Notify, origin: &Origin) -> Notify {
    match origin.caller {
        Some(_) => Notify::default(),
        None => notify,
    }
}

fn say_ready(text: &str) {
    let version = crate::VERSION;
    tracing::info!(
        message_id = telemetry::id::READY,
        "taskdaemon {version} is ready: {text}"
    );
}

fn say_stopping(notify: &Notify) {
    notify.stopping("Stopping: open requests are finished, running tasks go on");
    tracing::info!(
        message_id = telemetry::id::STOPPING,
        "taskdaemon stops; running tasks go on"
    );
}

fn supervisor(origin: &Origin) -> Option<Supervisor> {
    let (_, restarts) = origin.supervisor.as_ref()?;
    Some(Supervisor {
        pid: nix::unistd::getppid().as_raw().cast_unsigned(),
        restarts: *restarts,
    })
}

/// Waits for the open requests, but no longer than the drain, and not at all
/// when told to stop a second time.
async fn see_out(mut serving: JoinHandle<Drained>, drain: Duration, signals: &mut Signals) {
    let ended = tokio::select! {
        ended = timeout(drain + MARGIN, &mut serving) => ended,
        () = another_end(signals) => {
            tracing::warn!("told to stop again: open requests are cut");
            serving.abort();
            return;
        }
    };
    match ended {
        Ok(Ok(drained)) => tracing::info!(
            "{} connections finished, {} were cut",
            drained.finished,
            drained.cut
        ),
        Ok(Err(error)) => tracing::error!("the API ended badly: {error}"),
        Err(_) => tracing::error!("the API did not end in time"),
    }
}

async fn another_end(signals: &mut Signals) {
    while !matches!(signals.next().await, Signal::Terminate | Signal::Interrupt) {}
}

fn sockets(listeners: Vec<Listener>) -> Result<Vec<Socket>, Error> {
    listeners
        .into_iter()
        .map(|listener| match listener {
            Listener::Unix(unix) => Socket::unix(unix),
            Listener::Tcp(tcp) => Socket::tcp(tcp),
        })
        .collect::<std::io::Result<_>>()
        .map_err(system("serve a socket"))
}

/// What signals and requests are about.
struct Duty<'d, 'l> {
    reloader: &'d mut Reloader<'l>,
    handle: &'d Handle,
    notify: &'d Notify,
    output: &'d Output,
    monitor: &'d Monitor,
    /// For those who have to know the settings in force.
    options: watch::Sender<Options>,
}

impl Duty<'_, '_> {
    /// Obeys signals and requests until it is time to stop.
    async fn obey(&mut self, signals: &mut Signals, mut asked: mpsc::Receiver<Reload>) {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Terminate | Signal::Interrupt => return,
                    Signal::Reload => {
                        // Refusals are in the log; nobody waits for this answer.
                        let _refused = self.reload(None).await.is_err();
                    }
                    Signal::Dump => tracing::info!("{:?}", self.handle.snapshot()),
                    Signal::Reopen => self.reopen(),
                },
                Some(request) = asked.recv() => {
                    let result = self.reload(Some(request.caller)).await;
                    if request.reply.send(result).is_err() {
                        tracing::debug!("whoever asked for the reload has gone");
                    }
                }
                () = self.handle.ended() => {
                    tracing::error!("the engine has failed; ending, so that it can be started anew");
                    return;
                }
            }
        }
    }

    async fn reload(&mut self, caller: Option<Caller>) -> Result<Vec<String>, String> {
        self.notify.reloading();
        let result = self.reloader.reload(caller).await;
        let text = status(&self.handle.snapshot());
        let options = &self.reloader.settings.daemon;
        match &result {
            Ok(_) => {
                self.options.send_replace(options.clone());
                self.notify.ready(&text)
            }
            Err(why) => {
                self.monitor.tell(options, Event::ReloadFailed(why.clone()));
                self.notify
                    .ready(&format!("{text}; last reload refused: {why}"))
            }
        };
        result
    }

    fn reopen(&self) {
        if !self.output.is_some() {
            tracing::info!("nothing to reopen: the log is the journal, or standard error");
            return;
        }
        // What waits belongs to the old file.
        self.reloader.log.flush();
        match self.output.open() {
            Ok(()) => tracing::info!("opened the log files again"),
            Err(error) => tracing::error!("{error}; going on with the old file"),
        }
    }
}

/// One line for `systemctl status`.
#[must_use]
pub fn status(snapshot: &Snapshot) -> String {
    let count = |state| snapshot.count(state);
    let waiting =
        count(task::State::Queued) + count(task::State::Scheduled) + count(task::State::Blocked);
    let runner = if snapshot.runner.is_some() {
        ""
    } else {
        ", waiting for a runner"
    };
    format!(
        "{} of {} slots in use, {waiting} waiting{runner}",
        snapshot.used, snapshot.slots
    )
}

async fn tell_status(mut figures: watch::Receiver<Snapshot>, notify: Notify) {
    let mut last = String::new();
    while figures.changed().await.is_ok() {
        let text = status(&figures.borrow_and_update());
        if text != last {
            notify.status(&text);
            last = text;
        }
        sleep_until(Instant::from_std(clock::instant()) + STATUS_PAUSE).await;
    }
}

/// Starts to tell the engine, which sleeps until its next deadline, that the
/// clock by which it goes was set. The thread ends with the process.
fn tell_clock(handle: &Handle) -> std::io::Result<()> {
    let timer = clock::watch()?;
    let commands = handle.commands();
    let tell = move || loop {
        // A queue without room belongs to an engine that turns, and so sees it.
        let lead = clock::lead();
        match commands.try_send(Command::ClockLead { lead }) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return,
        }
        if let Err(error) = timer.wait() {
            tracing::warn!("cannot watch the clock: {error}; that it is set is seen a minute late");
            return;
        }
    };
    std::thread::Builder::new()
        .name("clock".to_owned())
        .spawn(tell)
        .map(drop)
}

/// Feeds the watchdog by the engine's progress: each sign of life is a turn
/// that the engine made because it was asked to. One that does not turn in
/// time is not vouched for.
async fn feed_watchdog(handle: Handle, notify: Notify, every: Option<Duration>) {
    let Some(every) = every else { return };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        ticks.tick().await;
        let turns = handle.snapshot().commits;
        let moved = std::mem::replace(&mut seen, turns) != turns;
        match timeout(every, handle.ping()).await {
            Ok(Ok(_)) => {
                notify.watchdog();
            }
            // No room to ask, but it turns: busy is not dead.
            Ok(Err(EngineError::Busy)) if moved => {
                notify.watchdog();
            }
            Ok(Err(error)) => tracing::warn!("the engine does not answer: {error}"),
            Err(_) => tracing::warn!("the engine has not turned for {every:?}"),
        }
    }
}
