//! What the engine has to know of hooks: the settings, the secret that they
//! name, and our own program, which sends webhooks.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::{env, io};

use crate::config::error::{Error, Place};
use crate::engine::hooks::Hooks;
use crate::engine::options::HookOptions;
use crate::model::hook::Secret;

/// Name of the service's credential with the secret.
const CREDENTIAL: &str = "webhook-secret";
/// Fewest bytes of a secret: 128 bits.
const SECRET_MIN: usize = 16;
/// Most bytes of a secret.
const SECRET_MAX: u64 = 4096;
/// Read permission of everybody.
const READABLE: u32 = 0o004;

/// Our own program's file, as it was when this process began: what replaces it
/// later is found under the same name.
pub(super) fn program() -> io::Result<String> {
    let path = env::current_exe()?.into_os_string();
    path.into_string()
        .map_err(|path| io::Error::other(format!("{} is not UTF-8", path.display())))
}

/// Reads the secret, and puts everything together.
pub(super) fn resolve(options: &HookOptions, program: &str) -> Result<Hooks, Error> {
    let path = options.secret_file.clone().or_else(credential);
    Ok(Hooks {
        host: options.hooks(),
        secret: path.as_deref().map(secret).transpose()?,
        program: program.to_owned(),
    })
}

/// The credential's file, where the service manager has put one.
fn credential() -> Option<PathBuf> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&directory).join(CREDENTIAL)).filter(|path| path.exists())
}

/// A secret from its file, without the end of its last line.
fn secret(path: &Path) -> Result<Secret, Error> {
    let refuse = |what: String| {
        let place = Place::Key("hooks.secret_file".to_owned());
        Error::new(place, format!("{}: {what}", path.display()))
    };
    let mut file = OpenOptions::new()
        .read(true)
        // A FIFO in its place is not waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| refuse(format!("cannot open: {error}")))?;
    let status = file
        .metadata()
        .map_err(|error| refuse(format!("cannot look at it: {error}")))?;
    if !status.is_file() {
        return Err(refuse("is not a file".to_owned()));
    }
    if status.mode() & READABLE != 0 {
        return Err(refuse("can be read by everybody".to_owned())
            .suggest(Some(format!("chmod o-r {}", path.display()))));
    }
    let mut bytes = Vec::new();
    io::Read::by_ref(&mut file)
        .take(SECRET_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot read: {error}")))?;
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= SECRET_MAX);
    if !fits || bytes.len() < SECRET_MIN {
        let what = format!("must hold {SECRET_MIN} to {SECRET_MAX} bytes");
        return Err(refuse(what).suggest(Some("`openssl rand -hex 32` makes some".to_owned())));
    }
    Ok(Secret::new(bytes))
}
