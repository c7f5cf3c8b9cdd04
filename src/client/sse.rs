//! Blocks of an event stream out of the bytes of a response.

use bytes::{Buf, BytesMut};

use super::Error;

/// Longest block.
const BLOCK_MAX: usize = 4 * 1024 * 1024;

/// What stands between two empty lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Where to go on behind it.
    pub(super) id: Option<String>,
    /// What it is; a plain message when absent.
    pub(super) event: Option<String>,
    /// Its content.
    pub(super) data: Option<String>,
}

/// Takes blocks out of bytes.
#[derive(Debug, Default)]
pub(super) struct Blocks(BytesMut);

impl Blocks {
    /// Forgets half a block: its connection is gone.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes in what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next block; none until more bytes come.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Error> {
        let Some(len) = self.0.windows(2).position(|pair| pair == b"\n\n") else {
            if self.0.len() > BLOCK_MAX {
                return Err(Error::Strange("an event without an end".to_owned()));
            }
            return Ok(None);
        };
        let block = self.0.copy_to_bytes(len + 2);
        let text = String::from_utf8_lossy(&block);
        let field = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned)
        };
        Ok(Some(Block {
            id: field("id"),
            event: field("event"),
            data: field("data"),
        }))
    }
}
