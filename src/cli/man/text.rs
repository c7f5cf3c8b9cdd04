//! Text as troff reads it.

/// A text of ours: what is between backquotes is bold, and nothing in it is a
/// request.
pub(super) fn roff(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut bold = false;
    for letter in text.chars() {
        match letter {
            '\\' => said.push_str("\\e"),
            '-' => said.push_str("\\-"),
            '`' => {
                bold = !bold;
                said.push_str(if bold { "\\fB" } else { "\\fR" });
            }
            other => said.push(other),
        }
    }
    if bold {
        said.push_str("\\fR");
    }
    if said.starts_with(['.', '\'']) {
        said.insert_str(0, "\\&");
    }
    said
}

/// A whole page without letters that some device does not have.
pub(super) fn plain(page: &str) -> String {
    let mut said = String::with_capacity(page.len());
    for letter in page.chars() {
        match letter {
            '…' => said.push_str("..."),
            ascii if ascii.is_ascii() => said.push(ascii),
            other => said.push_str(&format!("\\[u{:04X}]", u32::from(other))),
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_a_request() {
        assert_eq!(roff(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(roff("'tis --x"), "\\&'tis \\-\\-x");
        assert_eq!(roff("a `b` c\\d `e"), "a \\fBb\\fR c\\ed \\fBe\\fR");
        assert_eq!(plain("a…ü"), "a...\\[u00FC]");
    }
}
