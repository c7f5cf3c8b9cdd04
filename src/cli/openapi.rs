//! `openapi`: what the HTTP API is, for programs. It needs no daemon.

use std::io::{self, Write};

use crate::api::openapi::document;

use super::Outcome;

/// `openapi`.
pub(super) fn openapi() -> Outcome {
    writeln!(io::stdout(), "{:#}", document())?;
    Ok(0)
}
