//! System tests: the built package, driven from outside on booted Debian 12 and Debian 13 containers.
//!
//! They need root, `systemd-nspawn` and `debootstrap`, so they are ignored by a plain `cargo test`; `tests/run` runs
//! them. Each test gets a container of its own, see `bed.rs`.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests watch real systems from outside: they wait and measure in real time"
)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::or_fun_call,
    reason = "all of this is test code, which clippy cannot see outside of test functions"
)]

mod bed;
mod clients;
mod doors;
mod host;
mod witness;

mod config;
mod crowd;
mod hostile;
mod install;
mod isolation;
mod kill;
mod ladder;
mod leave;
mod load;
mod notices;
mod own;
mod pause;
mod profile;
mod prometheus;
mod prompt;
mod renew;
mod security;
mod survive;
mod sysv;
mod unit;
mod whole;

/// Makes two tests of one function: it is run on a fresh container of each release.
macro_rules! on_both_releases {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            #[ignore = "needs root and containers; tests/run runs it"]
            fn bookworm() {
                super::$name(&$crate::bed::Bed::boot("bookworm", concat!(module_path!(), "-bookworm")));
            }

            #[test]
            #[ignore = "needs root and containers; tests/run runs it"]
            fn trixie() {
                super::$name(&$crate::bed::Bed::boot("trixie", concat!(module_path!(), "-trixie")));
            }
        }
    )+};
}
pub(crate) use on_both_releases;
