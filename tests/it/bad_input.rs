//! Bad input, kind by kind: one clear error, nothing changed, no long wait.
//!
//! [`ROWS`] says which tests hold each row of the catalogue of bad input; what
//! no test of a room holds is here, against a real daemon.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::api::{bad_requests, raw};
use crate::bed::{Bed, request};
use crate::tidy::tests_exist;

/// A row of the catalogue, what is fed, and the tests that feed it.
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "BI-01",
        "paths, methods, ranges",
        &[
            "bad_http_gets_one_clear_answer_and_changes_nothing",
            "ranges_are_read_as_rfc_9110_has_them",
        ],
    ),
    (
        "BI-02",
        "the Host header",
        &[
            "bad_http_gets_one_clear_answer_and_changes_nothing",
            "heads_are_judged_by_host_origin_and_coding",
        ],
    ),
    (
        "BI-03",
        "lengths",
        &["bad_http_gets_one_clear_answer_and_changes_nothing"],
    ),
    (
        "BI-04",
        "huge and broken heads",
        &["bad_http_gets_one_clear_answer_and_changes_nothing"],
    ),
    (
        "BI-05",
        "huge bodies",
        &[
            "bad_http_gets_one_clear_answer_and_changes_nothing",
            "slow_clients_are_cut_at_their_deadlines",
        ],
    ),
    (
        "BI-06",
        "coded bodies",
        &[
            "bad_http_gets_one_clear_answer_and_changes_nothing",
            "slow_clients_are_cut_at_their_deadlines",
        ],
    ),
    (
        "BI-07",
        "content types",
        &["bad_http_gets_one_clear_answer_and_changes_nothing"],
    ),
    (
        "BI-08",
        "other protocols",
        &["bad_http_gets_one_clear_answer_and_changes_nothing"],
    ),
    (
        "BI-09",
        "broken JSON",
        &["each_bad_body_has_one_clear_answer"],
    ),
    (
        "BI-10",
        "deep JSON, many and double keys",
        &[
            "each_bad_body_has_one_clear_answer",
            "bi_10_very_many_keys_are_refused",
        ],
    ),
    (
        "BI-11",
        "text that is none",
        &[
            "each_bad_body_has_one_clear_answer",
            "bi_11_bytes_that_are_no_text",
        ],
    ),
    ("BI-12", "numbers", &["each_bad_body_has_one_clear_answer"]),
    (
        "BI-13",
        "unknown fields",
        &["each_bad_body_has_one_clear_answer"],
    ),
    (
        "BI-14",
        "numbers of tasks",
        &[
            "bi_14_to_24_questions_that_have_no_answer",
            "only_plain_positive_numbers_are_ids",
        ],
    ),
    (
        "BI-15",
        "limits",
        &[
            "bi_14_to_24_questions_that_have_no_answer",
            "parameters_are_checked_by_name_and_range",
        ],
    ),
    (
        "BI-16",
        "cursors",
        &[
            "bi_14_to_24_questions_that_have_no_answer",
            "a_cursor_fits_its_own_listing_only",
        ],
    ),
    ("BI-17", "filters", &["bi_17_a_filter_is_literal_text"]),
    (
        "BI-18",
        "idempotency keys",
        &[
            "bi_18_idempotency_keys_that_cannot_be",
            "a_key_makes_one_task_and_a_list_is_all_or_nothing",
        ],
    ),
    (
        "BI-19",
        "changes in a wrong state",
        &["bi_19_what_a_state_does_not_allow_is_a_conflict"],
    ),
    (
        "BI-20",
        "graphs",
        &["bi_20_impossible_graphs_are_refused_by_item_and_field"],
    ),
    (
        "BI-21",
        "priorities and times",
        &["bi_21_to_35_tasks_that_cannot_be"],
    ),
    (
        "BI-22",
        "tokens",
        &[
            "a_bearer_acts_as_its_user_and_anything_else_is_turned_away",
            "over_tcp_a_token_says_who_asks_and_strangers_see_nothing",
        ],
    ),
    (
        "BI-23",
        "lists",
        &[
            "bi_23_a_list_is_taken_whole_or_not_at_all",
            "a_list_is_refused_as_a_whole_and_names_the_bad_item",
        ],
    ),
    (
        "BI-24",
        "following what is not there",
        &["bi_14_to_24_questions_that_have_no_answer"],
    ),
    (
        "BI-25",
        "commands",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "each_bad_body_has_one_clear_answer",
            "bi_25_more_than_the_kernel_takes_is_refused_at_once",
        ],
    ),
    (
        "BI-26",
        "programs that cannot run",
        &[
            "bi_26_what_cannot_run_says_why_and_is_not_tried_again",
            "what_cannot_run_is_explained",
        ],
    ),
    (
        "BI-27",
        "what a shell would read",
        &["submit_passes_arguments_and_input_on_as_they_are"],
    ),
    (
        "BI-28",
        "arguments like options",
        &["submit_passes_arguments_and_input_on_as_they_are"],
    ),
    (
        "BI-29",
        "directories",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "bi_26_what_cannot_run_says_why_and_is_not_tried_again",
        ],
    ),
    (
        "BI-30",
        "users",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "the_table",
            "root_runs_tasks_as_the_user_the_policy_names",
        ],
    ),
    (
        "BI-31",
        "masks and limits",
        &["bi_21_to_35_tasks_that_cannot_be"],
    ),
    (
        "BI-32",
        "durations",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "bad_quantities_are_refused",
        ],
    ),
    (
        "BI-33",
        "standard input",
        &["bi_33_much_input_that_nobody_reads_ends_nothing"],
    ),
    (
        "BI-34",
        "variables",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "each_bad_body_has_one_clear_answer",
        ],
    ),
    (
        "BI-35",
        "reserved and loader variables",
        &[
            "bi_21_to_35_tasks_that_cannot_be",
            "bi_35_a_tasks_own_variables_reach_it_and_not_the_daemon",
        ],
    ),
    (
        "BI-36",
        "the daemon's environment",
        &[
            "bi_36_an_odd_environment_is_a_clear_error_or_none",
            "a_bad_variable_is_named",
            "filters_are_checked",
        ],
    ),
    (
        "BI-37",
        "the watchdog's variables",
        &["a_watchdog_that_makes_no_sense_is_ignored_with_a_warning"],
    ),
    (
        "BI-38",
        "passed descriptors",
        &[
            "sockets_that_cannot_be_served_are_refused_by_number_and_name",
            "what_was_meant_for_another_process_is_left_alone",
        ],
    ),
    (
        "BI-39",
        "cron fields",
        &[
            "bi_39_a_cron_field_out_of_bounds_is_named",
            "bi_39_a_calendar_component_out_of_bounds_is_named",
            "bi_39_to_44_bad_schedules_get_one_error_that_names_the_field",
        ],
    ),
    (
        "BI-40",
        "cron lists and spaces",
        &[
            "bi_40_malformed_lists_ranges_steps_and_separators_are_refused",
            "bi_40_malformed_calendar_expressions_are_refused",
        ],
    ),
    (
        "BI-41",
        "what never fires",
        &[
            "bi_41_what_never_fires_is_refused",
            "bi_41_a_calendar_of_no_date_is_refused_and_one_of_the_past_has_no_next",
        ],
    ),
    (
        "BI-42",
        "leap days, letters, names",
        &[
            "bi_42_leap_days_letters_words_and_names",
            "bi_42_day_of_month_and_day_of_week_are_debians",
        ],
    ),
    ("BI-43", "zones", &["bi_43_only_exact_names_are_zones"]),
    (
        "BI-44",
        "intervals and jitter",
        &["bi_44_intervals_and_jitter_have_bounds"],
    ),
    (
        "BI-45",
        "many schedules, double names",
        &[
            "bi_45_ten_thousand_schedules_of_one_minute_fire_once_each_in_bounded_turns",
            "bi_45_a_name_twice_is_refused_and_a_replaced_rule_keeps_the_cursor",
        ],
    ),
    (
        "BI-46",
        "files that are none",
        &[
            "only_plain_files_are_read_and_nothing_waits",
            "bytes_that_are_no_text_are_refused_where_they_are",
        ],
    ),
    (
        "BI-47",
        "settings that are none",
        &[
            "a_bad_setting_is_one_line_with_its_place",
            "yaml_errors_have_places_too",
            "line_ends_and_comments_do_not_matter",
        ],
    ),
    (
        "BI-48",
        "quantities",
        &[
            "a_bad_setting_is_one_line_with_its_place",
            "bad_quantities_are_refused",
        ],
    ),
    (
        "BI-49",
        "paths",
        &["a_bad_path_or_address_or_token_is_refused"],
    ),
    (
        "BI-50",
        "addresses",
        &[
            "a_bad_path_or_address_or_token_is_refused",
            "bi_50_an_address_in_use_is_named",
        ],
    ),
    (
        "BI-51",
        "counts",
        &["a_bad_setting_is_one_line_with_its_place"],
    ),
    (
        "BI-52",
        "files of others",
        &[
            "a_file_that_others_can_change_is_refused",
            "bi_52_a_secret_that_others_can_read_is_refused",
        ],
    ),
    (
        "BI-53",
        "drop-ins",
        &["drop_ins_are_toml_files_in_order_and_the_rest_is_noted"],
    ),
    (
        "BI-54",
        "addresses of others",
        &[
            "addresses_are_judged_strictly",
            "every_address_that_is_accepted_is_one_for_the_client_too",
        ],
    ),
    (
        "BI-55",
        "secrets",
        &[
            "bi_52_a_secret_that_others_can_read_is_refused",
            "hooks_of_the_host_come_with_a_reload_and_a_bad_secret_changes_nothing",
        ],
    ),
    (
        "BI-56",
        "the command line",
        &[
            "each_mistake_has_its_exit_code_and_one_line",
            "each_source_goes_over_the_one_before",
        ],
    ),
    (
        "BI-57",
        "odd arguments",
        &[
            "submit_passes_arguments_and_input_on_as_they_are",
            "names_and_output_are_shown_escaped",
            "bi_57_an_argument_too_long_is_refused",
        ],
    ),
    (
        "BI-58",
        "odd outputs",
        &[
            "bi_58_every_kind_of_output_is_survived",
            "output_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_not_news",
            "a_reader_that_goes_away_is_no_error_message",
        ],
    ),
    (
        "BI-59",
        "no daemon, or another",
        &[
            "bi_59_each_way_of_not_being_there_has_a_code_and_a_hint",
            "an_unreachable_daemon_is_told_with_a_hint_within_seconds",
        ],
    ),
    (
        "BI-60",
        "a reader who leaves",
        &[
            "leaving_a_wait_for_several_leaves_the_tasks_alone",
            "bi_60_leaving_leaves_the_task_alone_and_names_it",
        ],
    ),
    (
        "BI-61",
        "languages and clocks",
        &["the_language_of_the_host_changes_nothing"],
    ),
    (
        "BI-62",
        "units that hand over too little",
        &[
            "bi_62_a_unit_that_hands_over_too_little_is_told_so",
            "bi_62_each_mistake_of_the_unit_names_the_line_that_mends_it",
            "bi_62_63_mistakes_of_the_unit_are_named_with_the_line_that_mends_them",
            "sockets_that_cannot_be_served_are_refused_by_number_and_name",
        ],
    ),
    (
        "BI-63",
        "units that open or close too much",
        &[
            "bi_63_a_path_in_a_private_tmp_is_hidden_and_no_other_is",
            "bi_62_63_mistakes_of_the_unit_are_named_with_the_line_that_mends_them",
        ],
    ),
    (
        "BI-64",
        "without a service manager",
        &[
            "nothing_is_taken_where_nothing_was_given",
            "without_cgroups_nothing_is_frozen_and_the_runner_says_so",
        ],
    ),
    (
        "BI-66",
        "databases of others",
        &["files_that_are_not_ours_are_refused_untouched"],
    ),
    (
        "BI-67",
        "what a runner says",
        &[
            "bad_frames_end_the_connection_and_nothing_else",
            "a_report_about_another_attempt_is_fenced",
            "a_runner_of_one_attempt_speaks_for_it_alone_and_within_limits",
            "a_stranger_at_the_report_socket_is_not_answered",
        ],
    ),
    (
        "BI-69",
        "texts that would be obeyed",
        &[
            "bi_69_a_name_is_inert_everywhere",
            "names_keep_to_their_line",
            "nothing_a_terminal_would_obey_reaches_it",
            "a_frame_shows_queues_and_tasks",
        ],
    ),
];

#[test]
fn every_row_of_bad_input_names_tests_that_exist() {
    let mut known = Vec::new();
    for (row, what, tests) in ROWS {
        assert!(!tests.is_empty(), "{row} ({what}) has no test");
        assert!(!known.contains(row), "{row} is there twice");
        known.push(row);
        tests_exist(row, tests);
    }
}

/// Longest time for an answer. It is meant to be far below; a busy machine
/// takes its time.
const QUICK: Duration = Duration::from_secs(10);

/// Longest time for an answer to megabytes of JSON, in a build for tests.
const PATIENCE: Duration = Duration::from_secs(90);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    command.stdin(Stdio::null()).env_remove("TASKDAEMON_HOST");
    command
}

fn at(host: &Path, args: &[&str]) -> Output {
    program()
        .env("TASKDAEMON_HOST", format!("unix:{}", host.display()))
        .args(args)
        .output()
        .expect("run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn tasks(bed: &Bed) -> usize {
    let (_, page) = bed.get("/v1/tasks?limit=1000").expect("list");
    page["tasks"].as_array().expect("tasks").len()
}

/// One clear answer: its status, its code, its field, and words of its detail.
fn refused(answer: &(u16, Value), status: u16, code: &str, field: &str, words: &str, what: &str) {
    let (found, problem) = answer;
    assert_eq!(*found, status, "{what}: {problem}");
    assert_eq!(problem["code"], code, "{what}: {problem}");
    let named = problem["field"].as_str().unwrap_or_default();
    assert_eq!(named, field, "{what}: {problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        !detail.is_empty() && detail.contains(words),
        "{what}: {problem}"
    );
    assert!(!detail.contains('\n'), "{what}: one line: {problem}");
}

/// Sends bytes as the body of a submit.
fn post_bytes(bed: &Bed, body: &[u8]) -> (u16, Value) {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(
        stream,
        "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("ask");
    // It may be answered before all of it was read.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..len]);
    }
    let answer = text(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    (
        status.unwrap_or(0),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

#[test]
fn bi_10_very_many_keys_are_refused() {
    let bed = Bed::start(&[]);
    let pairs: Vec<String> = (0..300_000).map(|n| format!("\"A{n}\":\"\"")).collect();
    let body = format!(r#"{{"command":["true"],"env":{{{}}}}}"#, pairs.join(","));
    let begun = clock::instant();
    let answer = post_bytes(&bed, body.as_bytes());
    assert!(matches!(answer.0, 400 | 413), "{answer:?}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let many: Vec<String> = (0..1_001).map(|n| format!("\"A{n}\":\"\"")).collect();
    let body = format!(r#"{{"command":["true"],"env":{{{}}}}}"#, many.join(","));
    let answer = post_bytes(&bed, body.as_bytes());
    refused(&answer, 400, "invalid", "env", "1000", "1,001 variables");
    assert_eq!(tasks(&bed), 0);
}

#[test]
fn bi_11_bytes_that_are_no_text() {
    let bed = Bed::start(&[]);
    for bytes in [
        &b"{\"command\":[\"\xff\"]}"[..],
        b"{\"command\":[\"\xc0\x80\"]}",
        b"{\"command\":[\"\xed\xa0\x80\"]}",
        b"\xff\xfe{\0}\0",
        b"{\"command\":[\"a\0\"]}",
        b"{\"command\":[\"a\nb\"]}",
    ] {
        let answer = post_bytes(&bed, bytes);
        refused(&answer, 400, "bad_json", "", "column", &text(bytes));
    }
    assert_eq!(tasks(&bed), 0);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn bi_14_to_24_questions_that_have_no_answer() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["echo", "x"]}));
    bed.wait(id);
    let long = "9".repeat(1024);
    let ids = [
        "0",
        "-1",
        "007",
        "9223372036854775808",
        "1e3",
        "..",
        "%F0%9F%A6%80",
        "+1",
        "1%20",
        &long,
    ];
    for word in ids {
        for path in ["", "/log", "/wait", "/graph"] {
            let path = format!("/v1/tasks/{word}{path}");
            let (status, problem) = bed.get(&path).expect("an answer");
            // Some of these make another path of it.
            assert!(matches!(status, 400 | 404), "{path}: {problem}");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(
                !detail.is_empty() && detail.len() < 300,
                "{path}: {problem}"
            );
        }
    }
    for (path, status, code, field) in [
        ("/v1/tasks?limit=0", 400, "invalid", "limit"),
        ("/v1/tasks?limit=-1", 400, "invalid", "limit"),
        ("/v1/tasks?limit=1000000000", 400, "invalid", "limit"),
        ("/v1/tasks?limit=1e3", 400, "invalid", "limit"),
        ("/v1/tasks?limit=", 400, "invalid", "limit"),
        ("/v1/tasks?limit=1&limit=2", 400, "duplicate_parameter", ""),
        ("/v1/tasks?days=1000000000", 400, "unknown_parameter", ""),
        ("/v1/tasks?limit=%ff", 400, "invalid", "limit"),
        ("/v1/events?limit=0", 400, "invalid", "limit"),
        ("/v1/events?after=-1", 400, "invalid", "after"),
        (
            "/v1/events?after=9223372036854775808",
            400,
            "invalid",
            "after",
        ),
        ("/v1/events?kind=progress", 400, "invalid", "kind"),
        ("/v1/events?kind=nothing", 400, "invalid", "kind"),
        ("/v1/tasks?cursor=", 400, "bad_cursor", ""),
        ("/v1/tasks?cursor=%00", 400, "bad_cursor", ""),
        (
            "/v1/tasks?cursor=AAAAAAAAAAAAAAAAAAAAAAAA",
            400,
            "bad_cursor",
            "",
        ),
        ("/v1/tasks?state=", 400, "invalid", "state"),
        (
            "/v1/tasks?state=queued,queued,nothing",
            400,
            "invalid",
            "state",
        ),
        ("/v1/tasks/77/log", 404, "task_not_found", ""),
        ("/v1/tasks/77/log?follow=true", 404, "task_not_found", ""),
        ("/v1/tasks/77/wait", 404, "task_not_found", ""),
        ("/v1/tasks/1/log?attempt=0", 400, "invalid", "attempt"),
        ("/v1/tasks/1/log?attempt=-1", 400, "invalid", "attempt"),
        (
            "/v1/tasks/1/log?attempt=9223372036854775807",
            400,
            "invalid",
            "attempt",
        ),
        ("/v1/tasks/1/log?stream=stdin", 400, "invalid", "stream"),
        ("/v1/tasks/1/log?follow=yes", 400, "invalid", "follow"),
    ] {
        let begun = clock::instant();
        let answer = bed.get(path).expect("an answer");
        refused(&answer, status, code, field, "", path);
        assert!(begun.elapsed() < QUICK, "{path}");
    }
    for range in ["bytes=99-", "bytes=9223372036854775807-"] {
        let answer = with_header(&bed, "/v1/tasks/1/log", &format!("Range: {range}"));
        assert!(answer.starts_with("HTTP/1.1 416 "), "{range}: {answer}");
    }
    for id in [
        "-1",
        "9223372036854775808",
        "1.x",
        "x",
        "1.-1",
        "1.99999999999999999999",
    ] {
        let header = format!("Last-Event-ID: {id}");
        let answer = with_header(&bed, "/v1/tasks/1/log?follow=true", &header);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{id}: {answer}");
    }
    assert_eq!(tasks(&bed), 1);
}

fn with_header(bed: &Bed, path: &str, header: &str) -> String {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    stream.set_read_timeout(Some(QUICK)).expect("timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n"
    )
    .expect("ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    text(&answer)
}

#[test]
fn bi_17_a_filter_is_literal_text() {
    let bed = Bed::start(&[]);
    let names = ["a%b", "a_b", "it's", "x';--", "axb", "(a+)+$", "\\", "%"];
    for name in names {
        bed.submit(&json!({"command": ["true"], "name": name, "delay": "1h"}));
    }
    for (asked, found) in [
        ("%25", vec!["a%b", "%"]),
        ("_", vec!["a_b"]),
        ("a%25b", vec!["a%b"]),
        ("'", vec!["it's", "x';--"]),
        ("';--", vec!["x';--"]),
        ("(a%2B)%2B$", vec!["(a+)+$"]),
        ("%5C", vec!["\\"]),
        (".*", vec![]),
    ] {
        let (status, page) = bed.get(&format!("/v1/tasks?name={asked}")).expect("list");
        assert_eq!(status, 200, "{asked}: {page}");
        let tasks = page["tasks"].as_array().expect("tasks");
        let mut shown: Vec<_> = tasks
            .iter()
            .filter_map(|task| task["name"].as_str())
            .collect();
        shown.reverse();
        assert_eq!(shown, found, "{asked}");
    }
    assert_eq!(tasks(&bed), names.len());
}

/// A field, its value, and the field and words of the answer. The code is
/// `invalid`, or `bad_json` where no field is named.
#[expect(clippy::too_many_lines, reason = "one table")]
fn bad_fields() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        ("priority", json!(1001), "priority", "1000"),
        ("priority", json!(-1001), "priority", "1000"),
        ("delay", json!("-1s"), "", "digits"),
        ("delay", json!(-1), "", "duration"),
        ("delay", json!("20y"), "", "unit"),
        ("delay", json!("9999d"), "run_at", "ten years"),
        (
            "run_at",
            json!("9990-12-31T23:59:59Z"),
            "run_at",
            "ten years",
        ),
        ("run_at", json!("10000-01-01T00:00:00Z"), "run_at", ""),
        ("run_at", json!("2030-01-01 00:00"), "run_at", "offset"),
        ("run_at", json!("2030-02-30T00:00:00Z"), "run_at", ""),
        ("run_at", json!(""), "run_at", ""),
        (
            "deadline",
            json!("1970-01-01T00:00:00Z"),
            "deadline",
            "future",
        ),
        ("command", json!([]), "command", "program"),
        ("command", json!([""]), "command", "empty program"),
        ("command", json!(["a", "b\u{0}"]), "command", "argument 1"),
        ("command", json!("ls -l"), "", "sequence"),
        ("cwd", json!("relative"), "cwd", "absolute"),
        ("cwd", json!(""), "cwd", "absolute"),
        ("cwd", json!("/a\u{0}b"), "cwd", "NUL"),
        ("cwd", json!("/x".repeat(3000)), "cwd", "4095"),
        ("user", json!("-1"), "user", "user of this host"),
        ("user", json!("4294967295"), "user", "user of this host"),
        ("user", json!("0"), "user", "user of this host"),
        ("user", json!(""), "user", "user of this host"),
        ("user", json!("a b"), "user", "user of this host"),
        ("user", json!("../etc"), "user", "user of this host"),
        ("user", json!(0), "", "string"),
        ("umask", json!("999"), "umask", "octal"),
        ("umask", json!("0o8"), "umask", "octal"),
        ("umask", json!("-1"), "umask", "octal"),
        ("umask", json!("1777"), "umask", "octal"),
        ("umask", json!(22), "", "string"),
        ("pids", json!(0), "pids", "at least 1"),
        ("pids", json!(-1), "", ""),
        ("memory", json!("1KiB"), "memory", "1 MiB"),
        ("memory", json!("-1GiB"), "", "digits"),
        ("memory", json!("999999999999GiB"), "", "large"),
        ("cpu", json!("0%"), "cpu", ""),
        ("cpu", json!(-1), "", ""),
        ("output_cap", json!("1B"), "output_cap", "1 KiB"),
        ("timeout", json!("0s"), "timeout", "longer than zero"),
        ("timeout", json!("-1s"), "", "digits"),
        ("timeout", json!("1y"), "", "unit"),
        ("timeout", json!("5 parsecs"), "", "unit"),
        ("timeout", json!("18446744073709551616ms"), "", "large"),
        ("timeout", json!("5000d"), "timeout", "ten years"),
        ("timeout", json!(""), "", ""),
        ("grace", json!("0s"), "grace", "longer than zero"),
        ("queue_ttl", json!("0s"), "queue_ttl", "longer than zero"),
        ("heartbeat", json!("10ms"), "heartbeat", "one second"),
        ("env", json!({"": "x"}), "env", "variable name"),
        ("env", json!({"A=B": "x"}), "env", "variable name"),
        ("env", json!({"A\u{0}": "x"}), "env", "variable name"),
        ("env", json!({"A B": "x"}), "env", "variable name"),
        ("env", json!({"1A": "x"}), "env", "variable name"),
        ("env", json!({"\u{c4}": "x"}), "env", "variable name"),
        ("env", json!({"A": "x\u{0}"}), "env", "NUL"),
        ("env", json!({"A": "x".repeat(1 << 20)}), "env", "too long"),
        ("env", json!({"A": 1}), "", "string"),
        ("env", json!(["A=B"]), "", ""),
        ("env", json!({"NOTIFY_SOCKET": "x"}), "env", "reserved"),
        ("env", json!({"LISTEN_FDS": "3"}), "env", "reserved"),
        ("env", json!({"WATCHDOG_USEC": "3"}), "env", "reserved"),
        ("env", json!({"TASKDAEMON_TASK_ID": "3"}), "env", "reserved"),
        (
            "env",
            json!({"CREDENTIALS_DIRECTORY": "/"}),
            "env",
            "reserved",
        ),
        ("queue", json!(""), "queue", "letters"),
        ("queue", json!("../x"), "queue", "letters"),
        ("queue", json!("hooks"), "queue", "another"),
        ("queue", json!("x".repeat(65)), "queue", "64"),
        ("name", json!(""), "name", "1 to 200"),
        ("name", json!("a\u{1b}[2J"), "name", "control"),
        ("name", json!("x".repeat(1 << 20)), "name", "1 to 200"),
        ("labels", json!({"a b": "x"}), "labels", "letters"),
        ("labels", json!({"a": "x\n"}), "labels", "control"),
        ("profile", json!("../evil"), "profile", "letters"),
        (
            "retry",
            json!({"max_attempts": 0}),
            "retry.max_attempts",
            "between 1",
        ),
        (
            "retry",
            json!({"max_attempts": 2, "factor": 0.5}),
            "retry.factor",
            "",
        ),
        ("retry", json!({"retry_on": [0]}), "", ""),
        ("retry", json!({"retry_on": ["magic"]}), "", ""),
    ]
}

#[test]
fn bi_21_to_35_tasks_that_cannot_be() {
    let bed = Bed::start(&[]);
    for (name, value, field, words) in bad_fields() {
        let mut body = json!({"command": ["true"]});
        body[name] = value.clone();
        let shown: String = format!("{name} {value}").chars().take(80).collect();
        let begun = clock::instant();
        let (status, problem) = bed.post("/v1/tasks", &body).expect("an answer");
        assert_eq!(status, 400, "{shown}: {problem}");
        let named = problem["field"].as_str().unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or_default();
        let fits = named.starts_with(field) && detail.contains(words);
        assert!(fits, "{shown}: {problem}");
        assert!(
            detail.len() < 400 && !detail.contains('\n'),
            "{shown}: {problem}"
        );
        assert!(begun.elapsed() < QUICK, "{shown}");
        // The same within a list names its place, and takes none of it.
        let list = json!({"tasks": [{"command": ["true"]}, body]});
        let (status, problem) = bed.post("/v1/tasks", &list).expect("an answer");
        assert_eq!(status, 400, "{shown}: {problem}");
        let named = problem["field"].as_str().unwrap_or_default();
        assert!(
            field.is_empty() || named.starts_with("tasks[1]."),
            "{shown}: {problem}"
        );
    }
    assert_eq!(tasks(&bed), 0, "nothing was taken");
}

/// Bodies as large as they may be, and what is odd about them.
fn large_bodies() -> [(&'static str, Vec<u8>); 8] {
    const MOST: usize = 16 << 20;
    let fill = |head: &str, piece: &str, most: usize| {
        let mut body = head.as_bytes().to_vec();
        body.extend(piece.as_bytes().iter().cycle().take(most - head.len()));
        body
    };
    [
        ("open lists", fill("", "[", MOST)),
        ("one text", fill("{\"command\":[\"", "x", MOST)),
        ("arguments", fill("{\"command\":[\"a\"", ",\"b\"", MOST)),
        ("tasks", fill("{\"tasks\":[{}", ",{}", MOST)),
        // As many as are read at all.
        (
            "many arguments",
            fill("{\"command\":[\"a\"", ",\"b\"", 3_999_000),
        ),
        ("many tasks", fill("{\"tasks\":[{}", ",{}", 299_000)),
        ("blanks", fill("", " ", MOST)),
        ("one byte too many", fill("{\"name\":\"", "x", MOST + 1)),
    ]
}

/// A figure of a daemon's memory, in KiB: `VmRSS`, what it has, or `VmHWM`, the
/// most it ever had.
fn memory(bed: &Bed, figure: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", bed.pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with(figure));
    let size = line.and_then(|line| line.split_whitespace().nth(1));
    size.and_then(|size| size.parse().ok()).expect("a figure")
}

#[test]
fn sec_12_thousands_of_bad_requests_leave_memory_as_it_was() {
    /// Most KiB that may stay behind, the catalogue's bound.
    const RISE: i64 = 16 * 1024;
    /// Most KiB that a body may take in between, sixteen times the largest.
    const PEAK: i64 = 256 * 1024;
    let bed = Bed::start(&[]);
    let heads = bad_requests();
    let fields = bad_fields();
    let feed = || {
        for (what, bytes, allowed, _) in &heads {
            let answer = raw(&bed, bytes);
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
            assert!(allowed.contains(&status.unwrap_or(0)), "{what}: {answer}");
        }
        for (name, value, ..) in &fields {
            let mut body = json!({"command": ["true"]});
            body[*name] = value.clone();
            let (status, problem) = bed.post("/v1/tasks", &body).expect("an answer");
            assert_eq!(status, 400, "{name}: {problem}");
        }
        heads.len() + fields.len()
    };
    // What is made once, at the first request of a kind, is no leak.
    let mut sent = feed();
    let before = memory(&bed, "VmRSS");
    for _ in 0..2 {
        for (what, body) in large_bodies() {
            let (status, problem) = post_bytes(&bed, &body);
            assert!([400, 413].contains(&status), "{what}: {status} {problem}");
            sent += 1;
        }
    }
    while sent < 3_000 {
        sent += feed();
    }
    let (after, peak) = (memory(&bed, "VmRSS"), memory(&bed, "VmHWM"));
    assert!(peak - before <= PEAK, "{before} KiB rose to {peak} KiB");
    assert!(
        after - before <= RISE,
        "{sent} bad requests left {before} KiB at {after} KiB"
    );
    assert_eq!(tasks(&bed), 0, "nothing was taken");
    println!("{sent} bad requests: {before} KiB, at most {peak} KiB, then {after} KiB");
}

#[test]
fn bi_25_more_than_the_kernel_takes_is_refused_at_once() {
    let bed = Bed::start(&[]);
    let argument = "x".repeat(100 * 1024);
    let command: Vec<&str> = std::iter::once("true")
        .chain([argument.as_str(); 31])
        .collect();
    let answer = bed
        .post("/v1/tasks", &json!({ "command": command }))
        .expect("an answer");
    refused(&answer, 400, "invalid", "command", "allowed", "3 MiB");
    assert_eq!(tasks(&bed), 0);
}

#[test]
fn bi_26_what_cannot_run_says_why_and_is_not_tried_again() {
    let bed = Bed::start(&[]);
    let make = |name: &str, content: &[u8], mode: u32| {
        let path = bed.path(name);
        fs::write(&path, content).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path.display().to_string()
    };
    let plain = make("plain", b"#!/bin/sh\n", 0o644);
    let shebang = make("shebang", b"#!/no/such/interpreter\n", 0o755);
    let round = bed.path("round").display().to_string();
    make("round", format!("#!{round}\n").as_bytes(), 0o755);
    let mut elf = fs::read("/bin/true").expect("a program");
    // The machine in its header is none that there is.
    elf[18..20].copy_from_slice(&[0xfe, 0xca]);
    let foreign = make("foreign", &elf, 0o755);
    symlink("circle", bed.path("circle")).expect("link");
    let circle = bed.path("circle").display().to_string();
    let directory = bed.dir.path().display().to_string();
    let rows: Vec<(Value, &str)> = vec![
        (json!({"command": ["/no/such/program"]}), "no such"),
        (json!({"command": ["no-such-program-at-all"]}), "PATH"),
        (json!({"command": [directory]}), ""),
        (json!({"command": [plain]}), ""),
        (json!({"command": [shebang]}), "interpreter"),
        (json!({"command": [round]}), ""),
        (json!({"command": [foreign]}), ""),
        (
            json!({"command": ["true"], "cwd": "/no/such/directory"}),
            "/no/such/directory",
        ),
        (json!({"command": ["true"], "cwd": plain}), "directory"),
        (json!({"command": ["true"], "cwd": circle}), ""),
    ];
    for (mut body, words) in rows {
        let shown = body.to_string();
        body["retry"] = json!({"max_attempts": 3, "backoff": "1ms"});
        let task = bed.wait(bed.submit(&body));
        assert_eq!(task["state"], "failed", "{shown}: {task}");
        let attempts = task["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "not tried again: {shown}: {task}");
        assert_eq!(attempts[0]["outcome"], "spawn", "{shown}: {task}");
        let message = attempts[0]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("could not "), "{shown}: {message}");
        let found = message.to_lowercase().contains(&words.to_lowercase());
        assert!(found, "{shown}: {message}");
    }
    // Whoever says so has it tried again.
    let retry = json!({"max_attempts": 3, "backoff": "1ms", "retry_on": ["spawn"]});
    let id = bed.submit(&json!({"command": ["/no/such/program"], "retry": retry}));
    let task = bed.wait(id);
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(3), "{task}");
}

#[test]
fn bi_33_much_input_that_nobody_reads_ends_nothing() {
    let bed = Bed::start(&[]);
    let most = "x".repeat(1 << 20);
    let task = json!({"command": ["sh", "-c", "exec <&-; echo gone"], "stdin": most});
    let id = bed.submit(&task);
    assert_eq!(bed.wait(id)["state"], "succeeded");
    assert_eq!(bed.output(id), b"gone\n");
    let id = bed.submit(&json!({"command": ["wc", "-c"], "stdin": most}));
    assert_eq!(bed.wait(id)["state"], "succeeded");
    assert_eq!(text(&bed.output(id)).trim(), (1 << 20).to_string());
    let more = "x".repeat(2 << 20);
    let answer = bed.post("/v1/tasks", &json!({"command": ["cat"], "stdin": more}));
    refused(
        &answer.expect("an answer"),
        400,
        "invalid",
        "stdin",
        "bytes",
        "2 MiB",
    );
    assert_eq!(tasks(&bed), 2);
}

#[test]
fn bi_35_a_tasks_own_variables_reach_it_and_not_the_daemon() {
    let bed = Bed::start(&[]);
    let env = json!({"IFS": "x", "BASH_ENV": "/nowhere", "PYTHONPATH": "/p", "lower_case": "1"});
    let command = json!([
        "sh",
        "-c",
        "env | grep -E '^(IFS|BASH_ENV|PYTHONPATH|lower_case)=' | sort"
    ]);
    let id = bed.submit(&json!({"command": command, "env": env}));
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let said = text(&bed.output(id));
    assert!(
        said.contains("BASH_ENV=/nowhere\n") && said.contains("lower_case=1\n"),
        "{said}"
    );
    // The program is looked for in the task's own path.
    let id = bed.submit(&json!({"command": ["true"], "env": {"PATH": "/nowhere"}}));
    let task = bed.wait(id);
    assert_eq!(task["outcome"]["class"], "spawn", "{task}");
}

#[test]
fn bi_36_an_odd_environment_is_a_clear_error_or_none() {
    let dir = tempfile::tempdir().expect("directory");
    let run = |name: &str, value: &std::ffi::OsStr| {
        program()
            .args(["config", "check"])
            .env("HOME", dir.path())
            .env(name, value)
            .output()
            .expect("run")
    };
    for (name, value, code) in [
        ("RUST_LOG", "=,,=loud", 0),
        ("TZ", ":../../etc/shadow", 0),
        ("XDG_STATE_HOME", "", 0),
        ("XDG_RUNTIME_DIR", "relative", 0),
        ("LANG", "xx_YY.none", 0),
        ("TASKDAEMON_ENGINE__SLOTS", "many", 78),
        ("TASKDAEMON_ENGINE__SLOTS", "", 78),
        ("TASKDAEMON_NOTHING", "1", 78),
        ("TASKDAEMON_CONFIG", "/no/such/file.toml", 78),
    ] {
        let output = run(name, value.as_ref());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}={value}: {said}");
        assert!(!said.contains("panicked"), "{name}={value}: {said}");
        if code != 0 {
            assert_eq!(said.lines().count(), 1, "{name}={value}: {said}");
        }
    }
    let output = run("TASKDAEMON_LOG", std::ffi::OsStr::from_bytes(b"\xff"));
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    let bare = program()
        .args(["config", "check"])
        .env_clear()
        .output()
        .expect("run");
    let said = text(&bare.stderr);
    assert!(!said.contains("panicked"), "{said}");
    assert!(matches!(bare.status.code(), Some(0 | 78)), "{said}");
}

#[test]
fn bi_50_an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("config.toml");
    let hash = "0".repeat(64);
    let lines = format!(
        "[api]\nlisten = ['{address}']\ntokens = [{{ name = 'a', sha256 = '{hash}', uid = 1 }}]\n"
    );
    fs::write(&file, lines).expect("write");
    // As a file with tokens has to be.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("mode");
    let output = program()
        .arg("run")
        .arg("--config")
        .arg(&file)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg("--runtime-dir")
        .arg(dir.path().join("run"))
        .output()
        .expect("run");
    let said = text(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bi_52_a_secret_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let secret = dir.path().join("secret");
    let file = dir.path().join("config.toml");
    fs::write(
        &file,
        format!("hooks.secret_file = '{}'\n", secret.display()),
    )
    .expect("write");
    for (content, mode, words) in [
        (&b"0123456789abcdef0123456789abcdef\n"[..], 0o644, "chmod"),
        (b"", 0o600, ""),
        (b"a\nb\n", 0o600, ""),
        (b"\xff\xfe\n", 0o600, ""),
        (b" \n", 0o600, ""),
    ] {
        fs::write(&secret, content).expect("write");
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("chmod");
        let output = program()
            .arg("run")
            .arg("--config")
            .arg(&file)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .arg("--runtime-dir")
            .arg(dir.path().join("run"))
            .output()
            .expect("run");
        let said = text(&output.stderr);
        let shown = text(content);
        assert_eq!(output.status.code(), Some(78), "{shown:?} {mode:o}: {said}");
        assert!(
            said.contains("secret") && said.contains(words),
            "{shown:?}: {said}"
        );
        assert!(
            !said.contains("0123456789abcdef"),
            "it is told to nobody: {said}"
        );
    }
}

#[test]
fn bi_57_an_argument_too_long_is_refused() {
    let bed = Bed::start(&[]);
    // The kernel lets no argument be longer than this; so it is the longest
    // that there can be.
    let longest = "x".repeat(131_071);
    let output = at(&bed.socket(), &["submit", "--", "true", &longest]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = at(&bed.socket(), &["submit", "--name", &longest, "--", "true"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("name") && said.len() < 400, "{}", said.len());
    let list = at(&bed.socket(), &["list"]);
    assert_eq!(
        text(&list.stdout).lines().count(),
        2,
        "a heading and a task"
    );
    assert_eq!(tasks(&bed), 1);
}

#[test]
fn bi_58_every_kind_of_output_is_survived() {
    let bed = Bed::start(&[]);
    bed.wait(bed.submit(&json!({"command": ["echo", "x"]})));
    let host = format!("unix:{}", bed.socket().display());
    let run = |line: &str| {
        Command::new("sh")
            .arg("-c")
            .arg(line)
            .env("TASKDAEMON_HOST", &host)
            .env("T", env!("CARGO_BIN_EXE_taskdaemon"))
            .stdin(Stdio::null())
            .output()
            .expect("run")
    };
    for verb in [
        "list",
        "show 1",
        "logs 1",
        "status",
        "events",
        "queue list",
        "config default",
    ] {
        let full = run(&format!("\"$T\" {verb} >/dev/full"));
        let said = text(&full.stderr);
        assert!(!said.contains("panicked"), "{verb}: {said}");
        assert_eq!(full.status.code(), Some(1), "{verb} on a full disk: {said}");
        assert!(said.contains("No space"), "{verb}: {said}");
        for closed in [">&-", "2>&-", ">&- 2>&-", "<&-"] {
            let output = run(&format!(
                "\"$T\" {verb} {closed}; echo \"code $?\" >{}",
                bed.path("code").display()
            ));
            let said = text(&output.stderr);
            assert!(!said.contains("panicked"), "{verb} {closed}: {said}");
            let code = fs::read_to_string(bed.path("code")).expect("a code");
            assert!(
                ["code 0\n", "code 1\n"].contains(&code.as_str()),
                "{verb} {closed}: {code}"
            );
        }
    }
    for verb in ["list", "status", "show 1"] {
        let plain = run(&format!("TERM= \"$T\" {verb}"));
        assert!(
            !plain.stdout.contains(&0x1b),
            "no colour off a terminal: {verb}"
        );
        // A terminal of one column.
        let narrow = run(&format!(
            "TERM=xterm script -qec 'stty cols 1; \"$T\" {verb}' /dev/null"
        ));
        assert_eq!(
            narrow.status.code(),
            Some(0),
            "{verb}: {}",
            text(&narrow.stdout)
        );
    }
}

/// Answers each connection with these bytes and closes it.
fn pretender(path: &Path, answer: &'static [u8]) {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut piece = [0; 4096];
            // Its question is read first, so that closing does not reset it.
            drop(stream.read(&mut piece));
            drop(stream.write_all(answer));
        }
    });
}

#[test]
fn bi_59_each_way_of_not_being_there_has_a_code_and_a_hint() {
    let dir = tempfile::tempdir().expect("directory");
    let older: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: 75\r\n\r\n{\"type\":\"x\",\"title\":\"x\",\"status\":404,\"code\":\"no_route\",\"detail\":\"nothing\"} ";
    let newer: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"phase\": [3]}";
    let rows: [(&str, &'static [u8], &[i32]); 4] = [
        ("silent", b"", &[75]),
        ("strange", b"SSH-2.0-OpenSSH_9.2\r\n", &[1, 69]),
        ("older", older, &[1, 3]),
        ("newer", newer, &[1]),
    ];
    for (name, answer, codes) in rows {
        let path = dir.path().join(name);
        pretender(&path, answer);
        let begun = clock::instant();
        let output = at(&path, &["status"]);
        let said = text(&output.stderr);
        let code = output.status.code().unwrap_or(-1);
        assert!(codes.contains(&code), "{name}: {code} {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(said.starts_with("taskdaemon: "), "{name}: {said}");
        assert!(begun.elapsed() < QUICK, "{name}");
    }
    let long = dir.path().join("x".repeat(120));
    let output = at(&long, &["status"]);
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(2 | 69)), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bi_60_leaving_leaves_the_task_alone_and_names_it() {
    let bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    for (place, verb) in ["--wait", "--follow"].into_iter().enumerate() {
        let child = program()
            .env(
                "TASKDAEMON_HOST",
                format!("unix:{}", bed.socket().display()),
            )
            .args(["submit", verb, "--", "sh", "-c", &wait])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run");
        let id = i64::try_from(place).expect("small") + 1;
        bed.until("it runs", |bed| {
            bed.get(&format!("/v1/tasks/{id}"))
                .is_ok_and(|(_, task)| task["state"] == "running")
        });
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal");
        let output = child.wait_with_output().expect("output");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{verb}: {said}");
        assert!(said.contains(&id.to_string()), "{verb}: {said}");
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        assert_eq!(task["state"], "running", "{verb}");
    }
    fs::write(&gate, "").expect("open the gate");
    for id in [1, 2] {
        assert_eq!(bed.wait(id)["state"], "succeeded");
    }
}

#[test]
fn bi_69_a_name_is_inert_everywhere() {
    let bed = Bed::start(&[]);
    for name in [
        "<script>alert(1)</script>",
        "{{7*7}}",
        "javascript:alert(1)",
        "a\u{202e}b",
        "%s%n",
        "../../etc/passwd",
    ] {
        let id = bed.submit(&json!({"command": ["true"], "name": name, "labels": {"l": name}}));
        let task = bed.wait(id);
        assert_eq!(task["name"], name, "as it was given");
        let shown = text(&at(&bed.socket(), &["show", &id.to_string()]).stdout);
        assert!(!shown.contains('\u{202e}'), "{shown}");
    }
    let answer = with_header(&bed, "/v1/tasks", "Accept: text/html");
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert!(
        answer
            .to_lowercase()
            .contains("x-content-type-options: nosniff"),
        "{answer}"
    );
    let (status, _) =
        request(&bed.socket(), "GET", "/v1/tasks/%3Cscript%3E", None).expect("answer");
    assert_eq!(status, 400);
}
