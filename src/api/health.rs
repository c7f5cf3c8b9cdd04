//! `GET /health`: how well the daemon is, as a whole and in its parts, in less
//! than a tenth of a second whatever is stuck; and `POST /v1/probe`, which has it
//! write something.
//!
//! The word is for everybody, the parts are for those who may read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::engine::health;
use crate::engine::snapshot::Phase;
use crate::model::health::{Level, Part, worst};
use crate::model::role::Role;
use crate::model::time::Time;
use crate::telemetry;

use super::identity::Standing;
use super::number::Stamp;
use super::problem::Problem;
use super::pulse::Beat;
use super::{Shared, admin, json};

/// Silence after which the engine is not expected to answer any more.
const STUCK: Duration = Duration::from_secs(5);
/// Time before the end of a certificate at which it is worth a word.
const EXPIRES: Duration = Duration::from_secs(14 * 24 * 3600);

/// How well the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `healthy`, `degraded` when it works and lacks something, or `unhealthy`.
    pub status: String,
    /// Its parts, for those who may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartInfo>,
}

/// A part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartInfo {
    /// What it is called.
    pub name: String,
    /// How well it is, with the same words.
    pub status: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when, as far as that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
    /// Until when, where that is a time and not an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// What was measured, each with its unit in its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, i64>,
}

impl From<&Part> for PartInfo {
    fn from(part: &Part) -> Self {
        let figure = |(name, figure): &(&str, i64)| ((*name).to_owned(), *figure);
        Self {
            name: part.name.clone(),
            status: part.level.word().to_owned(),
            why: part.why.clone(),
            since: part.since.map(Stamp),
            until: part.until.map(Stamp),
            figures: part.figures.iter().map(figure).collect(),
        }
    }
}

/// What came of writing something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ProbeInfo")]
pub struct Written {
    /// Where: the directory with the database.
    pub state_dir: String,
    /// How long it took until it was on disk, in microseconds.
    pub took_us: u64,
}

/// When parts that do not know it themselves were first seen as they are.
#[derive(Debug, Default)]
pub(super) struct Seen(watch::Sender<BTreeMap<String, (Level, Time)>>);

impl Seen {
    /// Notes what is new, and says of each part since when it is so.
    fn mark(&self, parts: &mut [Part], now: Time) {
        self.0.send_modify(|seen| {
            seen.retain(|name, _| parts.iter().any(|part| part.name == *name));
            for part in parts {
                let known = seen
                    .get(&part.name)
                    .filter(|(level, _)| *level == part.level);
                let since = known.map_or(now, |(_, since)| *since);
                let since = part.since.unwrap_or(since);
                seen.insert(part.name.clone(), (part.level, since));
                if part.level > Level::Healthy {
                    part.since = Some(since);
                }
            }
        });
    }
}

/// All parts as they are now, and how the engine answered. It waits for none of
/// them.
pub(super) async fn parts(shared: &Shared) -> (Beat, Vec<Part>) {
    let beat = shared.pulse.feel(&shared.handle).await;
    let now = clock::now();
    let snapshot = shared.handle.snapshot();
    let mut parts = vec![engine(snapshot.phase, beat, now)];
    parts.extend(health::parts(&snapshot, now));
    parts.push(journal());
    let expiry = shared.settings.borrow().expiry;
    parts.extend(expiry.map(|end| certificate(end, now)));
    parts.push(shared.vitals.part());
    shared.seen.mark(&mut parts, now);
    (beat, parts)
}

fn engine(phase: Phase, beat: Beat, now: Time) -> Part {
    let part = Part::healthy("engine").with("answer_us", beat.wait().as_micros());
    let part = match phase {
        Phase::Running => part,
        Phase::Starting | Phase::Stopping | Phase::Failed => {
            let why = format!("the daemon is {}", admin::phase(phase));
            part.but(Level::Unhealthy, why, None)
        }
    };
    match beat {
        Beat::Answered(_) => part,
        Beat::Full => {
            let why = "more is asked of the engine than it takes in at once";
            part.but(Level::Degraded, why, None)
        }
        Beat::Silent(wait) => {
            let level = if wait < STUCK {
                Level::Degraded
            } else {
                Level::Unhealthy
            };
            let why = "the engine does not answer: it commits, or is stuck";
            part.but(level, why, Some(now.before(wait)))
        }
        Beat::Ended => part.but(Level::Unhealthy, "the engine has ended", None),
    }
}

fn journal() -> Part {
    let (waiting, most) = telemetry::waiting();
    let part = Part::healthy("journal")
        .with("waiting", waiting)
        .with("dropped", telemetry::dropped());
    if waiting < most {
        return part;
    }
    let why = "log lines are dropped: whoever should read them does not";
    part.but(Level::Degraded, why, None)
}

/// No failure even behind its end: other doors than TCP stay open.
fn certificate(end: Time, now: Time) -> Part {
    let mut part = Part::healthy("certificate").with("expires_s", end.since(now).as_secs());
    let begin = end.before(EXPIRES);
    if now < begin {
        return part;
    }
    let why = if now < end {
        "a certificate of api.tls_certificate expires soon: put a new one there, and reload"
    } else {
        "a certificate of api.tls_certificate has expired: put a new one there, and reload"
    };
    part = part.but(Level::Degraded, why, Some(begin));
    part.until = (now < end).then_some(end);
    part
}

/// `GET /health`.
pub(super) async fn health(
    State(shared): State<Arc<Shared>>,
    standing: Option<Extension<Standing>>,
) -> Response {
    let (_, parts) = parts(&shared).await;
    let level = worst(&parts);
    let reads = standing.is_some_and(|standing| standing.role.covers(Role::Read));
    let shown = if reads { parts.as_slice() } else { &[] };
    let health = Health {
        status: level.word().to_owned(),
        parts: shown.iter().map(PartInfo::from).collect(),
    };
    match level {
        // Who ends a daemon because something is missing would not mend that.
        Level::Healthy | Level::Degraded => json::answer(StatusCode::OK, &health),
        Level::Unhealthy => {
            let mut answer = json::answer(StatusCode::SERVICE_UNAVAILABLE, &health);
            let headers = answer.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
    }
}

/// `POST /v1/probe`: writes something to the database, and answers when it is
/// on disk.
pub(super) async fn probe(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let begun = clock::instant();
    shared.handle.probe().await?;
    let took = begun.elapsed().as_micros();
    let dir = shared.output_dir.parent().unwrap_or(&shared.output_dir);
    let written = Written {
        state_dir: dir.display().to_string(),
        took_us: u64::try_from(took).unwrap_or(u64::MAX),
    };
    Ok(json::answer(StatusCode::OK, &written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_silent_engine_is_degraded_and_then_unhealthy_since_it_fell_silent() {
        let now = at(100);
        for (beat, level, since) in [
            (Beat::Answered(STUCK), Level::Healthy, None),
            (
                Beat::Silent(Duration::from_secs(4)),
                Level::Degraded,
                Some(at(96)),
            ),
            (Beat::Silent(STUCK), Level::Unhealthy, Some(at(95))),
            (Beat::Full, Level::Degraded, None),
            (Beat::Ended, Level::Unhealthy, None),
        ] {
            let part = engine(Phase::Running, beat, now);
            assert_eq!((part.level, part.since), (level, since), "{beat:?}");
        }
        let starting = engine(Phase::Starting, Beat::Answered(Duration::ZERO), now);
        assert_eq!(starting.level, Level::Unhealthy);
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end_and_after_it() {
        let end = at(100 * 24 * 3600);
        let day = Duration::from_secs(24 * 3600);
        for (now, level, until) in [
            (end.before(day * 15), Level::Healthy, None),
            (end.before(day * 14), Level::Degraded, Some(end)),
            (end, Level::Degraded, None),
        ] {
            let part = certificate(end, now);
            assert_eq!((part.level, part.until), (level, until), "{now:?}");
        }
    }

    #[test]
    fn what_is_seen_first_is_since_then_until_it_changes() {
        let seen = Seen::default();
        let since = |level, now| {
            let mut parts = [Part::healthy("journal").but(level, "full", None)];
            seen.mark(&mut parts, now);
            parts[0].since
        };
        assert_eq!(since(Level::Healthy, at(1)), None);
        assert_eq!(since(Level::Degraded, at(2)), Some(at(2)));
        assert_eq!(since(Level::Degraded, at(3)), Some(at(2)));
        assert_eq!(since(Level::Unhealthy, at(4)), Some(at(4)));
        assert_eq!(since(Level::Healthy, at(5)), None);
        assert_eq!(since(Level::Degraded, at(6)), Some(at(6)));
    }
}
