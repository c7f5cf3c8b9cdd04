//! A prompt under systemd: who makes the call, who sees the key, and what a restart is to it.

use std::time::Duration;

use crate::bed::{Bed, id_of, wait_until};
use crate::on_both_releases;

on_both_releases!(a_prompt_is_called_by_the_daemons_user_and_its_key_reaches_no_task);

/// A provider that gives half an answer, and the rest when a file is there: perl's base package is on every Debian.
const PROVIDER: &str = r#"
    use IO::Socket::INET;
    $SIG{PIPE} = "IGNORE";
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8099", Listen => 5, ReuseAddr => 1) or die $!;
    while (my $client = $listener->accept) {
        my $head = "";
        while (my $line = <$client>) { $head .= $line; last if $line =~ /^\r?\n$/ }
        open(my $seen, ">>", "/run/provider.seen"); print $seen $head; close $seen;
        my $chunk = sub { $client->syswrite("data: $_[0]\n\n") };
        $client->syswrite("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
        $chunk->('{"choices":[{"delta":{"content":"half, "}}]}');
        select(undef, undef, undef, 0.05) until -e "/run/provider.go";
        $chunk->('{"choices":[{"delta":{"content":"whole"}}]}');
        $chunk->('{"choices":[{"delta":{},"finish_reason":"stop"}]}');
        $chunk->("[DONE]");
        close $client;
    }
"#;

const MODELS: &str = r#"
[llm]
listen = "127.0.0.1:4180"
[[llm.providers]]
name = "here"
dialect = "openai"
base_url = "http://127.0.0.1:8099/v1"
key_credential = "llm-key"
[[llm.models]]
name = "small"
provider = "here"
model = "m-1"
"#;

/// A program that asks a model with nothing but what its environment says.
const AGENT: &str = r#"env; perl - <<'END'
    use IO::Socket::INET;
    my ($at) = $ENV{OPENAI_BASE_URL} =~ m{^http://([^/]+)/} or die "no address";
    my $body = '{"model":"small","stream":true,"messages":[{"role":"user","content":"?"}]}';
    my $to = IO::Socket::INET->new(PeerAddr => $at) or die "$at: $!";
    print $to "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
        "Authorization: Bearer $ENV{OPENAI_API_KEY}\r\nContent-Length: ", length($body), "\r\n\r\n$body";
    print while <$to>;
END"#;

const KEY: &str = "canary-51d7a0";

fn a_prompt_is_called_by_the_daemons_user_and_its_key_reaches_no_task(bed: &Bed) {
    bed.ok(&["systemd-run", "--unit=provider", "perl", "-e", PROVIDER]);
    bed.sh(&format!(
        "umask 077; printf %s {KEY} >/etc/llm.key
         mkdir -p /etc/systemd/system/taskdaemon.service.d /etc/taskdaemon/conf.d
         umask 022
         printf '[Service]\nLoadCredential=llm-key:/etc/llm.key\n' >/etc/systemd/system/taskdaemon.service.d/llm.conf
         cat >/etc/taskdaemon/conf.d/llm.toml <<'END'\n{MODELS}\nEND
         systemctl daemon-reload; systemctl restart taskdaemon"
    ));
    let id = bed.alice(&["prompt", "Say it."]);
    wait_until("the first half is there", Duration::from_secs(20), || {
        (bed.alice(&["logs", &id]) == "half,").then_some(())
    });
    let task = wait_until("its start is known", Duration::from_secs(20), || {
        let task = bed.task(&id);
        task["attempts"][0]["pid"].is_number().then_some(task)
    });
    let attempt = &task["attempts"][0];
    assert_eq!(attempt["user"], "taskdaemon", "{task}");
    let group = attempt["cgroup"].as_str().unwrap_or_default();
    assert!(group.ends_with("/calls-1"), "{task}");
    // A task beside it looks for the key wherever a process may be looked at.
    let pid = attempt["pid"].to_string();
    let spy = format!(
        "for file in environ cmdline fd/0 mem maps root/etc/llm.key; do
             cat /proc/{pid}/$file 2>/dev/null
         done; cat /etc/llm.key /run/credentials/*/* 2>/dev/null; true"
    );
    let spy = bed.submit(&[], &spy);
    bed.ended(&spy, Duration::from_secs(20));
    assert!(
        !bed.alice(&["logs", &spy]).contains(KEY),
        "the task beside it"
    );
    // It stands still while the other half comes, over a restart and a kill of the daemon.
    bed.alice(&["pause", &id]);
    bed.ok(&["systemctl", "restart", "taskdaemon"]);
    bed.kill_main("taskdaemon.service");
    bed.ok(&["touch", "/run/provider.go"]);
    wait_until("the daemon is there again", Duration::from_secs(20), || {
        (bed.task(&id)["state"] == "paused").then_some(())
    });
    assert_eq!(bed.alice(&["logs", &id]), "half,");
    bed.alice(&["resume", &id]);
    let task = bed.ended(&id, Duration::from_secs(30));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(id_of(&task), id);
    assert_eq!(
        task["attempts"].as_array().expect("attempts").len(),
        1,
        "{task}"
    );
    assert_eq!(bed.alice(&["logs", &id]), "half, whole");
    // A task that may ask models does so by the daemon, as the user of tasks.
    let agent = bed.submit(&["--llm"], AGENT);
    let task = bed.ended(&agent, Duration::from_secs(30));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["user"], "taskdaemon-job", "{task}");
    let said = bed.alice(&["logs", &agent]);
    assert!(said.contains("half, ") && said.contains("[DONE]"), "{said}");
    assert!(!said.contains(KEY), "{said}");
    wait_until("its call is written down", Duration::from_secs(10), || {
        let task = bed.task(&agent);
        (task["attempts"][0]["relayed"][0]["end"] == "answered").then_some(())
    });
    let seen = bed.sh("cat /run/provider.seen");
    assert!(seen.contains(KEY), "the provider has it: {seen}");
    let journal = bed.sh(&format!(
        "journalctl --no-pager --output=export | grep -c {KEY} || true"
    ));
    assert_eq!(journal, "0", "the journal");
    let kept = bed.sh(&format!(
        "grep -rlaF {KEY} /var/lib/taskdaemon /run/taskdaemon 2>/dev/null || true"
    ));
    assert_eq!(kept, "", "files");
}
