//! Floor 3: work out. Effects become messages to runners, and what runners
//! report becomes commands.
//!
//! Two threads: `link` keeps the connection and listens, `launch` carries out
//! effects in order. Neither decides anything: what a lost connection means is
//! for the engine to say when the next runner has introduced itself.

mod launch;
mod link;
pub mod options;
mod own;

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};

use crate::engine::command::Command;
use crate::engine::effect::Effect;

use options::Options;

/// Starts the room's threads. They end when the engine is gone.
///
/// # Errors
/// A thread could not be started.
pub fn start(
    options: Options,
    output: PathBuf,
    effects: Receiver<Vec<Effect>>,
    commands: SyncSender<Command>,
) -> std::io::Result<()> {
    // The engine asks `launch` to take the new connection when it has seen the
    // runner's introduction, so at most a few can wait here.
    let (attach, attached) = mpsc::sync_channel(8);
    let launcher = launch::Launcher::new(&options, output, attached, commands.clone());
    std::thread::Builder::new()
        .name("launch".to_owned())
        .spawn(move || launcher.carry_out(&effects))?;
    std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || link::Link::new(options, attach, commands).keep())?;
    Ok(())
}
