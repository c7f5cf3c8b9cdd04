//! Logging: never waits, counts what it drops, cannot be forged.
//!
//! A log is one per process, so these tests run `probe`, a part of this test
//! program, in processes of their own. The journal's address is fixed, so the
//! one test with a journal puts a socket there in a mount namespace, and says
//! so when it may not.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taskdaemon::clock;
use taskdaemon::telemetry::{self, Options};

/// Names what the probe is to do.
const PROBE: &str = "TELEMETRY_TEST_PROBE";

/// Not a test: logs as the variable says.
#[test]
fn probe() {
    let Some(what) = std::env::var_os(PROBE) else {
        return;
    };
    let options = Options {
        filter: "info".to_owned(),
        now: Some(|| 1_700_000_000_123_456),
    };
    let guard = telemetry::init(&options).expect("thread");
    match what.to_str() {
        Some("lines") => lines(&guard),
        Some("flood") => flood(&guard),
        Some("panic") => {
            let thread = std::thread::Builder::new().name("worker".to_owned());
            let thread = thread.spawn(|| panic!("first\nsecond")).expect("thread");
            assert!(thread.join().is_err());
        }
        Some("journal") => journal(&guard),
        other => panic!("{other:?}"),
    }
}

fn lines(guard: &telemetry::Guard) {
    tracing::info!(
        task = 7,
        attempt = 2,
        queue = "q",
        request = "r",
        size = 3,
        "started"
    );
    tracing::warn!("evil\nERROR forged \u{1b}[31m");
    tracing::info!(note = "a\nb", "said");
    tracing::debug!("hidden");
    let bad = guard.set_filter("loud").expect_err("no level");
    assert!(bad.to_string().contains("`loud`"));
    guard.set_filter("debug").expect("a level");
    tracing::debug!("visible");
    let span = tracing::info_span!("request", request = "abc", task = 1);
    span.in_scope(|| tracing::info!(task = 9, "inside"));
    guard.set_filter("it::telemetry=error").expect("a filter");
    tracing::info!("hidden too");
    tracing::error!("{}", "x".repeat(10_000));
}

/// Logs more than fits while nobody reads, and reports how long that took.
fn flood(guard: &telemetry::Guard) {
    let start = clock::instant();
    for line in 0..20_000 {
        tracing::info!(line, "a line of some length, so that the pipe is full soon");
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "logging waited: {took:?}");
    assert!(telemetry::dropped() > 0, "nothing was dropped");
    let report = format!("\ndropped {}\n", telemetry::dropped());
    std::io::stdout()
        .write_all(report.as_bytes())
        .expect("stdout");
    // Now the reader reads, and there is room again.
    let end = clock::instant() + Duration::from_secs(20);
    while clock::instant() < end {
        guard.flush();
        let before = telemetry::dropped();
        tracing::info!("after");
        if telemetry::dropped() == before {
            break;
        }
    }
    guard.flush();
}

fn child(what: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "telemetry::probe",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PROBE, what)
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program")
}

#[test]
fn lines_are_whole_and_nothing_is_forged() {
    let output = child("lines").wait_with_output().expect("output");
    let said = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = said.lines().collect();
    let at = "2023-11-14T22:13:20.123Z";
    let expected = [
        format!("{at} INFO  started size=3 task=7 attempt=2 queue=q request=r"),
        format!("{at} WARN  evil\\nERROR forged \\u{{1b}}[31m"),
        format!("{at} INFO  said note=a\\nb"),
        format!("{at} DEBUG visible"),
        format!("{at} INFO  inside task=9 request=abc"),
    ];
    assert_eq!(lines[..lines.len() - 1], expected, "{said}");
    let last = lines.last().expect("a line");
    assert!(last.ends_with("x…") && last.len() < 4200, "{}", last.len());
}

#[test]
fn a_reader_that_does_not_read_delays_nobody_and_hears_of_it_later() {
    let mut child = child("flood");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    // Its log is not read before it has logged everything.
    while !line.starts_with("dropped ") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("text"), 0, "it failed");
    }
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut said)
        .expect("text");
    assert!(child.wait().expect("end").success(), "{said:.400}");
    assert!(
        said.contains(" log lines dropped"),
        "{}",
        &said[said.len().saturating_sub(400)..]
    );
    assert!(said.contains("INFO  after"));
}

#[test]
fn a_closed_standard_error_ends_nothing() {
    let mut child = child("lines");
    drop(child.stderr.take());
    let mut rest = String::new();
    child
        .stdout
        .take()
        .expect("stdout")
        .read_to_string(&mut rest)
        .expect("text");
    assert!(child.wait().expect("end").success(), "{rest}");
}

#[test]
fn a_panic_is_one_line_and_the_process_goes_on() {
    let output = child("panic").wait_with_output().expect("output");
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        said.contains("ERROR panic in thread worker at tests/it/telemetry.rs:"),
        "{said}"
    );
    assert!(said.contains(": first\\nsecond"), "{said}");
}

#[test]
fn filters_are_checked() {
    for filter in [
        "info",
        "off",
        "info,taskdaemon::engine=debug",
        "warn, hyper=off",
    ] {
        telemetry::check(filter).expect(filter);
    }
    for filter in [
        "",
        "loud",
        "INFO",
        "info,",
        "=debug",
        "a=",
        "a=b=c",
        "taskdaemon",
        "info;warn",
    ] {
        assert!(telemetry::check(filter).is_err(), "{filter}");
    }
}

const JOURNAL: &str = "/run/systemd/journal/socket";

/// Runs with a `/run` of its own, where it plays journald: there, not reading,
/// gone, there again.
fn journal(guard: &telemetry::Guard) {
    std::fs::create_dir_all(Path::new(JOURNAL).parent().expect("parent")).expect("directory");
    let journald = UnixDatagram::bind(JOURNAL).expect("bind");
    journald
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("time-out");
    let span = tracing::info_span!("request", request = "abc");
    span.in_scope(|| {
        tracing::info!(
            message_id = "f00",
            task = 7,
            trace_id = "4bf92f3577b34da6a3ce929d0e0e4736",
            size = 3,
            gen_ai.operation.name = "chat",
            gen_ai.usage.input_tokens = 7_u64,
            error.type = "refused",
            "started\nTASKDAEMON_TASK=8"
        )
    });
    let entry = receive(&journald);
    for field in [
        "PRIORITY=6",
        "MESSAGE=started\\nTASKDAEMON_TASK=8 size=3",
        "MESSAGE_ID=f00",
        "TASKDAEMON_TASK=7",
        "TASKDAEMON_REQUEST=abc",
        "TRACE_ID=4bf92f3577b34da6a3ce929d0e0e4736",
        "GEN_AI_OPERATION_NAME=chat",
        "GEN_AI_USAGE_INPUT_TOKENS=7",
        "ERROR_TYPE=refused",
        "SYSLOG_IDENTIFIER=taskdaemon",
        "TARGET=it::telemetry",
        "CODE_FILE=tests/it/telemetry.rs",
    ] {
        assert!(
            entry.iter().any(|found| found == field),
            "no {field} in {entry:?}"
        );
    }
    assert_eq!(
        entry
            .iter()
            .filter(|field| field.starts_with("TASKDAEMON_"))
            .count(),
        2,
        "{entry:?}"
    );
    // Not reading.
    for _ in 0..10_000 {
        tracing::info!("more than fits");
    }
    assert!(telemetry::dropped() > 0);
    // Gone: standard error takes over.
    drop(journald);
    guard.flush();
    tracing::warn!("nobody at home");
    guard.flush();
    // There again.
    std::fs::remove_file(JOURNAL).expect("remove");
    let journald = UnixDatagram::bind(JOURNAL).expect("bind");
    journald
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("time-out");
    tracing::error!("home again");
    let mut entry = receive(&journald);
    while !entry.contains(&"MESSAGE=home again".to_owned()) {
        entry = receive(&journald);
    }
    assert!(entry.contains(&"PRIORITY=3".to_owned()), "{entry:?}");
}

/// The fields of the next entry: names, lengths and values of the native protocol.
fn receive(journald: &UnixDatagram) -> Vec<String> {
    let mut message = vec![0; 1 << 16];
    let mut length = 0;
    // An empty one only asks whether anybody is there.
    while length == 0 {
        length = journald.recv(&mut message).expect("an entry");
    }
    let mut rest = &message[..length];
    let mut fields = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        if name.contains('=') {
            fields.push(name);
            continue;
        }
        let (size, value) = rest.split_at(8);
        let size = usize::try_from(u64::from_le_bytes(size.try_into().expect("8"))).expect("size");
        fields.push(format!(
            "{name}={}",
            String::from_utf8_lossy(&value[..size])
        ));
        rest = &value[size + 1..];
    }
    fields
}

#[test]
fn the_journal_gets_fields_and_its_absence_is_survived() {
    let line = "mount -t tmpfs none /run || exit 77; \
                export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); \
                exec \"$0\" --exact telemetry::probe --nocapture --test-threads=1";
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "/bin/sh",
            "-c",
            line,
        ])
        .arg(std::env::current_exe().expect("this program"))
        .env(PROBE, "journal")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && output.status.code() != Some(1) => output,
        other => {
            eprintln!("skipped: no mount namespace to put a journal into ({other:?})");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(said.contains("WARN  nobody at home"), "{said}");
    assert!(!said.contains("home again"), "{said}");
}
