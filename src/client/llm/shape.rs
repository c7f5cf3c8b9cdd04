//! How providers are told what an answer has to look like.
//!
//! It is a help for the model and no promise: what comes back is judged by
//! whoever asked.

use serde_json::{Value, json};

/// Name of the answer, where one has to be given.
const NAME: &str = "answer";
/// What a strict schema may say; of others, providers refuse the whole request.
const STRICT: [&str; 22] = [
    "$defs",
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "definitions",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
];

/// The field `response_format` of chat completions.
pub(super) fn response_format(schema: &Value) -> Value {
    json!({
        "type": "json_schema",
        "json_schema": {"name": NAME, "schema": schema, "strict": is_strict(schema)},
    })
}

/// The field `text.format` of responses.
pub(super) fn text_format(schema: &Value) -> Value {
    json!({"type": "json_schema", "name": NAME, "schema": schema, "strict": is_strict(schema)})
}

/// Whether a provider may hold the model to a whole schema word by word.
fn is_strict(schema: &Value) -> bool {
    is_object(schema) && schema.get("anyOf").is_none() && strict(schema)
}

/// The fields `tools` and `tool_choice` of messages: a tool that has to be used
/// once, with the answer. Only objects can be given to a tool.
pub(super) fn tool(schema: &Value) -> Option<(Value, Value)> {
    let tool = json!({
        "name": NAME,
        "description": "Gives the answer.",
        "input_schema": schema,
    });
    is_object(schema).then(|| (json!([tool]), json!({"type": "tool", "name": NAME})))
}

fn is_object(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

/// Whether a provider may hold the model to a schema word by word: all objects
/// in it are closed and need all that they have.
fn strict(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else {
        return false;
    };
    if fields.keys().any(|name| !STRICT.contains(&name.as_str())) {
        return false;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if is_object(schema) || properties.is_some() {
        let needed = schema.get("required").and_then(Value::as_array);
        let is_needed = |name: &String| {
            needed.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(name)))
        };
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if !is_closed || !properties.is_none_or(|all| all.keys().all(is_needed)) {
            return false;
        }
    }
    let inner = ["properties", "$defs", "definitions"].into_iter();
    let mut inner = inner.filter_map(|name| schema.get(name)?.as_object());
    let mut more = schema.get("anyOf").and_then(Value::as_array).into_iter();
    inner.all(|all| all.values().all(strict))
        && more.all(|all| all.iter().all(strict))
        && schema.get("items").is_none_or(strict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_held_to_what_it_can_keep() {
        let closed = json!({
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "integer"}}},
            "required": ["a"],
            "additionalProperties": false,
        });
        let strict = |schema: &Value| {
            let format = response_format(schema)["json_schema"].clone();
            assert_eq!(text_format(schema)["strict"], format["strict"]);
            format["strict"].clone()
        };
        assert_eq!(strict(&closed), json!(true));
        for (name, value) in [
            ("additionalProperties", json!(true)),
            ("required", json!([])),
            ("allOf", json!([])),
            ("type", json!("array")),
            ("properties", json!({"a": {"type": "object"}})),
            ("anyOf", json!([{"type": "string"}])),
        ] {
            let mut open = closed.clone();
            open[name] = value;
            assert_eq!(strict(&open), json!(false), "{name}");
        }
    }

    #[test]
    fn only_objects_are_given_to_a_tool() {
        let object = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let (tools, choice) = tool(&object).expect("a tool");
        assert_eq!(tools[0]["input_schema"], object);
        assert_eq!(tools[0]["name"], choice["name"]);
        assert_eq!(tool(&json!({"type": "array"})), None);
        assert_eq!(tool(&json!({"anyOf": [{"type": "object"}]})), None);
    }
}
