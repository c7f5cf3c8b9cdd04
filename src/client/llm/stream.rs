//! Events out of a byte stream, as the HTML standard has them (server-sent
//! events): lines end in CR, LF or CRLF, several `data` lines make one, and
//! comments are nothing.

/// Longest line, and most data of one event.
const EVENT_MAX: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its kind, where it names one.
    pub(super) kind: Option<String>,
    /// Its content.
    pub(super) data: String,
}

/// Takes events out of bytes.
#[derive(Debug, Default)]
pub(super) struct Stream {
    line: Vec<u8>,
    /// The last byte was a CR: a LF now belongs to it.
    after_cr: bool,
    event: Event,
    /// Whether the event has data yet.
    filled: bool,
    /// The first line may begin with a mark of its encoding.
    begun: bool,
}

impl Stream {
    /// Takes in bytes; the events that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&line)?);
                }
                byte => {
                    if self.line.len() >= EVENT_MAX {
                        return Err("a line without an end".to_owned());
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    /// Nothing more comes: what stands there without its empty line is taken
    /// as well, since some servers leave out the last one.
    pub(super) fn end(&mut self) -> Result<Vec<Event>, String> {
        let mut events = self.push(b"\n")?;
        events.extend(self.push(b"\n")?);
        Ok(events)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Event>, String> {
        let mut text = std::str::from_utf8(line).map_err(|_| "a line that is not UTF-8")?;
        if !std::mem::replace(&mut self.begun, true) {
            text = text.trim_start_matches('\u{feff}');
        }
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            let filled = std::mem::take(&mut self.filled);
            return Ok(filled.then_some(event));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.kind = Some(value.to_owned()),
            "data" => {
                if self.event.data.len() + value.len() > EVENT_MAX {
                    return Err("an event without an end".to_owned());
                }
                if std::mem::replace(&mut self.filled, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments, and fields that mean nothing to us.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut stream = Stream::default();
        let mut all = Vec::new();
        for piece in pieces {
            all.extend(stream.push(piece).expect("events"));
        }
        all.extend(stream.end().expect("events"));
        all.into_iter()
            .map(|event| (event.kind, event.data))
            .collect()
    }

    #[test]
    fn lines_end_in_three_ways_and_bytes_come_in_any_pieces() {
        let plain = |data: &str| (None, data.to_owned());
        for end in ["\n", "\r", "\r\n"] {
            let text = ["data: a", "", ": comment", "data:b", "data: c", "", ""].join(end);
            let expected = [plain("a"), plain("b\nc")];
            assert_eq!(events(&[text.as_bytes()]), expected, "{end:?}");
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&single), expected, "{end:?}, byte by byte");
        }
    }

    #[test]
    fn kinds_marks_unknown_fields_and_a_missing_last_line() {
        let text = "\u{feff}event: ping\ndata: {}\n\nid: 7\nretry: 10\n\ndata\n\ndata: last";
        let named = (Some("ping".to_owned()), "{}".to_owned());
        let expected = [named, (None, String::new()), (None, "last".to_owned())];
        assert_eq!(events(&[text.as_bytes()]), expected);
    }

    #[test]
    fn what_has_no_end_and_what_is_no_text_is_refused() {
        let mut stream = Stream::default();
        let long = vec![b'x'; EVENT_MAX + 1];
        assert!(stream.push(&long).is_err());
        assert!(Stream::default().push(b"data: \xff\n").is_err());
    }
}
