//! What an agent has to be like to be taken.

use std::time::Duration;

use super::hook::Hook;
use super::plan::{INSTANCES_MAX, NewAgent, Plan};
use crate::model::check;
use crate::model::hook;
use crate::model::invalid::Invalid;
use crate::model::retry::Retry;
use crate::model::schedule::plan::STDIN_MAX;
use crate::model::time::Time;

/// Most agents that one names to start behind.
const AFTER_MAX: usize = 32;
/// Longest wait that a restart rule may name.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

impl NewAgent {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn check(&self, now: Time) -> Result<(), Invalid> {
        let plan = &self.plan;
        called("name", &self.name)?;
        waits(plan)?;
        if !(1..=INSTANCES_MAX).contains(&plan.instances) {
            let reason = format!("must lie between 1 and {INSTANCES_MAX}");
            return Err(Invalid::new("instances", reason));
        }
        if plan
            .no_restart_on
            .iter()
            .any(|code| !(0..=255).contains(code))
        {
            return Err(Invalid::new(
                "no_restart_on",
                "must be exit codes, 0 to 255",
            ));
        }
        if plan.after.len() > AFTER_MAX {
            let reason = format!("names more than {AFTER_MAX} agents");
            return Err(Invalid::new("after", reason));
        }
        for name in &plan.after {
            called("after", name)?;
            if *name == self.name {
                return Err(Invalid::new("after", "names the agent itself"));
            }
        }
        if let Some(probe) = &plan.probe {
            probe.check()?;
            if probe.is_inside() && plan.task.spec.heartbeat_ms.is_some() {
                let reason = "cannot be combined with a probe by command or file, which gives it";
                return Err(Invalid::new("task.heartbeat", reason));
            }
        }
        if let Some(clean_up) = &plan.on_stop {
            check::argv("on_stop", &clean_up.command)?;
            check::duration("on_stop_timeout", clean_up.timeout_ms)?;
        }
        hooks(&plan.hooks)?;
        allowance(plan)?;
        let stdin = plan.task.stdin.as_ref().map_or(0, Vec::len);
        if stdin > STDIN_MAX {
            let reason = format!("is longer than the {STDIN_MAX} bytes that an agent keeps");
            return Err(Invalid::new("task.stdin", reason));
        }
        if plan.task.spec.prompt.is_some() {
            let reason = "is no process that could be kept alive; use a schedule";
            return Err(Invalid::new("task.prompt", reason));
        }
        let spec = &plan.task.spec;
        let once = [
            ("task.timeout", spec.timeout_ms.is_some()),
            ("task.queue_ttl", spec.queue_ttl_ms.is_some()),
            ("task.retry", spec.retry != Retry::default()),
            ("task.hooks", !spec.hooks.is_empty()),
        ];
        if let Some((field, _)) = once.into_iter().find(|(_, there)| *there) {
            let reason = "has no meaning for what is to run for ever";
            return Err(Invalid::new(field, reason));
        }
        self.sample().check(now)
    }
}

fn allowance(plan: &Plan) -> Result<(), Invalid> {
    let Some(budget) = &plan.budget else {
        return Ok(());
    };
    if !plan.task.spec.llm {
        let reason = "goes with `llm` of its task, which lets it ask models";
        return Err(Invalid::new("budget", reason));
    }
    let fault = budget.fault();
    fault.map_or(Ok(()), |fault| Err(Invalid::new("budget", fault)))
}

fn hooks(hooks: &[Hook]) -> Result<(), Invalid> {
    if hooks.iter().any(|hook| hook.on.is_empty()) {
        let reason = "needs at least one phase, such as [\"failed\"]";
        return Err(Invalid::new("hooks.on", reason));
    }
    // What they do is what hooks of tasks do.
    let of_tasks = hooks.iter().map(|hook| hook::Hook {
        on: hook::Ends::default(),
        act: hook.act.clone(),
    });
    check::hooks(&of_tasks.collect::<Vec<_>>())
}

/// A name that is no number, since agents have those too.
fn called(field: &'static str, name: &str) -> Result<(), Invalid> {
    check::word(field, name, 64)?;
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::new(field, "must not be a number only"));
    }
    Ok(())
}

fn waits(plan: &Plan) -> Result<(), Invalid> {
    let most = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
    let bounded = [
        ("backoff", plan.backoff_ms, 0),
        ("backoff_max", plan.backoff_max_ms, plan.backoff_ms),
        ("cool_off", plan.cool_off_ms, 0),
        ("healthy_after", plan.healthy_after_ms, 0),
        ("start_timeout", plan.start_timeout_ms, 1),
        ("idle_after", plan.idle_after_ms.unwrap_or(1_000), 1_000),
    ];
    for (field, ms, least) in bounded {
        if ms > most {
            return Err(Invalid::new(field, "must be at most one day"));
        }
        if ms < least {
            let reason = match field {
                "backoff_max" => "must not be less than backoff",
                "idle_after" => "must be at least one second",
                _ => "must be more than nothing",
            };
            return Err(Invalid::new(field, reason));
        }
    }
    Ok(())
}
