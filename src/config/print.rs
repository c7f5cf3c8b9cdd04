//! The configuration as text: the default file, what is in force and why, and
//! what a reload changes.

use std::fmt;

use figment::value::{Dict, Value};

use super::keys::{dict, find, leaves};
use super::{Config, Loaded};
use crate::model::setting::{Kind, Setting};

/// A setting whose value is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its key, such as `engine.slots`.
    pub key: String,
    /// The value in force so far.
    pub old: String,
    /// The value asked for.
    pub new: String,
    /// Whether it takes a restart to put it into force.
    pub restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)?;
        f.write_str(if self.restart {
            " (after a restart)"
        } else {
            ""
        })
    }
}

/// What differs between two configurations, in the order of the file.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let (old, new) = (tree(old), tree(new));
    let mut all = Vec::new();
    for (path, setting) in leaves() {
        let (old, new) = (toml(find(&old, &path)), toml(find(&new, &path)));
        if old != new {
            let restart = matches!(setting.kind, Kind::Restart);
            all.push(Change {
                key: path.join("."),
                old,
                new,
                restart,
            });
        }
    }
    all
}

/// Every setting in force, as a file, with the place each comes from.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let values = tree(&loaded.config);
    file(|path, setting, text| {
        let place = loaded.place(&path.join("."));
        match find(&values, path) {
            None | Some(Value::Empty(..)) => {
                text.push_str(&format!("#{} is not set\n", setting.key));
            }
            value => text.push_str(&format!("{} = {}  # {place}\n", setting.key, toml(value))),
        }
    })
}

/// The default configuration file: every setting with its meaning and its
/// default, commented out.
#[must_use]
pub fn default_text() -> String {
    let values = tree(&Config::default());
    let head = "# Configuration of taskdaemon. What is commented out is the default.\n\
                # Drop-ins in conf.d/*.toml beside this file are read after it, then variables such as\n\
                # TASKDAEMON_ENGINE__SLOTS. `taskdaemon config check` tells whether all of it is right,\n\
                # `taskdaemon config show` what is in force. Durations: 250ms, 10s, 1m30s, 2h, 1d.\n\
                # Sizes: 64KiB, 10MiB, 1GiB (1024), 1KB, 1MB, 1GB (1000).\n\n";
    let body = file(|path, setting, text| {
        comment(text, setting);
        let value = match (find(&values, path), setting.example) {
            (None | Some(Value::Empty(..)), Some(example)) => example.to_owned(),
            (value, _) => toml(value),
        };
        text.push_str(&format!("#{} = {value}\n\n", setting.key));
    });
    format!("{head}{}\n", body.trim_end())
}

/// A setting for the manual page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The section it stands in; none at the top.
    pub section: Option<&'static str>,
    /// Its key.
    pub key: &'static str,
    /// What it means, one line each.
    pub doc: &'static [&'static str],
    /// Its default, as it would stand in the file.
    pub default: String,
    /// Whether it takes a restart to put another value into force.
    pub restart: bool,
}

/// Every setting, in the order of the default file.
#[must_use]
pub fn described() -> Vec<Described> {
    let values = tree(&Config::default());
    let one = |(path, setting): (Vec<&'static str>, Setting)| Described {
        section: (path.len() > 1).then(|| path[0]),
        key: setting.key,
        doc: setting.doc,
        default: match (find(&values, &path), setting.example) {
            (None | Some(Value::Empty(..)), Some(example)) => format!("not set, such as {example}"),
            (value, _) => toml(value),
        },
        restart: matches!(setting.kind, Kind::Restart),
    };
    leaves().into_iter().map(one).collect()
}

/// A text with a header for each section and, for each setting, whatever
/// `write` adds.
fn file(mut write: impl FnMut(&[&'static str], &Setting, &mut String)) -> String {
    let mut text = String::new();
    let mut section = None;
    for (path, setting) in leaves() {
        if let [name, _] = path[..]
            && section != Some(name)
        {
            section = Some(name);
            text.push_str(if text.ends_with("\n\n") { "" } else { "\n" });
            text.push_str(&format!("[{name}]\n"));
        }
        write(&path, &setting, &mut text);
    }
    text
}

fn comment(text: &mut String, setting: &Setting) {
    for line in setting.doc {
        text.push_str(&format!("#{}\n", line.replace('`', "")));
    }
}

fn tree(config: &Config) -> Dict {
    // A plain struct of plain values always is a tree.
    dict(config).unwrap_or_default()
}

/// A value as it is written in a file.
fn toml(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Empty(..)) => "not set".to_owned(),
        Some(value) => {
            toml::Value::try_from(value).map_or_else(|_| "?".to_owned(), |value| value.to_string())
        }
    }
}
