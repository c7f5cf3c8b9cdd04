//! Text for people: what a terminal may be shown, and tables.
//!
//! Names and output come from anyone. Bytes that a terminal would obey instead
//! of show (control characters of both sets, direction overrides) are written
//! out as escapes, so that no task can move the cursor, set a title, fill the
//! clipboard or turn a line around.

use std::io::{self, IsTerminal, Write};

use crate::telemetry::is_plain;

fn push(letter: char, out: &mut String) {
    if is_plain(letter) {
        out.push(letter);
    } else if letter.is_ascii() {
        out.push_str(&format!("\\x{:02x}", u32::from(letter)));
    } else {
        out.push_str(&format!("\\u{{{:x}}}", u32::from(letter)));
    }
}

/// One line of text as a terminal may be shown it.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        push(letter, &mut out);
    }
    out
}

/// A command as it could be typed.
#[must_use]
pub fn command(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b);
        if !word.is_empty() && word.bytes().all(plain) {
            word.clone()
        } else {
            format!("'{}'", escape(word).replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Makes output fit for a terminal, piece by piece.
#[derive(Debug, Default)]
pub struct Screen {
    /// The beginning of a letter whose end has not come yet.
    held: Vec<u8>,
}

impl Screen {
    /// What to show for the next bytes.
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let (good, bad) = match std::str::from_utf8(rest) {
                Ok(text) => (text, 0),
                Err(error) => {
                    let (good, _) = rest.split_at(error.valid_up_to());
                    // Valid up to there, says the line above.
                    let good = std::str::from_utf8(good).unwrap_or_default();
                    (good, error.error_len().unwrap_or(0))
                }
            };
            for letter in good.chars() {
                match letter {
                    '\n' | '\t' => out.push(letter),
                    _ => push(letter, &mut out),
                }
            }
            rest = rest.get(good.len()..).unwrap_or_default();
            if bad == 0 {
                break;
            }
            for byte in rest.iter().take(bad) {
                out.push_str(&format!("\\x{byte:02x}"));
            }
            rest = rest.get(bad..).unwrap_or_default();
        }
        self.held = rest.to_vec();
        out
    }

    /// What to show of a letter whose end never came.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        held.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }
}

/// Where a task's output goes: as it is, or fit for a terminal.
#[derive(Debug)]
pub struct Sink<W> {
    to: W,
    screen: Option<Screen>,
}

impl<W: Write + IsTerminal> Sink<W> {
    /// A way out; a terminal is protected unless `raw`.
    pub fn new(to: W, raw: bool) -> Self {
        let screen = (to.is_terminal() && !raw).then(Screen::default);
        Self { to, screen }
    }
}

impl<W: Write> Sink<W> {
    /// Passes bytes on at once.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.screen {
            Some(screen) => self.to.write_all(screen.show(bytes).as_bytes())?,
            None => self.to.write_all(bytes)?,
        }
        self.to.flush()
    }

    /// Passes on what was kept back.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(screen) = &mut self.screen {
            let rest = screen.finish();
            self.to.write_all(rest.as_bytes())?;
        }
        self.to.flush()
    }
}

/// Rows under headings, the columns lined up.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// At most so many letters, with a sign that some are missing.
#[must_use]
pub fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_would_obey_reaches_it() {
        for (bytes, shown) in [
            (&b"plain \xc3\xa4 text\n\tx"[..], "plain \u{e4} text\n\tx"),
            (b"\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
            (b"\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            (b"\x9b31m", "\\x9b31m"),
            ("user\u{202e}txt.exe".as_bytes(), "user\\u{202e}txt.exe"),
            (
                "\u{2066}a\u{2069}\u{200f}".as_bytes(),
                "\\u{2066}a\\u{2069}\\u{200f}",
            ),
            (b"50%\r100%\x08\x7f\0", "50%\\x0d100%\\x08\\x7f\\x00"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{1f980} ok".as_bytes(), "\u{1f980} ok"),
        ] {
            let mut whole = Screen::default();
            assert_eq!(whole.show(bytes) + &whole.finish(), shown);
            let mut pieces = Screen::default();
            let mut out: String = bytes.iter().map(|byte| pieces.show(&[*byte])).collect();
            out.push_str(&pieces.finish());
            assert_eq!(out, shown, "byte by byte");
        }
    }

    #[test]
    fn names_keep_to_their_line() {
        assert_eq!(escape("a\nb\u{85}\u{2028}"), "a\\x0ab\\u{85}\\u{2028}");
    }

    #[test]
    fn commands_are_shown_as_they_could_be_typed() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            command(&words(&["sh", "-c", "echo $(id) 'x'"])),
            "sh -c 'echo $(id) '\\''x'\\'''"
        );
        assert_eq!(command(&words(&["a", "", "b=c"])), "a '' b=c");
    }
}
