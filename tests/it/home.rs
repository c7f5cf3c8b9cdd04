//! No verb at all: how the house stands, and what to type next.

use serde_json::json;

use crate::bed::Bed;
use crate::cli::{at, text};

#[test]
fn without_a_verb_the_house_is_shown_with_three_commands_to_try() {
    let mut bed = Bed::start(&[]);
    let shown = |bed: &Bed, code| {
        let output = at(bed, &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = text(&output.stdout);
        let rows = said.lines().skip_while(|line| *line != "try").count();
        assert_eq!(rows, 4, "three commands: {said}");
        said
    };
    let said = shown(&bed, 0);
    assert!(said.contains(" is running"), "{said}");
    assert!(said.contains("0 queued, 0 running, 0 failed"), "{said}");
    assert!(said.contains("taskdaemon submit"), "{said}");
    let id = bed.submit(&json!({ "command": ["false"] }));
    bed.wait(id);
    let schedule = json!({
        "name": "yearly", "when": "0 0 1 1 *", "task": { "command": ["true"] },
    });
    assert_eq!(
        bed.post("/v1/schedules", &schedule).expect("a schedule").0,
        201
    );
    let said = shown(&bed, 0);
    assert!(said.contains("1 failed"), "{said}");
    assert!(said.contains("next      yearly at "), "{said}");
    assert!(said.contains("taskdaemon list --state failed"), "{said}");
    bed.kill();
    let said = shown(&bed, 69);
    assert!(said.contains("taskdaemon doctor"), "{said}");
}
