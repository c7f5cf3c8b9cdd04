//! Reading the settings again: all or nothing.
//!
//! New settings are read and checked as a whole before anything obeys them. A
//! refusal leaves every old value in force and says why, where and in which
//! file; `systemctl reload` fails with it.

use crate::api::{self, Tuner};
use crate::config::print::changes;
use crate::config::{self, Config, Sources};
use crate::engine::command::{Caller, Command};
use crate::engine::handle::Handle;
use crate::engine::prompts::Door;
use crate::engine::record::{Ask, Note};
use crate::model::event::Kind;
use crate::model::origin::Origin;
use crate::telemetry;

use super::hooks;
use super::prompts;

/// Everything that can obey a new value while it works.
pub(super) struct Reloader<'a> {
    pub(super) sources: Sources,
    /// The settings that the process began with.
    pub(super) started: Config,
    /// The settings in force.
    pub(super) settings: Config,
    pub(super) handle: Handle,
    /// Our own program's file.
    pub(super) program: String,
    /// Where tasks ask models.
    pub(super) door: Option<Door>,
    pub(super) tuner: Tuner,
    pub(super) log: &'a telemetry::Guard,
}

impl Reloader<'_> {
    /// Reads the settings and puts them in force. The answer lists what
    /// changed.
    ///
    /// # Errors
    /// Why they were refused, on one line.
    pub(super) async fn reload(&mut self, caller: Option<Caller>) -> Result<Vec<String>, String> {
        let result = self.try_reload();
        if let Ok(changes) = &result {
            self.note(caller, changes).await;
        }
        match &result {
            Ok(changes) => tracing::info!(
                message_id = telemetry::id::RELOADED,
                "configuration reloaded: {}",
                if changes.is_empty() {
                    "no change".to_owned()
                } else {
                    changes.join(", ")
                }
            ),
            Err(why) => tracing::error!(
                message_id = telemetry::id::RELOAD_REFUSED,
                "configuration refused, the old one stays in force: {why}"
            ),
        }
        result
    }

    /// Puts on the record who changed what. It is on disk when the reload is
    /// answered.
    async fn note(&self, caller: Option<Caller>, changes: &[String]) {
        let note = |reply| Note {
            kind: Kind::Reloaded,
            actor: caller.map(|caller| caller.uid),
            origin: caller.map_or(Origin::NONE, |caller| caller.origin),
            data: serde_json::json!({ "changed": changes }),
            reply: Some(reply),
        };
        if let Err(error) = self.handle.note(note).await {
            tracing::warn!("the reload is not on the record: {error}");
        }
    }

    fn try_reload(&mut self) -> Result<Vec<String>, String> {
        let loaded = config::load(&self.sources).map_err(|error| error.to_string())?;
        let new = loaded.config;
        // Everything that can refuse comes first, so that nothing is half done.
        api::check(new.api.clone()).map_err(|error| format!("api: {error}"))?;
        telemetry::check(&new.log).map_err(|error| format!("log: {error}"))?;
        let hooks = hooks::resolve(&new.hooks, &self.program).map_err(|error| error.to_string())?;
        let prompts = prompts::resolve(&new.llm, &self.program, self.door.clone())
            .map_err(|error| error.to_string())?;
        failpoint!("daemon/reload/checked");
        let options = new.engine.clone();
        self.handle
            .commands()
            .try_send(Command::Configure {
                options,
                hooks,
                prompts,
            })
            .map_err(|_| "the engine is busy; try again in a moment".to_owned())?;
        self.handle
            .commands()
            .try_send(Command::Record(Ask::Retain(new.retention.clone())))
            .map_err(|_| "the engine is busy; try again in a moment".to_owned())?;
        failpoint!("daemon/reload/half");
        let applied = self
            .tuner
            .apply(new.api.clone())
            .map_err(|error| error.to_string());
        let filtered = self
            .log
            .set_filter(&new.log)
            .map_err(|error| error.to_string());
        if let Err(error) = applied.and(filtered) {
            tracing::warn!("{error}, although it was checked before; that part stays as it was");
        }
        // What needs a restart is told each time until there was one.
        let live = changes(&self.settings, &new)
            .into_iter()
            .filter(|change| !change.restart);
        let later = changes(&self.started, &new)
            .into_iter()
            .filter(|change| change.restart);
        let all = live.chain(later).map(|change| change.to_string()).collect();
        failpoint!("daemon/reload/applied");
        self.settings = new;
        Ok(all)
    }
}
