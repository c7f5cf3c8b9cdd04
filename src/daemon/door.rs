//! Where tasks can ask models: the socket, and what their badges are made with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::engine::prompts::{Door, Options};
use crate::model::badge::Stamp;

use super::{Error, system};

/// File of the stamp, in the state directory.
const STAMP: &str = "badge.key";

/// Opens it, where the settings name one.
///
/// # Errors
/// The address is taken, or the stamp can be neither read nor made.
pub(super) fn open(options: &Options, state: &Path) -> Result<Option<(TcpListener, Door)>, Error> {
    let Some(at) = &options.listen else {
        return Ok(None);
    };
    let failed = |source| Error::Listen {
        address: format!("{at} (llm.listen)"),
        source,
    };
    let listener = TcpListener::bind(at).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?.to_string();
    let path = state.join(STAMP);
    let act = || system(format!("read or make {}", path.display()));
    let stamp = stamp(&path).map_err(act())?;
    Ok(Some((listener, Door { at, stamp })))
}

/// The stamp of this host, made at the first start: badges of running tasks
/// outlive this process.
fn stamp(path: &Path) -> io::Result<Stamp> {
    let mut secret = [0; 32];
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
    {
        Ok(mut file) => {
            file.read_exact(&mut secret)?;
            return Ok(Stamp::new(secret));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    // Whole under its name, or not there.
    let new = path.with_extension("new");
    drop(fs::remove_file(&new));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(Stamp::new(secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_stamp_is_made_once_and_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join(STAMP);
        let first = stamp(&path).expect("made");
        assert_eq!(stamp(&path).expect("read"), first);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "short").expect("write");
        assert!(stamp(&path).is_err(), "half a stamp is none");
    }
}
