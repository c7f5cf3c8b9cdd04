//! The manual pages: one for each verb, every setting and every field, and nothing in them that `man` would warn of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::text;

fn run(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    let output = command.args(args).output().expect("run");
    assert!(output.status.success(), "{args:?}: {output:?}");
    text(&output.stdout)
}

/// The pages, by the names of their files.
fn pages(dir: &Path) -> BTreeMap<String, String> {
    run(&["man", "--dir", dir.to_str().expect("text")]);
    let files = std::fs::read_dir(dir).expect("list");
    files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().and_then(|name| name.to_str());
            let page = std::fs::read_to_string(&path).expect("text");
            (name.expect("a name").to_owned(), page)
        })
        .collect()
}

/// Verbs that the help of a command names.
fn verbs(args: &[&str]) -> Vec<String> {
    let help = run(&[args, &["--help"]].concat());
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return Vec::new();
    };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let verb = |line: &str| {
        let own = line
            .strip_prefix("  ")
            .filter(|own| !own.starts_with(' '))?;
        let word = own.split(' ').next()?.to_owned();
        (word != "help").then_some(word)
    };
    lines.filter_map(verb).collect()
}

#[test]
fn there_is_a_manual_page_for_each_verb_and_every_setting_is_in_one() {
    let dir = tempfile::tempdir().expect("directory");
    let pages = pages(dir.path());
    let mut wanted: BTreeSet<String> = ["taskdaemon.1", "taskdaemon.toml.5", "taskdaemon-jobs.5"]
        .map(str::to_owned)
        .into();
    let top = verbs(&[]);
    assert!(top.len() > 25, "{top:?}");
    for verb in &top {
        let section = if verb.starts_with("run") { 8 } else { 1 };
        wanted.insert(format!("taskdaemon-{verb}.{section}"));
        for own in verbs(&[verb]) {
            wanted.insert(format!("taskdaemon-{verb}-{own}.1"));
        }
    }
    let there: BTreeSet<String> = pages.keys().cloned().collect();
    assert_eq!(there, wanted);

    let settings = &pages["taskdaemon.toml.5"];
    let file = run(&["config", "default"]);
    let keys = file
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    let keys: Vec<&str> = keys
        .map(|(key, _)| key)
        .filter(|key| !key.contains(' '))
        .collect();
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        let line = format!(".TP\n\\fB{key}\\fR\n");
        assert!(
            settings.contains(&line),
            "{key} is not in taskdaemon.toml(5)"
        );
    }
    for (name, page) in &pages {
        assert!(
            page.is_ascii(),
            "{name} has letters that some device has not"
        );
        let lines: Vec<&str> = page.lines().collect();
        for three in lines.windows(3).filter(|three| three[0] == ".TP") {
            let said = !three[2].is_empty()
                && !three[2].starts_with(".TP")
                && !three[2].starts_with(".SH");
            assert!(said, "{name}: {} is not explained", three[1]);
        }
        for (other, _) in page.match_indices("\\fR(").map(|(at, _)| page.split_at(at)) {
            let word = other
                .rsplit("\\fB")
                .next()
                .expect("a word")
                .replace("\\-", "-");
            let found = [1, 5, 8]
                .iter()
                .any(|section| there.contains(&format!("{word}.{section}")));
            assert!(found, "{name} names {word}, which is not there");
        }
    }
    // Hidden options and verbs stay so.
    let all: String = pages.values().cloned().collect();
    assert!(!all.contains("\\-\\-resume") && !all.contains("taskdaemon\\-deliver"));

    let again = tempfile::tempdir().expect("directory");
    assert_eq!(self::pages(again.path()), pages, "the same each time");
}

/// As lintian reads them.
#[test]
fn man_warns_of_nothing_in_the_manual_pages() {
    if Command::new("man").arg("--version").output().is_err() {
        eprintln!("left out: there is no man (apt install man-db)");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    for name in pages(dir.path()).keys() {
        let read = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(dir.path().join(name))
            .env("LC_ALL", "C.UTF-8")
            .env("MANROFFSEQ", "")
            .env("MANWIDTH", "80")
            .stdin(Stdio::null())
            .output()
            .expect("man");
        let said = text(&read.stderr);
        assert!(read.status.success() && said.is_empty(), "{name}: {said}");
        assert!(read.stdout.len() > 1_000, "{name} is empty");
    }
}
