//! The listeners: those the service manager passed, or else our own.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::api::options::Options;

use super::Error;
use super::passed::Listener;

/// What to listen on. Passed sockets win; without any, the daemon binds what
/// its settings say.
///
/// # Errors
/// A socket cannot be bound, or TCP is open to everyone.
pub fn listeners(
    passed: Vec<(String, Listener)>,
    options: &Options,
) -> Result<Vec<Listener>, Error> {
    let listeners = if passed.is_empty() {
        own(options)?
    } else {
        passed.into_iter().map(|(_, listener)| listener).collect()
    };
    let tcp = listeners.iter().find_map(|listener| match listener {
        Listener::Tcp(tcp) => Some(tcp),
        Listener::Unix(_) => None,
    });
    if let Some(tcp) = tcp
        && !options.has_clients()
    {
        let address = tcp
            .local_addr()
            .map_or_else(|_| "TCP".to_owned(), |at| at.to_string());
        return Err(Error::OpenTcp(address));
    }
    Ok(listeners)
}

fn own(options: &Options) -> Result<Vec<Listener>, Error> {
    let mut all = vec![
        unix(&options.socket)
            .map(Listener::Unix)
            .map_err(|source| Error::Listen {
                address: options.socket.display().to_string(),
                source,
            })?,
    ];
    for address in &options.listen {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let failed = |source| Error::Listen {
            address: address.to_string(),
            source,
        };
        all.push(Listener::Tcp(bound.map_err(failed)?));
    }
    Ok(all)
}

/// Binds a unix socket for the owner and the group. A socket that nobody
/// answers on is left over and replaced; anything else in its place is not
/// ours to remove.
fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something there that is not a socket; move it away",
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another program answers there; stop it first",
            ));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
