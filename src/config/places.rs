//! Where things are when nobody says where: for the host, or for one user.
//!
//! Root, and a service whose state systemd keeps in `/var/lib`, is the host's
//! daemon. Everybody else runs one of their own, with files of their own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The places for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The configuration file.
    pub(super) config: PathBuf,
    /// For tasks; absent when the user has no home.
    pub(super) state: Option<PathBuf>,
    /// For sockets; absent when the user has none, then it is with the tasks.
    pub(super) runtime: Option<PathBuf>,
}

impl Places {
    pub(super) fn of(variables: &BTreeMap<OsString, OsString>, uid: u32) -> Self {
        // What is not absolute does not count, says the XDG specification.
        let directory = |name: &str| {
            variables
                .get(OsStr::new(name))
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = directory("HOME");
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        // systemd separates several by colons; ours is the first.
        let given = directory("STATE_DIRECTORY").and_then(|all| {
            all.to_str()
                .and_then(|all| all.split(':').next())
                .map(PathBuf::from)
        });
        let host = uid == 0
            || given
                .as_ref()
                .is_some_and(|state| state.starts_with("/var/lib"));
        if host {
            return Self {
                config: PathBuf::from("/etc/taskdaemon/config.toml"),
                state: Some(given.unwrap_or_else(|| PathBuf::from("/var/lib/taskdaemon"))),
                runtime: Some(PathBuf::from("/run/taskdaemon")),
            };
        }
        let config = directory("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let state = directory("XDG_STATE_HOME").or_else(|| below_home(".local/state"));
        Self {
            config: config
                .map_or_else(
                    || PathBuf::from("/etc/taskdaemon"),
                    |own| own.join("taskdaemon"),
                )
                .join("config.toml"),
            state: given.or_else(|| state.map(|state| state.join("taskdaemon"))),
            runtime: directory("XDG_RUNTIME_DIR").map(|run| run.join("taskdaemon")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_a_user_have_places_of_their_own() {
        let places = |uid, variables: &[(&str, &str)]| {
            let variables = variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            let places = Places::of(&variables, uid);
            let text = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
            (
                places.config.display().to_string(),
                text(places.state),
                text(places.runtime),
            )
        };
        let host = |state: &str| {
            (
                "/etc/taskdaemon/config.toml".to_owned(),
                Some(state.to_owned()),
                Some("/run/taskdaemon".to_owned()),
            )
        };
        assert_eq!(places(0, &[("HOME", "/root")]), host("/var/lib/taskdaemon"));
        assert_eq!(
            places(990, &[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]),
            host("/var/lib/a")
        );
        let own = (
            "/h/.config/taskdaemon/config.toml".to_owned(),
            Some("/h/.local/state/taskdaemon".to_owned()),
            None,
        );
        assert_eq!(
            places(1000, &[("HOME", "/h"), ("XDG_STATE_HOME", "relative")]),
            own
        );
        let (_, state, runtime) =
            places(1000, &[("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(
            (state.as_deref(), runtime.as_deref()),
            (Some("/s/taskdaemon"), Some("/r/taskdaemon"))
        );
        assert_eq!(places(1000, &[]).1, None);
    }
}
