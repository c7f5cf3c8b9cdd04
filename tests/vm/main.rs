//! The package on booted virtual machines: what needs a kernel of its own, with all cgroup controllers, and a power
//! switch. `tests/run vm` runs them.
//!
//! A boot takes longer than most checks, so checks share a machine, one after the other; one that fails takes its
//! machine with it, and the next one gets a new one. Any of them can be run alone by its name. They need root, qemu,
//! debootstrap and e2fsprogs, so a plain `cargo test` leaves them out.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests watch real systems from outside: they wait and measure in real time"
)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this is test code, which clippy cannot see outside of test functions"
)]

mod agent;
mod machine;

mod agents;
mod daemon;
mod limits;
mod power;
mod user;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};

use machine::Machine;

/// What a check does with a machine.
type Check = fn(&mut Machine);

/// The machine that checks share.
type Shared = Arc<Mutex<Option<Machine>>>;

/// The release that the machines run.
const RELEASE: &str = "trixie";

/// In this order, because the last ones turn the machine off.
const CHECKS: [(&str, Check); 16] = [
    (
        "a_task_over_its_memory_limit_ends_as_oom_and_alone",
        limits::a_task_over_its_memory_limit_ends_as_oom_and_alone,
    ),
    ("a_cpu_limit_is_held", limits::a_cpu_limit_is_held),
    (
        "a_fork_bomb_stays_within_its_limit_and_ends_whole",
        limits::a_fork_bomb_stays_within_its_limit_and_ends_whole,
    ),
    (
        "a_limited_task_is_frozen_and_goes_on",
        limits::a_limited_task_is_frozen_and_goes_on,
    ),
    (
        "limits_hold_in_a_sandbox_profile",
        limits::limits_hold_in_a_sandbox_profile,
    ),
    (
        "the_slice_limits_all_tasks_together",
        limits::the_slice_limits_all_tasks_together,
    ),
    (
        "a_server_of_the_distribution_is_kept_running_by_its_rule",
        agents::a_server_of_the_distribution_is_kept_running_by_its_rule,
    ),
    (
        "an_agent_is_held_to_its_memory_limit",
        agents::an_agent_is_held_to_its_memory_limit,
    ),
    (
        "the_kernel_spares_runner_and_daemon",
        daemon::the_kernel_spares_runner_and_daemon,
    ),
    (
        "an_oom_kill_of_the_daemon_touches_no_task",
        daemon::an_oom_kill_of_the_daemon_touches_no_task,
    ),
    (
        "a_clock_that_is_set_ends_no_task",
        daemon::a_clock_that_is_set_ends_no_task,
    ),
    (
        "what_is_due_in_a_suspended_machine_starts_when_it_wakes",
        daemon::what_is_due_in_a_suspended_machine_starts_when_it_wakes,
    ),
    (
        "a_user_has_a_daemon_of_their_own",
        user::a_user_has_a_daemon_of_their_own,
    ),
    (
        "limits_hold_in_a_users_own_daemon",
        user::limits_hold_in_a_users_own_daemon,
    ),
    (
        "a_reboot_interrupts_and_the_boot_goes_on_by_itself",
        power::a_reboot_interrupts_and_the_boot_goes_on_by_itself,
    ),
    (
        "a_power_cut_loses_nothing_acknowledged_and_repeats_nothing",
        power::a_power_cut_loses_nothing_acknowledged_and_repeats_nothing,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They take turns with one machine.
    arguments.test_threads = Some(1);
    let shared: Shared = Arc::default();
    let trials = CHECKS.into_iter().map(|(name, check)| {
        let shared = Arc::clone(&shared);
        let run = move || {
            on_shared(&shared, check);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(true)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(take(&shared));
    conclusion.exit_code()
}

fn take(shared: &Shared) -> Option<Machine> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Runs a check on the machine that is there, or on a new one.
fn on_shared(shared: &Shared, check: Check) {
    let mut machine = take(shared).unwrap_or_else(|| Machine::boot(RELEASE));
    let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut machine)));
    if let Err(panic) = outcome {
        machine.tell();
        drop(machine);
        resume_unwind(panic);
    }
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(machine);
}
