//! Tasks that run all the time, and tell by themselves whether anything has happened to them.

use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, wait_until};

/// How many there are.
pub(crate) const TASKS: usize = 4;

/// Running tasks, by their numbers.
pub(crate) struct Witnesses(Vec<String>);

impl Witnesses {
    /// Starts them. Each writes a line when it starts, prints a numbered line five times a second, and ends with 7 when
    /// it is told to.
    pub(crate) fn start(bed: &Bed) -> Self {
        let start = |number| {
            let script = format!(
                "echo start >>/tmp/witness-{number}; i=0
                 until [ -e /tmp/over ]; do i=$((i+1)); echo line $i; printf . >>/tmp/beat-{number}; sleep 0.2; done; exit 7"
            );
            let id = bed.submit(&["--name", "witness"], &script);
            bed.running(&id);
            id
        };
        Self((0..TASKS).map(start).collect())
    }

    /// They are there at this moment, whoever else is.
    pub(crate) fn are_alive(&self, bed: &Bed) {
        let lines = || -> Vec<usize> {
            let count = |number: usize| {
                let path = bed.root().join(format!("tmp/beat-{number}"));
                std::fs::metadata(path)
                    .map_or(0, |beat| usize::try_from(beat.len()).expect("small"))
            };
            (0..self.0.len()).map(count).collect()
        };
        let before = lines();
        wait_until("each of them goes on", Duration::from_secs(20), || {
            let all = lines().iter().zip(&before).all(|(now, then)| now > then);
            all.then_some(())
        });
    }

    /// Ends them; each has run once, and its output is whole.
    pub(crate) fn ran_through(self, bed: &Bed) {
        bed.ok(&["touch", "/tmp/over"]);
        for (number, id) in self.0.iter().enumerate() {
            let task = bed.ended(id, Duration::from_secs(30));
            let attempts = task["attempts"].as_array().map_or(&[][..], Vec::as_slice);
            let codes: Vec<&Value> = attempts
                .iter()
                .map(|attempt| &attempt["exit_code"])
                .collect();
            assert_eq!(codes, [7], "one attempt, code 7: {task}");
            let starts = bed.sh(&format!("cat /tmp/witness-{number}"));
            assert_eq!(starts, "start", "it ran once, by its own account");
            for (place, line) in bed.alice(&["logs", id]).lines().enumerate() {
                assert_eq!(line, format!("line {}", place + 1), "no line is missing");
            }
        }
    }
}
