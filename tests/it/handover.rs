//! One API after another on the same sockets, as under systemd, while clients
//! go on asking: none of them may notice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use taskdaemon::api::options::{Options, Token};
use taskdaemon::api::serve::Listener;
use taskdaemon::api::{Server, State};
use taskdaemon::engine::handle::Handle;
use taskdaemon::engine::hooks::Hooks;
use taskdaemon::engine::prompts::Prompts;
use taskdaemon::engine::{actor, options, retention};
use taskdaemon::store::disk::Disk;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::{mpsc, watch};

const RESTARTS: usize = 8;

/// Something that requests can be made on, again and again.
trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Where a client connects.
#[derive(Clone)]
enum Place {
    Unix(std::path::PathBuf),
    Tcp(u16),
}

impl Place {
    fn connect(&self) -> std::io::Result<Box<dyn Wire>> {
        let patience = Some(Duration::from_secs(20));
        Ok(match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(patience)?;
                Box::new(stream)
            }
            Self::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(patience)?;
                Box::new(stream)
            }
        })
    }
}

/// One request and its answer: the status, and whether to reconnect.
fn ask(wire: &mut dyn Wire, request: &str) -> Result<(u16, bool), String> {
    wire.write_all(request.as_bytes())
        .map_err(|error| format!("send: {error}"))?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
                return Ok((status.unwrap_or(0), head.contains("connection: close")));
            }
        }
        match wire.read(&mut piece) {
            Ok(0) => return Err(format!("closed after {} bytes", answer.len())),
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            Err(error) => return Err(format!("receive: {error}")),
        }
    }
}

/// Asks until told to stop, and returns the number of requests.
fn load(place: &Place, keep: bool, name: usize, stop: &AtomicBool) -> Result<u64, String> {
    let mut wire: Option<Box<dyn Wire>> = None;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = format!("{{\"command\":[\"true\"],\"key\":\"{name}-{count}\"}}");
        let close = if keep { "" } else { "Connection: close\r\n" };
        let request = format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abc\r\n{close}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut open = match wire.take() {
            Some(open) => open,
            None => place
                .connect()
                .map_err(|error| format!("connect: {error}"))?,
        };
        let (status, closed) = ask(&mut *open, &request)?;
        if status != 201 {
            return Err(format!("status {status}"));
        }
        if keep && !closed {
            wire = Some(open);
        }
        count += 1;
    }
    Ok(count)
}

fn state(handle: &Handle, dir: &Path) -> State {
    State {
        handle: handle.clone(),
        output_dir: dir.to_owned(),
        reload: mpsc::channel(1).0,
        version: "test",
        supervisor: None,
        denied: |_, _, _, _| None,
        pages: None,
    }
}

fn options() -> Options {
    Options {
        tokens: vec![Token {
            name: "test".to_owned(),
            // SHA-256 of "abc".
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(),
            uid: 4242,
            role: None,
            expires: None,
        }],
        ..Options::default()
    }
}

/// Eight clients: over both sockets, on new and on kept connections.
fn start_clients(
    socket: &Path,
    port: u16,
    stop: &Arc<AtomicBool>,
    total: &Arc<AtomicU64>,
) -> Vec<JoinHandle<Result<(), String>>> {
    let places = [Place::Unix(socket.to_owned()), Place::Tcp(port)];
    (0..8)
        .map(|name| {
            let place = places[name % 2].clone();
            let (stop, total) = (Arc::clone(stop), Arc::clone(total));
            std::thread::spawn(move || {
                let count = load(&place, name % 4 < 2, name, &stop)?;
                total.fetch_add(count, Ordering::Relaxed);
                Ok(())
            })
        })
        .collect()
}

/// An engine of the defaults.
fn settings(disk: Disk) -> actor::Settings {
    actor::Settings {
        engine: options::Options::default(),
        hooks: Hooks::default(),
        prompts: Prompts::default(),
        retention: retention::Options::default(),
        disk,
        intake: None,
    }
}

#[test]
fn eight_restarts_under_load_fail_no_request() {
    let dir = tempfile::tempdir().expect("directory");
    let kept = taskdaemon::store::options::Options::default();
    let store = Sqlite::open(dir.path(), &kept).expect("store");
    let engine = actor::start(
        store,
        Sqlite::open_reader(dir.path()).expect("reader"),
        settings(Disk::open(dir.path(), &kept).expect("open")),
        "boot".to_owned(),
    )
    .expect("engine");
    let unix = UnixListener::bind(dir.path().join("api.sock")).expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = tcp.local_addr().expect("address").port();
    let stop = Arc::new(AtomicBool::new(false));
    let total = Arc::new(AtomicU64::new(0));
    let clients = start_clients(&dir.path().join("api.sock"), port, &stop, &total);
    for _ in 0..RESTARTS {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let drained = runtime.block_on(async {
            let (stop, stopping) = watch::channel(false);
            let server = Server::new(options(), state(&engine.handle, dir.path()), stopping)
                .expect("server");
            let listeners = vec![
                Listener::unix(unix.try_clone().expect("clone")).expect("socket"),
                Listener::tcp(tcp.try_clone().expect("clone")).expect("socket"),
            ];
            let serving = tokio::spawn(server.serve(listeners));
            let pause = taskdaemon::clock::instant() + Duration::from_millis(300);
            tokio::time::sleep_until(pause.into()).await;
            stop.send_replace(true);
            serving.await.expect("served")
        });
        assert_eq!(drained.cut, 0);
        drop(runtime);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    // Whoever waits in the queue of a socket is served once more.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let (last, stopping) = watch::channel(false);
    let serving = {
        let _inside = runtime.enter();
        let server =
            Server::new(options(), state(&engine.handle, dir.path()), stopping).expect("server");
        let listeners = vec![
            Listener::unix(unix).expect("socket"),
            Listener::tcp(tcp).expect("socket"),
        ];
        runtime.spawn(server.serve(listeners))
    };
    let failures: Vec<String> = clients
        .into_iter()
        .filter_map(|client| client.join().expect("client").err())
        .collect();
    last.send_replace(true);
    runtime.block_on(serving).expect("served");
    assert!(failures.is_empty(), "{failures:?}");
    assert!(total.load(Ordering::Relaxed) > 100, "{total:?}");
    println!("{total:?} requests over {RESTARTS} restarts");
}
