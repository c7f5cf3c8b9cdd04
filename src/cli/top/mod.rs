//! `top`: queues and tasks as they are now, on the whole terminal.
//!
//! What is shown is a value ([`scene`]) and drawing it a pure function
//! ([`view`]); here are the terminal, the keys and the questions to the daemon,
//! none of which waits for another.

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue, RANGE};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::api::dto::{Page, TaskInfo};
use crate::api::queues::{QueueInfo, QueueList};
use crate::client::{Client, Error};
use crate::clock;

use super::page::Color;
use super::text::Screen;
use super::{Failure, Outcome, Setting, not_in_json};

pub mod scene;
pub mod view;

use scene::{Look, Mode, Scene, Wish};

/// Pause between two looks, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// A look may take this part of the time, so that one that is slow for the
/// daemon is a rare one.
const SHARE: u32 = 4;
/// Tasks listed of each kind.
const LISTED: usize = 200;
/// Tasks listed of those that ended badly.
const BAD: usize = 10;
/// Keys that may wait to be seen to.
const KEYS: usize = 32;
/// Bytes of output of which the last lines are shown.
const TAIL: &str = "bytes=-16384";

/// `top`.
pub(super) async fn top(setting: &Setting) -> Outcome {
    not_in_json(setting, "top")?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let told = "`top` needs a terminal; `taskdaemon status` and `taskdaemon list` do not";
        return Err(Failure::Usage(told.to_owned()));
    }
    let client = setting.client()?;
    // Whoever cannot be asked at all gets an error and no empty screen.
    let first = look(&client).await?;
    let ends = Ends::new()?;
    // From here on a panic, too, gives the terminal back as it was.
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, client, first, ends).await;
    ratatui::try_restore()?;
    shown.map(|()| 0)
}

/// The signals that end this program.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn come(&mut self) {
        let Self([terminate, interrupt, hangup]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What became of a wish.
enum Done {
    Note(String),
    Log(i64, Vec<String>),
}

async fn show(
    terminal: &mut DefaultTerminal,
    client: Client,
    first: Look,
    mut ends: Ends,
) -> Result<(), Failure> {
    let mut scene = Scene {
        color: Color::Auto.applies(&io::stdout()),
        ..Scene::default()
    };
    scene.take(first);
    let mut events = events()?;
    let mut wishes: JoinSet<Done> = JoinSet::new();
    let mut looking = Box::pin(look_after(client.clone(), PAUSE));
    loop {
        scene.now = clock::now();
        terminal.draw(|frame| view::draw(&scene, frame))?;
        tokio::select! {
            event = events.recv() => match event {
                None => return Ok(()),
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    match scene.key(key) {
                        None => {}
                        Some(Wish::Quit) => return Ok(()),
                        Some(wish) => drop(wishes.spawn(fulfil(client.clone(), wish))),
                    }
                }
                Some(_) => {}
            },
            (looked, took) = &mut looking => {
                match looked {
                    Ok(look) => scene.take(look),
                    Err(error) => scene.trouble = Some(error.to_string()),
                }
                let pause = PAUSE.max(took * SHARE);
                looking = Box::pin(look_after(client.clone(), pause));
            }
            Some(done) = wishes.join_next() => {
                match done.map_err(io::Error::other)? {
                    Done::Note(note) => scene.note = Some(note),
                    Done::Log(id, lines) => scene.mode = Mode::Log(id, lines),
                }
                looking = Box::pin(look_after(client.clone(), Duration::ZERO));
            }
            () = ends.come() => return Ok(()),
        }
    }
}

/// Keys and changes of size, read where waiting for them holds up nobody. The
/// thread ends with the program.
fn events() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(KEYS);
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// One look at the daemon after a pause, and how long it took.
fn look_after(
    client: Client,
    pause: Duration,
) -> impl Future<Output = (Result<Look, Error>, Duration)> {
    let begin = Instant::from_std(clock::instant()) + pause;
    async move {
        sleep_until(begin).await;
        let begun = clock::instant();
        let looked = look(&client).await;
        (looked, clock::instant() - begun)
    }
}

async fn look(client: &Client) -> Result<Look, Error> {
    let status = client.get("/v1/status").await?.read()?;
    let queues: QueueList = client.get("/v1/queues").await?.read()?;
    let mut tasks = list(client, "running,paused,stopping", LISTED).await?;
    let mut waiting = list(client, "queued,scheduled,blocked", LISTED).await?;
    let mut bad = list(client, "failed,expired,cancelled,skipped", BAD).await?;
    let is_shown = |queue: &QueueInfo| {
        let tasks = queue.running + queue.blocked + queue.scheduled + queue.queued;
        tasks > 0 || queue.paused || queue.draining
    };
    // Those that come next first.
    waiting.sort_by_key(|task| (task.state != "queued", task.due_at, task.id));
    tasks.append(&mut waiting);
    tasks.append(&mut bad);
    Ok(Look {
        status,
        tasks,
        queues: queues.queues.into_iter().filter(is_shown).collect(),
        at: clock::now(),
    })
}

/// Tasks in these states.
async fn list(client: &Client, states: &str, limit: usize) -> Result<Vec<TaskInfo>, Error> {
    let path = format!("/v1/tasks?limit={limit}&state={states}");
    let page: Page = client.get(&path).await?.read()?;
    Ok(page.tasks)
}

async fn fulfil(client: Client, wish: Wish) -> Done {
    match wish {
        Wish::Quit => Done::Note(String::new()),
        Wish::Change(id, verb) => {
            let answer = client.post(&format!("/v1/tasks/{id}/{verb}")).await;
            let task = answer.and_then(|answer| answer.read::<TaskInfo>());
            Done::Note(match task {
                Ok(task) => format!("task {} {}", task.id, task.state),
                Err(error) => error.to_string(),
            })
        }
        Wish::Log(id) => match tail(&client, id).await {
            Ok(lines) => Done::Log(id, lines),
            // An empty output has no last bytes.
            Err(Error::Refused(wire, _)) if wire.status == 416 => Done::Log(id, Vec::new()),
            Err(error) => Done::Note(error.to_string()),
        },
    }
}

/// The last lines of a task's output, fit for a terminal.
async fn tail(client: &Client, id: i64) -> Result<Vec<String>, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, HeaderValue::from_static(TAIL));
    let path = format!("/v1/tasks/{id}/log");
    let response = client.send(Method::GET, &path, None, headers).await?;
    let body = response.into_body().collect().await;
    let bytes = body.map_err(|_| Error::Lost)?.to_bytes();
    let mut screen = Screen::default();
    let text = screen.show(&bytes) + &screen.finish();
    Ok(text
        .lines()
        .map(|line| line.replace('\t', "    "))
        .collect())
}
