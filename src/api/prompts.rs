//! What a task reads: its standard input, or the text that a model is asked.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::model::check::STDIN_MAX;
use crate::model::lot::Lot;
use crate::model::prompt::Prompt;
use crate::model::schema::Schema;
use crate::model::spec::NewTask;

use super::asked::{PromptRule, Submit};
use super::problem::Problem;

/// Most different schemas of one request.
const SCHEMAS_MAX: usize = 100;

/// What is asked of a model, if anything is, and the standard input.
pub(super) fn input(asked: &mut Submit) -> Result<(Option<Prompt>, Option<Vec<u8>>), Problem> {
    let stdin = match (asked.stdin.take(), asked.stdin_base64.take()) {
        (Some(_), Some(_)) => {
            let detail = "cannot be combined with stdin_base64";
            return Err(Problem::invalid("stdin", detail));
        }
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(text)) => Some(
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| Problem::invalid("stdin_base64", "is not base64 with padding"))?,
        ),
        (None, None) => None,
    };
    let reads = asked.stdin_from.is_some();
    if reads && stdin.is_some() {
        return Err(Problem::invalid(
            "stdin_from",
            "cannot be combined with stdin",
        ));
    }
    match asked.prompt.take() {
        None => Ok((None, stdin)),
        Some(_) if stdin.is_some() => {
            Err(Problem::invalid("stdin", "cannot be combined with prompt"))
        }
        Some(rule) => prompt(rule, reads).map(|(prompt, text)| (Some(prompt), Some(text))),
    }
}

/// Looks at the schemas of a request's tasks: each once, since reading one costs
/// more than all else about a task, and not more of them than one request has
/// a use for. What is wrong, and with which task.
pub(super) fn schemas(tasks: &[NewTask]) -> Result<(), (usize, Problem)> {
    let mut seen: HashSet<&Value> = HashSet::new();
    for (place, task) in tasks.iter().enumerate() {
        let prompt = task.spec.prompt.as_ref();
        let Some(schema) = prompt.and_then(|prompt| prompt.schema.as_ref()) else {
            continue;
        };
        if !seen.insert(schema) {
            continue;
        }
        let refuse = |why: String| (place, Problem::invalid("prompt.schema", why));
        if seen.len() > SCHEMAS_MAX {
            let why = format!(
                "is one of more than {SCHEMAS_MAX} different ones in this request: hand it in in \
                 parts"
            );
            return Err(refuse(why));
        }
        Schema::new(schema).map_err(refuse)?;
    }
    Ok(())
}

/// What is asked of a model, and the text.
fn prompt(rule: PromptRule, reads: bool) -> Result<(Prompt, Vec<u8>), Problem> {
    if rule.text.trim().is_empty() && !reads {
        return Err(Problem::invalid("prompt.text", "is empty"));
    }
    if rule.text.len() > STDIN_MAX {
        let detail = format!("is longer than {STDIN_MAX} bytes");
        return Err(Problem::invalid("prompt.text", detail));
    }
    if rule.provider_batch && reads {
        let detail = "cannot be combined with stdin_from";
        return Err(Problem::invalid("prompt.provider_batch", detail));
    }
    let prompt = Prompt {
        model: rule.model.unwrap_or_default(),
        system: rule.system,
        max_tokens: rule.max_tokens,
        schema: rule.schema,
        repairs: rule.repairs,
        lot: rule.provider_batch.then(Lot::default),
        ..Prompt::default()
    };
    Ok((prompt, rule.text.into_bytes()))
}
