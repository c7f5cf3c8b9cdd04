//! The pid file, for hosts and scripts that know a daemon by one.
//!
//! Whoever holds the lock is the daemon, and the kernel says who that is: a
//! record lock on one byte that only this program locks (`F_GETLK` names the
//! process). What is written in the file is for people and scripts and is never
//! believed, so nothing that a crash, a full disk or a hostile hand left there
//! can make us signal a stranger. The file is removed only by the holder, and
//! whoever gets the lock looks whether the file is still the one of that name.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::runner::pidfd::Process;

/// The byte that is locked, far behind any text ("task" as a number). Programs
/// that lock their pid files lock them whole.
const BYTE: libc::off_t = 0x7461_736b;
/// Longest text that can be a process number with its line end.
const TEXT_MAX: u64 = 24;
/// Tries to get hold of a file that others make and remove meanwhile.
const TRIES: u32 = 100;

/// A pid file that this process holds, from now to its end.
///
/// The lock is gone when any descriptor of the file is closed in this process:
/// nothing else here opens it.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
}

/// What a pid file tells.
#[derive(Debug)]
pub enum Found {
    /// There is none.
    Absent,
    /// It is empty, and nobody holds it: the daemon ended in order, and could
    /// not remove it.
    Unused,
    /// Nobody holds it, and it is not empty: the daemon did not end in order.
    Stale,
    /// This process holds it.
    Held(Process),
}

/// Why a pid file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon holds it.
    #[error("taskdaemon already runs, pid {pid} (pid file {})", path.display())]
    Held {
        /// Its process.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
    /// What is there is nothing that we could lock, or overwrite with a good
    /// conscience.
    #[error("pid file {}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        why: String,
    },
    /// The system refused.
    #[error("cannot {act} the pid file {}: {source}", path.display())]
    System {
        /// What was attempted.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl PidFile {
    /// Takes the file, makes it if need be, and writes this process into it.
    ///
    /// # Errors
    /// See [`Error`]; the file is as it was.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o644);
            let Some(mut file) = open(path, &mut options)? else {
                continue;
            };
            mine(&file, path)?;
            only_a_number(&mut file, path)?;
            match file.try_lock() {
                Ok(()) => drop(file.unlock()),
                Err(TryLockError::WouldBlock) => {
                    return Err(unusable(path, "is locked by another program"));
                }
                Err(TryLockError::Error(source)) => return Err(system("lock", path)(source)),
            }
            match fcntl(&file, FcntlArg::F_SETLK(&lock(libc::F_WRLCK))) {
                Ok(_) => {}
                Err(Errno::EACCES | Errno::EAGAIN) => {
                    if let Some(process) = holder(&file, path)? {
                        let (pid, path) = (process.pid(), path.to_owned());
                        return Err(Error::Held { pid, path });
                    }
                    continue;
                }
                Err(errno) => return Err(system("lock", path)(errno.into())),
            }
            // Its holder may have removed it between our opening and locking.
            if !is_at(&file, path) {
                continue;
            }
            let held = Self {
                file,
                path: path.to_owned(),
            };
            // Everybody may ask, whatever files are closed to them otherwise.
            let open = Permissions::from_mode(0o644);
            held.file
                .set_permissions(open)
                .map_err(system("open to all", path))?;
            return match held.write(&format!("{}\n", std::process::id())) {
                Ok(()) => Ok(held),
                Err(source) => {
                    held.release();
                    Err(system("write", path)(source))
                }
            };
        }
        Err(unusable(path, "comes and goes; is something removing it?"))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())
    }

    /// Gives the file up in order: empty, and gone where this user may.
    pub fn release(self) {
        let emptied = self.file.set_len(0);
        // Under the lock, and only what is still ours.
        let removed = if is_at(&self.file, &self.path) {
            fs::remove_file(&self.path)
        } else {
            Ok(())
        };
        if let Err(error) = emptied.or(removed) {
            tracing::debug!(%error, "the pid file stays");
        }
    }
}

/// Who holds a pid file, without changing anything.
///
/// # Errors
/// See [`Error`].
pub fn look(path: &Path) -> Result<Found, Error> {
    for _ in 0..TRIES {
        let Some(mut file) = open(path, OpenOptions::new().read(true))? else {
            return Ok(Found::Absent);
        };
        if let Some(process) = holder(&file, path)? {
            return Ok(Found::Held(process));
        }
        only_a_number(&mut file, path)?;
        if !is_at(&file, path) {
            continue;
        }
        let length = file.metadata().map_err(system("look at", path))?.len();
        return Ok(if length == 0 {
            Found::Unused
        } else {
            Found::Stale
        });
    }
    Err(unusable(path, "comes and goes; is something removing it?"))
}

/// The process that holds the lock, caught so that it can be no other.
fn holder(file: &File, path: &Path) -> Result<Option<Process>, Error> {
    let ask = || -> Result<Option<i32>, Error> {
        let mut found = lock(libc::F_WRLCK);
        fcntl(file, FcntlArg::F_GETLK(&mut found))
            .map_err(|errno| system("read the lock of", path)(errno.into()))?;
        if found.l_type == short(libc::F_UNLCK) {
            return Ok(None);
        }
        let pid = found.l_pid;
        if pid <= 0 {
            let why = "is held by a process that cannot be seen from here";
            return Err(unusable(path, why));
        }
        if (found.l_start, found.l_len) != (BYTE, 1) {
            let why = format!("is locked by process {pid}, which is no taskdaemon");
            return Err(unusable(path, &why));
        }
        Ok(Some(pid))
    };
    loop {
        let Some(pid) = ask()? else { return Ok(None) };
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
            Err(source) => return Err(system("find the holder of", path)(source)),
        };
        // It still holds the lock, so the number was its own all the time.
        if ask()? == Some(pid) {
            return Ok(Some(process));
        }
    }
}

/// Opens what is there if it can be a pid file; `None` when nothing is.
fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, Error> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if path.parent().is_none_or(Path::exists) {
                Ok(None)
            } else {
                Err(system("open", path)(error))
            };
        }
        Err(error) => {
            return Err(match error.raw_os_error() {
                Some(libc::ELOOP) => unusable(path, "is a symbolic link; name the file itself"),
                Some(libc::EISDIR) => unusable(path, "is a directory"),
                Some(libc::ENXIO) => unusable(path, "is no file"),
                _ => system("open", path)(error),
            });
        }
    };
    let meta = file.metadata().map_err(system("look at", path))?;
    judge(&meta).map_err(|why| unusable(path, &why))?;
    Ok(Some(file))
}

/// Whether something in the file system can be a pid file of ours: nobody but
/// root and this user may have a say in whom we signal.
fn judge(meta: &Metadata) -> Result<(), String> {
    if meta.is_dir() {
        return Err("is a directory".to_owned());
    }
    if !meta.is_file() {
        return Err("is no regular file".to_owned());
    }
    let own = nix::unistd::geteuid().as_raw();
    // Anybody may ask about root's, and root about a user's own.
    if meta.uid() != 0 && meta.uid() != own && own != 0 {
        return Err(format!("belongs to user {}", meta.uid()));
    }
    if meta.nlink() > 1 {
        return Err("has another name (hard link)".to_owned());
    }
    if meta.mode() & 0o022 != 0 {
        return Err("can be written by others; chmod go-w".to_owned());
    }
    Ok(())
}

/// Refuses to hold a file of somebody else, who could take it away.
fn mine(file: &File, path: &Path) -> Result<(), Error> {
    let meta = file.metadata().map_err(system("look at", path))?;
    if meta.uid() == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(unusable(path, &format!("belongs to user {}", meta.uid())))
}

/// Refuses a file that holds anything else than a number: somebody needs it.
fn only_a_number(file: &mut File, path: &Path) -> Result<(), Error> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(TEXT_MAX + 1).read_to_end(&mut text))
        .map_err(system("read", path))?;
    let digits = text.trim_ascii();
    let short = u64::try_from(text.len()).is_ok_and(|length| length <= TEXT_MAX);
    if short && digits.iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let why = "holds something else than a process number; move it away, or name another file";
    Err(unusable(path, why))
}

/// Whether the file still is the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let Ok(own) = file.metadata() else {
        return false;
    };
    fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()))
}

fn lock(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: BYTE,
        l_len: 1,
        l_pid: 0,
    }
}

/// The kernel's words are small; its structure has little room for them.
fn short(word: libc::c_int) -> libc::c_short {
    word.try_into().unwrap_or_default()
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::Unusable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

fn system(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::System { act, path, source }
}
