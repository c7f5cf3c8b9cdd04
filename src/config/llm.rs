//! Section `[llm]`: providers and models that make sense together.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use crate::engine::prompts::{Options, Provider};
use crate::model::hook::check_url;
use crate::model::prompt::TOKENS_MAX;

use super::check::{Found, found, word};

const PROVIDERS: &str = "llm.providers";
const MODELS: &str = "llm.models";
const BUDGETS: &str = "llm.budgets";

pub(super) fn check(options: &Options) -> Result<(), Found> {
    if options.calls == 0 {
        return found("llm.calls", "must be at least 1".to_owned());
    }
    let here = |at: &str| {
        at.parse::<SocketAddr>()
            .is_ok_and(|at| at.ip().is_loopback())
    };
    if options.listen.as_deref().is_some_and(|at| !here(at)) {
        let why = "must be an address of this host alone, such as 127.0.0.1:4180";
        return found("llm.listen", why.to_owned());
    }
    let mut names = HashSet::new();
    for provider in &options.providers {
        let name = &provider.name;
        if !word(name) {
            return found(PROVIDERS, not_a_name(name));
        }
        if !names.insert(name) {
            return found(PROVIDERS, format!("two providers are named `{name}`"));
        }
        one(provider).or_else(|why| found(PROVIDERS, format!("`{name}`: {why}")))?;
    }
    let mut models = HashSet::new();
    for model in &options.models {
        let name = &model.name;
        if !word(name) {
            return found(MODELS, not_a_name(name));
        }
        if !models.insert(name) {
            return found(MODELS, format!("two models are named `{name}`"));
        }
        if !names.contains(&model.provider) {
            let why = format!("`{name}`: there is no provider `{}`", model.provider);
            return found(MODELS, why);
        }
        if model.model.is_empty() {
            return found(MODELS, format!("`{name}`: model is empty"));
        }
        let most = model.max_tokens;
        if most.is_some_and(|most| !(1..=TOKENS_MAX).contains(&most)) {
            let why = format!("`{name}`: max_tokens must lie between 1 and {TOKENS_MAX}");
            return found(MODELS, why);
        }
        if let Some(fault) = model.limits.fault() {
            return found(MODELS, format!("`{name}`: limits: {fault}"));
        }
    }
    for model in &options.models {
        let name = &model.name;
        let mut others = model.fallback.iter();
        if let Some(other) = others.find(|other| *other == name || !models.contains(other)) {
            let why = format!("`{name}`: fallback: there is no other model `{other}`");
            return found(MODELS, why);
        }
    }
    budgets(options)
}

/// Each is of one user or queue, and of money only where all models have a
/// price: nobody would know what to hold for a call.
fn budgets(options: &Options) -> Result<(), Found> {
    let mut seen = HashSet::new();
    for budget in &options.budgets {
        let name = match (&budget.user, &budget.queue) {
            (Some(user), None) => format!("user `{user}`"),
            (None, Some(queue)) => format!("queue `{queue}`"),
            (Some(_), Some(_)) | (None, None) => {
                return found(BUDGETS, "each needs either user or queue".to_owned());
            }
        };
        if let Some(fault) = budget.cap().fault() {
            return found(BUDGETS, format!("{name}: {fault}"));
        }
        if !seen.insert((&budget.user, &budget.queue)) {
            return found(BUDGETS, format!("{name} has two"));
        }
        let unpriced = options.models.iter().find(|model| model.price.is_none());
        if let Some(model) = unpriced.filter(|_| budget.cost.is_some()) {
            let why = format!(
                "{name}: cost needs a price of each model, and `{}` has none: set its `price`, of \
                 0 where it costs nothing",
                model.name
            );
            return found(BUDGETS, why);
        }
    }
    Ok(())
}

fn one(provider: &Provider) -> Result<(), String> {
    check_url(&provider.base_url).map_err(|why| format!("base_url {why}"))?;
    if provider.base_url.contains('?') {
        return Err("base_url has a query; paths are added to its end".to_owned());
    }
    let keyed = provider.key_file.is_some() || provider.key_credential.is_some();
    if keyed && !provider.insecure && is_in_the_clear(&provider.base_url) {
        return Err(
            "the key would go to another host without TLS, for everybody on the way to read: \
             write https:// in base_url, or set insecure = true"
                .to_owned(),
        );
    }
    if provider.key_file.is_some() && provider.key_credential.is_some() {
        return Err("key_file cannot be combined with key_credential".to_owned());
    }
    if provider
        .key_file
        .as_ref()
        .is_some_and(|path| !path.is_absolute())
    {
        return Err("key_file must be an absolute path".to_owned());
    }
    let name = provider.key_credential.as_ref();
    if name.is_some_and(|name| !word(name)) {
        return Err("key_credential must be the name of a credential".to_owned());
    }
    Ok(())
}

/// Whether what is sent there can be read outside of this host.
pub(super) fn is_in_the_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, _) = rest.split_at(end);
    let host = match authority
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
    {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<IpAddr>();
    // RFC 6761: `localhost` never leaves the host.
    !address.map_or(host == "localhost", |at| at.is_loopback())
}

fn not_a_name(name: &str) -> String {
    format!("{name:?} is no name: letters, digits, `.`, `_`, `-`, at most 64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_host_without_tls_is_in_the_clear() {
        for url in [
            "http://127.0.0.1:8080/v1",
            "http://127.9.9.9",
            "http://[::1]:8080/v1",
            "http://localhost/v1",
            "https://models.example/v1",
        ] {
            assert!(!is_in_the_clear(url), "{url}");
        }
        for url in [
            "http://models.example/v1",
            "http://10.0.0.7:8000",
            "http://[fd00::1]:8000/v1",
            "http://localhost.example:80",
            "http://127.0.0.1.example",
        ] {
            assert!(is_in_the_clear(url), "{url}");
        }
    }
}
