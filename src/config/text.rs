//! Settings out of one text, without a file, an environment and a host.

use std::path::Path;

use super::file::Source;
use super::tree::Format;
use super::{Config, Layer, Origin, check, keys, merged};

/// Reads and checks a text. The name's ending says what it is: YAML or TOML.
///
/// # Errors
/// What is wrong with it.
pub fn read(name: &Path, text: &str) -> Result<Config, String> {
    let yaml = name.extension().is_some_and(|ending| ending == "yml");
    let format = if yaml { Format::Yaml } else { Format::Toml };
    let dict = format.parse(text).map_err(|fault| fault.message)?;
    let source = Source {
        path: name.to_owned(),
        format,
        text: text.to_owned(),
        open: false,
    };
    let mut layer = Layer {
        origin: Origin::File(source),
        dict,
    };
    keys::check(&mut layer).map_err(|error| error.to_string())?;
    let layers = [layer];
    let config: Config = merged(&layers)
        .extract()
        .map_err(|error| super::explain(&layers, error).to_string())?;
    check::check(&config).map_err(|found| found.message)?;
    Ok(config)
}
