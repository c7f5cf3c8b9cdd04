//! What an answer has to look like: a JSON schema, and the judgement of a reply.
//!
//! Whatever its provider promises, a reply is judged here. Schemas come from
//! anyone: what reading one can cost has a limit, nothing is fetched for it, and
//! its patterns are matched in time that grows with the text alone.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::json;

/// Bytes that a schema may have.
pub const SCHEMA_MAX: usize = 64 * 1024;
/// How often a model is asked to mend its answer where nothing says how often.
pub const REPAIRS: u32 = 2;
/// How often it may be.
pub const REPAIRS_MAX: u32 = 10;
/// How deep a schema may be nested: half of what readers of JSON take, so that
/// it is read wherever it is wrapped up.
const DEPTH_MAX: usize = 64;
/// Patterns that a schema may have.
const PATTERNS_MAX: usize = 32;
/// Bytes that a pattern may take when it is compiled.
const PATTERN_MAX: usize = 64 * 1024;
/// Faults of a reply that are told.
const FAULTS_MAX: usize = 5;
/// Letters of a fault that are told.
const WORDS_MAX: usize = 300;

/// A schema that replies can be judged by.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(schema: &Value) -> Result<Self, String> {
        if !schema.is_object() {
            return Err("must be a JSON object".to_owned());
        }
        let mut patterns = 0;
        look(schema, 0, &mut patterns)?;
        if patterns > PATTERNS_MAX {
            return Err(format!(
                "has {patterns} patterns; {PATTERNS_MAX} are allowed"
            ));
        }
        let size = schema.to_string().len();
        if size > SCHEMA_MAX {
            return Err(format!("has {size} bytes; {SCHEMA_MAX} are allowed"));
        }
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_MAX)
            .dfa_size_limit(PATTERN_MAX);
        let options = jsonschema::options().with_pattern_options(patterns);
        let validator = options.build(schema).map_err(|error| {
            let words = shorten(&error.to_string());
            match error.instance_path().to_string() {
                path if path.is_empty() => format!("is no JSON schema: {words}"),
                path => format!("is no JSON schema: at {path}: {words}"),
            }
        })?;
        Ok(Self { validator })
    }

    /// The JSON of a reply that is as the schema has it. A fence around it, as
    /// models put it around code, is no part of it.
    ///
    /// # Errors
    /// What is wrong, each fault with its place as a JSON pointer; never empty.
    pub fn judge<'t>(&self, reply: &'t str) -> Result<&'t str, Vec<String>> {
        let text = bare(reply);
        if text.is_empty() {
            return Err(vec!["it is empty".to_owned()]);
        }
        let value = json::read(text).map_err(|why| vec![format!("it is not JSON: {why}")])?;
        let faults = self.validator.iter_errors(&value).take(FAULTS_MAX);
        let faults: Vec<_> = faults
            .map(|fault| {
                let words = shorten(&fault.to_string());
                match fault.instance_path().to_string() {
                    path if path.is_empty() => format!("at the top: {words}"),
                    path => format!("at {path}: {words}"),
                }
            })
            .collect();
        if faults.is_empty() {
            Ok(text)
        } else {
            Err(faults)
        }
    }
}

/// Counts patterns, and measures how deep it goes.
fn look(value: &Value, depth: usize, patterns: &mut usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested more than {DEPTH_MAX} deep"));
    }
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            *patterns += match (name.as_str(), value) {
                ("pattern", _) => 1,
                ("patternProperties", Value::Object(properties)) => properties.len(),
                _ => 0,
            };
            look(value, depth + 1, patterns)
        }),
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| look(value, depth + 1, patterns)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// A reply without the fence around it, if there is one.
fn bare(reply: &str) -> &str {
    let text = reply.trim();
    let inner = text
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"));
    let inner = inner.map(|inner| inner.strip_prefix("json").unwrap_or(inner));
    inner.map_or(text, str::trim)
}

/// The beginning, in one line.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(value: &Value) -> Schema {
        Schema::new(value).expect("a schema")
    }

    #[test]
    fn a_reply_is_judged_by_all_of_its_schema() {
        let schema = schema(&json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "ages": {"type": "array", "items": {"$ref": "#/$defs/age"}},
            },
            "required": ["name"],
            "additionalProperties": false,
            "$defs": {"age": {"type": "integer", "minimum": 0}},
        }));
        let good = "{\"name\":\"ada\",\"ages\":[36]}";
        assert_eq!(schema.judge(good), Ok(good));
        assert_eq!(schema.judge(&format!("\n```json\n{good}\n```\n")), Ok(good));
        assert_eq!(schema.judge(&format!("```\n{good}```")), Ok(good));
        for (reply, words) in [
            ("", "it is empty"),
            ("Sure! Here it is", "it is not JSON: expected value"),
            ("{\"name\":\"ada\"", "it is not JSON: EOF"),
            ("{\"name\":\"ada\"} and more", "it is not JSON: trailing"),
            ("{}", "at the top: \"name\" is a required property"),
            (
                "{\"name\":\"ada\",\"ages\":[1,-1]}",
                "at /ages/1: -1 is less than the minimum of 0",
            ),
            ("{\"name\":\"Ada\"}", "at /name: \"Ada\" does not match"),
            (
                "{\"name\":\"ada\",\"x\":1}",
                "at the top: Additional properties",
            ),
            ("[]", "at the top: [] is not of type \"object\""),
        ] {
            let faults = schema.judge(reply).expect_err(reply);
            assert!(faults[0].starts_with(words), "{reply}: {faults:?}");
        }
        let long = format!("{{\"name\":{}}}", "9".repeat(10_000));
        let faults = schema.judge(&long).expect_err("long");
        assert!(faults[0].chars().count() < 350, "{faults:?}");
    }

    #[test]
    fn what_is_no_schema_and_what_costs_too_much_is_refused() {
        let mut deep = json!({});
        for _ in 0..70 {
            deep = json!({"items": deep});
        }
        let many: Vec<_> = (0..33).map(|n| json!({"pattern": n.to_string()})).collect();
        for (value, words) in [
            (json!(true), "must be a JSON object"),
            (json!({"type": "strin"}), "at /type: "),
            (
                json!({"properties": {"a": {"type": 3}}}),
                "at /properties/a/type: ",
            ),
            (
                json!({"$ref": "http://example.invalid/x"}),
                "http://example.invalid/x",
            ),
            (json!({"$ref": "file:///etc/passwd"}), "file:///etc/passwd"),
            (json!({"$ref": "#/$defs/nobody"}), "/$defs/nobody"),
            (json!({"pattern": "("}), "at /pattern"),
            (json!({"pattern": "(\\w{50}){50}"}), "at /pattern"),
            (json!({"anyOf": many}), "has 33 patterns; 32 are allowed"),
            (deep, "nested more than 64 deep"),
            (
                json!({"title": "x".repeat(SCHEMA_MAX)}),
                "65536 are allowed",
            ),
        ] {
            let why = Schema::new(&value).expect_err(words);
            assert!(why.contains(words), "{words}: {why}");
            assert!(why.chars().count() < 400, "{why}");
        }
    }
}
