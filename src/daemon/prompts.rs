//! What the engine has to know of prompts: the models of the configuration,
//! with the keys of those who serve them.

use nix::unistd::User;

use crate::config::error::{Error, Place};
use crate::engine::budgets::{Daily, Rule, Who};
use crate::engine::prompts::{Door, Options, Prompts, Provider, Target};
use crate::model::prompt::Key;

use super::secrets::{self, Hidden};

/// Setting that names the files with the keys.
const SETTING: &str = "llm.providers";

/// Reads the keys, and puts everything together.
pub(super) fn resolve(
    options: &Options,
    program: &str,
    door: Option<Door>,
) -> Result<Prompts, Error> {
    let mut targets = Vec::with_capacity(options.models.len());
    for model in &options.models {
        // The configuration was checked: there is one.
        let mut providers = options.providers.iter();
        let Some(provider) = providers.find(|provider| provider.name == model.provider) else {
            continue;
        };
        targets.push(Target {
            model: model.clone(),
            provider: provider.clone(),
            key: key(provider)?,
            account: String::new(),
        });
    }
    share_accounts(&mut targets);
    Ok(Prompts {
        targets,
        program: program.to_owned(),
        calls: options.calls,
        budgets: rules(&options.budgets)?,
        door,
    })
}

/// Who is meant by the budgets of a day.
fn rules(budgets: &[Daily]) -> Result<Vec<Rule>, Error> {
    let rule = |budget: &Daily| {
        let cap = budget.cap();
        let (who, name) = match (&budget.user, &budget.queue) {
            (Some(name), _) if name == "*" => (Who::Everyone, name),
            (Some(name), _) => (Who::User(uid(name)?), name),
            (None, Some(name)) => (Who::Queue, name),
            // The configuration was checked.
            (None, None) => return Ok(None),
        };
        let name = name.clone();
        Ok(Some(Rule { who, name, cap }))
    };
    budgets
        .iter()
        .filter_map(|budget| rule(budget).transpose())
        .collect()
}

/// The number of a user, by name or as it stands there.
fn uid(name: &str) -> Result<u32, Error> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    let account = User::from_name(name).ok().flatten();
    let uid = account.map(|account| account.uid.as_raw());
    uid.ok_or_else(|| {
        let why = format!("this host has no user `{name}`");
        Error::new(Place::Key("llm.budgets".to_owned()), why)
    })
}

/// Providers with one address and one key are one account, whatever they are
/// called here.
fn share_accounts(targets: &mut [Target]) {
    let owners: Vec<_> = targets
        .iter()
        .map(|target| {
            let mut all = targets.iter();
            let same = all.find(|other| {
                other.key == target.key && other.provider.base_url == target.provider.base_url
            });
            same.map_or(&target.provider.name, |first| &first.provider.name)
                .clone()
        })
        .collect();
    for (target, owner) in targets.iter_mut().zip(owners) {
        target.account = format!("{owner}/{}", target.model.model);
    }
}

fn key(provider: &Provider) -> Result<Option<Key>, Error> {
    let refuse = |what: String| {
        let name = &provider.name;
        Error::new(Place::Key(SETTING.to_owned()), format!("`{name}`: {what}"))
    };
    let (path, hidden) = match (&provider.key_file, &provider.key_credential) {
        (Some(path), _) => (path.clone(), Hidden::FromGroup),
        // The service manager keeps these, and their modes are its own.
        (None, Some(name)) => {
            let path = secrets::credential(name).ok_or_else(|| {
                let why = format!("the service has no credential `{name}`");
                refuse(why).suggest(Some(format!(
                    "systemctl edit taskdaemon: LoadCredential={name}:/etc/taskdaemon/{name}"
                )))
            })?;
            (path, Hidden::FromEverybody)
        }
        (None, None) => return Ok(None),
    };
    let more = "it holds the key and nothing else";
    let bytes = secrets::read(SETTING, &path, hidden, 1, more)?;
    let text = String::from_utf8(bytes).ok();
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    let text = text.ok_or_else(|| refuse(format!("{}: is no key", path.display())))?;
    Ok(Some(Key::new(text)))
}
