//! Prometheus as Debian has it, beside the installed daemon: set up as the README says, it answers how long queues are.

use std::fs;
use std::time::Duration;

use crate::bed::{Bed, wait_until};
use crate::{host, on_both_releases};

on_both_releases!(prometheus_says_how_many_tasks_are_queued);

/// The README's lines, with a shorter interval and the rules that the package brings.
const SETTINGS: &str = r#"
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [ /usr/share/taskdaemon/alerts.yml ]
scrape_configs:
  - job_name: taskdaemon
    authorization: { credentials_file: /etc/prometheus/taskdaemon-token }
    static_configs: [ { targets: [ "127.0.0.1:8377" ] } ]
"#;

fn prometheus_says_how_many_tasks_are_queued(bed: &Bed) {
    let programs = host::prometheus();
    for name in ["prometheus", "promtool"] {
        let to = bed.root().join("usr/local/bin").join(name);
        fs::copy(programs.join(name), to).expect("copy");
    }
    bed.sh(&format!(
        "cd /etc/taskdaemon/conf.d
         (umask 027; taskdaemon token new prometheus --user alice --role read >tokens.toml 2>/run/said)
         chgrp taskdaemon tokens.toml
         systemctl enable taskdaemon-tcp.socket && systemctl restart taskdaemon
         useradd --system prometheus
         mkdir -p /etc/prometheus /var/lib/prometheus && chown prometheus: /var/lib/prometheus
         (umask 077; sed -n 's/.*kept nowhere: //p' /run/said >/etc/prometheus/taskdaemon-token)
         chown prometheus: /etc/prometheus/taskdaemon-token
         cat >/etc/prometheus/prometheus.yml <<'END'\n{SETTINGS}\nEND"
    ));
    for queue in ["default", "mail"] {
        bed.ok(&["taskdaemon", "queue", "set", queue, "--concurrency", "1"]);
        bed.ok(&["taskdaemon", "queue", "pause", queue]);
    }
    for _ in 0..3 {
        bed.submit(&[], "true");
    }
    for _ in 0..2 {
        bed.submit(&["--queue", "mail"], "true");
    }
    let started = bed.run(&[
        "systemd-run",
        "--unit=prometheus",
        "--uid=prometheus",
        "/usr/local/bin/prometheus",
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/var/lib/prometheus",
        "--web.listen-address=127.0.0.1:9090",
    ]);
    assert!(started.status.success(), "{started:?}");
    says(bed, "queued{queue=\"default\"}", "3");
    says(bed, "queued{queue=\"mail\"}", "2");
    bed.ok(&["taskdaemon", "queue", "resume", "default"]);
    says(bed, "queued{queue=\"default\"}", "0");
    says(bed, "queued{queue=\"mail\"}", "2");
    // It has no complaints of what it reads, and it read all of it.
    let up = ask(bed, "up{job=\"taskdaemon\"}");
    assert!(up.contains("=> 1 @"), "{up}");
    let log = bed.sh("journalctl --no-pager --unit=prometheus --output=cat");
    assert!(
        !log.contains("level=warn") && !log.contains("level=error"),
        "{log}"
    );
}

/// What Prometheus answers to a query.
fn ask(bed: &Bed, query: &str) -> String {
    let asked = bed.run(&[
        "/usr/local/bin/promtool",
        "query",
        "instant",
        "http://127.0.0.1:9090",
        query,
    ]);
    String::from_utf8_lossy(&asked.stdout).into_owned()
}

/// Waits until it says so many tasks of a queue are queued.
fn says(bed: &Bed, which: &str, many: &str) {
    let query = which.replace("queued{", "taskdaemon_queue_tasks{state=\"queued\",");
    wait_until(
        &format!("{query} is {many}"),
        Duration::from_secs(20),
        || {
            let answer = ask(bed, &query);
            answer.contains(&format!("=> {many} @")).then_some(())
        },
    );
}
