//! Calls of models that running tasks want made for them.
//!
//! A task's process asks the daemon, which asks the model with the key that the
//! task never sees. What may be asked now is decided here, by the same limits
//! as for prompts; who has to wait stays in line. A task that runs comes before
//! prompts that have not begun.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use crate::model::attempt::AttemptKey;
use crate::model::estimate::Weight;
use crate::model::prompt::{Dialect, Key, Prompt};
use crate::model::reason::Reason;
use crate::model::receipt::{End, Receipt};
use crate::model::time::Time;
use crate::model::trace::Context;
use crate::store::{self, Store};

use super::Engine;
use super::accounts::{self, Choice};
use super::answer::Answer;
use super::budgets::spend::{Hold, Verdict};
use super::calls::Pass;
use super::command::{Command, Error, Reply};
use super::handle::Handle;
use super::prompts::Target;

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

/// A call on its way, from the wish to its end. However it is let go of, and by
/// whom, the engine hears of it: nothing that was taken stays taken for a call
/// that nobody makes.
#[derive(Debug)]
pub struct Ticket {
    commands: SyncSender<Command>,
    weight: Weight,
    /// Its number in the ledger, once it was let go.
    id: Option<i64>,
    /// What it came to; none when nobody knows. At first it was not made.
    pub receipt: Option<Box<Receipt>>,
    /// Where in a trace whoever asks says that it is.
    pub place: Option<Context>,
}

impl Ticket {
    fn new(commands: SyncSender<Command>, weight: Weight) -> Self {
        Self {
            commands,
            weight,
            id: None,
            receipt: Some(Box::new(Receipt::of(End::Rejected))),
            place: None,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        let over = Command::Relay(Ask::Over {
            id,
            weight: self.weight,
            receipt: self.receipt.take(),
            place: self.place,
        });
        if let Err(TrySendError::Full(over)) = self.commands.try_send(over) {
            let commands = self.commands.clone();
            // It must be heard, and whoever lets go must not wait: that may be
            // the one that reads.
            let told = std::thread::Builder::new()
                .name("ticket".to_owned())
                .spawn(move || drop(commands.send(over)));
            if let Err(error) = told {
                tracing::error!(%error, call = id, "cannot say that a call is over");
            }
        }
    }
}

/// A call that may be made now.
#[derive(Debug)]
pub struct Grant {
    /// Says what came of it.
    pub ticket: Ticket,
    /// Where its provider is.
    pub base_url: String,
    /// What that one is told to prove who asks.
    pub key: Option<Key>,
    /// What it calls the model.
    pub serves: String,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// There is a budget: no answer may be longer.
    pub limited: bool,
}

/// Why a model cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    /// There is none of this name.
    #[error("there is no model `{0}`; `taskdaemon provider list` shows those there are")]
    Unknown(String),
    /// It is spoken to in other words.
    #[error(
        "model `{0}` speaks another dialect: those of dialect `openai` are asked by chat \
         completions at OPENAI_BASE_URL, those of `responses` by responses there, those of \
         `anthropic` at ANTHROPIC_BASE_URL"
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
    /// It would go beyond a budget.
    #[error("{0}")]
    Budget(String),
}

/// Someone who asks and may leave before there is an answer: then the engine
/// looks at the line again, in which nobody stands for that one any more.
struct Asker(Option<SyncSender<Command>>);

impl Drop for Asker {
    fn drop(&mut self) {
        // Where there is no room, turns are many, and one of them looks.
        if let Some(commands) = self.0.take() {
            drop(commands.try_send(Command::Relay(Ask::Left)));
        }
    }
}

/// What enters the engine about relayed calls.
#[derive(Debug)]
pub enum Ask {
    /// A call is wanted.
    Call(Box<Waiting>),
    /// Somebody does not wait any more.
    Left,
    /// A call is over.
    Over {
        /// Which.
        id: i64,
        /// What was asked.
        weight: Weight,
        /// What it came to; none when nobody knows.
        receipt: Option<Box<Receipt>>,
        /// Where in a trace it was asked for.
        place: Option<Context>,
    },
}

/// Someone who waits for a call.
#[derive(Debug)]
pub struct Waiting {
    wish: Wish,
    ticket: Ticket,
    reply: Reply<Grant>,
}

impl Waiting {
    /// Nothing comes of it, and why.
    pub(super) fn refuse(self, why: Error) {
        drop(self.reply.send(Err(why)));
    }
}

/// Those who wait, first to last.
pub(super) type Line = VecDeque<Box<Waiting>>;

impl<S: Store> Engine<S> {
    pub(super) fn about_calls(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        self.hungry = true;
        match ask {
            Ask::Call(waiting) => {
                match self.may_wish(&waiting.wish, now)? {
                    Ok(()) => self.line.push_back(waiting),
                    Err(error) => {
                        let refused = Answer::Grant(waiting.reply, Err(error));
                        self.answers.push(refused);
                    }
                }
                Ok(())
            }
            Ask::Left => Ok(()),
            Ask::Over {
                id,
                weight,
                receipt,
                place,
            } => match self.store.call_numbered(id)? {
                Some(call) if call.relayed => {
                    self.trace_call(&call, (receipt.as_deref(), place), now)?;
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
        let mut waits = BTreeMap::new();
        // What the first one in line for a model waits for, all behind it do.
        let mut of_model: BTreeMap<String, Reason> = BTreeMap::new();
        for waiting in std::mem::take(&mut self.line) {
            if waiting.reply.is_closed() {
                continue;
            }
            let wish = &waiting.wish;
            let task = wish.key.task;
            if let Some(reason) = of_model.get(&wish.model) {
                waits.insert(task, reason.clone());
                self.line.push_back(waiting);
                continue;
            }
            let prompt = Prompt {
                model: wish.model.clone(),
                max_tokens: wish.max_tokens,
                weight: wish.weight,
                ..Prompt::default()
            };
            let choice = self.snapshot.calls.choose(&prompt, Some(wish.dialect), now);
            let no = match choice {
                Choice::Ask(ask) => {
                    let later = self.pay(waiting, ask, &prompt, now)?;
                    waits.extend(later.map(|reason| (task, reason)));
                    continue;
                }
                // Who asks can do something else meanwhile; a prompt could not.
                Choice::Wait(wait) if wait.shut.cause.is_for_a_person() => NoCall::Barred {
                    model: wait.model,
                    why: wait.shut.cause.to_string(),
                },
                Choice::Wait(wait) => {
                    pass.shut.insert(wish.model.clone());
                    self.start_again_at(wait.shut.until);
                    let reason = wait.reason();
                    waits.insert(task, reason.clone());
                    of_model.insert(wish.model.clone(), reason);
                    self.line.push_back(waiting);
                    continue;
                }
                Choice::Nobody => NoCall::Unknown(wish.model.clone()),
            };
            let refused = Answer::Grant(waiting.reply, Err(no.into()));
            self.answers.push(refused);
        }
        if waits != *self.snapshot.waits {
            self.snapshot.waits = Arc::new(waits);
        }
        Ok(())
    }

    /// Lets a call go whose model can be asked, if the budgets have room for it;
    /// otherwise, what it waits for.
    fn pay(
        &mut self,
        waiting: Box<Waiting>,
        ask: accounts::Ask,
        prompt: &Prompt,
        now: Time,
    ) -> Result<Option<Reason>, store::Error> {
        let id = waiting.wish.key.task;
        let task = self.sound(now, |store| store.task(id))?;
        let target = self.prompts.target(&ask.model).cloned();
        let no: Error = match (task, target) {
            (None, _) => Error::NotFound(id),
            (_, None) => NoCall::Unknown(ask.model).into(),
            (Some(task), Some(target)) => match self.may_spend(&task, &ask, prompt, now)? {
                Verdict::May(hold) => {
                    self.let_go(*waiting, (ask, target), (task.owner, hold), now)?;
                    return Ok(None);
                }
                Verdict::Later(reason) => {
                    self.start_again_at(reason.until());
                    self.line.push_back(waiting);
                    return Ok(Some(reason));
                }
                Verdict::Never(why) => NoCall::Budget(why).into(),
            },
        };
        let refused = Answer::Grant(waiting.reply, Err(no));
        self.answers.push(refused);
        Ok(None)
    }

    fn let_go(
        &mut self,
        waiting: Waiting,
        (ask, target): (accounts::Ask, Target),
        (owner, hold): (u32, Hold),
        now: Time,
    ) -> Result<(), store::Error> {
        let Waiting {
            wish,
            mut ticket,
            reply,
        } = waiting;
        let max_tokens = u32::try_from(ask.cost.output).unwrap_or(u32::MAX);
        let limited = hold.limited;
        ticket.id = Some(self.take_call(ask, wish.key, owner, true, hold, now)?);
        let grant = Grant {
            ticket,
            base_url: target.provider.base_url.trim_end_matches('/').to_owned(),
            key: target.key,
            serves: target.model.model,
            max_tokens,
            limited,
        };
        self.answers.push(Answer::Grant(reply, Ok(Box::new(grant))));
        Ok(())
    }
}

impl Handle {
    /// Waits until a call may be made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(&self, wish: Wish) -> Result<Grant, Error> {
        let ticket = Ticket::new(self.commands(), wish.weight);
        let mut asker = Asker(Some(self.commands()));
        let answer = self.ask(|reply| {
            let waiting = Waiting {
                wish,
                ticket,
                reply,
            };
            Command::Relay(Ask::Call(Box::new(waiting)))
        });
        let answer = answer.await;
        asker.0 = None;
        answer
    }
}
