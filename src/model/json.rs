//! JSON of others. A value takes up to hundreds of times the bytes that it is
//! written in, so how many of them a text may have is looked at before any is
//! made.

use serde_json::Value;

/// Most values of a text, as far as commas and brackets tell: each takes at most
/// some 300 bytes, so all of them some 20 MiB.
const VALUES_MAX: usize = 65_536;

/// Reads a text.
///
/// # Errors
/// It is no JSON, or has too many values.
pub fn read(text: &str) -> Result<Value, String> {
    let (mut is_text, mut is_escaped, mut values) = (false, false, 0);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => values += 1,
            _ => {}
        }
    }
    if values > VALUES_MAX {
        return Err(format!("it has more than {VALUES_MAX} values"));
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_many_times_its_size_is_not_read() {
        let many = |count: usize| format!("[{}[]]", "[1],".repeat(count));
        assert!(read(&many(VALUES_MAX / 2 - 1)).is_ok());
        let why = read(&many(VALUES_MAX / 2)).expect_err("too many");
        assert!(why.contains("more than 65536 values"), "{why}");
        let text = format!("\"{}\\\"[\"", ",[{".repeat(VALUES_MAX));
        assert!(read(&text).is_ok(), "a text is one value");
    }
}
