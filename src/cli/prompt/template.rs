//! Templates of prompts: a file of text in the language of Jinja, and the
//! variables that are put into it. They are filled in before a prompt is handed
//! in, so a task holds what is asked and depends on no file.
//!
//! A variable that is missing is an error and never an empty place, and one
//! that has no place is taken for a mistake.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::model::check::STDIN_MAX;
use crate::model::quantity::ByteSize;

use super::super::{Failure, file};

/// Variables by name.
pub(super) type Variables = BTreeMap<String, Value>;

/// A template that was read.
#[derive(Debug)]
pub(super) struct Template {
    /// Its file, for messages.
    name: String,
    source: String,
    environment: Environment<'static>,
}

impl Template {
    /// Reads the template in a file, in which the variables that are `given`
    /// must have a place.
    pub(super) fn read(path: &Path, given: &Variables) -> Result<Self, Failure> {
        let source = file::text("--template", path, STDIN_MAX)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_debug(true);
        let template = Self {
            name: path.display().to_string(),
            source,
            environment,
        };
        template.places(given)?;
        Ok(template)
    }

    /// Whether it makes sense, and has a place for each variable.
    fn places(&self, given: &Variables) -> Result<(), Failure> {
        let parsed = self
            .environment
            .template_from_named_str(&self.name, &self.source)
            .map_err(|error| self.explain(&error))?;
        let places = parsed.undeclared_variables(false);
        let Some(name) = given.keys().find(|name| !places.contains(*name)) else {
            return Ok(());
        };
        let mut known: Vec<_> = places.into_iter().collect();
        known.sort_unstable();
        let known = match known.as_slice() {
            [] => "no variables".to_owned(),
            known => format!("no such variable, only {}", known.join(", ")),
        };
        let file = &self.name;
        Err(Failure::Usage(format!("--var {name}: {file} has {known}")))
    }

    /// The text with these variables.
    pub(super) fn fill(&self, variables: &Variables) -> Result<String, Failure> {
        let mut text = Capped(Vec::new());
        let filled = self
            .environment
            .template_from_named_str(&self.name, &self.source)
            .and_then(|template| {
                let variables = Value::from(variables);
                template.render_captured_to(variables, &mut text).map(drop)
            });
        if let Err(error) = filled {
            return Err(self.explain(&error));
        }
        // Out of text comes text.
        Ok(String::from_utf8(text.0).unwrap_or_default())
    }

    /// What is wrong, and where.
    fn explain(&self, error: &Error) -> Failure {
        let name = &self.name;
        let place = error
            .line()
            .map_or_else(|| name.clone(), |line| format!("{name}:{line}"));
        let kind = error.kind();
        let what = if kind == ErrorKind::WriteFailure {
            let most = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
            format!("the text grows longer than {}", ByteSize(most))
        } else if kind == ErrorKind::UndefinedError {
            let detail = error.detail().unwrap_or("a variable is undefined");
            format!("{detail}; --var NAME=VALUE gives a variable")
        } else if let Some(detail) = error.detail() {
            format!("{kind}: {detail}")
        } else {
            kind.to_string()
        };
        Failure::Usage(format!("{place}: {what}"))
    }
}

/// Text that may not grow longer than what a prompt may have.
struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > STDIN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::from(*value));
        pairs.iter().map(own).collect()
    }

    fn fill(source: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("ask.txt");
        std::fs::write(&path, source).expect("write");
        let given = variables(pairs);
        let filled = Template::read(&path, &given).and_then(|it| it.fill(&given));
        let place = path.display().to_string();
        filled.map_err(|failure| failure.to_string().replace(&place, "ask.txt"))
    }

    #[test]
    fn variables_are_put_in_as_they_are() {
        let text = fill(
            "Hello {{ name }}!\n{% for w in words|split(',') %}- {{ w }}\n{% endfor %}",
            &[("name", "<Ada> & \"$(id)\""), ("words", "a,b")],
        );
        assert_eq!(text, Ok("Hello <Ada> & \"$(id)\"!\n- a\n- b\n".to_owned()));
        let text = fill("{% if x is defined %}{{ x }}{% else %}none{% endif %}", &[]);
        assert_eq!(text, Ok("none".to_owned()));
    }

    #[test]
    fn what_is_missing_wrong_or_too_much_is_named_with_its_line() {
        let long = "x".repeat(1000);
        for (source, pairs, words) in [
            ("a\nb {{ nme }}", &[][..], "ask.txt:2: `nme` is undefined"),
            ("\n\n{{ a", &[][..], "ask.txt:3: syntax error: "),
            ("{{ 'x'|nope }}", &[][..], "ask.txt:1: unknown filter: "),
            ("{% include '/etc/passwd' %}", &[][..], "ask.txt:1: syntax"),
            (
                "{{ name }} {{ age }}",
                &[("nmae", "x")][..],
                "--var nmae: ask.txt has no such variable, only age, name",
            ),
            ("x", &[("a", "x")][..], "--var a: ask.txt has no variables"),
            (
                "{% for i in range(2000) %}{{ x }}{% endfor %}",
                &[("x", long.as_str())][..],
                "longer than 1MiB",
            ),
        ] {
            let said = fill(source, pairs).expect_err(source);
            assert!(said.contains(words), "{source}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
