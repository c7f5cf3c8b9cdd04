//! Floor 4: every setting, from all places, typed and checked.
//!
//! Defaults, then the file, its drop-ins, the environment and the command
//! line, each over the one before (figment merges and types them). The rooms
//! declare their settings themselves; this one looks down at them, and none of
//! them looks up. Nothing is created, bound or connected to here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::model::setting::Kind::{Live, Restart, Section};
use crate::model::setting::settings;
use crate::{api, engine, run, store};

use self::error::{Error, Place};
use self::file::Source;
use self::places::Places;
use self::tree::Target;

mod check;
pub mod daemon;
pub mod error;
mod file;
mod keys;
mod llm;
mod places;
pub mod print;
pub mod text;
pub mod traces;
mod tree;

settings! {
    /// The whole configuration.
    pub struct Config {
        /// Where tasks and their output are kept. For a user's own daemon it is
        /// `~/.local/state/taskdaemon`.
        state_dir: PathBuf = PathBuf::from("/var/lib/taskdaemon"), Restart;
        /// Where sockets are. For a user's own daemon it is `$XDG_RUNTIME_DIR/taskdaemon`.
        runtime_dir: PathBuf = PathBuf::from("/run/taskdaemon"), Restart;
        /// What to log: a level (off, error, warn, info, debug, trace), and levels for parts
        /// of the program, such as `"info,taskdaemon::engine=debug"`.
        log: String = "info".to_owned(), Live;
        /// Who may connect, how long, how much.
        api: api::options::Options = api::options::Options::default(), Section(api::options::Options::SETTINGS);
        /// How much at once, how much waiting.
        engine: engine::options::Options = engine::options::Options::default(), Section(engine::options::Options::SETTINGS);
        /// What follows the end of every task.
        hooks: engine::options::HookOptions = engine::options::HookOptions::default(), Section(engine::options::HookOptions::SETTINGS);
        /// Language models, which prompts ask.
        llm: engine::prompts::Options = engine::prompts::Options::default(), Section(engine::prompts::Options::SETTINGS);
        /// The daemon's own process.
        daemon: daemon::Options = daemon::Options::default(), Section(daemon::Options::SETTINGS);
        /// Traces, for a collector of OpenTelemetry.
        traces: traces::Options = traces::Options::default(), Section(traces::Options::SETTINGS);
        /// Which runner, how much output.
        run: run::options::Options = run::options::Options::default(), Section(run::options::Options::SETTINGS);
        /// How long what is over is kept.
        retention: engine::retention::Options = engine::retention::Options::default(), Section(engine::retention::Options::SETTINGS);
        /// What may be taken of the disk.
        store: store::options::Options = store::options::Options::default(), Section(store::options::Options::SETTINGS);
    }
}

/// Where to look for settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named on the command line; it has to exist.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
    /// Settings given on the command line.
    pub flags: Dict,
    /// The user this runs as; only that user and root may own the files.
    pub uid: u32,
}

impl Sources {
    /// The sources of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            variables: std::env::vars_os().collect(),
            flags: Dict::new(),
            uid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// Adds a setting of the command line; the key with dots, as `api.socket`.
    #[must_use]
    pub fn with_flag(mut self, key: &str, value: impl Into<Value>) -> Self {
        let path: Vec<&str> = key.split('.').collect();
        self.flags = keys::merge(self.flags, keys::nest(&path, value.into()));
        self
    }
}

/// A configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration; every value is in its range.
    pub config: Config,
    /// What was left out and may surprise; to be logged.
    pub notes: Vec<String>,
    layers: Vec<Layer>,
}

impl Loaded {
    /// Where a setting, such as `api.socket`, got its value.
    #[must_use]
    pub fn place(&self, key: &str) -> Place {
        let path: Vec<&str> = key.split('.').collect();
        place(&self.layers, &path, Target::Key)
    }

    /// The files that were read, in their order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().filter_map(|layer| match &layer.origin {
            Origin::File(source) => Some(source.path.as_path()),
            Origin::Default | Origin::Variable(_) | Origin::CommandLine => None,
        })
    }
}

/// Reads, merges and checks all settings. Nothing is changed anywhere, so a
/// reload that fails leaves everything as it was.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let places = Places::of(&sources.variables, sources.uid);
    let (files, notes) = files(sources, &places)?;
    let mut layers = Vec::new();
    for source in files {
        let dict = source.format.parse(&source.text).map_err(|fault| {
            let place = Place::File {
                path: source.path.clone(),
                position: fault.position,
            };
            Error::new(place, fault.message)
        })?;
        layers.push(Layer {
            origin: Origin::File(source),
            dict,
        });
    }
    for (name, value) in &sources.variables {
        layers.extend(variable(name, value)?);
    }
    layers.push(Layer {
        origin: Origin::CommandLine,
        dict: sources.flags.clone(),
    });
    for layer in &mut layers {
        keys::check(layer)?;
        secluded(layer)?;
    }
    layers.insert(0, defaults(&places, &layers)?);
    let config: Config = merged(&layers)
        .extract()
        .map_err(|error| explain(&layers, error))?;
    check::check(&config).map_err(|found| {
        let decided = |key: &str| {
            let path: Vec<&str> = key.split('.').collect();
            place(&layers, &path, Target::Value)
        };
        let place = match (decided(found.key), found.against) {
            (Place::Default, Some(against)) => decided(against),
            (place, _) => place,
        };
        Error::new(place, format!("{}: {}", found.key, found.message)).suggest(found.suggestion)
    })?;
    Ok(Loaded {
        config,
        notes,
        layers,
    })
}

/// The file and its drop-ins.
fn files(sources: &Sources, places: &Places) -> Result<(Vec<Source>, Vec<String>), Error> {
    let variable = sources
        .variables
        .get(&OsString::from("TASKDAEMON_CONFIG"))
        .map(PathBuf::from);
    let named = sources.file.clone().or(variable);
    let path = named.as_deref().unwrap_or(&places.config);
    let main = file::read(path, sources.uid)?;
    if main.is_none() && named.is_some() {
        let place = Place::File {
            path: path.to_owned(),
            position: None,
        };
        return Err(Error::new(place, "there is no such file"));
    }
    let beside = path
        .parent()
        .map_or_else(|| PathBuf::from("conf.d"), |parent| parent.join("conf.d"));
    let (drop_ins, notes) = file::drop_ins(&beside, sources.uid)?;
    Ok((main.into_iter().chain(drop_ins).collect(), notes))
}

/// The setting in an environment variable, if it is one of ours. Two
/// underscores stand for the dot, values are read as in figment: numbers,
/// truth values, `[lists]`, else text.
fn variable(name: &OsString, value: &OsString) -> Result<Option<Layer>, Error> {
    let name = name.to_string_lossy();
    let Some(key) = name
        .strip_prefix(keys::PREFIX)
        .filter(|_| !keys::NO_SETTINGS.contains(&&*name) && !name.starts_with(keys::HOOK))
    else {
        return Ok(None);
    };
    let origin = Origin::Variable(name.clone().into_owned());
    let Some(text) = value.to_str() else {
        return Err(Error::new(
            Place::Variable(name.into_owned()),
            "is not UTF-8",
        ));
    };
    let Ok(value) = text.parse::<Value>();
    let lower = key.to_lowercase();
    let path: Vec<&str> = lower.split("__").collect();
    Ok(Some(Layer {
        origin,
        dict: keys::nest(&path, value),
    }))
}

/// Refuses tokens in a file that everybody may read: a secret that somebody
/// chose may be found by its hash.
fn secluded(layer: &Layer) -> Result<(), Error> {
    const TOKENS: [&str; 2] = ["api", "tokens"];
    let Origin::File(source) = &layer.origin else {
        return Ok(());
    };
    let tokens = keys::find(&layer.dict, &TOKENS);
    let any = matches!(tokens, Some(Value::Array(_, list)) if !list.is_empty());
    if !source.open || !any {
        return Ok(());
    }
    let path = source.path.display();
    let help = format!("`chgrp taskdaemon {path} && chmod 0640 {path}`");
    let place = layer.place(&TOKENS, Target::Key);
    Err(Error::new(place, "api.tokens: the file can be read by everybody").suggest(Some(help)))
}

/// The lowest layer: declared defaults, in the places of whoever runs this.
fn defaults(places: &Places, above: &[Layer]) -> Result<Layer, Error> {
    let mut config = Config::default();
    let given = |key: &str| merged(above).extract_inner::<PathBuf>(key).ok();
    let state = given("state_dir").or_else(|| places.state.clone());
    let Some(state) = state else {
        return Err(Error::new(
            Place::Default,
            "there is no place for tasks: neither HOME nor XDG_STATE_HOME is set",
        )
        .suggest(Some("set state_dir".to_owned())));
    };
    let runtime = given("runtime_dir")
        .or_else(|| places.runtime.clone())
        .unwrap_or_else(|| state.clone());
    config.api.socket = runtime.join("api.sock");
    config.run.runner_socket = runtime.join("runner.sock");
    config.run.report_socket = runtime.join("report/report.sock");
    config.state_dir = state;
    config.runtime_dir = runtime;
    let dict = keys::dict(&config).map_err(|error| Error::new(Place::Default, error))?;
    Ok(Layer {
        origin: Origin::Default,
        dict,
    })
}

/// Settings from one place.
#[derive(Debug, Clone)]
struct Layer {
    origin: Origin,
    dict: Dict,
}

/// A place settings come from.
#[derive(Debug, Clone)]
enum Origin {
    Default,
    File(Source),
    Variable(String),
    CommandLine,
}

impl Layer {
    fn place(&self, path: &[&str], target: Target) -> Place {
        match &self.origin {
            Origin::Default => Place::Default,
            Origin::File(source) => Place::File {
                path: source.path.clone(),
                position: source.format.locate(&source.text, path, target),
            },
            Origin::Variable(name) => Place::Variable(name.clone()),
            Origin::CommandLine => Place::CommandLine,
        }
    }

    /// How a key is written in this place.
    fn spell(&self, path: &[&str]) -> String {
        match &self.origin {
            Origin::Variable(_) => format!("{}{}", keys::PREFIX, path.join("__").to_uppercase()),
            Origin::Default | Origin::File(_) | Origin::CommandLine => path.join("."),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("settings")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn merged(layers: &[Layer]) -> Figment {
    layers
        .iter()
        .fold(Figment::new(), |all, layer| all.merge(layer))
}

/// The place that decided a setting: the topmost that has it.
fn place(layers: &[Layer], path: &[&str], target: Target) -> Place {
    layers
        .iter()
        .rev()
        .find(|layer| keys::has(&layer.dict, path))
        .map_or(Place::Default, |layer| layer.place(path, target))
}

/// An error of typing in our words, with its place.
fn explain(layers: &[Layer], error: figment::Error) -> Error {
    use figment::error::Kind;
    // Elements of arrays are numbered; positions are found without.
    let key: Vec<&str> = error
        .path
        .iter()
        .map(String::as_str)
        .filter(|part| part.parse::<usize>().is_err())
        .collect();
    let name = key.join(".");
    let at = |path: &[&str], target| place(layers, path, target);
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds say themselves what they are"
    )]
    match error.kind {
        Kind::Message(said) => Error::new(at(&key, Target::Value), format!("{name}: {said}")),
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => Error::new(
            at(&key, Target::Value),
            format!("{name}: expected {wanted}, found {found}"),
        ),
        Kind::UnknownField(field, known) => {
            let like = error::nearest(&field, known.iter().copied());
            // The path ends in the unknown key, which stands in an array; the
            // layer is that of the array.
            let array = key.strip_suffix(&[field.as_str()]).unwrap_or(&key);
            let layer = layers
                .iter()
                .rev()
                .find(|layer| keys::has(&layer.dict, array));
            let place = layer.map_or(Place::Default, |layer| layer.place(&key, Target::Key));
            Error::new(
                place,
                format!("unknown key `{field}` in {}", array.join(".")),
            )
            .suggest(like.map(|like| format!("did you mean `{like}`?")))
        }
        Kind::UnknownVariant(found, known) => {
            let all = known.join("`, `");
            let like = error::nearest(&found, known.iter().copied());
            Error::new(
                at(&key, Target::Value),
                format!("{name}: unknown value `{found}`, the values are `{all}`"),
            )
            .suggest(like.map(|like| format!("did you mean `{like}`?")))
        }
        kind => Error::new(at(&key, Target::Value), format!("{name}: {kind}")),
    }
}
