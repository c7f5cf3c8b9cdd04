//! As whom a task may run is for the runner to decide, when it starts it. What
//! the runner's policy surely denies is refused before it is taken in.

use std::collections::BTreeSet;
use std::path::Path;

use hyper::StatusCode;
use tokio::task;

use crate::clock;
use crate::engine::command::Caller;
use crate::model::spec::{NewTask, Spec};

use super::Shared;
use super::problem::Problem;

/// The user that a task names, if that is for the policy to allow.
pub(super) fn named(spec: &Spec) -> Option<&String> {
    // A profile's unit says as whom its tasks run.
    spec.user.as_ref().filter(|_| spec.profile.is_none())
}

/// Refuses new tasks of a caller who may surely not run them as whom they
/// name. Those that an earlier request has made are made already: the engine
/// answers with them, whatever the policy has come to say.
pub(super) async fn check_new(
    shared: &Shared,
    caller: &Caller,
    tasks: &[NewTask],
    field: impl Fn(usize) -> String,
) -> Result<(), Problem> {
    let wanted = tasks.iter().map(|task| named(&task.spec));
    let Err(denied) = check(shared, caller, wanted, &field).await else {
        return Ok(());
    };
    let keys: Vec<String> = tasks.iter().filter_map(|task| task.key.clone()).collect();
    if keys.is_empty() {
        return Err(denied);
    }
    let known = shared.handle.known_keys(*caller, keys).await?;
    let is_new = |task: &NewTask| task.key.as_ref().is_none_or(|key| !known.contains(key));
    let wanted = tasks
        .iter()
        .map(|task| named(&task.spec).filter(|_| is_new(task)));
    check(shared, caller, wanted, field).await
}

/// Refuses tasks of a caller who may surely not run them as the users that are
/// wanted. Where the policy, or who there is, cannot be read, their start
/// decides.
pub(super) async fn check<'a>(
    shared: &Shared,
    caller: &Caller,
    wanted: impl Iterator<Item = Option<&'a String>> + Clone,
    field: impl Fn(usize) -> String,
) -> Result<(), Problem> {
    let users: BTreeSet<String> = wanted.clone().flatten().cloned().collect();
    if users.is_empty() {
        return Ok(());
    }
    let runner = shared.handle.snapshot().runner;
    let Some(path) = runner.and_then(|runner| runner.policy.clone()) else {
        return Ok(());
    };
    let (asker, now) = (caller.uid, clock::now());
    // It reads files, and may ask a directory on the network.
    let denied = shared.denied;
    let judged = task::spawn_blocking(move || denied(Path::new(&path), asker, users, now));
    let Ok(Some((user, why))) = judged.await else {
        return Ok(());
    };
    let place = wanted.clone().position(|one| one == Some(&user));
    let field = field(place.unwrap_or_default());
    let detail = format!("{field}: {why}");
    Err(Problem {
        field: Some(field),
        ..Problem::new(StatusCode::FORBIDDEN, "run_as_denied", detail)
    })
}
