//! Memory that nobody else gets to see.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets no core be dumped, and no process of the same user look into this one.
///
/// In it are secrets, and tasks of a daemon without a runner of its own are of
/// the same user. Neither is inherited by what a task executes. Who is root
/// still sees all of it.
///
/// # Errors
/// The kernel refused.
pub fn keep() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, hard)?)
}
