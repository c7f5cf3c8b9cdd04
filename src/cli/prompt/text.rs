//! What is asked: words of the command line, standard input, a template, files.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use minijinja::Value;

use crate::model::check::STDIN_MAX;
use crate::model::quantity::ByteSize;

use super::super::submit::pairs;
use super::super::{Failure, file};
use super::template::{Template, Variables};

/// Where the text comes from.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub(super) struct Args {
    /// File whose text goes behind what is asked, once for each
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Template (Jinja) of what is asked, in which {{ NAME }} is a variable
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    template: Option<PathBuf>,
    /// Variable of the template, once for each
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Variable of the template whose value is the text of a file
    #[arg(long, value_name = "NAME=FILE")]
    var_file: Vec<String>,
    /// What to ask; `-` reads it from standard input, at most 1MiB
    #[arg(required_unless_present_any = ["template", "file", "batch", "stdin_from"])]
    text: Option<String>,
}

impl Args {
    /// The text.
    pub(super) fn compose(&self) -> Result<String, Failure> {
        let mut parts = Vec::new();
        let (template, variables) = self.template()?;
        if let Some(template) = template {
            parts.push(template.fill(&variables)?);
        }
        match self.text.as_deref() {
            Some("-") => parts.push(input()?),
            Some(text) => parts.push(text.to_owned()),
            None => {}
        }
        for path in &self.file {
            parts.push(file::text("--file", path, STDIN_MAX)?);
        }
        let text = parts.join("\n\n");
        if text.len() > STDIN_MAX {
            return Err(too_long());
        }
        Ok(text)
    }

    /// The template, and its variables.
    pub(super) fn template(&self) -> Result<(Option<Template>, Variables), Failure> {
        let Some(path) = &self.template else {
            let given = [("--var", &self.var), ("--var-file", &self.var_file)];
            return match given.iter().find(|(_, all)| !all.is_empty()) {
                Some((flag, _)) => Err(Failure::Usage(format!("{flag} goes with --template only"))),
                None => Ok((None, Variables::new())),
            };
        };
        let variables = self.variables()?;
        let template = Template::read(path, &variables)?;
        Ok((Some(template), variables))
    }

    /// The variables that were given.
    fn variables(&self) -> Result<Variables, Failure> {
        let mut all: Variables = pairs(&self.var, "--var")?
            .0
            .into_iter()
            .map(|(name, value)| (name, Value::from(value)))
            .collect();
        let files: BTreeMap<String, String> = pairs(&self.var_file, "--var-file")?.0;
        for (name, path) in files {
            let text = file::text("--var-file", Path::new(&path), STDIN_MAX)?;
            if all.insert(name.clone(), Value::from(text)).is_some() {
                let why = format!("--var-file {name}: there is a --var of this name");
                return Err(Failure::Usage(why));
            }
        }
        Ok(all)
    }
}

fn too_long() -> Failure {
    let most = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
    Failure::Usage(format!("the text is longer than {}", ByteSize(most)))
}

/// The text on standard input.
fn input() -> Result<String, Failure> {
    let mut text = String::new();
    let limit = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
    let mut input = io::stdin().lock().take(limit + 1);
    input.read_to_string(&mut text).map_err(|error| {
        Failure::Usage(format!("cannot read the text from standard input: {error}"))
    })?;
    if text.len() > STDIN_MAX {
        return Err(too_long());
    }
    Ok(text)
}
