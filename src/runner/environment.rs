//! What a task finds around itself: its variables, and where its program is
//! looked for.
//!
//! The environment is built from nothing; of the runner's own only the
//! language is passed on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::mark;
use super::users::Account;
use super::words::Words;
use crate::model::attempt::{AttemptKey, Launch};

/// Search path of a task that brings none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The same for root.
const PATH_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most directories of a search path that are tried.
const PATH_MAX: usize = 256;

/// What the runner adds to a task's environment, where it has it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given<'a> {
    /// The runner's own language.
    pub(super) lang: Option<&'a str>,
    /// The attempt's socket.
    pub(super) socket: Option<&'a Path>,
    /// The mark that all tasks of this runner bear.
    pub(super) mark: Option<&'a str>,
}

/// A variable's name and value.
pub(super) type Variable<'a> = (&'a str, Cow<'a, str>);

/// What every process of a user finds, by the user.
fn base(account: &Account) -> [(&'static str, &str); 5] {
    let path = if account.uid == 0 { PATH_ROOT } else { PATH };
    let home = if account.home.is_empty() {
        "/"
    } else {
        &account.home
    };
    let shell = if account.shell.is_empty() {
        "/bin/sh"
    } else {
        &account.shell
    };
    [
        ("PATH", path),
        ("HOME", home),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", shell),
    ]
}

/// The environment of a process of ours that is no task.
pub(super) fn ours<'a>(account: &'a Account, given: Given<'a>) -> Vec<Variable<'a>> {
    base(account)
        .into_iter()
        .chain(given.lang.map(|lang| ("LANG", lang)))
        .chain(given.mark.map(|mark| (mark::VARIABLE, mark)))
        .map(|(name, value)| (name, Cow::Borrowed(value)))
        .collect()
}

/// The whole environment of a task: an allow-list, what it asked for, and what
/// it is. Later entries replace earlier ones.
pub(super) fn environment<'a>(
    launch: &'a Launch,
    account: &'a Account,
    given: Given<'a>,
) -> Vec<Variable<'a>> {
    let socket = given.socket.and_then(Path::to_str);
    let own = [
        (TASK_VARIABLE, launch.key.task.to_string().into()),
        (ATTEMPT_VARIABLE, launch.key.number.to_string().into()),
    ];
    let asked = launch
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: Vec<Variable<'a>> = Vec::with_capacity(launch.env.len() + 10);
    let mut places = HashMap::new();
    let all = base(account)
        .into_iter()
        .chain(given.lang.map(|lang| ("LANG", lang)))
        .chain(asked)
        .map(|(name, value)| (name, Cow::Borrowed(value)));
    let last = [
        given.mark.map(|mark| (mark::VARIABLE, mark.into())),
        socket.map(|socket| (SOCKET_VARIABLE, socket.into())),
    ];
    for (name, value) in all.chain(own).chain(last.into_iter().flatten()) {
        let at = *places.entry(name).or_insert(env.len());
        match env.get_mut(at) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    env
}

/// Variable by which a task, and each of its processes, can be told.
pub(super) const TASK_VARIABLE: &str = "TASKDAEMON_TASK_ID";
/// Variable that holds the attempt's number.
pub(super) const ATTEMPT_VARIABLE: &str = "TASKDAEMON_ATTEMPT";

/// Variable that names the socket on which a task says how it is doing, as a
/// service of the service manager's does.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// What an attempt's processes have in their environment.
pub(super) fn marks(key: AttemptKey) -> [String; 2] {
    [
        format!("{TASK_VARIABLE}={}", key.task),
        format!("{ATTEMPT_VARIABLE}={}", key.number),
    ]
}

/// Programs to try for a name in an environment.
///
/// # Errors
/// There is a NUL byte in one.
pub(super) fn programs(program: &str, env: &[Variable<'_>]) -> Result<Words, String> {
    let path = env.iter().find(|(name, _)| *name == "PATH");
    candidates(program, path.map_or("", |(_, value)| value))
}

/// Programs to try for a name: itself if it has a slash, else one in each
/// directory of the search path. Empty entries, which mean the working
/// directory to a shell, are passed over.
fn candidates(program: &str, path: &str) -> Result<Words, String> {
    if program.contains('/') {
        return Words::of([program]);
    }
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    let mut all = Words::default();
    for directory in directories.take(PATH_MAX) {
        all.push(&[directory, "/", program])?;
    }
    Ok(all)
}

/// An environment as a process gets it.
///
/// # Errors
/// There is a NUL byte in it.
pub(super) fn block(env: &[Variable<'_>]) -> Result<Words, String> {
    let mut all = Words::default();
    for (name, value) in env {
        all.push(&[name, "=", value])?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::model::attempt::Limits;
    use crate::model::id::TaskId;

    fn launch(env: &[(&str, &str)]) -> Launch {
        Launch {
            key: AttemptKey {
                task: TaskId(7),
                number: 2,
            },
            argv: vec!["true".to_owned()],
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            cwd: None,
            user: None,
            asked_by: 0,
            umask: 0o022,
            limits: Limits::default(),
            output_cap: 1,
            stdin: false,
            own: false,
            after_commit: false,
        }
    }
    fn nobody() -> Account {
        Account {
            name: "bob".to_owned(),
            uid: 12,
            gid: 12,
            groups: Vec::new(),
            home: String::new(),
            shell: String::new(),
        }
    }

    fn texts(words: Result<Words, String>) -> Vec<String> {
        let words = words.expect("words");
        let text = |word: &CStr| word.to_str().expect("text").to_owned();
        words.iter().map(text).collect()
    }

    #[test]
    fn the_environment_is_an_allow_list() {
        let asked = launch(&[
            ("PATH", "/opt/bin"),
            ("A", "1"),
            ("A", "2"),
            (TASK_VARIABLE, "forged"),
            (SOCKET_VARIABLE, "forged"),
            (mark::VARIABLE, "forged"),
        ]);
        let nobody = nobody();
        let env = environment(
            &asked,
            &nobody,
            Given {
                lang: Some("C.UTF-8"),
                socket: Some(Path::new("/x/notify")),
                mark: Some("0f"),
            },
        );
        assert_eq!(
            texts(block(&env)),
            [
                "PATH=/opt/bin",
                "HOME=/",
                "USER=bob",
                "LOGNAME=bob",
                "SHELL=/bin/sh",
                "LANG=C.UTF-8",
                "A=2",
                "TASKDAEMON_TASK_ID=7",
                "NOTIFY_SOCKET=/x/notify",
                "TASKDAEMON_MARK=0f",
                "TASKDAEMON_ATTEMPT=2",
            ]
        );
    }

    #[test]
    fn programs_are_looked_up_like_a_shell_does() {
        assert_eq!(texts(candidates("./x", "/bin")), ["./x"]);
        assert_eq!(texts(candidates("x", "/a::/b:")), ["/a/x", "/b/x"]);
        assert!(texts(candidates("x", "")).is_empty());
    }
}
