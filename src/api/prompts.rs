//! What a task reads: its standard input, or the text that a model is asked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::model::check::STDIN_MAX;
use crate::model::prompt::Prompt;

use super::asked::{PromptRule, Submit};
use super::problem::Problem;

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
    match asked.prompt.take() {
        None => Ok((None, stdin)),
        Some(_) if stdin.is_some() => {
            Err(Problem::invalid("stdin", "cannot be combined with prompt"))
        }
        Some(rule) => prompt(rule).map(|(prompt, text)| (Some(prompt), Some(text))),
    }
}

/// What is asked of a model, and the text.
fn prompt(rule: PromptRule) -> Result<(Prompt, Vec<u8>), Problem> {
    if rule.text.trim().is_empty() {
        return Err(Problem::invalid("prompt.text", "is empty"));
    }
    if rule.text.len() > STDIN_MAX {
        let detail = format!("is longer than {STDIN_MAX} bytes");
        return Err(Problem::invalid("prompt.text", detail));
    }
    let prompt = Prompt {
        model: rule.model.unwrap_or_default(),
        system: rule.system,
        max_tokens: rule.max_tokens,
        ..Prompt::default()
    };
    Ok((prompt, rule.text.into_bytes()))
}
