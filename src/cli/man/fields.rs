//! The fields of a task, as they are declared: their names and what is written
//! above them there. So a manual page cannot leave one out.

/// Where they are declared.
const ASKED: &str = include_str!("../../api/asked.rs");
const HOOKS: &str = include_str!("../../api/hooks.rs");

/// Tables of fields, in the order of the page.
pub(super) fn tables() -> Vec<(&'static str, Vec<(String, String)>)> {
    let mut task = of(ASKED, "Submit");
    // A list of tasks is what the file itself is.
    task.retain(|(name, _)| name != "tasks");
    vec![
        ("FIELDS OF A TASK", task),
        ("FIELDS OF PROMPT", of(ASKED, "PromptRule")),
        ("FIELDS OF RETRY", of(ASKED, "RetryRule")),
        ("FIELDS OF UNIQUE", of(ASKED, "UniqueRule")),
        ("FIELDS OF EACH OF HOOKS", of(HOOKS, "HookRule")),
    ]
}

/// The fields of a struct, each with its documentation in one line.
fn of(source: &str, name: &str) -> Vec<(String, String)> {
    let head = format!("pub struct {name} {{\n");
    let inside = source.split(&head).nth(1).unwrap_or_default();
    let inside = inside.split("\n}").next().unwrap_or_default();
    let (mut fields, mut doc, mut called) = (Vec::new(), String::new(), None);
    for line in inside.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("/// ") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(more);
        } else if let Some(rest) = line.strip_prefix("#[serde(rename = \"") {
            called = rest.split('"').next().map(str::to_owned);
        } else if let Some(rest) = line.strip_prefix("pub ") {
            let own = rest.split(':').next().unwrap_or_default();
            let name = called.take().unwrap_or_else(|| own.to_owned());
            fields.push((name, std::mem::take(&mut doc)));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::asked::Submit;

    #[test]
    fn each_field_is_there_with_its_name_in_files_and_its_meaning() {
        let tables = tables();
        for (heading, fields) in &tables {
            assert!(fields.len() >= 2, "{heading}: {fields:?}");
            for (name, doc) in fields {
                assert!(doc.ends_with('.'), "{heading}: {name}: {doc}");
            }
        }
        // A field by each of these names, and no other, can be read.
        let task: Vec<&str> = tables[0].1.iter().map(|(name, _)| name.as_str()).collect();
        let unknown = serde_json::from_str::<Submit>(r#"{"no_such_field": 1}"#);
        let told = unknown.expect_err("unknown").to_string();
        for name in &task {
            assert!(told.contains(&format!("`{name}`")), "{name}: {told}");
        }
        let known = told.matches('`').count() / 2;
        assert_eq!(known, task.len() + 2, "the unknown one and `tasks`: {told}");
    }
}
