//! The capture file: what a task wrote, in order of arrival, marked by stream
//! and time, with the places where bytes are missing.
//!
//! Bytes in, bytes out; no file is touched here. The file is [`MAGIC`] and then
//! records. A record is a head of [`HEAD`] bytes (tag, length in three bytes,
//! wall time in eight, all little-endian) and its body. The runner only ever
//! appends whole records, so a half one at the end means "not yet" while the
//! attempt runs and "cut off" once it is over.

use super::attempt::AttemptKey;
use super::time::Time;

/// First bytes of every capture file: a name, and the format's version.
pub const MAGIC: [u8; 8] = *b"tdcap\x001\n";
/// Length of a record's head.
pub const HEAD: usize = 12;
/// Longest body of a record; a longer one is damage.
pub const BODY_MAX: usize = 64 * 1024;

const TAG_OUT: u8 = b'o';
const TAG_ERR: u8 = b'e';
const TAG_GAP: u8 = b'g';
const TAG_END: u8 = b'z';

/// Which of a task's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One entry of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// Bytes that arrived together.
    Data {
        /// Where the task wrote them.
        stream: Stream,
        /// When they were read.
        at: Time,
        /// The bytes, exactly as written.
        bytes: &'a [u8],
    },
    /// Here bytes are missing: over the cap, or the disk was full.
    Gap {
        /// When the gap was closed.
        at: Time,
        /// How many bytes are missing.
        dropped: u64,
    },
    /// Nothing follows: the attempt is over.
    End {
        /// When the capture was closed.
        at: Time,
    },
}

/// The bytes are not a capture file, or not from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("capture file damaged at byte {at}: {why}")]
pub struct Damaged {
    /// Offset in the file of the first byte that makes no sense.
    pub at: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Record<'_> {
    /// Appends the record's bytes; data longer than [`BODY_MAX`] becomes
    /// several records, and no data becomes none.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Data { stream, at, bytes } => {
                let tag = match stream {
                    Stream::Out => TAG_OUT,
                    Stream::Err => TAG_ERR,
                };
                for body in bytes.chunks(BODY_MAX) {
                    append(out, tag, at, body);
                }
            }
            Self::Gap { at, dropped } => append(out, TAG_GAP, at, &dropped.to_le_bytes()),
            Self::End { at } => append(out, TAG_END, at, &[]),
        }
    }
}

fn append(out: &mut Vec<u8>, tag: u8, at: Time, body: &[u8]) {
    // Bodies are at most BODY_MAX long, so three bytes hold the length.
    let [a, b, c, ..] = body.len().to_le_bytes();
    out.extend_from_slice(&[tag, a, b, c]);
    out.extend_from_slice(&at.micros().to_le_bytes());
    out.extend_from_slice(body);
}

/// Reads the record that `input` begins with, and says how long it is. `None`
/// when the record is not there as a whole.
///
/// # Errors
/// The reason, when no record can begin like this.
pub fn decode(input: &[u8]) -> Result<Option<(Record<'_>, usize)>, &'static str> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD>() else {
        return match input.first() {
            Some(tag) if !known(*tag) => Err("unknown kind of record"),
            _ => Ok(None),
        };
    };
    let [tag, a, b, c, time @ ..] = *head;
    let len = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    let at = Time::from_micros(i64::from_le_bytes(time));
    if !known(tag) {
        return Err("unknown kind of record");
    }
    if len > BODY_MAX {
        return Err("record longer than any is written");
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    let data = |stream| Record::Data {
        stream,
        at,
        bytes: body,
    };
    let record = match tag {
        TAG_OUT => data(Stream::Out),
        TAG_ERR => data(Stream::Err),
        TAG_GAP => match body.first_chunk::<8>() {
            Some(count) if len == 8 => Record::Gap {
                at,
                dropped: u64::from_le_bytes(*count),
            },
            _ => return Err("gap record of the wrong length"),
        },
        _ if len == 0 => Record::End { at },
        _ => return Err("end record with a body"),
    };
    Ok(Some((record, HEAD + len)))
}

const fn known(tag: u8) -> bool {
    matches!(tag, TAG_OUT | TAG_ERR | TAG_GAP | TAG_END)
}

/// Decodes a capture file piece by piece, as it is read or as it grows.
///
/// Give it bytes with [`push`](Self::push), take records until there is none,
/// give it more. It holds at most what was pushed and not yet taken.
#[derive(Debug)]
pub struct Decoder {
    held: Vec<u8>,
    used: usize,
    offset: u64,
    damaged: Option<Damaged>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder for a file from its first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self::from_offset(0)
    }

    /// A decoder that goes on at an [`offset`](Self::offset) where another
    /// stopped; push the bytes from there.
    #[must_use]
    pub const fn from_offset(offset: u64) -> Self {
        Self {
            held: Vec::new(),
            used: 0,
            offset,
            damaged: None,
        }
    }

    /// Offset in the file of the first byte not yet taken as part of a record.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes pushed that do not make a whole record yet. Not zero after the
    /// last byte of a finished attempt's file: its end is cut off.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.held.len() - self.used
    }

    /// Adds the bytes that follow those already pushed.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.used);
        self.used = 0;
        self.held.extend_from_slice(bytes);
    }

    /// The next record, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`Damaged`], now and at each later call: there is no way to find the
    /// next record behind a damaged one.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Damaged> {
        if let Some(damaged) = self.damaged {
            return Err(damaged);
        }
        if self.offset < MAGIC.len() as u64 && !self.begin()? {
            return Ok(None);
        }
        match decode(self.held.get(self.used..).unwrap_or_default()) {
            Ok(Some((record, len))) => {
                self.used += len;
                self.offset += len as u64;
                Ok(Some(record))
            }
            Ok(None) => Ok(None),
            Err(why) => {
                let damaged = Damaged {
                    at: self.offset,
                    why,
                };
                self.damaged = Some(damaged);
                Err(damaged)
            }
        }
    }

    /// Takes the file's first bytes; false when they are not all there.
    fn begin(&mut self) -> Result<bool, Damaged> {
        let there = self.held.get(self.used..).unwrap_or_default();
        let len = there.len().min(MAGIC.len());
        if self.offset != 0 || there.get(..len) != MAGIC.get(..len) {
            let damaged = Damaged {
                at: 0,
                why: "it does not begin like one",
            };
            self.damaged = Some(damaged);
            return Err(damaged);
        }
        if len < MAGIC.len() {
            return Ok(false);
        }
        self.used += MAGIC.len();
        self.offset = MAGIC.len() as u64;
        Ok(true)
    }
}

/// Where the capture file of an attempt lies below the directory of all of
/// them: a thousand tasks to a folder, so that none grows without bound.
#[must_use]
pub fn file_name(key: AttemptKey) -> String {
    format!("{}/{}.{}", key.task.0 / 1000 * 1000, key.task, key.number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Time = Time::from_micros(1_700_000_000_000_000);

    fn sample() -> (Vec<u8>, Vec<Record<'static>>) {
        let records = vec![
            Record::Data {
                stream: Stream::Out,
                at: T,
                bytes: b"one\n\x00\xff",
            },
            Record::Data {
                stream: Stream::Err,
                at: T,
                bytes: b"two",
            },
            Record::Gap {
                at: T,
                dropped: u64::MAX,
            },
            Record::End { at: T },
        ];
        let mut file = MAGIC.to_vec();
        for record in &records {
            record.encode(&mut file);
        }
        (file, records)
    }

    #[test]
    fn comes_back_as_written_whatever_the_pieces() {
        let (file, records) = sample();
        for size in 1..=file.len() {
            let mut decoder = Decoder::new();
            let mut seen = 0;
            for piece in file.chunks(size) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    assert_eq!(record, records[seen]);
                    seen += 1;
                }
            }
            assert_eq!((seen, decoder.pending()), (records.len(), 0));
            assert_eq!(decoder.offset(), file.len() as u64);
        }
    }

    #[test]
    fn goes_on_where_another_stopped() {
        let (file, records) = sample();
        let mut first = Decoder::new();
        first.push(&file);
        assert_eq!(first.next_record(), Ok(Some(records[0])));
        let at = first.offset();
        let mut second = Decoder::from_offset(at);
        second.push(&file[usize::try_from(at).unwrap()..]);
        assert_eq!(second.next_record(), Ok(Some(records[1])));
    }

    #[test]
    fn a_cut_file_is_pending_and_never_a_record() {
        let (file, records) = sample();
        for cut in 0..file.len() {
            let mut decoder = Decoder::new();
            decoder.push(&file[..cut]);
            let mut seen = 0;
            while let Some(record) = decoder.next_record().unwrap() {
                assert_eq!(record, records[seen]);
                seen += 1;
            }
            assert!(seen < records.len());
        }
    }

    #[test]
    fn long_data_is_split() {
        let long = vec![7; BODY_MAX * 2 + 1];
        let mut out = Vec::new();
        Record::Data {
            stream: Stream::Out,
            at: T,
            bytes: &long,
        }
        .encode(&mut out);
        assert_eq!(out.len(), long.len() + 3 * HEAD);
    }

    #[test]
    fn damage_is_named_once_and_for_all() {
        let mut decoder = Decoder::new();
        decoder.push(b"GET / HTTP/1.1\r\n");
        let damaged = decoder.next_record().unwrap_err();
        assert_eq!(
            damaged.to_string(),
            "capture file damaged at byte 0: it does not begin like one"
        );
        decoder.push(&MAGIC);
        assert_eq!(decoder.next_record(), Err(damaged));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..512), good in any::<bool>()) {
            let mut decoder = Decoder::new();
            if good {
                decoder.push(&MAGIC);
            }
            decoder.push(&garbage);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }
}
