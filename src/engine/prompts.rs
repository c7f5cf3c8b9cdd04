//! What the engine has to know of prompts: which models there are, and what a
//! call to each of them takes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::attempt::AttemptKey;
use crate::model::badge::Stamp;
use crate::model::estimate::Weight;
use crate::model::gauge::Gauge;
use crate::model::invalid::Invalid;
use crate::model::limit::Limits;
use crate::model::price::Price;
use crate::model::prompt::{Call, Dialect, Key, Prompt};
use crate::model::quantity::duration;
use crate::model::schema::REPAIRS;
use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;
use crate::model::spec::{NewTask, Spec};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::accounts::{Account, Accounts, Route};
use super::budgets::{Daily, Rule};
use super::command::{Error, Submitted};
use super::hooks::Hooks;
use super::lot;
use super::options::Options as EngineOptions;

/// Verb of our own program that makes the call it reads.
pub const CALL: &str = "call";
/// Most tokens of an answer where nothing says how many.
const TOKENS: u32 = 1024;
/// How long a model is waited for before another one answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest silence of a provider before its answer begins, and afterwards, in
/// milliseconds: long questions are read for as long as that, but once it writes
/// it goes on (SEC-26 in `tests/security.md`).
const SILENCE_MS: (u64, u64) = (120_000, 60_000);

settings! {
    /// Language models, section `[llm]`.
    pub struct Options {
        /// Who serves models: tables with `name`, `dialect` (openai, responses or anthropic), `base_url`
        /// and, where one is needed, `key_file` (open to the daemon's user alone) or `key_credential` (a
        /// credential of the service). `insecure` lets a key go to another host without TLS.
        providers: Vec<Provider> = Vec::new(), Live, "[{name = \"local\", dialect = \"openai\", base_url = \"http://127.0.0.1:8080/v1\"}]";
        /// What calls may come to in a day (UTC): tables with `user`, a name or `*` for each, or
        /// `queue`, and `tokens`, `cost`, or both.
        budgets: Vec<Daily> = Vec::new(), Live, "[{user = \"*\", cost = 5.0}]";
        /// Where tasks that were submitted with `llm` can ask them: an address of this host alone.
        listen: Option<String> = None, Restart, "\"127.0.0.1:4180\"";
        /// Calls at once, of all models; they take none of the engine's slots.
        calls: u32 = 64, Live;
        /// What they serve: tables with `name`, which tasks use, `provider`, `model`, the name
        /// that the provider knows, and `max_tokens` of an answer (1024), and, where it has any, `limits`,
        /// `price`, `fallback` and `fallback_after`. The first is the default.
        models: Vec<Model> = Vec::new(), Live, "[{name = \"small\", provider = \"local\", model = \"smollm2\"}]";
    }
}

/// Who serves models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name in this configuration.
    pub name: String,
    /// How it speaks.
    pub dialect: Dialect,
    /// Where it is, with what comes before `/chat/completions`, `/responses` or
    /// `/v1/messages`.
    pub base_url: String,
    /// File with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Credential of the service with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_credential: Option<String>,
    /// The key may go to another host without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What tasks call it.
    pub name: String,
    /// Who serves it.
    pub provider: String,
    /// What its provider calls it.
    pub model: String,
    /// Most tokens of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// What its provider lets this account have of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// What a million of its tokens cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Models of this configuration that may answer instead, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// How long it is waited for before one of those answers.
    #[serde(default = "patience", with = "duration")]
    pub fallback_after: Duration,
}

fn patience() -> Duration {
    PATIENCE
}

fn is_default(limits: &Limits) -> bool {
    *limits == Limits::default()
}

/// A model, and all that is needed to ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The model.
    pub model: Model,
    /// Who serves it.
    pub provider: Provider,
    /// What that one is told to prove who asks.
    pub key: Option<Key>,
    /// Whose limits count: those who share a key and a model share these.
    pub account: String,
}

/// All models, and our own program, which asks them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// In the order of the configuration.
    pub targets: Vec<Target>,
    /// Our own program.
    pub program: String,
    /// Calls at once, of all models.
    pub calls: u32,
    /// What calls may come to in a day.
    pub budgets: Vec<Rule>,
    /// Where tasks that may can ask them.
    pub door: Option<Door>,
}

/// Where tasks can ask models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Its address.
    pub at: String,
    /// What its badges are made with.
    pub stamp: Stamp,
}

impl Door {
    /// Variables by which a task's programs find it.
    pub(super) fn variables(&self, key: AttemptKey) -> Vec<(String, String)> {
        let (at, badge) = (&self.at, self.stamp.badge(key));
        [
            ("OPENAI_BASE_URL", format!("http://{at}/openai/v1")),
            ("OPENAI_API_KEY", badge.clone()),
            ("ANTHROPIC_BASE_URL", format!("http://{at}/anthropic")),
            ("ANTHROPIC_API_KEY", badge),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Prompts {
    pub(super) fn target(&self, name: &str) -> Option<&Target> {
        let mut all = self.targets.iter();
        if name.is_empty() {
            // A schedule says so of its tasks; it may be older than the models.
            return all.next();
        }
        all.find(|target| target.model.name == name)
    }

    /// Names the model of prompts that name none, of tasks that are not there
    /// already.
    pub(super) fn settle(
        &self,
        tasks: &mut [NewTask],
        known: &HashMap<usize, Submitted>,
    ) -> Result<(), Error> {
        let several = tasks.len() > 1;
        for (index, task) in tasks.iter_mut().enumerate() {
            let of = |invalid| Error::Invalid {
                index: several.then_some(index),
                invalid,
            };
            if task.spec.llm && self.door.is_none() {
                return Err(of(no_door("llm")));
            }
            self.check_budget(&task.spec, task.batch).map_err(of)?;
            let Some(prompt) = &mut task.spec.prompt else {
                continue;
            };
            if known.contains_key(&index) {
                continue;
            }
            let Some(target) = self.target(&prompt.model) else {
                return Err(of(self.unknown()));
            };
            prompt.model.clone_from(&target.model.name);
            let text = task.stdin.as_deref().unwrap_or_default();
            let system = prompt.system.as_deref().unwrap_or_default();
            prompt.weight = Weight::of(text).and(Weight::of(system.as_bytes()));
            let each = target.model.max_tokens.unwrap_or(TOKENS);
            lot::settle(prompt, text, each).map_err(of)?;
        }
        Ok(())
    }

    /// Refuses what a schedule is to ask when nobody serves it, or can be asked. One that names
    /// no model asks whichever is the first when its time has come.
    pub(super) fn check_template(&self, spec: &Spec) -> Result<(), Error> {
        if spec.llm && self.door.is_none() {
            return Err(Error::Invalid {
                index: None,
                invalid: no_door("task.llm"),
            });
        }
        let of = |invalid| Error::Invalid {
            index: None,
            invalid: Invalid {
                field: "task.budget",
                ..invalid
            },
        };
        self.check_budget(spec, None).map_err(of)?;
        match &spec.prompt {
            Some(prompt) if self.target(&prompt.model).is_none() => Err(Error::Invalid {
                index: None,
                invalid: Invalid {
                    field: "task.prompt.model",
                    ..self.unknown()
                },
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn unknown(&self) -> Invalid {
        let names = self.targets.iter().map(|target| &*target.model.name);
        let names: Vec<_> = names.collect();
        let reason = if names.is_empty() {
            "there is none: an admin has to name one in section [llm] of the configuration"
                .to_owned()
        } else {
            format!("is none of those here: {}", names.join(", "))
        };
        Invalid::new("prompt.model", reason)
    }

    /// All models, with accounts of which nothing is known yet.
    pub(super) fn accounts(&self) -> Accounts {
        let mut accounts = Accounts {
            most: self.calls,
            budgets: self.budgets.clone(),
            ..Accounts::default()
        };
        if let Some(first) = self.targets.first() {
            accounts.first.clone_from(&first.model.name);
        }
        for target in &self.targets {
            let model = &target.model;
            let route = Route {
                provider: target.provider.name.clone(),
                dialect: target.provider.dialect,
                serves: model.model.clone(),
                account: target.account.clone(),
                price: model.price,
                max_tokens: model.max_tokens.unwrap_or(TOKENS),
                fallback: model.fallback.clone(),
                patience: model.fallback_after,
            };
            accounts.routes.insert(model.name.clone(), route);
            // Of several names of one model, the first says what its limits are.
            let account = Account {
                limits: model.limits.clone(),
                refund: target.provider.dialect.refund(),
                gauge: Gauge::default(),
                running: 0,
            };
            let known = accounts.accounts.entry(target.account.clone());
            known.or_insert(account);
        }
        accounts
    }

    /// What makes the call that a prompt stands for, and asks `model`: the
    /// program with its arguments, and what it reads.
    pub(super) fn order(
        &self,
        model: &str,
        prompt: &Prompt,
        text: Vec<u8>,
    ) -> (Vec<String>, Option<Call>) {
        let program = vec![self.program.clone(), CALL.to_owned()];
        // One that was taken out of the configuration since the task was
        // accepted: nothing is read, and the program says so.
        let call = self.target(model).map(|target| Call {
            dialect: target.provider.dialect,
            base_url: target.provider.base_url.trim_end_matches('/').to_owned(),
            key: target.key.clone(),
            model: target.model.model.clone(),
            system: prompt.system.clone(),
            text: String::from_utf8_lossy(&text).into_owned(),
            max_tokens: prompt
                .max_tokens
                .or(target.model.max_tokens)
                .unwrap_or(TOKENS),
            first_ms: SILENCE_MS.0,
            idle_ms: SILENCE_MS.1,
            schema: prompt.schema.clone(),
            repairs: prompt.repairs.unwrap_or(REPAIRS),
            lot: None,
        });
        (program, call)
    }
}

fn no_door(field: &'static str) -> Invalid {
    let why = "there is nowhere to ask models: an admin has to set `listen` in section [llm] of \
               the configuration";
    Invalid::new(field, why)
}

impl<S: Store> Engine<S> {
    /// Knows these models from now on.
    pub fn set_prompts(&mut self, prompts: Prompts) {
        self.prompts = prompts;
    }

    /// Goes by the settings of a reload from now on.
    pub(super) fn configure(
        &mut self,
        options: EngineOptions,
        hooks: Hooks,
        prompts: Prompts,
        now: Time,
    ) -> Result<(), store::Error> {
        let other = self.options.schedule_rate != options.schedule_rate;
        self.options = options;
        if other {
            self.mend_starts(now);
        }
        self.set_hooks(hooks);
        self.set_prompts(prompts);
        self.open_accounts()?;
        self.hungry = true;
        Ok(())
    }
}
