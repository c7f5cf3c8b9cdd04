//! Looks users and their groups up in the host's databases.
//!
//! Answers are kept for a few seconds and only while the local files are as
//! they were, because every launch asks and a look-up reads several files.
//! Judges nobody: that is `policy.rs`.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::model::time::Time;

/// How long an answer is trusted: directories on a network have no file whose
/// change would show.
const TRUST: Duration = Duration::from_secs(10);
/// Most answers kept; beyond, all are forgotten.
const KEEP: usize = 1024;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, the primary one among them.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
    pub(super) shell: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    Name(String),
    Uid(u32),
}

/// Answers that were given lately.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: HashMap<Question, Option<Rc<Account>>>,
    since: Time,
    files: [Option<(u64, i64, i64)>; 2],
}

impl Accounts {
    /// The user of a name, or `None` if there is none.
    ///
    /// # Errors
    /// The databases cannot be read.
    pub(super) fn by_name(&mut self, name: &str, now: Time) -> nix::Result<Option<Rc<Account>>> {
        self.ask(Question::Name(name.to_owned()), now)
    }

    /// The user of a number, or `None` if there is none.
    ///
    /// # Errors
    /// The databases cannot be read.
    pub(super) fn by_uid(&mut self, uid: u32, now: Time) -> nix::Result<Option<Rc<Account>>> {
        self.ask(Question::Uid(uid), now)
    }

    fn ask(&mut self, question: Question, now: Time) -> nix::Result<Option<Rc<Account>>> {
        let files = ["/etc/passwd", "/etc/group"].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
        });
        let old = now < self.since || now.since(self.since) > TRUST;
        if old || files != self.files || self.known.len() >= KEEP {
            self.known.clear();
            self.since = now;
            self.files = files;
        }
        if let Some(known) = self.known.get(&question) {
            return Ok(known.clone());
        }
        let user = match &question {
            Question::Name(name) => User::from_name(name)?,
            Question::Uid(uid) => User::from_uid(Uid::from_raw(*uid))?,
        };
        let account = match user {
            Some(user) => Some(Rc::new(account(user)?)),
            None => None,
        };
        self.known.insert(question, account.clone());
        Ok(account)
    }
}

/// The number of a group, if there is one of that name.
///
/// # Errors
/// The databases cannot be read.
pub(super) fn group(name: &str) -> nix::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

fn account(user: User) -> nix::Result<Account> {
    let name = CString::new(user.name.as_str()).map_err(|_| nix::errno::Errno::EINVAL)?;
    let groups = getgrouplist(&name, user.gid)?;
    Ok(Account {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        home: user.dir.display().to_string(),
        shell: user.shell.display().to_string(),
        name: user.name,
    })
}

/// A user the host's databases do not know.
pub(super) fn nameless(uid: u32) -> Account {
    Account {
        name: uid.to_string(),
        uid,
        gid: nix::unistd::getgid().as_raw(),
        groups: Vec::new(),
        home: "/".to_owned(),
        shell: "/bin/sh".to_owned(),
    }
}
