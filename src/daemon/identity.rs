//! The user that the daemon runs as, where root starts it and keeps the rights
//! that it does not need.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::Config;
use crate::run::own::Peer;

/// A user and a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user.
    pub name: String,
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl Identity {
    /// Looks them up; the group is the user's own where none is named.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, String> {
        let unreadable = |what: &str| {
            let what = what.to_owned();
            move |error| format!("cannot look up {what}: {error}")
        };
        let account = User::from_name(user)
            .map_err(unreadable(&format!("user {user}")))?
            .ok_or_else(|| format!("there is no user `{}`", user.escape_debug()))?;
        let gid = match group {
            None => account.gid,
            Some(name) => {
                Group::from_name(name)
                    .map_err(unreadable(&format!("group {name}")))?
                    .ok_or_else(|| format!("there is no group `{}`", name.escape_debug()))?
                    .gid
            }
        };
        Ok(Self {
            name: account.name,
            uid: account.uid,
            gid,
        })
    }

    /// What a runner has to know of its daemon.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            uid: self.uid.as_raw(),
        }
    }

    /// Makes the daemon's directories, which lie where only root may make them.
    ///
    /// # Errors
    /// One cannot be made, or is another user's.
    pub fn own_directories(&self, settings: &Config) -> io::Result<()> {
        self.own(&settings.state_dir, 0o700)?;
        self.own(&settings.runtime_dir, 0o755)
    }

    fn own(&self, path: &Path, mode: u32) -> io::Result<()> {
        let fails =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(fails)?;
        let meta = fs::symlink_metadata(path).map_err(fails)?;
        if meta.uid() == self.uid.as_raw() {
            return Ok(());
        }
        let empty = fs::read_dir(path).map_err(fails)?.next().is_none();
        if meta.is_dir() && meta.uid() == 0 && empty {
            // Only root has been here.
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fails)?;
            return lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())).map_err(fails);
        }
        Err(io::Error::other(format!(
            "{} belongs to another user than {}; if that is right: chown -R {0} {}",
            path.display(),
            self.name,
            path.display(),
        )))
    }
}
