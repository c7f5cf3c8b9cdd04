//! What the engine has to know of hooks: the settings, the secret that they
//! name, and our own program, which sends webhooks.

use std::{env, io};

use crate::config::error::Error;
use crate::engine::hooks::Hooks;
use crate::engine::options::HookOptions;
use crate::model::hook::Secret;

use super::secrets::{self, Hidden};

/// Name of the service's credential with the secret.
const CREDENTIAL: &str = "webhook-secret";
/// Fewest bytes of a secret: 128 bits.
const SECRET_MIN: usize = 16;

/// Our own program's file, as it was when this process began: what replaces it
/// later is found under the same name.
pub(super) fn program() -> io::Result<String> {
    let path = env::current_exe()?.into_os_string();
    path.into_string()
        .map_err(|path| io::Error::other(format!("{} is not UTF-8", path.display())))
}

/// Reads the secret, and puts everything together.
pub(super) fn resolve(options: &HookOptions, program: &str) -> Result<Hooks, Error> {
    const KEY: &str = "hooks.secret_file";
    let path = options.secret_file.clone();
    let path = path.or_else(|| secrets::credential(CREDENTIAL));
    let more = "`openssl rand -hex 32` makes some";
    let bytes = path.map(|path| secrets::read(KEY, &path, Hidden::FromEverybody, SECRET_MIN, more));
    let bytes = bytes.transpose()?;
    Ok(Hooks {
        host: options.hooks(),
        secret: bytes.map(Secret::new),
        program: program.to_owned(),
    })
}
