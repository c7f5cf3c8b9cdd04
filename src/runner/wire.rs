//! Frames: a length and that many bytes of JSON, out of and into byte buffers.
//!
//! Used by both ends. No descriptor and no socket is touched here; whoever
//! owns the stream moves the bytes.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::FRAME_MAX;

/// Length of the number before each frame.
const PREFIX: usize = 4;

/// Room a buffer keeps after a long frame.
const KEEP: usize = 256 * 1024;

/// What came is not a frame of this protocol; nothing after it can be trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// Longer than anything that is sent.
    #[error("frame of {0} bytes, more than the {FRAME_MAX} allowed")]
    TooLong(usize),
    /// Not JSON, or not a message known here.
    #[error("frame that is no message: {0}")]
    NoMessage(#[source] serde_json::Error),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error.to_string())
    }
}

/// Appends a message as one frame.
///
/// # Errors
/// [`FrameError`] when it is too long to be accepted; `out` is as before.
pub(super) fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let written = serde_json::to_writer(&mut *out, message).map_err(FrameError::NoMessage);
    let len = out.len() - start - PREFIX;
    let outcome = match (written, u32::try_from(len)) {
        (Err(error), _) => Err(error),
        (Ok(()), Ok(short)) if len <= FRAME_MAX => Ok(short),
        (Ok(()), _) => Err(FrameError::TooLong(len)),
    };
    match outcome {
        Ok(short) => {
            if let Some(prefix) = out.get_mut(start..start + PREFIX) {
                prefix.copy_from_slice(&short.to_le_bytes());
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Bytes that came and are not yet messages.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: Vec<u8>,
    used: usize,
}

impl Inbox {
    /// Adds bytes as they came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.held.drain(..self.used);
            self.used = 0;
            self.held.shrink_to(KEEP);
        }
        self.held.extend_from_slice(bytes);
    }

    /// True when no part of a message is waiting for the rest.
    pub(super) const fn is_empty(&self) -> bool {
        self.held.len() == self.used
    }

    /// The next whole message.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let there = self.held.get(self.used..).unwrap_or_default();
        let Some((prefix, rest)) = there.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > FRAME_MAX {
            return Err(FrameError::TooLong(len));
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        self.used += PREFIX + len;
        serde_json::from_slice(body)
            .map(Some)
            .map_err(FrameError::NoMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::AttemptKey;
    use crate::model::id::TaskId;
    use crate::runner::protocol::ToRunner;

    fn messages() -> Vec<ToRunner> {
        let key = AttemptKey {
            task: TaskId(7),
            number: 2,
        };
        vec![
            ToRunner::Renew,
            ToRunner::Signal { key, signal: 15 },
            ToRunner::Ack { key },
        ]
    }

    #[test]
    fn frames_survive_being_split_at_every_byte() {
        let mut bytes = Vec::new();
        for message in messages() {
            encode(&message, &mut bytes).unwrap();
        }
        for cut in 0..=bytes.len() {
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                inbox.push(part);
                while let Some(message) = inbox.next::<ToRunner>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages());
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn a_frame_too_long_is_refused_from_its_length_alone() {
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        let error = inbox.next::<ToRunner>().unwrap_err();
        assert!(matches!(error, FrameError::TooLong(_)), "{error}");
        let mut out = vec![1];
        assert!(encode(&"x".repeat(FRAME_MAX), &mut out).is_err());
        assert_eq!(out, [1]);
    }

    #[test]
    fn garbage_is_an_error_with_a_reason() {
        let mut inbox = Inbox::default();
        inbox.push(&[3, 0, 0, 0, b'{', 0xff, b'}']);
        let error = inbox.next::<ToRunner>().unwrap_err();
        assert!(error.to_string().starts_with("frame that is no message"));
    }
}
