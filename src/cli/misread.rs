//! Arguments that cannot be read: what is said of them, and with which code.

use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use super::complain;

/// Says what is wrong with the arguments, or what was asked about them.
pub(super) fn misread(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    hint(error);
    let code = if printed.is_ok() {
        error.exit_code()
    } else {
        1
    };
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

/// Says where the command stands, to whoever knows other queues.
fn hint(error: &clap::Error) {
    let text = |kind| error.get(kind).map(ToString::to_string);
    let word = text(ContextKind::InvalidArg).filter(|word| !word.starts_with('-'));
    let usage = text(ContextKind::Usage).unwrap_or_default();
    if let (ErrorKind::UnknownArgument, Some(word)) = (error.kind(), word)
        && usage.contains("taskdaemon submit")
    {
        complain(&format!(
            "put the command behind `--`: taskdaemon submit -- {word} …"
        ));
    }
}
