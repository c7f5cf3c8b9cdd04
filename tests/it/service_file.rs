//! `service-file`: the shipped files as they are, the others as their own
//! tools read them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::cli::text;

fn file(format: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["service-file", "--format", format])
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// Runs a tool of this machine; `None` where there is none.
fn judge(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).output().ok()
}

#[test]
fn the_shipped_files_are_printed_as_they_are() {
    assert_eq!(file("systemd"), shipped("systemd/taskdaemon.service"));
    assert_eq!(file("sysv"), shipped("deb/taskdaemon.init"));
}

#[test]
fn scripts_are_scripts_and_the_property_list_is_one() {
    let dir = tempfile::tempdir().expect("directory");
    for format in ["sysv", "openrc", "runit", "s6"] {
        let path = dir.path().join(format);
        fs::write(&path, file(format)).expect("write");
        let path = path.display().to_string();
        let done = judge("sh", &["-n", &path]).expect("a shell");
        assert!(done.status.success(), "{format}: {}", text(&done.stderr));
        if format != "openrc"
            && let Some(done) = judge("shellcheck", &[&path])
        {
            assert!(done.status.success(), "{format}: {}", text(&done.stdout));
        }
    }
    let plist = dir.path().join("plist");
    fs::write(&plist, file("launchd")).expect("write");
    let read = "import plistlib, sys; d = plistlib.load(open(sys.argv[1], 'rb')); \
                print(*d['ProgramArguments'])";
    if let Some(done) = judge("python3", &["-c", read, &plist.display().to_string()]) {
        assert!(done.status.success(), "{}", text(&done.stderr));
        let said = text(&done.stdout);
        assert!(
            said.starts_with("/usr/bin/taskdaemon start --supervised"),
            "{said}"
        );
    }
}

#[test]
fn each_script_calls_the_program_as_it_can_be_called() {
    // What is behind the program's name is read by the program itself; asking
    // for help keeps it from doing it.
    for format in ["runit", "s6"] {
        let text = file(format);
        let line = text.lines().last().expect("a line");
        let line = line
            .strip_prefix("exec /usr/bin/taskdaemon ")
            .expect("the call");
        let output = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .args(line.split(' '))
            .arg("--help")
            .output()
            .expect("run");
        assert!(output.status.success(), "{format}");
    }
}
