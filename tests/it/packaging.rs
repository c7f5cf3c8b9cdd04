//! The files of `systemd/` say the same as the program.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
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

/// The list of what is inside, as `deb/build` makes it.
fn sbom() -> Vec<u8> {
    let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deb/sbom")).output();
    let made = made.expect("deb/sbom, which needs perl");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    made.stdout
}

#[test]
fn sec_41_the_list_of_what_is_inside_is_what_cargo_compiles_and_the_same_each_time() {
    let made = sbom();
    assert!(made == sbom(), "the same bytes each time");
    let list: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!(
        (&list["bomFormat"], &list["specVersion"]),
        (&json!("CycloneDX"), &json!("1.5"))
    );
    assert_eq!(
        list["metadata"]["component"]["version"],
        taskdaemon::VERSION
    );
    assert!(list["metadata"]["timestamp"].is_null() && list["serialNumber"].is_null());
    let components = list["components"].as_array().expect("components");
    let lock = file("Cargo.lock");
    let mut listed = BTreeSet::new();
    for component in components {
        let name = component["name"].as_str().expect("a name");
        let version = component["version"].as_str().expect("a version");
        let licence = &component["licenses"][0]["expression"];
        assert!(
            licence.as_str().is_some_and(|words| !words.contains('/')),
            "{component}"
        );
        if name == "sqlite" {
            assert_eq!(version, rusqlite::version(), "the one that is compiled in");
            continue;
        }
        let checksum = component["hashes"][0]["content"]
            .as_str()
            .expect("a checksum");
        assert!(
            lock.contains(&format!("checksum = \"{checksum}\"")),
            "{component}"
        );
        listed.insert(format!("{name} v{version}"));
    }
    // As cargo itself tells it, the program left out.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let tree = String::from_utf8(tree.stdout).expect("text");
    let name = |line: &str| line.split(" (").next().unwrap_or_default().to_owned();
    let mut compiled: BTreeSet<String> = tree.lines().map(name).collect();
    assert!(compiled.remove(&format!("taskdaemon v{}", taskdaemon::VERSION)));
    assert_eq!(listed, compiled);
    // Each is reachable by name, and names only what is there.
    let named = |entry: &Value, key: &str| entry[key].as_str().expect("a name").to_owned();
    let all: BTreeSet<_> = components.iter().map(|one| named(one, "bom-ref")).collect();
    for entry in list["dependencies"].as_array().expect("dependencies") {
        for below in entry["dependsOn"].as_array().expect("a list") {
            assert!(all.contains(below.as_str().expect("a name")), "{entry}");
        }
    }
}
