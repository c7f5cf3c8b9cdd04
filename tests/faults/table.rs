//! The table of README.md names each fault, and only tests that exist.

use std::fs;
use std::path::Path;

/// Faults in the catalogue.
const FAULTS: usize = 59;

/// All sources below a directory, as one text.
fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).expect("readable"));
        }
    }
}

#[test]
fn the_table_names_each_fault_and_only_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for dir in ["src", "tests"] {
        sources(&root.join(dir), &mut code);
    }
    let table = fs::read_to_string(root.join("tests/faults/README.md")).expect("the table");
    let mut missing = Vec::new();
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let is_fault = line.starts_with("| FI-");
        rows += usize::from(is_fault);
        if is_fault {
            let number = format!("| FI-{rows:02} |");
            assert!(line.starts_with(&number), "{number} comes next: {line}");
        }
        let names: Vec<_> = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains('_') && !name.contains('/'))
            .collect();
        let says_why = line.contains("not here:") || line.contains("later:");
        assert!(
            !is_fault || !names.is_empty() || says_why,
            "no test and no reason: {line}"
        );
        for name in names {
            let known = ["(", "<"]
                .iter()
                .any(|end| code.contains(&format!("fn {name}{end}")));
            if !known {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "there are no tests {missing:?}");
    assert_eq!(rows, FAULTS);
}
