//! Names and values as forms write them: `a=b&c=d`, percent-encoded.

/// Reads pairs; none where an escape is broken or what comes out is no UTF-8.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A text as it may stand in a path or behind `?`.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_out_as_they_went_in() {
        for text in ["", "a b", "ä&=%+#?/🦀", "\r\n\0", "<script>"] {
            let line = format!("x={}&y=1", encode(text));
            let expected = vec![
                ("x".to_owned(), text.to_owned()),
                ("y".to_owned(), "1".to_owned()),
            ];
            assert_eq!(parse(&line), Some(expected), "{text:?}");
        }
        assert_eq!(parse("a+b"), Some(vec![("a b".to_owned(), String::new())]));
        for bad in ["a=%", "a=%4", "a=%zz", "%ff=1", "a=%C3%28"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
