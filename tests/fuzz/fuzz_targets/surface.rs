//! Feeds one surface, the one that `SURFACE` names, with whatever libFuzzer thinks of.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use taskdaemon::surfaces;

static READ: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let name = std::env::var("SURFACE").unwrap_or_default();
    let found = surfaces::ALL.into_iter().find(|(known, _)| *known == name);
    match found {
        Some((_, read)) => read,
        None => {
            let names: Vec<_> = surfaces::ALL.iter().map(|(name, _)| *name).collect();
            panic!("SURFACE must name one of {}", names.join(", "));
        }
    }
}

fuzz_target!(|bytes: &[u8]| READ.get_or_init(chosen)(bytes));
