//! FI-03 and FI-04: power cuts at random times, and behind each sync in order.

use crate::draw::seed;
use crate::inject;
use crate::power::{When, cuts};

/// Cuts at random times in one run; `tests/soak power-cuts` makes more.
const RANDOM: usize = 10;
/// Behind which syncs of a thread the power is cut.
const SYNCS: u32 = 10;

#[test]
fn fi_03_power_cuts_at_random_times_lose_nothing_acknowledged() {
    match cuts(&[When::Random; RANDOM], seed()) {
        Ok(verdict) => verdict.hold(RANDOM, "power cuts at random times"),
        Err(why) => println!("skipped: no disk of its own: {why}"),
    }
}

#[test]
fn fi_04_a_power_cut_behind_each_sync_loses_nothing_acknowledged() {
    if let Some(why) = inject::why_not() {
        println!("skipped: {why}");
        return;
    }
    let all: Vec<_> = (1..=SYNCS).map(When::Sync).collect();
    match cuts(&all, seed()) {
        Ok(verdict) => verdict.hold(all.len(), "power cuts behind a sync"),
        Err(why) => println!("skipped: no disk of its own: {why}"),
    }
}
