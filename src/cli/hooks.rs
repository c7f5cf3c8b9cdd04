//! Hooks on the command line: what follows a task's end.

use clap::{ArgGroup, Args as ClapArgs};

use crate::api::hooks::HookRule;
use crate::model::hook::Ends;

/// What to do when the task is over.
#[derive(Debug, Default, ClapArgs)]
#[group(id = "hook_args")]
#[command(group(ArgGroup::new("hooks").multiple(true).args(["hook_command", "hook_webhook"])))]
pub(super) struct Args {
    /// When it is over, run this program, once for each; it reads on standard input how it ended
    #[arg(long, value_name = "PROGRAM")]
    hook_command: Vec<String>,
    /// When it is over, send a POST request there, once for each
    #[arg(long, value_name = "URL")]
    hook_webhook: Vec<String>,
    /// Do so at these ends only: failed,cancelled,skipped,expired,succeeded
    #[arg(long, value_name = "LIST", requires = "hooks")]
    hook_on: Option<Ends>,
}

impl Args {
    /// The hooks that the arguments stand for.
    pub(super) fn rules(&self) -> Option<Vec<HookRule>> {
        let on = self.hook_on.clone().unwrap_or_default();
        let command = |program: &String| HookRule {
            on: on.clone(),
            command: Some(vec![program.clone()]),
            webhook: None,
        };
        let webhook = |url: &String| HookRule {
            on: on.clone(),
            command: None,
            webhook: Some(url.clone()),
        };
        let commands = self.hook_command.iter().map(command);
        let webhooks = self.hook_webhook.iter().map(webhook);
        let all: Vec<_> = commands.chain(webhooks).collect();
        (!all.is_empty()).then_some(all)
    }
}
