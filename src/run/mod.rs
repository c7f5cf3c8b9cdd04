//! Floor 3: work out. Effects become messages to runners, and what runners
//! report becomes commands.
//!
//! `link` keeps the connection to the shared runner and listens, `launch`
//! carries out effects in order. An attempt in a sandbox profile has a runner
//! and a thread of its own (`profile`), which after a restart comes to the
//! report socket or is looked for (`report`). `sweep` removes the capture files
//! of what is not kept any more. None of them decides anything:
//! what a lost connection means is for the engine to say.

mod input;
mod instances;
mod launch;
mod link;
pub mod options;
pub mod own;
mod profile;
mod report;
mod stock;
mod sweep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use crate::engine::command::Command;
use crate::engine::effect::Batch;

use instances::Instances;
use options::Options;
use sweep::Sweeper;

/// Starts the room's threads. They end when the engine is gone.
///
/// # Errors
/// A thread could not be started.
pub fn start(
    options: Options,
    output: PathBuf,
    effects: Receiver<Batch>,
    commands: SyncSender<Command>,
) -> std::io::Result<()> {
    // The engine asks `launch` to take the new connection when it has seen the
    // runner's introduction, so at most a few can wait here.
    let (attach, attached) = mpsc::sync_channel(8);
    let instances = Arc::new(Instances::default());
    open_report_socket(&options, &commands, &instances)?;
    let (seekers, reports) = (Arc::clone(&instances), commands.clone());
    std::thread::Builder::new()
        .name("search".to_owned())
        .spawn(move || report::search(&reports, &seekers))?;
    let sweeper = Sweeper::start(output.clone(), commands.clone())?;
    let launcher = launch::Launcher::new(
        &options,
        output,
        attached,
        commands.clone(),
        instances,
        sweeper,
    );
    std::thread::Builder::new()
        .name("launch".to_owned())
        .spawn(move || launcher.carry_out(&effects))?;
    std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || link::Link::new(options, attach, commands).keep())?;
    Ok(())
}

/// Without it the daemon does all it does but one thing.
fn open_report_socket(
    options: &Options,
    commands: &SyncSender<Command>,
    instances: &Arc<Instances>,
) -> std::io::Result<()> {
    let listener = match report::bind(&options.report_socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                "cannot listen on {}: {error}; attempts in sandbox profiles that run while the \
                 daemon restarts will be taken for lost",
                options.report_socket.display()
            );
            return Ok(());
        }
    };
    let (commands, instances) = (commands.clone(), Arc::clone(instances));
    std::thread::Builder::new()
        .name("report".to_owned())
        .spawn(move || report::accept(&listener, &commands, &instances))?;
    Ok(())
}
