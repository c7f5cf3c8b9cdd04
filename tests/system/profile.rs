//! The profile "strict": a unit of its own for each attempt, with walls of systemd's making.

use std::time::Duration;

use serde_json::json;

use crate::bed::{Bed, id_of, parse};
use crate::doors::{Door, Request};
use crate::on_both_releases;

on_both_releases!(strict_tasks_have_walls_and_outlive_the_daemon);

fn submit_strict(bed: &Bed, script: &str) -> String {
    let body = json!({ "command": ["sh", "-c", script], "profile": "strict" });
    let request = Request {
        method: "POST",
        path: "/v1/tasks",
        key: None,
        body: Some(&body),
    };
    let answer = Door::unix(bed)
        .connect()
        .and_then(|mut connection| connection.ask(request))
        .expect("an answer");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    id_of(&parse(&answer.body))
}

/// Root's own view: the tasks here are root's, because the test's connection comes from the host's root.
fn logs(bed: &Bed, id: &str) -> String {
    bed.ok(&["taskdaemon", "logs", id])
}

fn strict_tasks_have_walls_and_outlive_the_daemon(bed: &Bed) {
    let walls = submit_strict(
        bed,
        "id -un; cat /proc/self/cgroup; ls /sys/class/net; ls /proc | grep -c '^[0-9]'
         for place in / /etc /usr /var/tmp /home; do touch $place/x 2>/dev/null && echo wrote $place; done
         touch /tmp/x && echo private tmp",
    );
    let long = submit_strict(bed, "echo begin; sleep 4; echo end; exit 7");
    bed.running(&long);
    // Before that, its runner has no user to be known by, and a restart interrupts it.
    crate::bed::wait_until("its start is recorded", Duration::from_secs(10), || {
        bed.task(&long)["attempts"][0]["pid"].as_u64()
    });
    bed.ok(&["systemctl", "restart", "taskdaemon.service"]);

    let task = bed.ended(&walls, Duration::from_secs(20));
    assert_eq!(task["state"], "succeeded", "{task}");
    let output = logs(bed, &walls);
    let user = output.lines().next().unwrap_or_default();
    assert_ne!(user, "root", "{output}");
    assert_ne!(user, "taskdaemon-job", "a user of its own: {output}");
    assert!(
        output.contains("taskdaemon-tasks.slice/taskdaemon-run-strict@"),
        "a unit of its own: {output}"
    );
    assert!(output.contains("private tmp"), "{output}");
    // /var/tmp is private, too, and therefore may be written to.
    let wrote: Vec<&str> = output
        .lines()
        .filter(|line| line.starts_with("wrote") && !line.ends_with("/var/tmp"))
        .collect();
    assert!(wrote.is_empty(), "{output}");
    assert!(!bed.run(&["test", "-e", "/tmp/x"]).status.success());

    let task = bed.ended(&long, Duration::from_secs(20));
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    assert_eq!(logs(bed, &long), "begin\nend");
}
