//! Providers that never stop: whatever is sent, a call ends by itself or at its task's time limit, in little memory,
//! with one clear sentence, and what it wrote is capped as all output is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::prompt::{BEGIN, bed_of, chat};

const MIB: usize = 1024 * 1024;
/// Kilobytes that a process which makes a call may have taken.
const MEMORY: u64 = 64 * 1024;
/// Head of an answer in one piece.
const WHOLE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n";

/// Answers each request with a beginning and then with one piece after the other, up to 100 MiB or with pauses, until
/// the one that asked is gone. The port, and for each answer how many bytes went out.
fn flood(begin: &'static str, piece: String, pause: Duration) -> (u16, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (tell, sent) = sync_channel(8);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = after_the_question(stream);
            let mut bytes = 0;
            let mut told = stream.write_all(begin.as_bytes());
            while told.is_ok() && bytes < 100 * MIB {
                told = stream.write_all(piece.as_bytes());
                bytes += piece.len();
                std::thread::park_timeout(pause);
            }
            if tell.send(bytes).is_err() {
                return;
            }
        }
    });
    (port, sent)
}

fn after_the_question(stream: TcpStream) -> TcpStream {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader
        .read_exact(&mut vec![0; length])
        .expect("the question");
    stream
}

/// What came of a call.
struct Called {
    code: i32,
    /// Bytes of the answer.
    printed: usize,
    said: String,
    /// Most memory it had, in kilobytes.
    memory: u64,
}

/// Makes a call as a task does, and watches how much memory it takes.
fn call(port: u16, tokens: u32, schema: &Value) -> Called {
    call_within(port, tokens, schema, (20_000, 20_000))
}

/// The same, of a provider that may be silent for so many milliseconds, before its answer and in it.
fn call_within(port: u16, tokens: u32, schema: &Value, (first, idle): (u32, u32)) -> Called {
    let mut child = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .arg("call")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let order = json!({
        "dialect": "openai", "base_url": format!("http://127.0.0.1:{port}/v1"), "key": null,
        "model": "m", "system": null, "text": "?", "max_tokens": tokens, "first_ms": first,
        "idle_ms": idle, "schema": schema, "repairs": 0,
    });
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(order.to_string().as_bytes()).expect("ask");
    drop(input);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        let mut all = 0;
        while let Ok(count @ 1..) = out.as_mut().expect("a pipe").read(&mut bytes) {
            all += count;
        }
        all
    });
    let memory = highest(&mut child);
    let mut said = String::new();
    let err = err.as_mut().expect("a pipe");
    err.read_to_string(&mut said).expect("text");
    Called {
        code: child.wait().expect("wait").code().expect("a code"),
        printed: out.join().expect("the reader"),
        said,
        memory,
    }
}

/// Most memory of a process until it has ended.
fn highest(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let begun = clock::instant();
    let mut most = 0;
    while child.try_wait().expect("wait").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ends");
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        most = most.max(size.map_or(0, |size| size.parse().expect("a number")));
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(most > 0, "nothing was measured");
    most
}

/// Something that never ends.
struct Flood {
    begin: &'static str,
    piece: String,
    schema: Value,
    /// Tokens that are asked for: what may be long is too long by its text alone.
    tokens: u32,
    code: i32,
    /// What is said of it.
    told: &'static str,
    /// Most MiB that are sent until somebody notices, beside what the kernel holds.
    sent: usize,
}

fn floods() -> Vec<(&'static str, Flood)> {
    let words = "many words ".repeat(1_000);
    let flood = |begin, piece, told| Flood {
        begin,
        piece,
        schema: Value::Null,
        tokens: 16,
        code: 75,
        told,
        sent: 16,
    };
    let text = Flood {
        tokens: 100_000,
        code: 1,
        sent: 24,
        ..flood(
            BEGIN,
            chat(&words).repeat(8),
            "its text has more than 8 MiB",
        )
    };
    let json = Flood {
        schema: json!({"type": "object"}),
        code: 1,
        ..flood(
            BEGIN,
            chat(&words).repeat(8),
            "its text has more than 1 MiB",
        )
    };
    let comments = Flood {
        code: 1,
        sent: 24,
        ..flood(BEGIN, format!(": {words}\n\n"), "far more than the tokens")
    };
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 104857600\r\n\r\n";
    let refusal = Flood {
        code: 1,
        ..flood(
            refused,
            words.clone(),
            "answered 400 Bad Request: many words",
        )
    };
    let endless = "a line without an end";
    let event = flood(BEGIN, format!("data: {words}\n"), "an event without an end");
    let head = "HTTP/1.1 200 OK\r\n";
    let header = format!("X-Y: {}\r\n", "z".repeat(1_000));
    let headers = flood(head, header, "message head is too large");
    let one = flood(
        "HTTP/1.1 200 OK\r\nX-Y: ",
        words.clone(),
        "message head is too large",
    );
    vec![
        ("a stream of text", text),
        ("a stream of JSON", json),
        ("comments", comments),
        (
            "an answer in one piece",
            flood(WHOLE, words.clone(), endless),
        ),
        ("a line of a stream", flood(BEGIN, words, endless)),
        ("lines of an event", event),
        ("a refusal", refusal),
        ("headers", headers),
        ("a header", one),
    ]
}

/// Most bytes that are on their way in a connection: what its two ends may keep of it.
fn held_by_the_kernel() -> usize {
    let most = |file: &str| -> usize {
        let text = std::fs::read_to_string(file).expect(file);
        let last = text.split_whitespace().last().expect("three numbers");
        last.parse().expect("a number")
    };
    most("/proc/sys/net/ipv4/tcp_rmem") + most("/proc/sys/net/ipv4/tcp_wmem")
}

#[test]
fn sec_26_a_provider_that_floods_ends_the_call_in_bounded_memory() {
    for (what, flooding) in floods() {
        let (port, sent) = flood(flooding.begin, flooding.piece, Duration::ZERO);
        let called = call(port, flooding.tokens, &flooding.schema);
        let said = &called.said;
        assert_eq!(called.code, flooding.code, "{what}: {said}");
        assert!(said.contains(flooding.told), "{what}: {said}");
        assert!(said.len() < 2_000, "{what}: {} bytes", said.len());
        assert!(called.memory < MEMORY, "{what}: {} kB", called.memory);
        assert!(called.printed <= 8 * MIB, "{what}: {}", called.printed);
        let sent = sent.recv().expect("a count");
        let most = flooding.sent * MIB + held_by_the_kernel();
        assert!(sent < most, "{what}: {sent} bytes, and {most} may be sent");
        println!("{what}: {} kB, {sent} bytes sent", called.memory);
    }
}

/// Numbers without an end in one event took a hundred times its bytes.
#[test]
fn sec_26_an_event_of_very_many_values_is_not_read() {
    let chunk = format!("data: {{\"a\":[{}[]]}}\n\n", "[1],".repeat(200_000));
    let (port, _sent) = flood(BEGIN, chunk, Duration::ZERO);
    let called = call(port, 16, &Value::Null);
    assert_eq!(called.code, 75, "{}", called.said);
    assert!(
        called.said.contains("more than 65536 values"),
        "{}",
        called.said
    );
    assert!(called.memory < MEMORY, "{} kB", called.memory);
}

#[test]
fn sec_26_a_flood_fails_its_prompt_once_and_its_output_has_head_tail_and_gap() {
    let (port, _sent) = flood(BEGIN, chat(&"many words ".repeat(1_000)), Duration::ZERO);
    let (bed, _dir) = bed_of(port, "[run]\noutput_cap = \"256KiB\"\n", "");
    let id = bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 9}}));
    let done = bed.wait(id);
    assert_eq!(done["state"], "failed", "{done}");
    let attempts = done["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 1, "{done}");
    let (kept, dropped) = (
        &attempts[0]["output_bytes"],
        &attempts[0]["output_dropped_bytes"],
    );
    assert_eq!(*kept, 256 * 1024 + 65_536, "{done}");
    assert!(dropped.as_u64().expect("a number") > 7_000_000, "{done}");
    // Its provider has answered, which counts as it was reckoned.
    assert_eq!(attempts[0]["call"]["end"], "answered", "{done}");
    let output = bed.output(id);
    let output = String::from_utf8_lossy(&output);
    assert!(output.starts_with("many words "), "its head");
    assert!(
        output.ends_with("ask for less, or another model\n"),
        "its tail"
    );
}

#[test]
fn sec_26_a_stream_that_trickles_for_ever_ends_at_the_time_limit_of_its_task() {
    let (port, sent) = flood(BEGIN, chat("word "), Duration::from_millis(20));
    let (bed, _dir) = bed_of(port, "", "");
    let once = json!({"max_attempts": 1});
    let begun = clock::instant();
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "timeout": "2s", "retry": once}));
    let done = bed.wait(id);
    assert_eq!(done["state"], "failed", "{done}");
    assert_eq!(done["attempts"][0]["outcome"], "timeout", "{done}");
    assert!(begun.elapsed() < Duration::from_secs(12), "{done}");
    assert!(bed.output(id).starts_with(b"word word "));
    // The connection is gone with it.
    sent.recv_timeout(Duration::from_secs(5))
        .expect("it noticed");
}

#[test]
fn a_provider_that_falls_silent_is_given_up() {
    let long = Duration::from_secs(60);
    for (begin, piece, within, told) in [
        // Not a byte of an answer, a head alone, and silence behind the first words.
        ("", "", (300, 60_000), "said nothing for 0.3 s"),
        (BEGIN, "", (300, 60_000), "said nothing for 0.3 s"),
        (
            BEGIN,
            &*chat("word"),
            (60_000, 400),
            "said nothing for 0.4 s",
        ),
    ] {
        let (port, _sent) = flood(begin, piece.to_owned(), long);
        let begun = clock::instant();
        let called = call_within(port, 16, &Value::Null, within);
        assert_eq!(called.code, 75, "{}", called.said);
        assert!(called.said.contains(told), "{}", called.said);
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", called.said);
    }
}
