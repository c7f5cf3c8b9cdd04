//! Keys: which exist, which was meant, and trees of them.
//!
//! Types are not looked at here, except that a section is a table.

use figment::value::{Dict, Value};
use serde::Serialize;

use super::error::{Error, nearest};
use super::tree::Target;
use super::{Config, Layer};
use crate::model::setting::{Kind, Setting};

/// Variables with our prefix that are no settings: they say which
/// configuration or daemon is meant, or belong to a task. So do those that
/// begin with [`HOOK`].
pub(super) const NO_SETTINGS: [&str; 13] = [
    "TASKDAEMON_ATTEMPT",
    "TASKDAEMON_CONFIG",
    "TASKDAEMON_DETAIL",
    "TASKDAEMON_EVENT",
    "TASKDAEMON_HOST",
    "TASKDAEMON_KEY",
    "TASKDAEMON_PID",
    "TASKDAEMON_REQUEST",
    "TASKDAEMON_TASK_ID",
    "TASKDAEMON_TLS_CA",
    "TASKDAEMON_TLS_CERT",
    "TASKDAEMON_TLS_KEY",
    "TASKDAEMON_TOKEN",
];
/// What the names of settings in the environment begin with.
pub(super) const PREFIX: &str = "TASKDAEMON_";
/// What the names of facts about an ended task begin with, which hooks get.
pub(super) const HOOK: &str = "TASKDAEMON_HOOK_";

/// Refuses keys that nobody declared; drops sections that are there but
/// empty, as YAML has them when all their keys are commented out.
pub(super) fn check(layer: &mut Layer) -> Result<(), Error> {
    let dict = std::mem::take(&mut layer.dict);
    layer.dict = known(layer, dict, Config::SETTINGS, &[])?;
    Ok(())
}

fn known(layer: &Layer, dict: Dict, settings: &[Setting], above: &[&str]) -> Result<Dict, Error> {
    let mut kept = Dict::new();
    for (key, value) in dict {
        let path: Vec<&str> = above.iter().copied().chain([key.as_str()]).collect();
        let Some(setting) = settings.iter().find(|setting| setting.key == key) else {
            return Err(unknown(layer, settings, above, &path));
        };
        match (setting.kind, value) {
            (Kind::Section(inner), Value::Dict(tag, inside)) => {
                let inside = known(layer, inside, inner, &path)?;
                kept.insert(key, Value::Dict(tag, inside));
            }
            (Kind::Section(_), Value::Empty(..)) => {}
            (Kind::Section(_), _) => {
                return Err(Error::new(
                    layer.place(&path, Target::Key),
                    format!(
                        "`{}` is a section of settings, not a value",
                        layer.spell(&path)
                    ),
                ));
            }
            (Kind::Live | Kind::Restart, value) => {
                kept.insert(key, value);
            }
        }
    }
    Ok(kept)
}

/// An unknown key, with the known one that was probably meant: one like it
/// beside it, or the same in another section.
fn unknown(layer: &Layer, settings: &[Setting], above: &[&str], path: &[&str]) -> Error {
    let key = path.last().copied().unwrap_or_default();
    let beside = nearest(key, settings.iter().map(|setting| setting.key))
        .map(|like| above.iter().copied().chain([like]).collect::<Vec<_>>());
    let meant = beside.or_else(|| elsewhere(key));
    Error::new(
        layer.place(path, Target::Key),
        format!("unknown key `{}`", layer.spell(path)),
    )
    .suggest(meant.map(|meant| format!("did you mean `{}`?", layer.spell(&meant))))
}

fn elsewhere(key: &str) -> Option<Vec<&'static str>> {
    let found = leaves()
        .into_iter()
        .find(|(path, _)| path.last() == Some(&key));
    found.map(|(path, _)| path)
}

/// Every setting that is a value, with its path, in the order declared.
pub(super) fn leaves() -> Vec<(Vec<&'static str>, Setting)> {
    let mut all = Vec::new();
    for setting in Config::SETTINGS {
        match setting.kind {
            Kind::Live | Kind::Restart => all.push((vec![setting.key], *setting)),
            Kind::Section(inner) => {
                all.extend(
                    inner
                        .iter()
                        .map(|leaf| (vec![setting.key, leaf.key], *leaf)),
                );
            }
        }
    }
    all
}

/// Whether a tree has something at a path.
pub(super) fn has(dict: &Dict, path: &[&str]) -> bool {
    find(dict, path).is_some()
}

/// What a tree has at a path.
pub(super) fn find<'d>(dict: &'d Dict, path: &[&str]) -> Option<&'d Value> {
    let (first, rest) = path.split_first()?;
    match (dict.get(*first)?, rest) {
        (value, []) => Some(value),
        (Value::Dict(_, inside), rest) => find(inside, rest),
        // Inside an array: good enough, the array is one value here.
        (array @ Value::Array(..), _) => Some(array),
        _ => None,
    }
}

/// A tree with nothing but one value.
pub(super) fn nest(path: &[&str], value: Value) -> Dict {
    match path {
        [] => Dict::new(),
        [last] => Dict::from([((*last).to_owned(), value)]),
        [first, rest @ ..] => Dict::from([((*first).to_owned(), nest(rest, value).into())]),
    }
}

/// Both trees; what is in both comes from the second.
pub(super) fn merge(mut under: Dict, over: Dict) -> Dict {
    for (key, value) in over {
        let value = match (under.remove(&key), value) {
            (Some(Value::Dict(_, low)), Value::Dict(_, high)) => merge(low, high).into(),
            (_, value) => value,
        };
        under.insert(key, value);
    }
    under
}

/// A value as a tree, as it would stand in a file.
pub(super) fn dict(value: &impl Serialize) -> Result<Dict, String> {
    let value = Value::serialize(value).map_err(|error| error.to_string())?;
    value
        .into_dict()
        .ok_or_else(|| "not a table of settings".to_owned())
}
