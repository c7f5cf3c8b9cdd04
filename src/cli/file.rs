//! Small files of text that arguments name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::model::quantity::ByteSize;

use super::Failure;

/// The text of a file that `flag` names, of so many bytes at most.
pub(super) fn text(flag: &str, path: &Path, most: usize) -> Result<String, Failure> {
    let name = path.display();
    let refuse = |why: String| Failure::Usage(format!("{flag} {name}: {why}"));
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if bytes.len() > most {
        return Err(refuse(format!("is longer than {}", ByteSize(limit))));
    }
    String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".to_owned()))
}
