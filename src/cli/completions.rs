//! `completions`: what a shell needs to complete this program's commands.

use std::io::{self, Write};

use clap::{Args as ClapArgs, Command, CommandFactory as _, ValueEnum};
use clap_complete::{Generator, Shell};

use super::{Cli, Outcome, Setting, not_in_json};

/// For which shell.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The shell
    shell: Known,
}

/// Shells that the package has a place for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// The command line without the verbs that are for our own tasks and nobody's
/// fingers.
pub(super) fn command() -> Command {
    let whole = Cli::command();
    let verbs = whole.get_subcommands();
    let verbs = verbs.filter(|verb| !verb.is_hide_set()).cloned();
    let about = whole.get_about().cloned().unwrap_or_default();
    let mut command = Command::new("taskdaemon")
        .about(about)
        .args(whole.get_arguments().cloned())
        .subcommands(verbs);
    command.set_bin_name("taskdaemon");
    command
}

/// `completions`.
pub(super) fn completions(args: &Args, setting: &Setting) -> Outcome {
    not_in_json(setting, "completions")?;
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut command = command();
    command.build();
    // Into memory first: a reader that goes away is an error and no panic.
    let mut script = Vec::new();
    shell.generate(&command, &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(0)
}
