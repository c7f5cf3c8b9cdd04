//! Models, who serves them, and how the accounts behind them stand.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::accounts::{Accounts, Route};
use crate::engine::command::{Caller, Error};
use crate::engine::relay::NoCall;
use crate::model::ledger::{Call, Over, Spent};
use crate::model::limit::Left;
use crate::model::price::{Money, Price};
use crate::model::receipt::End;
use crate::model::time::Time;

use super::budgets::BudgetInfo;
use super::number::Stamp;
use super::problem::Problem;
use super::{Shared, json};

/// What is added up: the last day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A call of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallInfo {
    /// The model, by its name in the configuration.
    pub model: String,
    /// How it ended: `answered`, `refused`, `overloaded`, `barred`, `broken`,
    /// `rejected` or, when nobody knows, `unknown`.
    pub end: Option<String>,
    /// Tokens of what was asked, as the provider counts.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, as the provider counts.
    pub output_tokens: Option<u64>,
    /// The most that was reckoned with, of what is asked.
    pub input_tokens_reserved: u64,
    /// The same of the answer.
    pub output_tokens_reserved: u64,
    /// What it cost, or may, where the price is known.
    pub cost: Option<f64>,
}

impl From<&Call> for CallInfo {
    fn from(call: &Call) -> Self {
        let used = call.over.and_then(|over| over.used);
        let end = |over: Over| over.end.map_or("unknown", End::word).to_owned();
        Self {
            model: call.model.clone(),
            end: call.over.map(end),
            input_tokens: used.map(|used| used.input),
            output_tokens: used.map(|used| used.output),
            input_tokens_reserved: call.taken.input,
            output_tokens_reserved: call.taken.output,
            cost: call.cost().map(Money::amount),
        }
    }
}

/// What is left of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitInfo {
    /// What is counted: `requests`, `input tokens`, `output tokens` or `tokens`.
    pub what: String,
    /// The limit, such as `40000/1m`.
    pub quota: String,
    /// What can be used at once; a negative number is a debt.
    pub left: i64,
    /// The most that can be used at once.
    pub most: i64,
}

impl From<&Left> for LimitInfo {
    fn from(left: &Left) -> Self {
        Self {
            what: left.dimension.words().to_owned(),
            quota: left.quota.to_string(),
            left: left.now,
            most: left.most,
        }
    }
}

/// What a model was used for in the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpentInfo {
    /// Calls.
    pub calls: u64,
    /// Tokens of what was asked.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// What that cost, calls on their way and unknown ones as they were
    /// reckoned; none where there is no price.
    pub cost: Option<f64>,
    /// Calls of which nobody knows what became.
    pub unknown: u64,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// What tasks call it.
    pub name: String,
    /// Who serves it.
    pub provider: String,
    /// What that one calls it.
    pub serves: String,
    /// Whose limits count: models with the same word share theirs.
    pub account: String,
    /// How its provider does: `good`, `held`, `open`, `trying` or `barred`.
    pub health: String,
    /// What keeps a small prompt from asking it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when, where that is a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// Calls that are made now.
    pub running: u32,
    /// Calls at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// What is left of its limits.
    pub limits: Vec<LimitInfo>,
    /// What a million of its tokens cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Models that may answer instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// What it was used for in the last 24 hours.
    pub spent: SpentInfo,
}

/// All models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// By name.
    pub models: Vec<ModelInfo>,
    /// What may be spent today, as far as it concerns whoever asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetInfo>,
}

fn model(
    name: &str,
    route: &Route,
    accounts: &Accounts,
    spent: &[Spent],
    now: Time,
) -> Option<ModelInfo> {
    let account = accounts.accounts.get(&route.account)?;
    let (gauge, shut) = account.now(now);
    let spent = spent.iter().find(|spent| spent.model == name);
    let spent = spent.map(|spent| SpentInfo {
        calls: spent.calls,
        input_tokens: spent.tokens.input,
        output_tokens: spent.tokens.output,
        cost: route.price.map(|_| spent.cost.amount()),
        unknown: spent.unknown,
    });
    Some(ModelInfo {
        name: name.to_owned(),
        provider: route.provider.clone(),
        serves: route.serves.clone(),
        account: route.account.clone(),
        health: gauge.health(now).word().to_owned(),
        reason: shut.as_ref().map(|shut| shut.cause.to_string()),
        until: shut.and_then(|shut| shut.until).map(Stamp),
        running: account.running,
        concurrency: account.limits.concurrency,
        limits: gauge
            .left(&account.limits)
            .iter()
            .map(LimitInfo::from)
            .collect(),
        price: route.price,
        fallback: route.fallback.clone(),
        spent: spent.unwrap_or_default(),
    })
}

async fn all(shared: &Shared) -> Result<Vec<ModelInfo>, Problem> {
    let now = clock::now();
    let spent = shared.handle.spent_since(now.before(DAY)).await?;
    let accounts = shared.handle.snapshot().calls;
    let models = accounts.routes.iter();
    let models = models.filter_map(|(name, route)| model(name, route, &accounts, &spent, now));
    Ok(models.collect())
}

/// `GET /v1/models`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let models = all(&shared).await?;
    let budgets = shared.handle.budgets(caller, clock::now()).await?;
    let budgets = budgets.iter().map(BudgetInfo::from).collect();
    Ok(json::answer(StatusCode::OK, &ModelList { models, budgets }))
}

/// `GET /v1/models/{model}`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let models = all(&shared).await?;
    let found = models.iter().find(|model| model.name == name);
    let model = found.ok_or(Error::Model(NoCall::Unknown(name)))?;
    Ok(json::answer(StatusCode::OK, model))
}
