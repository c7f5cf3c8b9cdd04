//! The files of `systemd/` say the same as the program.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use taskdaemon::config::{self, Config, Sources};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("a file of the repository")
}

#[test]
fn the_catalog_explains_each_message_id() {
    let catalog = file("systemd/taskdaemon.catalog");
    let explained: Vec<&str> = catalog
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .collect();
    let source = file("src/telemetry.rs");
    let (_, ids) = source
        .split_once("pub mod id {")
        .expect("the module of ids");
    let known: BTreeSet<&str> = ids
        .split('"')
        .skip(1)
        .step_by(2)
        .take_while(|word| word.len() == 32)
        .collect();
    assert!(known.len() > 5, "ids of {known:?}");
    assert_eq!(explained.len(), known.len(), "each once: {explained:?}");
    assert_eq!(explained.into_iter().collect::<BTreeSet<_>>(), known);
    for entry in catalog.split("\n-- ").skip(1) {
        assert!(entry.contains("\nSubject: "), "{entry}");
        assert!(entry.contains("\nDefined-By: taskdaemon\n\n"), "{entry}");
    }
}

fn load(text: &str) -> Config {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("config.toml");
    fs::write(&path, text).expect("write");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
    let sources = Sources {
        file: Some(path),
        variables: [("STATE_DIRECTORY".into(), "/var/lib/taskdaemon".into())].into(),
        uid: nix::unistd::geteuid().as_raw(),
        ..Sources::default()
    };
    config::load(&sources).expect(text).config
}

#[test]
fn the_packaged_configuration_is_the_default() {
    let text = file("systemd/config.toml");
    assert_eq!(load(&text), Config::default());

    // What stands there as an example is one: it is accepted without its comment sign.
    let (_, example) = text.split_once("\n#\n").expect("an example");

    let example: String = example
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let hash = "0".repeat(64);
    let example = example.replace("<sha256sum of the token, in hexadecimal>", &hash);
    let tokens = load(&example).api.tokens;
    assert_eq!(tokens.len(), 1, "{example}");
    assert_eq!((tokens[0].name.as_str(), tokens[0].uid), ("ci", 1000));
}
