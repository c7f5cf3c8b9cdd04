//! Strings as the kernel takes them, in one piece of memory.
//!
//! Until a child's program runs it has the same memory as the runner, and each
//! page that is written to is copied first. Many small pieces lie on many
//! pages, and to free one is to write to it.

use std::ffi::{CStr, c_char};
use std::ptr;

/// A list of strings, each with its NUL.
#[derive(Debug, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Words {
    /// These strings.
    ///
    /// # Errors
    /// One has a NUL byte in it: the sentence says which.
    pub(super) fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut all = Self::default();
        words.into_iter().try_for_each(|word| all.push(&[word]))?;
        Ok(all)
    }

    /// Adds one string, put together of parts.
    ///
    /// # Errors
    /// There is a NUL byte in it; then it is not added.
    pub(super) fn push(&mut self, parts: &[&str]) -> Result<(), String> {
        if parts.iter().any(|part| part.contains('\0')) {
            let shown: String = parts.concat().chars().take(40).collect();
            return Err(format!("there is a NUL byte in {shown:?}"));
        }
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.bytes.push(0);
        Ok(())
    }

    /// The strings, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CStr> {
        let word = |start: &usize| CStr::from_bytes_until_nul(self.bytes.get(*start..)?).ok();
        self.starts.iter().filter_map(word)
    }

    /// Where they are, with a null behind the last; good as long as this is.
    pub(super) fn pointers(&self) -> Vec<*const c_char> {
        let words = self.iter().map(CStr::as_ptr);
        words.chain([ptr::null()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_was_given_and_have_no_nul_inside() {
        let mut words = Words::of(["a", "", "c c"]).expect("words");
        words.push(&["NAME", "=", "value"]).expect("a word");
        let error = words.push(&["X=", "b\0d"]).expect_err("a NUL");
        assert_eq!(error, "there is a NUL byte in \"X=b\\0d\"");
        let all: Vec<_> = words.iter().collect();
        assert_eq!(all, [c"a", c"", c"c c", c"NAME=value"]);
        let pointers = words.pointers();
        assert_eq!(pointers.len(), 5);
        assert!(pointers.last().is_some_and(|last| last.is_null()));
    }
}
