//! A commit that others wait for while it is on its way to the disk.
//!
//! A pipe, since those who wait may be other processes: a byte in it, which
//! nobody takes out, says that the commit is on disk. A pipe that ends without
//! one says that it never will be, however its writer ended.

use std::io::{self, PipeReader, PipeWriter, Write as _, pipe};

/// The end that speaks.
#[derive(Debug)]
pub struct Promise(PipeWriter);

impl Promise {
    /// A promise, and the end that is waited at.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn new() -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = pipe()?;
        Ok((Self(writer), reader))
    }

    /// Says that the commit is on disk. That nobody waits is no error.
    pub fn keep(mut self) {
        self.0.write_all(b"!").ok();
    }
}
