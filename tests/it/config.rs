//! Configuration: order of sources, every refusal with its place, reloads.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use taskdaemon::config::error::Place;
use taskdaemon::config::print::{changes, default_text, show};
use taskdaemon::config::{self, Config, Loaded, Sources};
use taskdaemon::model::hook::{End, Ends};
use taskdaemon::model::quantity::ByteSize;
use tempfile::TempDir;

/// A directory with a configuration file in it, and sources that name it.
struct House {
    directory: TempDir,
    sources: Sources,
}

impl House {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join(name);
        write(&file, text);
        let variables = [("HOME", "/home/somebody")];
        // Not root, whose places are those of the host; root's files are good for all.
        let uid = nix::unistd::geteuid();
        let uid = if uid.is_root() { 1000 } else { uid.as_raw() };
        let sources = Sources {
            file: Some(file),
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            uid,
            ..Sources::default()
        };
        Self { directory, sources }
    }

    fn toml(text: &str) -> Self {
        Self::new("config.toml", text)
    }

    fn drop_in(&self, name: &str, text: &str) -> PathBuf {
        let directory = self.directory.path().join("conf.d");
        fs::create_dir_all(&directory).expect("conf.d");
        let file = directory.join(name);
        write(&file, text);
        file
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.insert(name.into(), value.into());
        self
    }

    fn load(&self) -> Loaded {
        config::load(&self.sources).expect("a configuration")
    }

    /// The error as a line, without the directory.
    fn error(&self) -> String {
        let error = config::load(&self.sources).expect_err("accepted");
        let line = error.to_string();
        assert!(!line.contains('\n'), "more than a line: {line:?}");
        line.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn write(file: &Path, text: impl AsRef<[u8]>) {
    fs::write(file, text).expect("write");
    fs::set_permissions(file, Permissions::from_mode(0o640)).expect("chmod");
}

#[test]
fn the_default_file_says_what_the_defaults_are() {
    let text = default_text();
    let expected = Config::default();
    for text in [text.clone(), uncommented(&text)] {
        let mut house = House::toml(&text);
        house
            .sources
            .variables
            .insert("STATE_DIRECTORY".into(), "/var/lib/taskdaemon".into());
        let mut config = house.load().config;
        // Its default is to be absent; what stands there is an example.
        config.engine.queue_concurrency = None;
        config.engine.user_waiting = None;
        config.engine.user_running = None;
        config.engine.user_submits = None;
        config.hooks.webhook = None;
        config.hooks.secret_file = None;
        config.llm.listen = None;
        config.traces.endpoint = None;
        config.traces.headers_file = None;
        config.api.tls_certificate = None;
        config.api.tls_key = None;
        config.api.tls_client_ca = None;
        config.traces.endpoint = None;
        config.traces.headers_file = None;
        assert_eq!(config, expected, "{text}");
    }
    for key in [
        "state_dir",
        "[api]",
        "body_max = \"16MiB\"",
        "drain = \"5s\"",
        "slots = 16",
        "[store]",
    ] {
        assert!(text.contains(key), "{key} is missing:\n{text}");
    }
}

/// The default file with its settings in force.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    // Instead of a file, which is there as well.
    let kept = |line: &&str| !line.starts_with("#headers_credential");
    text.lines().filter(kept).map(line).collect()
}

#[test]
fn each_source_goes_over_the_one_before() {
    let text = "log = 'warn'\n[engine]\nslots = 2\ncommands = 2\nbacklog = 2\n[api]\nidle_timeout = '2s'\n";
    let mut house = House::toml(text)
        .variable("TASKDAEMON_ENGINE__BACKLOG", "4")
        .variable("TASKDAEMON_API__IDLE_TIMEOUT", "4s")
        .variable("TASKDAEMON_API__ADMINS", "[ann, @wheel]")
        .variable("TASKDAEMON_TASK_ID", "7")
        .variable("TASKDAEMON_HOST", "elsewhere");
    house.drop_in("10-a.toml", "[engine]\ncommands = 3\nbacklog = 3\n");
    house.drop_in("20-b.toml", "[engine]\ncommands = 33\n");
    house.sources = house
        .sources
        .with_flag("api.idle_timeout", "5s")
        .with_flag("runtime_dir", "/r");
    let loaded = house.load();
    let config = &loaded.config;
    assert_eq!(config.log, "warn");
    assert_eq!(config.engine.slots, 2);
    assert_eq!(config.engine.commands, 33);
    assert_eq!(config.engine.backlog, 4);
    assert_eq!(config.api.idle_timeout, Duration::from_secs(5));
    assert_eq!(config.api.admins, ["ann", "@wheel"]);
    assert_eq!(config.api.socket, Path::new("/r/api.sock"));
    assert_eq!(
        config.state_dir,
        Path::new("/home/somebody/.local/state/taskdaemon")
    );
    assert_eq!(loaded.place("api.idle_timeout"), Place::CommandLine);
    assert_eq!(
        loaded.place("engine.backlog"),
        Place::Variable("TASKDAEMON_ENGINE__BACKLOG".into())
    );
    assert_eq!(loaded.place("run.output_cap"), Place::Default);
    let place = loaded.place("engine.commands").to_string();
    assert!(place.ends_with("conf.d/20-b.toml:2:1"), "{place}");
    let shown = show(&loaded);
    assert!(shown.contains("slots = 2  # "), "{shown}");
    assert!(shown.contains("#queue_concurrency is not set"), "{shown}");
}

#[test]
fn yaml_is_read_by_its_ending() {
    let text = "# comment\nlog: debug\nrun:\nengine:\n  slots: 3\napi:\n  idle_timeout: 1m30s\n";
    for name in ["config.yml", "config.yaml"] {
        let config = House::new(name, text).load().config;
        assert_eq!((config.log.as_str(), config.engine.slots), ("debug", 3));
        assert_eq!(config.api.idle_timeout, Duration::from_secs(90));
    }
}

#[test]
fn line_ends_and_comments_do_not_matter() {
    for text in [
        "# nothing\n",
        "[engine]\r\nslots = 3\r\n",
        "[engine]\nslots = 3",
    ] {
        House::toml(text).load();
    }
}

/// A file, and how the line about it begins.
const BAD_SETTINGS: &[(&str, &str)] = &[
    ("log = \n", "config.toml:1:"),
    ("[engine\nslots = 1\n", "config.toml:1:"),
    (
        "[engine]\nslots = 1\nslots = 2\n",
        "config.toml:3:1: duplicate key",
    ),
    ("[engine]\n[engine]\n", "config.toml:2:2: duplicate key"),
    (
        "[engine]\n\n  slot = 1\n",
        "config.toml:3:3: unknown key `engine.slot`; did you mean `engine.slots`?",
    ),
    (
        "[engine]\nSlots = 1\n",
        "config.toml:2:1: unknown key `engine.Slots`; did you mean `engine.slots`?",
    ),
    (
        "slots = 1\n",
        "config.toml:1:1: unknown key `slots`; did you mean `engine.slots`?",
    ),
    (
        "[engin]\nslots = 1\n",
        "config.toml:1:2: unknown key `engin`; did you mean `engine`?",
    ),
    ("zebra = 1\n", "config.toml:1:1: unknown key `zebra`"),
    ("\"a\\nb\" = 1\n", "config.toml:1:1: unknown key `a; b`"),
    (
        "engine = 3\n",
        "config.toml:1:1: `engine` is a section of settings, not a value",
    ),
    (
        "[engine]\nslots = 'x'\n",
        "config.toml:2:9: engine.slots: expected u32, found string \"x\"",
    ),
    (
        "[engine]\nslots = -1\n",
        "config.toml:2:9: engine.slots: expected u32, found",
    ),
    (
        "[engine]\nslots = 1.5\n",
        "config.toml:2:9: engine.slots: expected u32, found float",
    ),
    (
        "[engine]\nslots = 0\n",
        "config.toml:2:9: engine.slots: 0 is not between 1 and 100000",
    ),
    (
        "[engine]\nslots = 1000000\n",
        "config.toml:2:9: engine.slots: 1000000 is not",
    ),
    (
        "[engine]\nslots = 99999999999999999999\n",
        "config.toml:2:9: ",
    ),
    (
        "[engine]\ncommands = 0\n",
        "config.toml:2:12: engine.commands",
    ),
    (
        "[engine]\nuser_running = 0\n",
        "config.toml:2:16: engine.user_running: 0 would let no task start; leave it out",
    ),
    (
        "[engine]\nuser_submits = '10'\n",
        "config.toml:2:16: engine.user_submits: `10` is not a rate such as `10/1m`",
    ),
    (
        "[engine]\nqueue_concurrency = 0\n",
        "config.toml:2:21: engine.queue_concurrency: 0 would let no task start; leave it out",
    ),
    (
        "[api]\nidle_timeout = 10\n",
        "config.toml:2:16: api.idle_timeout: expected a duration such as \"10s\"",
    ),
    (
        "[api]\nidle_timeout = '10'\n",
        "config.toml:2:16: api.idle_timeout: `10` has no unit: write `10s`",
    ),
    (
        "[api]\nidle_timeout = '-1s'\n",
        "config.toml:2:16: api.idle_timeout: expected digits",
    ),
    (
        "[api]\nidle_timeout = '1.5h'\n",
        "config.toml:2:16: api.idle_timeout: unknown unit `.`",
    ),
    (
        "[api]\nidle_timeout = '99999999999999d'\n",
        "config.toml:2:16: api.idle_timeout: `99999999999999d` is too large",
    ),
    (
        "[api]\nidle_timeout = '2d'\n",
        "config.toml:2:16: api.idle_timeout: 2d is not between 100ms and 1d",
    ),
    (
        "[api]\nbody_max = '1K'\n",
        "config.toml:2:12: api.body_max: unknown unit `K`",
    ),
    (
        "[api]\nbody_max = '1Ki'\n",
        "config.toml:2:12: api.body_max: unknown unit `Ki`",
    ),
    (
        "[api]\nbody_max = 1e9\n",
        "config.toml:2:12: api.body_max: expected a size",
    ),
    (
        "[api]\nbody_max = -1\n",
        "config.toml:2:12: api.body_max: expected a size",
    ),
    (
        "[api]\nbody_max = '1B'\n",
        "config.toml:2:12: api.body_max: 1B is not between 1KiB and 64MiB",
    ),
    (
        "[api]\ndrain = '40s'\n",
        "config.toml:2:9: api.drain: 40s is too long",
    ),
    (
        "[api]\nconnections = 10\n",
        "config.toml:2:15: api.connections_per_peer: 256 is more than api.connections, which is 10",
    ),
    (
        "log = 'infoo'\n",
        "config.toml:1:7: log: `infoo` is neither a level",
    ),
    ("log = 'a=b=c'\n", "config.toml:1:7: log: "),
    (
        "[run]\nstart_runner = 'atuo'\n",
        "config.toml:2:16: run.start_runner: unknown value `atuo`, the values are `auto`, `never`; did you mean `auto`?",
    ),
    (
        "[store]\nballast = 'much'\n",
        "config.toml:2:11: store.ballast: expected digits",
    ),
    (
        "[hooks]\non = 'failed,done'\n",
        "config.toml:2:6: hooks.on: unknown variant `done`, expected one of `succeeded`, `failed`",
    ),
    (
        "[hooks]\non = ['running']\n",
        "config.toml:2:6: hooks.on: unknown value `running`, the values are `succeeded`",
    ),
    (
        "[hooks]\non = 3\n",
        "config.toml:2:6: hooks.on: expected a list of final states",
    ),
    (
        "[hooks]\ncommand = 'true'\n",
        "config.toml:2:11: hooks.command: expected a sequence",
    ),
    (
        "[hooks]\ncommand = ['']\n",
        "config.toml:2:11: hooks.command: starts with an empty program name",
    ),
    (
        "[hooks]\nwebhook = 'example.org'\n",
        "config.toml:2:11: hooks.webhook: must begin with `https://`",
    ),
    (
        "[hooks]\nwebhook = 'https://a:b@example.org'\n",
        "config.toml:2:11: hooks.webhook: must not have a user or password",
    ),
    (
        "[hooks]\nsecret_file = 'secret'\n",
        "config.toml:2:15: hooks.secret_file: secret is not an absolute path",
    ),
    (
        "[traces]\nendpoint = 'localhost:4318'\n",
        "config.toml:2:12: traces.endpoint: must begin with `https://` or `http://`",
    ),
    (
        "[traces]\nendpoint = 'http://localhost:4318/?a=b'\n",
        "config.toml:2:12: traces.endpoint: has a query",
    ),
    (
        "[traces]\nendpoint = 'http://10.0.0.7:4318'\nheaders_file = '/etc/x'\n",
        "config.toml:2:12: traces.endpoint: headers would go to another host without TLS",
    ),
    (
        "[traces]\nheaders_file = '/etc/x'\n",
        "config.toml:2:16: traces.headers_file: there is no traces.endpoint",
    ),
    (
        "[traces]\nendpoint = 'https://a.example'\nheaders_file = 'x'\n",
        "config.toml:3:16: traces.headers_file: must be an absolute path",
    ),
    (
        "[traces]\nsample = 1.5\n",
        "config.toml:2:10: traces.sample: 1.5 is not between 0 and 1",
    ),
    (
        "[traces]\nsample = 'half'\n",
        "config.toml:2:10: traces.sample: expected",
    ),
    (
        "[traces]\nsampel = 1\n",
        "config.toml:2:1: unknown key `traces.sampel`; did you mean `traces.sample`?",
    ),
    (
        "[hooks]\nsecret = 'abc'\n",
        "config.toml:2:1: unknown key `hooks.secret`",
    ),
];

/// A hook that calls our own program hands it variables that are no settings.
#[test]
fn variables_of_a_hook_are_no_settings() {
    let house = House::toml("log = 'info'\n").variable("TASKDAEMON_HOOK_EXIT_CODE", "7");
    house.load();
    let house = House::toml("log = 'info'\n").variable("TASKDAEMON_HOOKS__ON", "failed,expired");
    let on = house.load().config.hooks.on;
    assert_eq!(on, Ends(vec![End::Failed, End::Expired]));
}

#[test]
fn a_bad_setting_is_one_line_with_its_place() {
    for (text, expected) in BAD_SETTINGS {
        let line = House::toml(text).error();
        assert!(
            line.starts_with(expected),
            "{text:?}\n  gave     {line}\n  expected {expected}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_bad_path_or_address_or_token_is_refused() {
    let hash = "0".repeat(64);
    let long = format!("/{}", "x".repeat(107));
    let longer = format!("/{}", "x/".repeat(2048));
    let token = format!("{{ name = 'a', sha256 = '{hash}', uid = 1 }}");
    for (text, expected) in [
        ("state_dir = 'relative'", "relative is not an absolute path"),
        ("state_dir = ''", "is not an absolute path"),
        (
            "state_dir = '~/x'",
            "is not an absolute path (neither ~ nor variables are filled in)",
        ),
        (
            "state_dir = '$HOME/x'",
            "is not an absolute path (neither ~ nor variables are filled in)",
        ),
        ("state_dir = \"/a\\u0000b\"", "contains a NUL byte"),
        (
            &format!("state_dir = '{longer}'"),
            "is longer than 4096 bytes",
        ),
        ("api.socket = 'api.sock'", "is not an absolute path"),
        (&format!("api.socket = '{long}'"), "at most 107"),
        (&format!("run.runner_socket = '{long}'"), "at most 107"),
        (&format!("run.report_socket = '{long}'"), "at most 107"),
        (
            "run.runner_socket = '/a'\nrun.report_socket = '/a'",
            "is the same as run.runner_socket",
        ),
        (
            "api.socket = '/a'\nrun.runner_socket = '/a'",
            "is the same as api.socket",
        ),
        ("api.listen = ['localhost:80']", "api.listen: "),
        ("api.listen = ['127.0.0.1']", "api.listen: "),
        ("api.listen = ['127.0.0.1:65536']", "api.listen: "),
        ("api.listen = ['127.0.0.1:0']", "127.0.0.1:0 has no port"),
        (
            "api.listen = ['[::]:80', '[::]:80']",
            "[::]:80 is there twice",
        ),
        ("api.listen = ['127.0.0.1:80']", "TCP needs a token"),
        ("api.admins = ['']", "is no name"),
        ("api.admins = ['@']", "is no name"),
        ("api.admins = ['a b']", "is no name"),
        ("api.tokens = [{ name = 'a' }]", "missing field `sha256`"),
        (
            "api.tokens = [{ name = 'a', sha256 = 'ff', uid = 1 }]",
            "is not 64 hexadecimal digits",
        ),
        (
            &format!("api.tokens = [{{ name = '', sha256 = '{hash}', uid = 1 }}]"),
            "is no name",
        ),
        (
            &format!("api.tokens = [{{ name = 'a', sha256 = '{hash}', uid = -1 }}]"),
            "expected u32",
        ),
        (
            &format!("api.tokens = [{{ name = 'a', sha256 = '{hash}', uid = 4294967295 }}]"),
            "is no user",
        ),
        (
            &format!("api.tokens = [{token}, {token}]"),
            "two tokens are named `a`",
        ),
        (
            &format!("api.tokens = [{{ name = 'a', sh256 = '{hash}', uid = 1 }}]"),
            "config.toml:1:29: unknown key `sh256` in api.tokens; did you mean `sha256`?",
        ),
    ] {
        let line = House::toml(&format!("{text}\n")).error();
        assert!(
            line.starts_with("config.toml:1:") || line.starts_with("config.toml:2:"),
            "{line}"
        );
        assert!(
            line.contains(expected),
            "{text:?}\n  gave     {line}\n  expected {expected}"
        );
    }
    let text = format!("[api]\nlisten = ['127.0.0.1:80']\ntokens = [{token}]\n");
    assert_eq!(House::toml(&text).load().config.api.tokens[0].name, "a");
}

#[test]
fn yaml_errors_have_places_too() {
    for (text, expected) in [
        ("engine:\n  slots: [\n", "config.yml:3:1: "),
        (
            "engine:\n  slots: 1\n  slots: 2\n",
            "config.yml:3:3: engine: duplicate key `slots`",
        ),
        (
            "engine:\n  slot: 1\n",
            "config.yml:2:3: unknown key `engine.slot`; did you mean",
        ),
        (
            "engine:\n  slots: many\n",
            "config.yml:2:10: engine.slots: expected u32",
        ),
        (
            "engine:\n  slots: 0\n",
            "config.yml:2:10: engine.slots: 0 is not between",
        ),
        ("- a\n- b\n", "config.yml:1:1: expected a table"),
        ("a: 1\n---\nb: 2\n", "config.yml"),
        ("1: 2\n", "config.yml:1:1: "),
        ("\ta: b\n", "config.yml:1:1: "),
        ("a: &a [*a]\n", "config.yml"),
    ] {
        let line = House::new("config.yml", text).error();
        assert!(
            line.starts_with(expected),
            "{text:?}\n  gave     {line}\n  expected {expected}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_are() {
    for (bytes, expected) in [
        (
            &b"\xef\xbb\xbflog = 'info'\n"[..],
            "config.toml:1:1: begins with a byte order mark; save it",
        ),
        (b"# a\nlog = '\xff'\n", "config.toml:2:8: is not UTF-8"),
        (b"\xff\xfel\0o\0g\0", "config.toml:1:1: is not UTF-8"),
        (b"# a\n# \0\n", "config.toml:2:3: contains a NUL byte"),
        (b"", "config.toml: is empty; remove it"),
        (b"\n \n", "config.toml: is empty; remove it"),
        (&[b'#'; (1 << 20) + 1], "config.toml: is larger than 1MiB"),
    ] {
        let line = House::new("config.toml", bytes).error();
        assert!(
            line.starts_with(expected),
            "gave {line}\nexpected {expected}"
        );
    }
}

#[test]
fn only_plain_files_are_read_and_nothing_waits() {
    let house = House::toml("# fine\n");
    let path = house.directory.path().to_owned();
    let named = |name: &str| House {
        directory: tempfile::tempdir().expect("directory"),
        sources: Sources {
            file: Some(path.join(name)),
            ..house.sources.clone()
        },
    };
    fs::create_dir(path.join("directory")).expect("directory");
    nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).expect("fifo");
    symlink("loop", path.join("loop")).expect("link");
    symlink("nowhere", path.join("dangling")).expect("link");
    symlink("config.toml", path.join("link")).expect("link");
    symlink("/dev/zero", path.join("device")).expect("link");
    for (name, expected) in [
        ("directory", "is a directory, not a file"),
        ("fifo", "is a device, pipe or socket, not a file"),
        ("device", "is a device, pipe or socket, not a file"),
        ("loop", "cannot open: "),
        ("dangling", "cannot open: "),
        ("missing", "there is no such file"),
        ("config.toml/x", "cannot open: "),
    ] {
        let line = named(name).error();
        assert!(line.contains(expected), "{name}: {line}");
    }
    let _config = named("link").load();
}

#[test]
fn a_missing_default_file_is_fine() {
    let directory = tempfile::tempdir().expect("directory");
    let home = directory.path().display().to_string();
    let variables: BTreeMap<_, _> = [("HOME".into(), home.into())].into();
    let sources = Sources {
        variables,
        uid: 1000,
        ..Sources::default()
    };
    let config = config::load(&sources).expect("defaults").config;
    assert_eq!(config.run.output_cap, ByteSize::mib(10));
    let nowhere = Sources {
        uid: 1000,
        ..Sources::default()
    };
    let line = config::load(&nowhere).expect_err("no home").to_string();
    assert!(line.contains("neither HOME nor XDG_STATE_HOME"), "{line}");
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    for (mode, fine) in [
        (0o600, true),
        (0o644, true),
        (0o640, true),
        (0o664, false),
        (0o646, false),
        (0o666, false),
    ] {
        let house = House::toml("# fine\n");
        let file = house.sources.file.as_ref().expect("file");
        fs::set_permissions(file, Permissions::from_mode(mode)).expect("chmod");
        if fine {
            house.load();
        } else {
            let line = house.error();
            assert!(
                line.contains(&format!(
                    "can be changed by others (mode {mode:04o}); chmod go-w "
                )),
                "{line}"
            );
        }
    }
    let house = House::toml("# fine\n");
    fs::set_permissions(house.directory.path(), Permissions::from_mode(0o777)).expect("chmod");
    assert!(
        house.error().contains("can be replaced by everybody"),
        "{}",
        house.error()
    );
    // To a stranger the file of another user is a stranger's; root's is not.
    let mut house = House::toml("# fine\n");
    house.sources.uid = house.sources.uid.wrapping_add(1);
    if nix::unistd::geteuid().is_root() {
        house.load();
        let file = house.sources.file.clone().expect("file");
        std::os::unix::fs::chown(&file, Some(4242), None).expect("chown");
    }
    assert!(
        house
            .error()
            .contains("neither to root nor to the user this runs as"),
        "{}",
        house.error()
    );
}

#[test]
fn drop_ins_are_toml_files_in_order_and_the_rest_is_noted() {
    let house = House::toml("# fine\n");
    for name in [
        "b.toml~",
        ".hidden.toml",
        "c.toml.dpkg-new",
        "README",
        "d.yml",
    ] {
        house.drop_in(name, "this is = no [ configuration");
    }
    house.drop_in("b.toml", "log = 'debug'\n");
    house.drop_in("a.toml", "log = 'warn'\n");
    let loaded = house.load();
    assert_eq!(loaded.config.log, "debug");
    assert_eq!(loaded.notes.len(), 5, "{:?}", loaded.notes);
    house.drop_in("c.toml", "lag = 'warn'\n");
    assert!(
        house
            .error()
            .starts_with("conf.d/c.toml:1:1: unknown key `lag`; did you mean `log`?")
    );
    fs::remove_file(house.directory.path().join("conf.d/c.toml")).expect("remove");
    symlink("nowhere", house.directory.path().join("conf.d/z.toml")).expect("link");
    assert!(
        house.error().starts_with("conf.d/z.toml: cannot open: "),
        "{}",
        house.error()
    );
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, expected) in [
        (
            "TASKDAEMON_ENGINE__SLOT",
            "1",
            "unknown key `TASKDAEMON_ENGINE__SLOT`; did you mean `TASKDAEMON_ENGINE__SLOTS`?",
        ),
        (
            "TASKDAEMON_SLOTS",
            "1",
            "unknown key `TASKDAEMON_SLOTS`; did you mean `TASKDAEMON_ENGINE__SLOTS`?",
        ),
        (
            "TASKDAEMON_ENGINE__SLOTS",
            "many",
            "engine.slots: expected u32, found string \"many\"",
        ),
        (
            "TASKDAEMON_ENGINE__SLOTS",
            "",
            "engine.slots: expected u32, found string \"\"",
        ),
        (
            "TASKDAEMON_ENGINE__SLOTS",
            "0",
            "engine.slots: 0 is not between 1 and 100000",
        ),
        (
            "TASKDAEMON_ENGINE",
            "1",
            "`TASKDAEMON_ENGINE` is a section of settings, not a value",
        ),
        (
            "TASKDAEMON_API__IDLE_TIMEOUT",
            "10",
            "api.idle_timeout: expected a duration",
        ),
        ("TASKDAEMON_", "1", "unknown key"),
        (
            "TASKDAEMON_STATE_DIR",
            "",
            "state_dir:  is not an absolute path",
        ),
        ("TASKDAEMON_LOG", "loud", "log: `loud` is neither a level"),
    ] {
        let line = House::toml("# fine\n").variable(name, value).error();
        let expected = format!("environment variable {name}: {expected}");
        assert!(
            line.starts_with(&expected),
            "gave     {line}\nexpected {expected}"
        );
    }
    let mut house = House::toml("# fine\n");
    let broken = std::ffi::OsString::from_vec(vec![0xff]);
    house
        .sources
        .variables
        .insert("TASKDAEMON_LOG".into(), broken);
    assert_eq!(
        house.error(),
        "environment variable TASKDAEMON_LOG: is not UTF-8"
    );
    let mut house = House::toml("# fine\n");
    house.sources = house.sources.with_flag("engine.slots", 0);
    assert!(
        house
            .error()
            .starts_with("command line: engine.slots: 0 is not"),
        "{}",
        house.error()
    );
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let mut house = House::toml("log = 'warn'\n");
    let file = house.sources.file.take().expect("file");
    house
        .sources
        .variables
        .insert("TASKDAEMON_CONFIG".into(), file.into());
    assert_eq!(house.load().config.log, "warn");
}

#[test]
fn a_reload_is_told_what_changed_and_what_takes_a_restart() {
    let old = House::toml("[engine]\nslots = 2\n").load().config;
    let new = House::toml("[engine]\nslots = 3\ncommands = 5\n[api]\nbody_max = '2MiB'\n")
        .load()
        .config;
    let lines: Vec<String> = changes(&old, &new)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            "api.body_max: \"16MiB\" -> \"2MiB\"",
            "engine.slots: 2 -> 3",
            "engine.commands: 4096 -> 5 (after a restart)",
        ]
    );
    assert!(changes(&old, &old).is_empty());
}
