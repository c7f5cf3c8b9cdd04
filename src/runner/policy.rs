//! Who may run tasks as whom: the root-owned run-as policy file.
//!
//! ```toml
//! default = "taskdaemon-job"      # who runs a task that names nobody
//!
//! [[allow]]
//! who = ["user:alice", "group:wheel"]
//! as = ["bob", "@self"]           # @self: the user who asks
//! ```
//!
//! Read again whenever it changed. A file that others could have written, or
//! that is not understood as a whole, allows nothing; but neither does it
//! forbid: tasks wait until it is mended.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use toml::Spanned;

use super::users::{self, Account, Accounts};
use crate::model::time::Time;

/// User that runs tasks where no policy names another.
pub(super) const DEFAULT_USER: &str = "taskdaemon-job";
/// Longest policy file read.
const LENGTH_MAX: u64 = 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    default: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<WrittenRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    who: Vec<Spanned<String>>,
    r#as: Vec<Spanned<String>>,
}

/// The rules of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    default: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    who: Vec<Who>,
    whom: Vec<Whom>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    User(String),
    Uid(u32),
    Group(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Asker,
    User(String),
}

/// A policy file and what was read from it.
#[derive(Debug)]
pub(super) struct PolicyFile {
    path: PathBuf,
    read: Option<(Version, Result<Rc<Policy>, String>)>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    place: (u64, u64),
    changed: (i64, i64, i64, i64),
    size: u64,
}

impl Version {
    fn of(meta: &Metadata) -> Self {
        Self {
            place: (meta.dev(), meta.ino()),
            changed: (
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
            ),
            size: meta.size(),
        }
    }
}

/// Why a task is not run.
#[derive(Debug)]
pub(super) struct Denied {
    /// One sentence for whoever submitted it.
    pub(super) why: String,
    /// Nobody could decide: the policy, or who there is, cannot be read.
    pub(super) undecided: bool,
    /// It was decided, and no rule allows it.
    pub(super) by_rule: bool,
}

impl Denied {
    /// Nobody could decide.
    pub(super) const fn undecided(why: String) -> Self {
        Self {
            why,
            undecided: true,
            by_rule: false,
        }
    }
}

impl From<String> for Denied {
    fn from(why: String) -> Self {
        Self {
            why,
            undecided: false,
            by_rule: false,
        }
    }
}

/// The first of some users as whom a policy file surely lets its asker run no
/// task now, and why. The runner asks again at each start, and its word is the
/// last; this is for whoever takes a task in.
#[must_use]
pub fn denied(
    path: &Path,
    asker: u32,
    users: BTreeSet<String>,
    now: Time,
) -> Option<(String, String)> {
    let mut file = PolicyFile::new(path.to_owned());
    let mut accounts = Accounts::default();
    users.into_iter().find_map(|user| {
        let denied = file.judge(asker, Some(&user), &mut accounts, now).err()?;
        (!denied.undecided).then_some((user, denied.why))
    })
}

/// What is wrong with a policy file, if anything is: it is not read then, and
/// tasks wait.
#[must_use]
pub fn fault(path: &Path) -> Option<String> {
    PolicyFile::new(path.to_owned()).policy().err()
}

impl PolicyFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }

    /// Decides as whom a task runs, or says why not.
    pub(super) fn judge(
        &mut self,
        asker: u32,
        wanted: Option<&str>,
        accounts: &mut Accounts,
        now: Time,
    ) -> Result<Rc<Account>, Denied> {
        let policy = self.policy().map_err(Denied::undecided)?;
        let failed = |error| Denied::undecided(format!("cannot look users up: {error}"));
        let asking = accounts.by_uid(asker, now).map_err(failed)?;
        let name = wanted.unwrap_or(&policy.default);
        let is_allowed = || policy.allows(asker, asking.as_deref(), name);
        if name != policy.default && !is_allowed().map_err(Denied::undecided)? {
            let by = asking.map_or_else(|| format!("uid {asker}"), |asking| asking.name.clone());
            let why = format!(
                "user {by} may not run tasks as {name}: no rule of {} allows it",
                self.path.display()
            );
            return Err(Denied {
                why,
                undecided: false,
                by_rule: true,
            });
        }
        let account = accounts.by_name(name, now).map_err(failed)?;
        let account = account.ok_or_else(|| format!("there is no user {name}"))?;
        if account.uid == 0 && name != "root" {
            return Err(format!("user {name} is root under another name").into());
        }
        Ok(account)
    }

    /// The rules as the file is now.
    fn policy(&mut self) -> Result<Rc<Policy>, String> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path);
        let mut file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Rc::new(Policy::absent()));
            }
            Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
        };
        let meta = file
            .metadata()
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        let version = Version::of(&meta);
        if let Some((read, policy)) = &self.read
            && *read == version
        {
            return policy.clone();
        }
        let policy =
            trusted(&self.path, &meta).and_then(|()| load(&self.path, &mut file).map(Rc::new));
        self.read = Some((version, policy.clone()));
        policy
    }
}

/// Refuses a file that somebody other than root could have written.
fn trusted(path: &Path, meta: &Metadata) -> Result<(), String> {
    let path = path.display();
    if !meta.is_file() {
        return Err(format!("{path} is not a regular file"));
    }
    if meta.uid() != 0 {
        return Err(format!("{path} does not belong to root"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!(
            "{path} can be written by others than root; `chmod go-w` it"
        ));
    }
    Ok(())
}

fn load(path: &Path, file: &mut File) -> Result<Policy, String> {
    let mut text = String::new();
    file.take(LENGTH_MAX)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Policy::parse(&text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))
}

impl Policy {
    /// What holds without a file.
    fn absent() -> Self {
        Self {
            default: DEFAULT_USER.to_owned(),
            rules: Vec::new(),
        }
    }

    /// Understands the whole file, or names the line that it does not.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (line(text, at), one_line(error.message()))
        })?;
        let mut rules = Vec::new();
        for rule in &written.allow {
            rules.push(Rule {
                who: each(text, &rule.who, who)?,
                whom: each(text, &rule.r#as, whom)?,
            });
        }
        let default = match &written.default {
            Some(name) => match each(text, std::slice::from_ref(name), whom)?.pop() {
                Some(Whom::User(name)) => name,
                _ => {
                    let at = line(text, name.span().start);
                    return Err((at, "the default must be the name of a user".to_owned()));
                }
            },
            None => DEFAULT_USER.to_owned(),
        };
        Ok(Self { default, rules })
    }

    fn allows(&self, uid: u32, asking: Option<&Account>, name: &str) -> Result<bool, String> {
        for rule in &self.rules {
            let listed = rule.whom.iter().any(|whom| match whom {
                Whom::User(user) => user == name,
                // Never root: who asks as root must find "root" written down.
                Whom::Asker => uid != 0 && asking.is_some_and(|asking| asking.name == name),
            });
            if listed && Self::meant(rule, uid, asking)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a rule speaks of the asker.
    fn meant(rule: &Rule, uid: u32, asking: Option<&Account>) -> Result<bool, String> {
        for who in &rule.who {
            let meant = match who {
                Who::Uid(number) => *number == uid,
                Who::User(name) => asking.is_some_and(|asking| asking.name == *name),
                Who::Group(name) => {
                    let gid = users::group(name)
                        .map_err(|error| format!("cannot look groups up: {error}"))?;
                    let groups = asking.map_or(&[][..], |asking| asking.groups.as_slice());
                    gid.is_some_and(|gid| groups.contains(&gid))
                }
            };
            if meant {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn each<T>(
    text: &str,
    words: &[Spanned<String>],
    understand: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, (usize, String)> {
    words
        .iter()
        .map(|word| understand(word.get_ref()).map_err(|why| (line(text, word.span().start), why)))
        .collect()
}

fn who(word: &str) -> Result<Who, String> {
    match word.split_once(':') {
        Some(("user", name)) if !name.is_empty() => Ok(match name.parse() {
            Ok(uid) => Who::Uid(uid),
            Err(_) => Who::User(name.to_owned()),
        }),
        Some(("group", name)) if !name.is_empty() => Ok(Who::Group(name.to_owned())),
        _ => Err(format!(
            "{word:?} is nobody: write \"user:NAME\" or \"group:NAME\""
        )),
    }
}

fn whom(word: &str) -> Result<Whom, String> {
    match word {
        "@self" => Ok(Whom::Asker),
        "" => Err("the name of a user is empty".to_owned()),
        _ if word.contains([':', '@']) => Err(format!(
            "{word:?} is nobody to run as: write the name of a user, or \"@self\""
        )),
        _ => Ok(Whom::User(word.to_owned())),
    }
}

/// Number of the line that a byte is in.
fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
default = "nobody"

[[allow]]
who = ["user:alice", "user:4242"]
as = ["bob", "@self"]

[[allow]]
who = ["user:root"]
as = ["root", "@self"]

[[allow]]
who = ["group:root"]
as = ["carol"]
"#;

    fn person(name: &str, uid: u32, groups: &[u32]) -> Account {
        Account {
            name: name.to_owned(),
            uid,
            gid: uid,
            groups: groups.to_vec(),
            home: "/".to_owned(),
            shell: "/bin/sh".to_owned(),
        }
    }

    #[test]
    fn the_table() {
        let policy = Policy::parse(TEXT).unwrap();
        let alice = person("alice", 1000, &[1000]);
        let mallory = person("mallory", 1001, &[1001]);
        let staff = person("staff", 1002, &[1002, 0]);
        let root = person("root", 0, &[0]);
        let rows = [
            (Some(&alice), 1000, "bob", true),
            (Some(&alice), 1000, "alice", true),
            (Some(&alice), 1000, "carol", false),
            (Some(&alice), 1000, "root", false),
            (Some(&alice), 1000, "@self", false),
            (Some(&mallory), 1001, "bob", false),
            (Some(&mallory), 1001, "mallory", false),
            (None, 4242, "bob", true),
            (None, 4243, "bob", false),
            (Some(&staff), 1002, "carol", true),
            (Some(&alice), 1000, "carol", false),
            (Some(&root), 0, "root", true),
            (Some(&root), 0, "bob", false),
        ];
        for (asking, uid, name, expected) in rows {
            let allowed = policy.allows(uid, asking, name).unwrap();
            assert_eq!(allowed, expected, "{uid} as {name}");
        }
    }

    #[test]
    fn self_never_means_root() {
        let policy = Policy::parse("[[allow]]\nwho = [\"user:root\"]\nas = [\"@self\"]\n").unwrap();
        let root = person("root", 0, &[0]);
        assert_eq!(policy.allows(0, Some(&root), "root"), Ok(false));
    }

    #[test]
    fn every_mistake_has_its_line() {
        let rows = [
            ("default = 3\n", 1, "invalid type"),
            ("\ndefualt = \"bob\"\n", 2, "unknown field `defualt`"),
            ("default = \"@self\"\n", 1, "must be the name"),
            ("default = \"\"\n", 1, "empty"),
            (
                "[[allow]]\nwho = [\"alice\"]\nas = []\n",
                2,
                "\"alice\" is nobody",
            ),
            (
                "[[allow]]\nwho = [\"usr:alice\"]\nas = []\n",
                2,
                "is nobody",
            ),
            (
                "[[allow]]\nwho = []\nas = [\"@any\"]\n",
                3,
                "nobody to run as",
            ),
            ("[[allow]]\nwho = []\n", 1, "missing field `as`"),
            ("[[allow]\n", 1, ""),
        ];
        for (text, at, part) in rows {
            let (line, why) = Policy::parse(text).unwrap_err();
            assert_eq!(line, at, "{text}: {why}");
            assert!(why.contains(part), "{text}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn an_empty_file_says_what_no_file_says() {
        assert_eq!(Policy::parse("").unwrap(), Policy::absent());
    }
}
