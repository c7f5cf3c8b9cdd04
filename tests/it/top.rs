//! `top`: frames of every size as values, keys as values, and the real thing in
//! a pretended terminal.

use ratatui::Terminal as Screen;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};
use taskdaemon::api::dto::TaskInfo;
use taskdaemon::api::queues::QueueInfo;
use taskdaemon::cli::top::scene::{Look, Mode, Scene, Wish};
use taskdaemon::cli::top::view::draw;
use taskdaemon::model::time::Time;

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::terminal::Terminal;

const NOW: Time = Time::from_micros(1_700_000_100_000_000);

fn task(id: i64, state: &str, more: &Value) -> TaskInfo {
    let mut value = json!({
        "id": id, "state": state, "queue": "default", "priority": 0, "labels": {}, "owner": 0,
        "command": ["make", "all"], "on_interrupt": "retry", "max_attempts": 1, "tries": 0,
        "created_at": "2023-11-14T22:13:20Z", "due_at": "2023-11-14T22:13:20Z"
    });
    let fields = value.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(value).expect("a task")
}

fn queue(name: &str, other: &Value) -> QueueInfo {
    let mut info = json!({
        "name": name, "paused": false, "draining": false, "concurrency": null, "rate": null,
        "group_limit": 1, "blocked": 0, "scheduled": 0, "queued": 0, "running": 0
    });
    for (field, value) in other.as_object().expect("an object") {
        info[field] = value.clone();
    }
    serde_json::from_value(info).expect("a queue")
}

fn look(tasks: Vec<TaskInfo>) -> Look {
    let status = json!({
        "version": "1.2.3", "pid": 1, "phase": "running", "started_at": "2023-11-14T22:13:20Z",
        "tasks": {"running": 1, "queued": 2, "failed": 0}, "slots": {"used": 1, "total": 4},
        "runner": null, "commits": 0, "commands": 0
    });
    Look {
        status: serde_json::from_value(status).expect("a status"),
        tasks,
        queues: vec![
            queue(
                "default",
                &json!({"draining": true, "running": 1, "blocked": 1, "scheduled": 1, "queued": 2}),
            ),
            queue("mail", &json!({"paused": true, "queued": 1234})),
        ],
        at: NOW,
    }
}

fn scene() -> Scene {
    let mut scene = Scene {
        now: NOW,
        color: true,
        ..Scene::default()
    };
    scene.take(look(vec![
        task(3, "running", &json!({"name": "build", "started_at": "2023-11-14T22:13:40Z",
            "progress": 42.5, "status": "compiling", "reason": "running", "reason_code": "running"})),
        task(5, "queued", &json!({"name": "evil\u{1b}]0;x\u{7}\u{202e}", "queue": "mail",
            "reason": "waits for a slot: 1 of 1 in use"})),
        task(9, "failed", &json!({"ended_at": "2023-11-14T22:14:00Z",
            "outcome": {"class": "exit", "exit_code": 7, "signal": null, "message": "exit code 7"}})),
    ]));
    scene
}

/// The frame as lines of text.
fn frame(scene: &Scene, width: u16, height: u16) -> Vec<String> {
    let mut screen = Screen::new(TestBackend::new(width, height)).expect("screen");
    screen.draw(|frame| draw(scene, frame)).expect("draw");
    let buffer = screen.backend().buffer();
    let line = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(line).collect()
}

fn press(scene: &mut Scene, keys: &str) -> Vec<Wish> {
    let key = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE);
    keys.chars()
        .filter_map(|letter| scene.key(key(letter)))
        .collect()
}

#[test]
fn a_frame_shows_queues_and_tasks() {
    let shown = frame(&scene(), 100, 24);
    let has = |words: &[&str]| {
        let found = |line: &&String| words.iter().all(|word| line.contains(word));
        assert!(
            shown.iter().any(|line| found(&line)),
            "{words:?}: {shown:#?}"
        );
    };
    has(&["taskdaemon 1.2.3", "1 of 4 slots", "no runner"]);
    has(&["1 running", "2 queued"]);
    has(&["queue default", "1 running", "4 waiting", "draining"]);
    has(&["queue mail", "0 running", "1234 waiting", "paused"]);
    has(&["3", "running", "1m20s", "42 %", "build", "compiling"]);
    has(&["5", "queued", "mail", "waits for a slot"]);
    has(&["9", "failed", "60 s ago", "make all", "exit code 7"]);
    has(&["q quit"]);
    let all = shown.concat();
    assert!(
        !all.contains('\u{1b}') && !all.contains('\u{202e}'),
        "{shown:#?}"
    );
    assert!(all.contains("evil\\x1b]0"), "{shown:#?}");
}

#[test]
fn no_size_and_no_mode_is_too_much() {
    let log = |lines| Mode::Log(3, lines);
    let many = (0..500).map(|n| format!("line {n}\u{1b}[2J")).collect();
    for mode in [
        Mode::Browse,
        Mode::Filter,
        Mode::Cancel(3),
        log(Vec::new()),
        log(many),
    ] {
        for empty in [false, true] {
            let mut scene = if empty { Scene::default() } else { scene() };
            scene.mode = mode.clone();
            scene.filter = "\u{1b}\u{202e}日本".to_owned();
            scene.trouble = Some("gone\u{7}".to_owned());
            for (width, height) in [
                (1, 1),
                (1, 50),
                (80, 1),
                (2, 3),
                (20, 6),
                (80, 24),
                (300, 90),
            ] {
                let shown = frame(&scene, width, height).concat();
                assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
            }
        }
    }
}

#[test]
fn keys_ask_for_what_they_say() {
    let mut scene = scene();
    assert_eq!(scene.selected, Some(3));
    assert_eq!(press(&mut scene, "p"), [Wish::Change(3, "pause")]);
    assert_eq!(press(&mut scene, "jr"), [Wish::Change(5, "retry")]);
    assert_eq!(press(&mut scene, "l"), [Wish::Log(5)]);
    assert_eq!(press(&mut scene, "cn"), [], "only a yes cancels");
    assert_eq!(press(&mut scene, "cy"), [Wish::Change(5, "cancel")]);
    assert_eq!(press(&mut scene, "jjjjk"), [], "the ends of the page hold");
    assert_eq!(scene.selected, Some(5));
    assert_eq!(press(&mut scene, "/mailqc"), [], "letters of the filter");
    assert_eq!((scene.filter.as_str(), scene.tasks().len()), ("mailqc", 0));
    for _ in 0..2 {
        scene.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    }
    assert_eq!((scene.tasks().len(), scene.selected), (1, Some(5)));
    scene.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
    scene.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
    assert_eq!(scene.tasks().len(), 3);
    assert_eq!(press(&mut scene, "q"), [Wish::Quit]);
    scene.mode = Mode::Filter;
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(scene.key(interrupt), Some(Wish::Quit), "always");
    let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
    assert_eq!((scene.key(alt), scene.filter.as_str()), (None, ""));
    let mut empty = Scene::default();
    assert_eq!(
        press(&mut empty, "jkcprl/"),
        [],
        "nothing there, nothing asked"
    );
}

#[test]
fn the_selection_stays_with_its_task() {
    let mut scene = scene();
    press(&mut scene, "j");
    let three = || task(3, "running", &json!({}));
    let five = || task(5, "running", &json!({}));
    scene.take(look(vec![five(), three()]));
    assert_eq!((scene.selected, scene.place()), (Some(5), Some(0)));
    scene.take(look(vec![three()]));
    assert_eq!(scene.selected, Some(3), "when it is gone, its place");
    scene.take(look(Vec::new()));
    assert_eq!(scene.selected, None);
}

#[test]
fn top_shows_tasks_acts_on_them_and_gives_the_terminal_back() {
    let bed = Bed::start(&[]);
    let id =
        bed.submit(&json!({"command": ["sh", "-c", "echo says; sleep 300"], "name": "sleeper"}));
    bed.until("it has written", |bed| !bed.output(id).is_empty());
    let mut terminal = Terminal::start(&bed, (80, 24), &[], &["top"]);
    terminal.until("\x1b[?1049h");
    terminal.until("sleeper");
    assert!(!terminal.is_as_before(), "keys come at once");
    terminal.press("l");
    terminal.until("says");
    terminal.press("x");
    terminal.until("sleeper");
    terminal.press("c");
    terminal.until("[y/N]");
    terminal.press("y");
    assert_eq!(bed.wait(id)["state"], "cancelled");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(terminal.seen.contains("\x1b[?1049l"), "{}", terminal.seen);
    assert!(terminal.is_as_before());
}

#[test]
fn signals_end_top_and_the_terminal_is_as_before() {
    use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM, kill};
    let bed = Bed::start(&[]);
    bed.submit(&json!({"command": ["sleep", "300"], "name": "sleeper"}));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let mut terminal = Terminal::start(&bed, (60, 12), &[("NO_COLOR", "1")], &["top"]);
        terminal.until("sleeper");
        kill(terminal.pid(), signal).expect("signal");
        assert_eq!(terminal.end().code(), Some(0), "{signal}");
        assert!(terminal.is_as_before(), "{signal}");
        assert!(
            !terminal.seen.contains("\x1b[38;5"),
            "no colours: {}",
            terminal.seen
        );
    }
}

#[test]
fn top_goes_on_when_the_daemon_comes_back() {
    let mut bed = Bed::start(&[]);
    bed.submit(&json!({"command": ["true"], "delay": "1h", "name": "sleeper"}));
    let mut terminal = Terminal::start(&bed, (100, 12), &[], &["top"]);
    terminal.until("sleeper");
    bed.kill();
    terminal.until("nobody");
    bed.restart();
    bed.submit(&json!({"command": ["true"], "delay": "1h", "name": "another"}));
    terminal.until("another");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn top_needs_a_terminal_and_a_daemon() {
    let bed = Bed::start(&[]);
    let output = at(&bed, &["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("needs a terminal"));
    let host = [("TASKDAEMON_HOST", "unix:/no/such/socket")];
    let mut terminal = Terminal::start(&bed, (80, 24), &host, &["top"]);
    assert_eq!(terminal.end().code(), Some(69), "{}", terminal.seen);
    assert!(!terminal.seen.contains("\x1b[?1049h"), "no empty screen");
}
