//! Where a request came from, as the record keeps it beside each change.

use std::fmt;

use super::trace::Context;

/// Longest name of a request, in bytes.
pub const REQUEST_MAX: usize = 64;

/// The process and the request behind a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The process that asked, by the kernel's word; absent over the network.
    pub pid: Option<u32>,
    /// The request's name, as its client was told.
    pub request: Request,
    /// Where in a trace it was asked for.
    pub place: Option<Context>,
}

impl Origin {
    /// Nobody asked: the daemon acted by itself.
    pub const NONE: Self = Self {
        pid: None,
        request: Request {
            len: 0,
            bytes: [0; REQUEST_MAX],
        },
        place: None,
    };
}

/// The name of a request: short text that is copied and not shared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request {
    len: u8,
    bytes: [u8; REQUEST_MAX],
}

impl Default for Request {
    fn default() -> Self {
        Origin::NONE.request
    }
}

impl Request {
    /// The name that a text is; none where it is too long for one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut name = Self::default();
        if let Some(room) = name.bytes.get_mut(..text.len()) {
            room.copy_from_slice(text.as_bytes());
            name.len = u8::try_from(text.len()).unwrap_or(0);
        }
        name
    }

    /// The name; none where there was no request.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let bytes = self.bytes.get(..usize::from(self.len))?;
        let text = std::str::from_utf8(bytes).ok()?;
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().unwrap_or("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_a_name_of_up_to_64_bytes() {
        for (text, kept) in [
            ("", None),
            ("a-1", Some("a-1")),
            (&"é".repeat(32), Some(&*"é".repeat(32))),
            (&"x".repeat(65), None),
        ] {
            assert_eq!(Request::new(text).text(), kept, "{text}");
        }
    }
}
