//! Writes one attempt's output into its capture file, within its cap.
//!
//! The first bytes up to the cap are written as they come; of the rest the
//! last [`TAIL`] stay in memory and are written at the end, behind a mark that
//! says how many are missing between. A disk that is full drops bytes, and
//! never stops the task. The format is `model/capture.rs`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::model::attempt::AttemptKey;
use crate::model::capture::{MAGIC, Record, Stream};
use crate::model::time::Time;

/// Bytes of the end of an output that are kept beyond the cap.
const TAIL: usize = 64 * 1024;
/// Most pieces the kept end consists of, so that a task writing single bytes
/// costs no more memory than one writing lines.
const TAIL_PIECES: usize = 1024;
/// Room for records' heads beyond the cap.
const HEADS: u64 = 64 * 1024;

/// An open capture file and what was counted.
#[derive(Debug)]
pub(super) struct Capture {
    file: File,
    counts: Counts,
    tail: Tail,
    complained: bool,
}

/// The numbers of a capture, as they travel over a renewal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Where the next record begins.
    end: u64,
    cap: u64,
    pub(super) kept: u64,
    pub(super) dropped: u64,
    /// Dropped since the last record, and not marked by a gap yet.
    unmarked: u64,
    /// The cap was reached; everything goes into the tail.
    full: bool,
}

/// The end of the output, in memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tail {
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Piece {
    err: bool,
    at: Time,
    len: usize,
}

/// A capture over a renewal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    counts: Counts,
    tail: Tail,
}

impl Capture {
    /// Starts a capture in an empty file; whatever was in it goes.
    pub(super) fn create(file: OwnedFd, cap: u64) -> io::Result<Self> {
        let mut file = File::from(file);
        // Of a file that was cut to nothing, ext4 sees to it that what comes
        // after is written to the disk as soon as it is closed. Its length is
        // found by its end: a file that was asked for its times gets a finer
        // one with its next write, which no later one of the host may be behind
        // (Linux 6.13), the one of the database's log among them.
        if file.seek(SeekFrom::End(0))? > 0 {
            file.set_len(0)?;
        }
        Ok(Self::open(
            file,
            Counts {
                cap,
                ..Counts::default()
            },
            Tail::default(),
        ))
    }

    fn open(file: File, counts: Counts, tail: Tail) -> Self {
        Self {
            file,
            counts,
            tail,
            complained: false,
        }
    }

    /// Goes on after a renewal.
    pub(super) fn restore(file: OwnedFd, saved: Saved) -> Self {
        Self::open(File::from(file), saved.counts, saved.tail)
    }

    pub(super) fn saved(&self) -> Saved {
        Saved {
            counts: self.counts.clone(),
            tail: self.tail.clone(),
        }
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes bytes as they were read. `scratch` is room to put records
    /// together, shared by all captures.
    pub(super) fn take(
        &mut self,
        key: AttemptKey,
        stream: Stream,
        at: Time,
        bytes: &[u8],
        scratch: &mut Vec<u8>,
    ) {
        let counts = &mut self.counts;
        counts.full |= counts.end > counts.cap.saturating_mul(2).saturating_add(HEADS);
        let room = if counts.full {
            0
        } else {
            usize::try_from(counts.cap - counts.kept.min(counts.cap)).unwrap_or(usize::MAX)
        };
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        if !head.is_empty() {
            self.write(key, stream, at, head, scratch);
        }
        if !rest.is_empty() {
            self.counts.full = true;
            let lost = self.tail.take(stream, at, rest);
            self.counts.dropped += lost;
            self.counts.unmarked += lost;
        }
    }

    /// Writes the mark for what is missing, the kept end, and the last record.
    pub(super) fn finish(&mut self, key: AttemptKey, at: Time, scratch: &mut Vec<u8>) {
        let tail = std::mem::take(&mut self.tail);
        let (mut front, back) = tail.bytes.as_slices();
        let joined;
        if !back.is_empty() {
            joined = [front, back].concat();
            front = &joined;
        }
        for piece in tail.pieces {
            let stream = if piece.err { Stream::Err } else { Stream::Out };
            let (bytes, rest) = front.split_at(piece.len.min(front.len()));
            self.write(key, stream, piece.at, bytes, scratch);
            front = rest;
        }
        self.begin(at, scratch);
        Record::End { at }.encode(scratch);
        if self.append(key, scratch) {
            self.counts.unmarked = 0;
        }
    }

    fn write(
        &mut self,
        key: AttemptKey,
        stream: Stream,
        at: Time,
        bytes: &[u8],
        scratch: &mut Vec<u8>,
    ) {
        self.begin(at, scratch);
        Record::Data { stream, at, bytes }.encode(scratch);
        let len = bytes.len() as u64;
        if self.append(key, scratch) {
            self.counts.unmarked = 0;
            self.counts.kept += len;
        } else {
            self.counts.unmarked += len;
            self.counts.dropped += len;
        }
    }

    /// Puts down what must come before the next record.
    fn begin(&self, at: Time, scratch: &mut Vec<u8>) {
        scratch.clear();
        if self.counts.end == 0 {
            scratch.extend_from_slice(&MAGIC);
        }
        if self.counts.unmarked > 0 {
            let dropped = self.counts.unmarked;
            Record::Gap { at, dropped }.encode(scratch);
        }
    }

    /// Writes whole records, or nothing.
    fn append(&mut self, key: AttemptKey, records: &[u8]) -> bool {
        let end = self.counts.end;
        match self.file.write_all_at(records, end) {
            Ok(()) => {
                self.counts.end += records.len() as u64;
                true
            }
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    tracing::warn!(task = %key.task, attempt = key.number, %error,
                        "cannot write the capture file: output is dropped");
                }
                if let Err(error) = self.file.set_len(end) {
                    tracing::warn!(task = %key.task, attempt = key.number, %error,
                        "cannot cut a half record off the capture file");
                }
                false
            }
        }
    }
}

impl Tail {
    /// Adds bytes; says how many older ones had to go.
    fn take(&mut self, stream: Stream, at: Time, bytes: &[u8]) -> u64 {
        let err = stream == Stream::Err;
        let bytes_lost = bytes.len().saturating_sub(TAIL);
        let bytes = bytes.get(bytes_lost..).unwrap_or_default();
        match self.pieces.back_mut() {
            Some(last) if last.err == err && last.len + bytes.len() <= TAIL / 16 => {
                last.len += bytes.len();
            }
            _ => self.pieces.push_back(Piece {
                err,
                at,
                len: bytes.len(),
            }),
        }
        self.bytes.extend(bytes);
        let mut lost = bytes_lost;
        while self.bytes.len() > TAIL || self.pieces.len() > TAIL_PIECES {
            let over = self.bytes.len().saturating_sub(TAIL);
            let Some(first) = self.pieces.front_mut() else {
                break;
            };
            let gone = if over == 0 {
                first.len
            } else {
                over.min(first.len)
            };
            first.len -= gone;
            if first.len == 0 {
                self.pieces.pop_front();
            }
            self.bytes.drain(..gone);
            lost += gone;
        }
        lost as u64
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::model::capture::Decoder;
    use crate::model::id::TaskId;

    const KEY: AttemptKey = AttemptKey {
        task: TaskId(1),
        number: 1,
    };
    const T: Time = Time::from_micros(5);

    /// What a capture holds: text, and `[n]` for n bytes missing.
    fn shown(path: &std::path::Path) -> (Vec<u8>, u64, bool) {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let (mut text, mut dropped, mut over) = (Vec::new(), 0, false);
        while let Some(record) = decoder.next_record().unwrap() {
            match record {
                Record::Data { bytes, .. } => text.extend_from_slice(bytes),
                Record::Gap { dropped: n, .. } => dropped += n,
                Record::End { .. } => over = true,
            }
        }
        assert_eq!(decoder.pending(), 0);
        (text, dropped, over)
    }

    fn run(cap: u64, writes: &[&[u8]]) -> (Vec<u8>, u64, u64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut capture = Capture::create(file.reopen().unwrap().into(), cap).unwrap();
        let mut scratch = Vec::new();
        for bytes in writes {
            capture.take(KEY, Stream::Out, T, bytes, &mut scratch);
        }
        capture.finish(KEY, T, &mut scratch);
        let (text, dropped, over) = shown(file.path());
        assert!(over);
        assert_eq!(dropped, capture.counts().dropped);
        assert_eq!(text.len() as u64, capture.counts().kept);
        (text, dropped, capture.counts().kept)
    }

    #[test]
    fn keeps_everything_under_the_cap_and_a_little_over_it() {
        assert_eq!(run(10, &[b"abc", b"def"]).0, b"abcdef");
        assert_eq!(
            run(4, &[b"abc", b"def", b"ghi"]),
            (b"abcdefghi".to_vec(), 0, 9)
        );
        assert_eq!(run(0, &[b"abc"]).0, b"abc");
        assert_eq!(run(0, &[]), (Vec::new(), 0, 0));
    }

    #[test]
    fn keeps_head_and_tail_and_counts_the_middle() {
        let long: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let (text, dropped, kept) = run(1000, &[&long]);
        assert_eq!(kept, 1000 + 65536);
        assert_eq!(dropped + kept, 300_000);
        assert_eq!(text[..1000], long[..1000]);
        assert_eq!(text[1000..], long[300_000 - 65536..]);
    }

    #[test]
    fn single_bytes_past_the_cap_cost_bounded_memory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut capture = Capture::create(file.reopen().unwrap().into(), 10).unwrap();
        let mut scratch = Vec::new();
        for n in 0..200_000_u32 {
            let stream = if n % 2 == 0 { Stream::Out } else { Stream::Err };
            capture.take(KEY, stream, T, b"x", &mut scratch);
        }
        assert!(capture.tail.pieces.len() <= TAIL_PIECES);
        capture.finish(KEY, T, &mut scratch);
        let (text, dropped, _) = shown(file.path());
        assert_eq!(text.len() as u64 + dropped, 200_000);
    }

    #[test]
    fn a_full_disk_drops_and_marks_and_goes_on() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut capture = Capture::open(
            full,
            Counts {
                cap: 100,
                ..Counts::default()
            },
            Tail::default(),
        );
        let mut scratch = Vec::new();
        capture.take(KEY, Stream::Out, T, b"lost", &mut scratch);
        let file = tempfile::NamedTempFile::new().unwrap();
        capture.file = file.reopen().unwrap();
        capture.take(KEY, Stream::Out, T, b"kept", &mut scratch);
        capture.finish(KEY, T, &mut scratch);
        assert_eq!(shown(file.path()), (b"kept".to_vec(), 4, true));
    }
}
