//! What a fresh runner finds out and sets up before its loop.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::Mode;

use super::serve::{Door, Identity};

/// Takes the socket that this process was started on, and leaves nothing in
/// its place.
pub(super) fn take_standard_input() -> anyhow::Result<(Door, Option<UnixStream>)> {
    let input = std::io::stdin();
    let listening = getsockopt(&input, sockopt::AcceptConn)
        .context("descriptor 0 is no socket: the runner is started by systemd or by the daemon")?;
    if getsockopt(&input, sockopt::SockType)? != SockType::Stream {
        bail!("descriptor 0 is no stream socket");
    }
    let socket = input.as_fd().try_clone_to_owned()?;
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    if listening {
        Ok((Door::Listener(UnixListener::from(socket)), None))
    } else {
        Ok((Door::Dial, Some(UnixStream::from(socket))))
    }
}

/// Makes up the name of a new life. A sandbox may hide the kernel's words; the
/// runner of one attempt does without, because its daemon knows the boot.
pub(super) fn identity(door: &Door) -> anyhow::Result<Identity> {
    let boot = kernel_word("/proc/sys/kernel/random/boot_id");
    Ok(Identity {
        instance: random_name()?,
        boot: match door {
            Door::Listener(_) => boot?,
            Door::Dial => boot.unwrap_or_default(),
        },
        program: own_program()?,
    })
}

pub(super) fn random_name() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn kernel_word(path: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

/// Path of the installed program, also when it was replaced meanwhile.
pub(super) fn own_program() -> anyhow::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe").context("cannot read /proc/self/exe")?;
    let text = path.display().to_string();
    Ok(text.strip_suffix(" (deleted)").map_or(path, PathBuf::from))
}

/// Allows this process as many descriptors as it may have, and gives the
/// limits it was started with, for its children.
pub(super) fn raise_open_files() -> anyhow::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}
