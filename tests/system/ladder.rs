//! The ladder of versions, up and down, with the package manager and tasks that run meanwhile: an upgrade fails no
//! request, and an older program refuses a newer database without a scratch on it.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::bed::{Bed, wait_until};
use crate::clients::{all_succeeded_once, while_asked};
use crate::doors::{Door, submission};
use crate::witness::Witnesses;
use crate::{host, on_both_releases};

on_both_releases!(
    no_request_fails_and_no_task_notices_across_an_upgrade_and_back,
    a_downgrade_onto_a_newer_schema_is_refused_and_undone
);

fn no_request_fails_and_no_task_notices_across_an_upgrade_and_back(bed: &Bed) {
    let doors = [Door::unix(bed), Door::tcp(bed)];
    let witnesses = Witnesses::start(bed);
    let body = submission(&["true"]);
    let (tally, told) = while_asked(&doors, 200, &body, |_| {
        // The same schema in both, so that the way back is open.
        bed.install(&host::next_package());
        bed.install(&host::package());
    });
    let answered = tally.flawless();
    println!("{answered} answered, none failed, over an upgrade and back");
    assert!(!told.is_empty(), "tasks were submitted");
    all_succeeded_once(&doors[0], &told);
    witnesses.ran_through(bed);
}

/// Gives the container's database another schema version, and leaves that in its log, as a crash would. Returns its file.
fn mark(bed: &Bed, schema: i64) -> PathBuf {
    let path = bed.tree().join("var/lib/taskdaemon/taskdaemon.db");
    let database = Connection::open(&path).expect("open");
    database
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .expect("keep the log");
    database
        .pragma_update(None, "user_version", schema)
        .expect("schema");
    database.close().expect("close");
    path
}

fn a_downgrade_onto_a_newer_schema_is_refused_and_undone(bed: &Bed) {
    bed.install(&host::next_package());
    let witnesses = Witnesses::start(bed);
    let runner = bed.main_pid("taskdaemon-runner.service");
    // What a later version will do one day: its schema is one that this program does not know.
    bed.ok(&["systemctl", "stop", "taskdaemon.service"]);
    let schema = i64::try_from(taskdaemon::store::migrate::VERSION).expect("small");
    let file = mark(bed, schema + 1);
    let before = host::database(&file);

    std::fs::copy(host::package(), bed.root().join("package.deb")).expect("copy the package");
    let downgraded = bed.run(&["dpkg", "-i", "/package.deb"]);
    println!("dpkg ended with {}", downgraded.status);
    wait_until("it has given up", Duration::from_secs(30), || {
        let state = bed.ok(&[
            "systemctl",
            "show",
            "--property=Result,ExecMainStatus",
            "taskdaemon.service",
        ]);
        (state.contains("Result=exit-code") && state.contains("ExecMainStatus=78")).then_some(())
    });
    let journal = bed.ok(&[
        "journalctl",
        "--unit=taskdaemon",
        "--no-pager",
        "--output=cat",
    ]);
    assert!(
        journal.contains("install the newer taskdaemon again"),
        "the journal says what to do: {journal}"
    );
    assert!(host::database(&file) == before, "byte for byte");
    witnesses.are_alive(bed);

    // Up again: what ran runs, and nothing was lost.
    mark(bed, schema);
    bed.install(&host::next_package());
    wait_until("the daemon is back", Duration::from_secs(20), || {
        bed.as_user("alice", &["health"])
            .status
            .success()
            .then_some(())
    });
    assert_eq!(
        bed.main_pid("taskdaemon-runner.service"),
        runner,
        "the same runner"
    );
    witnesses.ran_through(bed);
}
