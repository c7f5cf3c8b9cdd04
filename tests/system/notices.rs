//! What tasks say about themselves, under the units as they are shipped: the socket is there, inside the walls too, and
//! somebody listens.

use std::time::Duration;

use crate::bed::Bed;
use crate::on_both_releases;

on_both_releases!(tasks_are_heard_by_their_runner_in_each_profile);

/// The service manager's tool comes back with success only when its message was taken.
const SAY: &str = "timeout 20 systemd-notify --status='half way' --ready && echo heard
    stat -c '%a %u' $NOTIFY_SOCKET; id -u; echo $NOTIFY_SOCKET";

fn tasks_are_heard_by_their_runner_in_each_profile(bed: &Bed) {
    for profile in [&[][..], &["--profile", "strict"]] {
        let id = bed.submit(profile, SAY);
        let task = bed.ended(&id, Duration::from_secs(40));
        assert_eq!(task["state"], "succeeded", "{task}");
        let output = bed.alice(&["logs", &id]);
        let lines: Vec<&str> = output.lines().collect();
        let [heard, socket, user, path] = lines.as_slice() else {
            panic!("{profile:?}: {output}");
        };
        assert_eq!(*heard, "heard", "{profile:?}: {output}");
        assert_eq!(*socket, format!("600 {user}"), "its user's alone: {output}");
        // It goes with its attempt.
        assert!(!bed.run(&["test", "-e", path]).status.success(), "{path}");
    }
}
