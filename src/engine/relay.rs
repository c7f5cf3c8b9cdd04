//! Calls of models that running tasks want made for them.
//!
//! A task's process asks the daemon, which asks the model with the key that the
//! task never sees. What may be asked now is decided here, by the same limits
//! as for prompts; who has to wait stays in line. A task that runs comes before
//! prompts that have not begun.

use std::collections::VecDeque;

use crate::model::attempt::AttemptKey;
use crate::model::estimate::Weight;
use crate::model::prompt::{Dialect, Key, Prompt};
use crate::model::receipt::Receipt;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::accounts::Choice;
use super::answer::Answer;
use super::calls::Pass;
use super::command::{Command, Error, Reply};
use super::handle::Handle;

/// Calls that may be waited for.
const LINE: usize = 1_024;

/// A call that is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The attempt that wants it.
    pub key: AttemptKey,
    /// How it speaks.
    pub dialect: Dialect,
    /// Which model, by its name in the configuration; empty for the first.
    pub model: String,
    /// What is asked.
    pub weight: Weight,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
}

/// A call that may be made now.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its number in the ledger.
    pub id: i64,
    /// Where its provider is.
    pub base_url: String,
    /// What that one is told to prove who asks.
    pub key: Option<Key>,
    /// What it calls the model.
    pub serves: String,
    /// Most tokens of the answer.
    pub max_tokens: u32,
}

/// Why a model cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    /// There is none of this name.
    #[error("there is no model `{0}`; `taskdaemon provider list` shows those there are")]
    Unknown(String),
    /// It is spoken to in other words.
    #[error(
        "model `{0}` speaks another dialect: those of dialect `openai` are asked at \
         OPENAI_BASE_URL, those of `anthropic` at ANTHROPIC_BASE_URL"
    )]
    OtherDialect(String),
    /// The account with it waits for a person.
    #[error("model `{model}`: {why}")]
    Barred {
        /// Which.
        model: String,
        /// What is wrong.
        why: String,
    },
}

/// What enters the engine about relayed calls.
#[derive(Debug)]
pub enum Ask {
    /// A call is wanted.
    Call(Wish, Reply<Grant>),
    /// A call is over.
    Over {
        /// Which.
        id: i64,
        /// What was asked.
        weight: Weight,
        /// What it came to; none when nobody knows.
        receipt: Option<Box<Receipt>>,
    },
}

/// Those who wait, first to last.
pub(super) type Line = VecDeque<(Wish, Reply<Grant>)>;

impl<S: Store> Engine<S> {
    pub(super) fn about_calls(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        self.hungry = true;
        match ask {
            Ask::Call(wish, reply) => {
                match self.may_wish(&wish, now)? {
                    Ok(()) => self.line.push_back((wish, reply)),
                    Err(error) => self.answers.push(Answer::Grant(reply, Err(error))),
                }
                Ok(())
            }
            Ask::Over {
                id,
                weight,
                receipt,
            } => match self.store.call_numbered(id)? {
                Some(call) if call.relayed => {
                    self.settle_call(&call, weight, receipt.as_deref(), now)
                }
                Some(_) | None => Ok(()),
            },
        }
    }

    fn may_wish(&mut self, wish: &Wish, now: Time) -> Result<Result<(), Error>, store::Error> {
        let id = wish.key.task;
        let task = self.sound(now, |store| store.task(id))?;
        let may = task.is_some_and(|task| {
            task.spec.llm && task.state.is_live() && task.attempt == wish.key.number
        });
        if !may {
            return Ok(Err(Error::NotFound(id)));
        }
        if self.line.len() >= LINE {
            return Ok(Err(Error::Busy));
        }
        let target = self.prompts.target(&wish.model);
        Ok(match target {
            None => Err(NoCall::Unknown(wish.model.clone()).into()),
            Some(target) if target.provider.dialect != wish.dialect => {
                Err(NoCall::OtherDialect(target.model.name.clone()).into())
            }
            Some(_) => Ok(()),
        })
    }

    /// Lets those go whose turn it is.
    pub(super) fn grant(&mut self, pass: &mut Pass, now: Time) -> Result<(), store::Error> {
        for (wish, reply) in std::mem::take(&mut self.line) {
            if reply.is_closed() {
                continue;
            }
            let prompt = Prompt {
                model: wish.model.clone(),
                max_tokens: wish.max_tokens,
                weight: wish.weight,
                ..Prompt::default()
            };
            if pass.shut.contains(&wish.model) {
                self.line.push_back((wish, reply));
                continue;
            }
            let ask = match self.snapshot.calls.choose(&prompt, Some(wish.dialect), now) {
                Choice::Ask(ask) => ask,
                // Who asks can do something else meanwhile; a prompt could not.
                Choice::Wait(wait) if wait.shut.cause.is_for_a_person() => {
                    let (model, why) = (wait.model, wait.shut.cause.to_string());
                    let barred = Err(NoCall::Barred { model, why }.into());
                    self.answers.push(Answer::Grant(reply, barred));
                    continue;
                }
                Choice::Wait(wait) => {
                    pass.shut.insert(wish.model.clone());
                    self.start_again_at(wait.shut.until);
                    self.line.push_back((wish, reply));
                    continue;
                }
                Choice::Nobody => {
                    let gone = Err(NoCall::Unknown(wish.model).into());
                    self.answers.push(Answer::Grant(reply, gone));
                    continue;
                }
            };
            let Some(target) = self.prompts.target(&ask.model).cloned() else {
                continue;
            };
            let max_tokens = u32::try_from(ask.cost.output).unwrap_or(u32::MAX);
            let owner = self.sound(now, |store| store.task(wish.key.task))?;
            let owner = owner.map_or(0, |task| task.owner);
            let id = self.take_call(ask, wish.key, owner, true, now)?;
            let grant = Grant {
                id,
                base_url: target.provider.base_url.trim_end_matches('/').to_owned(),
                key: target.key,
                serves: target.model.model,
                max_tokens,
            };
            self.answers.push(Answer::Grant(reply, Ok(Box::new(grant))));
        }
        Ok(())
    }
}

impl Handle {
    /// Waits until a call may be made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(&self, wish: Wish) -> Result<Grant, Error> {
        self.ask(|reply| Command::Relay(Ask::Call(wish, reply)))
            .await
    }
}
