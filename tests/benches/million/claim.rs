//! Claims by the engine itself: an attempt ends, the next task is chosen, and
//! both are on disk. There is no process in it, and nothing between.

use std::path::Path;

use anyhow::{Context as _, ensure};
use taskdaemon::clock;
use taskdaemon::engine::Engine;
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::Effect;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::model::attempt::{AttemptKey, Ended, Exit, Usage};
use taskdaemon::store::sqlite::Sqlite;

/// Claims that count, and those before them that do not.
const CLAIMS: u32 = 900;
const WARM_UP: u32 = 50;

/// Times of turns that end one attempt and claim the next, in milliseconds.
pub(crate) fn times(dir: &Path) -> anyhow::Result<Vec<f64>> {
    let store = Sqlite::open(
        &dir.join("state"),
        &taskdaemon::store::options::Options::default(),
    )?;
    let options = Options {
        slots: 2,
        ..Options::default()
    };
    let mut engine = Engine::new(store, options, "boot".to_owned());
    engine.recover(clock::now())?;
    let up = Command::RunnerUp(RunnerUp {
        instance: "bench".to_owned(),
        boot: "boot".to_owned(),
        version: "1".to_owned(),
        pid: 1,
        abilities: Abilities::default(),
        policy: None,
        held: Vec::new(),
    });
    let mut live = launched(engine.turn(vec![up], clock::now())?.effects);
    let mut times = Vec::new();
    for turn in 0..WARM_UP + CLAIMS {
        ensure!(!live.is_empty(), "nothing was claimed");
        // The oldest ends, so that tasks of the group end as others do.
        let command = ended(live.remove(0));
        let begun = clock::instant();
        let turned = engine.turn(vec![command], clock::now())?;
        let took = begun.elapsed();
        let next = launched(turned.effects);
        let next = next.first().context("no task follows one that ended")?;
        live.push(*next);
        if turn >= WARM_UP {
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

fn launched(effects: Vec<Effect>) -> Vec<AttemptKey> {
    let key = |effect: Effect| match effect {
        Effect::Launch(order) => Some(order.key),
        Effect::Attach
        | Effect::Terminate(_)
        | Effect::Kill(_)
        | Effect::Freeze(_)
        | Effect::Thaw(_)
        | Effect::Acknowledge(_)
        | Effect::Erase(_)
        | Effect::Seek { .. }
        | Effect::Met { .. } => None,
    };
    effects.into_iter().filter_map(key).collect()
}

fn ended(key: AttemptKey) -> Command {
    Command::Ended {
        key,
        started: None,
        ended: Ended {
            exit: Exit::Code { code: 0 },
            oom: false,
            interrupted: false,
            unrecorded: false,
            at: clock::now(),
            usage: Usage::default(),
            receipt: None,
        },
    }
}
