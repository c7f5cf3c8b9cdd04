//! Settings of the engine: how much at once, how much waiting.
//!
//! Plain values; `config` reads and checks them, the engine obeys them.

use std::path::PathBuf;

use crate::model::bound::Bound;
use crate::model::hook::{Act, Ends, Hook};
use crate::model::rate::Rate;
use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;

settings! {
    /// Settings of the engine, section `[engine]`.
    pub struct Options {
        /// Attempts running at once on this host.
        slots: u32 = 16, Live;
        /// Attempts running at once in a queue that has no limit of its own. Absent: only
        /// `slots` counts.
        queue_concurrency: Option<u32> = None, Live, "4";
        /// Most unfinished tasks; a submit beyond it is refused.
        backlog: u64 = 10_000_000, Live;
        /// Most tasks of one user that wait, for whatever it be; a submit beyond it is refused.
        /// Absent: only `backlog` counts. Like the next two it is for everyone, admins too.
        user_waiting: Option<u64> = None, Live, "100_000";
        /// Attempts of one user running at once. Absent: users share the slots.
        user_running: Option<u32> = None, Live, "8";
        /// Most submits of one user, each of one task or many. Absent: no limit.
        user_submits: Option<Rate> = None, Live, "\"600/1m\"";
        /// Most schedules of one user.
        user_schedules: u64 = 10_000, Live;
        /// Most agents of one user, each instance counted.
        user_agents: u64 = 2_000, Live;
        /// Starts of tasks that schedules make, on the whole host, or "none" for no limit. What is
        /// due beyond it starts later, in turn. Tasks that somebody hands in or triggers do not
        /// count.
        schedule_rate: Bound<Rate> = Bound::Most(Rate::SCHEDULES), Live;
        /// Most commands waiting for the engine; beyond it clients are told to try again.
        commands: u32 = 4096, Restart;
    }
}

settings! {
    /// Settings of hooks, section `[hooks]`: what follows the end of every task on this host,
    /// as a task of the same owner in the queue `hooks`.
    pub struct HookOptions {
        /// The ends that count: succeeded, failed, cancelled, skipped, expired. Empty: all.
        on: Ends = Ends::default(), Live;
        /// A program to run, with its arguments. Empty: none.
        command: Vec<String> = Vec::new(), Live;
        /// An address that a POST request is sent to. Absent: none.
        webhook: Option<String> = None, Live, "\"https://example.org/tasks\"";
        /// The file with the secret by which all webhooks are signed, those of tasks and queues
        /// too; read at start and at each reload. Absent: the credential `webhook-secret` of
        /// the service, where it has one; else webhooks are not signed.
        secret_file: Option<PathBuf> = None, Live, "\"/etc/taskdaemon/webhook-secret\"";
    }
}

impl HookOptions {
    /// The hooks that these settings stand for.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let command = (!self.command.is_empty()).then(|| Act::Command(self.command.clone()));
        let webhook = self.webhook.clone().map(Act::Webhook);
        let hook = |act| Hook {
            on: self.on.clone(),
            act,
        };
        command.into_iter().chain(webhook).map(hook).collect()
    }
}
