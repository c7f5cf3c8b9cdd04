//! What an attempt reads: its standard input as an open file, also where that
//! is the output of another task, which is taken out of its capture file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::engine::effect::{Feed, Order};
use crate::model::attempt::AttemptKey;
use crate::model::capture::{Decoder, Record, Stream, file_name};
use crate::model::check::STDIN_MAX;
use crate::model::prompt::Call;

/// Bytes read from a capture file at a time.
const CHUNK: usize = 64 * 1024;

/// Why there is nothing to read.
#[derive(Debug)]
pub(super) enum Missing {
    /// The host was short of something.
    Scarce(io::Error),
    /// What it was to read is not whole.
    Lost(String),
}

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        Self::Scarce(error)
    }
}

/// Whether an attempt reads anything.
pub(super) const fn is_there(order: &Order) -> bool {
    match order.ours {
        None => order.stdin.is_some() || order.feed.is_some(),
        Some(_) => order.call.is_some() || order.stdin.is_some(),
    }
}

/// What an attempt reads; `dir` has the capture files.
pub(super) fn input(dir: &Path, order: &Order) -> Result<Option<File>, Missing> {
    let from = match &order.feed {
        None => None,
        Some(Feed::Output(key)) => Some(*key),
        Some(Feed::Missing(why)) => return Err(Missing::Lost(why.clone())),
    };
    match (&order.call, &order.stdin, from) {
        (Some(call), _, Some(key)) => {
            let call = asked(dir, call, key)?;
            Ok(Some(held(&call.to_json())?))
        }
        (Some(call), _, None) => Ok(Some(held(&call.to_json())?)),
        (None, _, Some(key)) if order.ours.is_none() => passed(dir, key).map(Some),
        (None, Some(data), _) => Ok(Some(held(data)?)),
        (None, None, _) => Ok(None),
    }
}

/// Bytes as a file in memory.
fn held(data: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(data)?;
    file.rewind()?;
    Ok(file)
}

/// A call whose text has the output of another task behind it.
fn asked(dir: &Path, call: &Call, key: AttemptKey) -> Result<Call, Missing> {
    let task = key.task;
    let mut bytes = Vec::new();
    copy(dir, key, &mut Capped(&mut bytes))?;
    let lost = |why: &str| Missing::Lost(format!("the output of task {task} {why}"));
    let output = String::from_utf8(bytes).map_err(|_| lost("is not UTF-8 text"))?;
    let text = if call.text.is_empty() {
        output
    } else {
        format!("{}\n\n{output}", call.text)
    };
    if text.trim().is_empty() {
        return Err(lost("is empty, so there is nothing to ask"));
    }
    if text.len() > STDIN_MAX {
        return Err(lost("is too long for a prompt, which has 1MiB at most"));
    }
    Ok(Call {
        text,
        ..call.clone()
    })
}

/// Output of any length as a file without a name, which can be read and no
/// more: whoever could write to it would write to the daemon's disk.
fn passed(dir: &Path, key: AttemptKey) -> Result<File, Missing> {
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(dir);
    let file = match unnamed {
        Ok(file) => file,
        // A file system that knows no files without names.
        Err(_) => {
            File::from(memfd_create("stdin", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?)
        }
    };
    let mut out = BufWriter::with_capacity(CHUNK, file);
    copy(dir, key, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    // Some programs open `/dev/stdin`, as whoever they run as.
    let mut mode = file.metadata()?.permissions();
    mode.set_mode(0o444);
    file.set_permissions(mode)?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
}

/// Copies all that an attempt wrote to its standard output, or fails.
fn copy(dir: &Path, key: AttemptKey, out: &mut impl Write) -> Result<(), Missing> {
    let task = key.task;
    let lost = |why: &str| Missing::Lost(format!("the output of task {task} {why}"));
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join(file_name(key)))
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return lost("is no longer kept");
            }
            Missing::Scarce(error)
        })?;
    let mut decoder = Decoder::new();
    let mut chunk = vec![0; CHUNK];
    let mut is_whole = false;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        decoder.push(chunk.get(..count).unwrap_or_default());
        while let Some(record) = decoder
            .next_record()
            .map_err(|why| lost(&format!("is damaged: {why}")))?
        {
            match record {
                Record::Data {
                    stream: Stream::Out,
                    bytes,
                    ..
                } => out.write_all(bytes).map_err(|error| {
                    if error.kind() == io::ErrorKind::FileTooLarge {
                        return lost("is too long for a prompt, which has 1MiB at most");
                    }
                    Missing::Scarce(error)
                })?,
                Record::Data { .. } => {}
                Record::Gap { dropped, .. } => {
                    return Err(lost(&format!(
                        "lacks {dropped} bytes, which were over its cap"
                    )));
                }
                Record::End { .. } => is_whole = true,
            }
        }
    }
    out.flush()?;
    if is_whole {
        Ok(())
    } else {
        Err(lost("has no end"))
    }
}

/// Bytes that may not become more than a prompt may have.
struct Capped<'a>(&'a mut Vec<u8>);

impl Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > STDIN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::capture::MAGIC;
    use crate::model::id::TaskId;
    use crate::model::time::Time;

    const KEY: AttemptKey = AttemptKey {
        task: TaskId(12),
        number: 1,
    };

    fn captured(records: &[Record<'_>]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("directory");
        let mut bytes = MAGIC.to_vec();
        records.iter().for_each(|record| record.encode(&mut bytes));
        fs::create_dir(dir.path().join("0")).expect("folder");
        fs::write(dir.path().join(file_name(KEY)), bytes).expect("write");
        dir
    }

    fn data(stream: Stream, bytes: &[u8]) -> Record<'_> {
        let at = Time::default();
        Record::Data { stream, at, bytes }
    }

    fn end() -> Record<'static> {
        Record::End {
            at: Time::default(),
        }
    }

    #[test]
    fn standard_output_alone_is_passed_on_and_cannot_be_written_to() {
        let long = vec![7; 300_000];
        let dir = captured(&[
            data(Stream::Out, b"one\n\xff"),
            data(Stream::Err, b"not this"),
            data(Stream::Out, &long),
            end(),
        ]);
        let mut file = passed(dir.path(), KEY).expect("a file");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("read");
        assert_eq!(read, [b"one\n\xff", long.as_slice()].concat());
        assert!(file.write_all(b"x").is_err(), "it is for reading");
        let left = fs::read_dir(dir.path()).expect("directory").count();
        assert_eq!(left, 1, "nothing with a name is left");
    }

    #[test]
    fn output_that_is_not_whole_is_not_passed_on() {
        let gap = Record::Gap {
            at: Time::default(),
            dropped: 5,
        };
        let half = data(Stream::Out, b"half");
        for (dir, words) in [
            (captured(&[half, gap, end()]), "lacks 5 bytes"),
            (captured(&[half]), "has no end"),
            (tempfile::tempdir().expect("directory"), "is no longer kept"),
        ] {
            let why = passed(dir.path(), KEY).expect_err(words);
            let said = format!("{why:?}");
            assert!(said.contains("task 12") && said.contains(words), "{said}");
        }
        let damaged = captured(&[half, end()]);
        fs::write(damaged.path().join(file_name(KEY)), "GET /").expect("write");
        let why = passed(damaged.path(), KEY).expect_err("damaged");
        assert!(format!("{why:?}").contains("is damaged"), "{why:?}");
    }
}
