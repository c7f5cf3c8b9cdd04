//! The house's own rules, held by reading the sources: floors, forbidden
//! words, headers, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and the floor each is on. A room may use rooms of lower floors, and
/// no other of its own.
const FLOORS: [(&str, u32); 12] = [
    ("model", 0),
    ("store", 1),
    ("runner", 1),
    ("engine", 2),
    ("api", 3),
    ("run", 3),
    ("config", 4),
    ("client", 4),
    ("web", 4),
    ("daemon", 5),
    ("cli", 6),
    // Looks into every room, and is looked at by none.
    ("surfaces", 7),
];

/// Files beside the floors: what they may use, and which rooms may not use them.
const BESIDE: [(&str, &[&str], &[&str]); 3] = [
    ("clock", &["model"], &["model", "store"]),
    ("telemetry", &[], &["model", "store"]),
    ("VERSION", &[], &["model"]),
];

/// What code of a room must not say: what its floor is kept free of.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    (
        "model",
        &[
            "tokio",
            "rusqlite",
            "tracing",
            "std::fs",
            "std::env",
            "std::process",
            "std::thread",
            "rand::",
            "::now()",
            "std::net",
            "std::io",
            "failpoint!",
        ],
    ),
    (
        "store",
        &[
            "tokio",
            "axum",
            "hyper",
            "::now()",
            "tracing::info",
            "tracing::warn",
            "tracing::error",
        ],
    ),
    (
        "runner",
        &[
            "tokio",
            "rusqlite",
            "axum",
            "hyper",
            "SystemTime",
            "Instant::now",
        ],
    ),
    (
        "engine",
        &[
            "tokio::net",
            "tokio::process",
            "tokio::spawn",
            "axum",
            "hyper",
            "reqwest",
            "SELECT ",
            "INSERT ",
            "UPDATE ",
            "std::process",
            "std::net",
            "Mutex",
            "RwLock",
        ],
    ),
    (
        "config",
        &["Command::new", "UnixListener", "TcpListener", "tokio"],
    ),
];

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

struct Source {
    name: String,
    room: String,
    /// Up to the first test module.
    code: String,
}

fn all() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    sources(&src, &mut paths);
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("readable");
        let code = text
            .split("#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default()
            .to_owned();
        let name = path
            .strip_prefix(&src)
            .expect("below src")
            .display()
            .to_string();
        let room = name
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        Source { name, room, code }
    };
    paths.iter().map(read).collect()
}

/// Code without its comments, so that prose may name what code must not.
fn bare(code: &str) -> String {
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Words that follow `crate::`, also inside one grouped import.
fn uses(code: &str) -> BTreeSet<String> {
    let code = bare(code);
    let mut found = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(word(item.trim()));
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                item.push(letter);
            }
            found.insert(word(item.trim()));
        } else {
            found.insert(word(part));
        }
    }
    found.remove("");
    found
}

#[test]
fn rooms_use_lower_floors_only() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    for source in all() {
        if ["main", "lib"].contains(&source.room.as_str()) {
            continue;
        }
        for used in uses(&source.code) {
            if used == source.room {
                continue;
            }
            let beside = BESIDE.iter().find(|(name, ..)| *name == source.room);
            let allowed = match (floors.get(source.room.as_str()), floors.get(used.as_str())) {
                (Some(own), Some(other)) => other < own,
                (Some(_), None) => BESIDE
                    .iter()
                    .find(|(name, ..)| *name == used)
                    .is_some_and(|(_, _, not)| !not.contains(&source.room.as_str())),
                (None, _) => beside.is_some_and(|(_, may, _)| may.contains(&used.as_str())),
            };
            if !allowed {
                wrong.push(format!("{} uses {used}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_of_one_floor_do_not_know_each_other_and_api_not_the_store() {
    let not = [
        ("api", "run"),
        ("run", "api"),
        ("api", "store"),
        ("run", "store"),
        ("api", "runner"),
        ("store", "runner"),
        ("runner", "store"),
        ("config", "client"),
        ("web", "client"),
        ("web", "engine"),
    ];
    let mut wrong = Vec::new();
    for source in all() {
        for (room, other) in not {
            if source.room == room && uses(&source.code).contains(other) {
                wrong.push(format!("{} uses {other}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Files of the lowest room that a file uses, by their `super::` imports.
fn neighbours(code: &str) -> BTreeSet<String> {
    let uses = code
        .lines()
        .filter_map(|line| line.strip_prefix("use super::"));
    let word = |rest: &str| rest.split([':', ';']).next().unwrap_or_default().to_owned();
    uses.map(word).collect()
}

#[test]
fn files_of_the_model_do_not_run_in_a_circle() {
    let mut left: BTreeMap<String, BTreeSet<String>> = all()
        .into_iter()
        .filter(|source| source.room == "model" && source.name != "model/mod.rs")
        .map(|source| {
            let name = source.name.trim_start_matches("model/");
            let name = name.trim_end_matches(".rs").to_owned();
            (name, neighbours(&source.code))
        })
        .collect();
    assert!(
        left.values().any(|uses| !uses.is_empty()),
        "imports are seen"
    );
    loop {
        let free: Vec<_> = left
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used)))
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
    }
    assert!(left.is_empty(), "a circle through {:?}", left.keys());
}

#[test]
fn no_room_says_what_its_floor_forbids() {
    let mut wrong = Vec::new();
    for source in all() {
        let code = bare(&source.code);
        for (room, words) in FORBIDDEN {
            for word in words
                .iter()
                .filter(|word| source.room == room && code.contains(**word))
            {
                wrong.push(format!("{} says {word}", source.name));
            }
        }
        if source.room != "store" && code.contains("rusqlite") {
            wrong.push(format!("{} knows the database", source.name));
        }
        if code.contains("pub use ") {
            wrong.push(format!(
                "{} re-exports; every name has one home",
                source.name
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Words that need care, and the files that have the reason to say them.
const RARE: [(&str, &[&str]); 2] = [
    (
        "unsafe ",
        &[
            "api/memory.rs",
            "daemon/passed.rs",
            "daemon/process.rs",
            "daemon/service.rs",
            "runner/child.rs",
            "runner/spawn.rs",
            "runner/sys.rs",
            "store/quota.rs",
        ],
    ),
    ("Mutex", &["client/connections.rs", "run/instances.rs"]),
];

#[test]
fn what_needs_care_is_where_the_map_says() {
    let map = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("the map");
    for (word, places) in RARE {
        let found: Vec<_> = all()
            .into_iter()
            .filter(|source| bare(&source.code).contains(word))
            .map(|source| source.name)
            .collect();
        assert_eq!(found, places, "{word}");
        for place in places {
            assert!(map.contains(place), "the map does not name {place}");
        }
    }
}

#[test]
fn the_map_gives_each_dependency_its_duty() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let map = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("the map");
    let own = manifest.split("[dependencies]\n").nth(1).expect("section");
    let own = own.split("\n[").next().unwrap_or_default();
    let own: BTreeSet<_> = own
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    let table = map.split("## Dependencies").nth(1).expect("section");
    let told: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|first| *first != "crate")
        .flat_map(|first| first.split(", "))
        .map(|name| name.split(" (").next().unwrap_or_default())
        .collect();
    assert_eq!(own, told);
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    let mut wrong = Vec::new();
    for source in all() {
        let header = source
            .code
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if header == 0 && source.name != "lib.rs" {
            wrong.push(format!("{} has no header", source.name));
        }
        let lines = source.code.lines().count();
        if lines > FILE_LINES {
            wrong.push(format!(
                "{} has {lines} lines; {FILE_LINES} are allowed",
                source.name
            ));
        }
        for (name, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES {
                wrong.push(format!("{}: {name} has {lines} lines", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Functions and their lengths, by the formatter's own indentation.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<_> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let before = text.split_once("fn ").map(|(before, _)| before);
        let is_word =
            |word: &str| ["async", "const", "unsafe"].contains(&word) || word.starts_with("pub");
        if !before.is_some_and(|before| before.split_whitespace().all(is_word)) {
            continue;
        }
        let indent = " ".repeat(line.len() - text.len());
        let end = format!("{indent}}}");
        let length = lines[start..]
            .iter()
            .position(|line| *line == end)
            .map_or(1, |n| n + 1);
        found.push((
            text.split('(').next().unwrap_or_default().to_owned(),
            length,
        ));
    }
    found
}

#[test]
fn tests_are_not_switched_off() {
    let mut paths = Vec::new();
    // The system tier is switched on by `tests/run`, because it needs root.
    sources(&root().join("tests/it"), &mut paths);
    let banned = ["#[ign".to_owned() + "ore", "should".to_owned() + "_panic"];
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        for word in &banned {
            assert!(
                !text.contains(word.as_str()),
                "{} has {word}",
                path.display()
            );
        }
    }
}

#[test]
fn the_top_level_holds_what_the_card_names() {
    let allowed = [
        "Cargo.toml",
        "src",
        "systemd",
        "tests",
        "deb",
        "README.md",
        "Cargo.lock",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "LICENSE",
        "rust-toolchain.toml",
        "CHANGELOG.md",
        "target",
    ];
    for entry in fs::read_dir(root()).expect("root") {
        let name = entry
            .expect("entry")
            .file_name()
            .into_string()
            .expect("text");
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name}"
        );
    }
}

/// Checks that there are tests of these names.
pub(crate) fn tests_exist(what: &str, names: &[&str]) {
    let mut paths = Vec::new();
    sources(&root().join("tests"), &mut paths);
    sources(&root().join("src"), &mut paths);
    let read = |path: &PathBuf| fs::read_to_string(path).expect("readable");
    let code: String = paths.iter().map(read).collect();
    for name in names {
        let is_there = ["(", "<"].iter().any(|end| {
            let head = format!("fn {name}{end}");
            code.split(&head).skip(1).count() == 1
        });
        assert!(
            is_there,
            "{what}: there is no test {name}, or more than one"
        );
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let promises = readme
        .split("## Promises")
        .nth(1)
        .expect("a section of promises");
    let promises = promises.split("\n## ").next().unwrap_or_default();
    let mut names = 0;
    for line in promises
        .lines()
        .filter(|line| line.starts_with(char::is_numeric))
    {
        let tests: Vec<_> = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains('_'))
            .collect();
        assert!(!tests.is_empty(), "this promise names no test: {line}");
        tests_exist(line, &tests);
        names += tests.len();
    }
    assert!(names >= 10, "ten promises, each with a test");
}
