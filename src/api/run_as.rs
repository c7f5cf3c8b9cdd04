//! As whom a task may run is for the runner to decide, when it starts it. What
//! the runner's policy surely denies is refused before it is taken in.

use std::collections::BTreeSet;
use std::path::Path;

use hyper::StatusCode;
use tokio::task;

use crate::clock;
use crate::engine::command::Caller;
use crate::model::spec::Spec;

use super::Shared;
use super::problem::Problem;

/// Refuses tasks of a caller who may surely not run them as whom they name.
/// Where the policy, or who there is, cannot be read, their start decides.
pub(super) async fn check<'a>(
    shared: &Shared,
    caller: &Caller,
    tasks: impl Iterator<Item = &'a Spec> + Clone,
    field: impl Fn(usize) -> String,
) -> Result<(), Problem> {
    // A profile's unit says as whom its tasks run.
    let wanted = tasks.map(|spec| spec.user.as_ref().filter(|_| spec.profile.is_none()));
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
