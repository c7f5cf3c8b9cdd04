//! TLS with certificates of clients: who gets in, as whom, and who does not.
//! The certificates are made by `openssl` for each run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bed::Bed;
use crate::security::free_port;

/// Makes two authorities and what they sign: a server, and clients.
const MAKE: &str = r#"
set -eu
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -keyout "$1.key" -out "$1.pem" -subj "/CN=$1"
}
# NAME AUTHORITY SUBJECT-ALTERNATIVE-NAMES DAYS
leaf() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial \
        -days "$4" -extfile "$1.ext" -out "$1.pem"
}
authority ca
authority other
leaf server ca DNS:localhost,IP:127.0.0.1 30
leaf alice ca DNS:alice.example 30
leaf reader ca URI:spiffe://example/reader 30
leaf nobody ca DNS:nobody.example 30
leaf forged other DNS:alice.example 30
leaf old ca DNS:alice.example -1
chmod 0600 *.key
"#;

struct House {
    bed: Bed,
    dir: tempfile::TempDir,
    port: u16,
}

impl House {
    fn new(clients: bool) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let made = Command::new("sh")
            .args(["-c", MAKE])
            .current_dir(dir.path())
            .output()
            .expect("sh");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let listen = format!("[\"127.0.0.1:{port}\"]");
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let mut settings = vec![
            ("API__LISTEN", listen.as_str()),
            ("API__TLS_CERTIFICATE", &certificate),
            ("API__TLS_KEY", &key),
        ];
        if clients {
            settings.push(("API__TLS_CLIENT_CA", &ca));
            let known = "[{name=\"alice.example\",uid=4242},\
                         {name=\"spiffe://example/reader\",uid=0,role=\"read\"}]";
            settings.push(("API__CERTIFICATES", known));
        } else {
            // SHA-256 of "abc".
            let token = "[{name=\"ci\",sha256=\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\",uid=4242}]";
            settings.push(("API__TOKENS", token));
        }
        let bed = Bed::start(&settings);
        Self { bed, dir, port }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `openssl s_client` gets for a request.
    fn ask(&self, client: Option<&str>, request: &str) -> String {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error"])
            .arg("-connect")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("-CAfile")
            .arg(self.file("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(name) = client {
            command
                .arg("-cert")
                .arg(self.file(&format!("{name}.pem")))
                .arg("-key")
                .arg(self.file(&format!("{name}.key")));
        }
        let mut child = command.spawn().expect("openssl");
        let mut input = child.stdin.take().expect("input");
        // One that is turned away does not read it.
        let _unread = std::io::Write::write_all(&mut input, request.as_bytes()).is_err();
        let mut output = String::new();
        let mut answer = child.stdout.take().expect("output");
        std::io::Read::read_to_string(&mut answer, &mut output).expect("read");
        drop(input);
        let _status = child.wait().expect("wait");
        output
    }

    fn get(&self, client: Option<&str>, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n", self.port);
        self.ask(client, &format!("{head}Connection: close\r\n\r\n"))
    }

    /// Our own command line as the client.
    fn cli(&self, client: Option<&str>, ca: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args([
                "--host",
                &format!("https://localhost:{}", self.port),
                "--tls-ca",
            ])
            .arg(ca);
        if let Some(name) = client {
            command
                .arg("--tls-cert")
                .arg(self.file(&format!("{name}.pem")))
                .env("TASKDAEMON_TLS_KEY", self.file(&format!("{name}.key")));
        }
        command.args(args).output().expect("run")
    }
}

#[test]
fn only_clients_with_a_known_certificate_get_in_and_as_whom_it_says() {
    let house = House::new(true);
    let ok = |text: &str| text.starts_with("HTTP/1.1 200 ");
    assert!(ok(&house.get(Some("alice"), "/v1/status")));
    for stranger in [None, Some("forged"), Some("old")] {
        let got = house.get(stranger, "/v1/status");
        assert!(got.is_empty(), "{stranger:?} got {got}");
        let got = house.get(stranger, "/live");
        assert!(got.is_empty(), "{stranger:?} got {got}");
    }
    let got = house.get(Some("nobody"), "/v1/status");
    assert!(got.starts_with("HTTP/1.1 401 "), "{got}");
    // A form of a foreign page, for which a browser would show its certificate.
    let form = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: text/plain\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}",
        house.port
    );
    let got = house.ask(Some("alice"), &form);
    assert!(got.starts_with("HTTP/1.1 415 "), "{got}");
    house.our_own_client();
}

impl House {
    fn our_own_client(&self) {
        let ca = self.file("ca.pem");
        let done = self.cli(Some("alice"), &ca, &["submit", "--json", "--", "true"]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let task: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let (_, task) = self
            .bed
            .get(&format!("/v1/tasks/{}", task["id"]))
            .expect("show");
        assert_eq!(task["owner"], 4242, "{task}");
        let id = task["id"].to_string();
        // One that may only look sees all, and changes nothing.
        let seen = self.cli(Some("reader"), &ca, &["show", &id]);
        assert_eq!(seen.status.code(), Some(0), "{seen:?}");
        let refused = self.cli(Some("reader"), &ca, &["cancel", &id]);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        let follow = self.cli(Some("alice"), &ca, &["wait", &id]);
        assert!(
            follow.status.code().is_some_and(|code| code <= 1),
            "{follow:?}"
        );
        for (client, ca) in [
            (None, "ca.pem"),
            (Some("forged"), "ca.pem"),
            (Some("old"), "ca.pem"),
            // The daemon's own certificate is of an authority that is not believed.
            (Some("alice"), "other.pem"),
        ] {
            let done = self.cli(client, &self.file(ca), &["status"]);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(
                matches!(done.status.code(), Some(69 | 75)),
                "{client:?}: {said}"
            );
        }
        for (args, word) in [
            (&["--tls-cert", "/nowhere"][..], "need each other"),
            (
                &["--tls-cert", "/nowhere", "--tls-key", "/nowhere"],
                "/nowhere",
            ),
        ] {
            let mut all = args.to_vec();
            all.push("status");
            let done = self.cli(None, &self.file("ca.pem"), &all);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(2), "{said}");
            assert!(said.contains(word), "{said}");
        }
    }
}

#[test]
fn without_client_certificates_tls_asks_for_tokens_and_plain_http_gets_nothing() {
    let house = House::new(false);
    let got = house.get(None, "/v1/status");
    assert!(got.starts_with("HTTP/1.1 401 "), "{got}");
    let head = format!(
        "GET /v1/status HTTP/1.1\r\nHost: localhost:{}\r\n",
        house.port
    );
    let got = house.ask(
        None,
        &format!("{head}Authorization: Bearer abc\r\nConnection: close\r\n\r\n"),
    );
    assert!(got.starts_with("HTTP/1.1 200 "), "{got}");
    let mut plain = std::net::TcpStream::connect(("127.0.0.1", house.port)).expect("connect");
    std::io::Write::write_all(&mut plain, format!("{head}\r\n").as_bytes()).expect("send");
    let mut got = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut plain, &mut got).is_err();
    assert!(
        !got.starts_with(b"HTTP/"),
        "{}",
        String::from_utf8_lossy(&got)
    );
}

#[test]
fn a_key_that_everybody_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let house = House::new(false);
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(["config", "check"])
            .env("TASKDAEMON_API__TLS_CERTIFICATE", house.file("server.pem"))
            .env("TASKDAEMON_API__TLS_KEY", house.file("server.key"));
        command.output().expect("run")
    };
    assert_eq!(check().status.code(), Some(0), "{:?}", check());
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(house.file("server.key"), open).expect("mode");
    let done = check();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(78), "{said}");
    assert!(said.contains("read by everybody"), "{said}");
}
