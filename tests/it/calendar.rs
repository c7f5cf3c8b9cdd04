//! Calendar expressions: what is read and refused, changes of the clock, and
//! `systemd-analyze calendar`'s opinion.

use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;
use taskdaemon::model::schedule::When;
use taskdaemon::model::schedule::bad::BadWhen;
use taskdaemon::model::schedule::calendar::Calendar;

use crate::cron::{Dice, at, refused, times, told, when, zone};

#[test]
fn bi_39_a_calendar_component_out_of_bounds_is_named() {
    for (text, place) in [
        ("*-13-01", "column 3: the month is not from 1 to 12"),
        ("*-00-01", "column 3: the month"),
        ("*-*-32", "column 5: the day is not from 1 to 31"),
        ("*-*-00", "column 5: the day"),
        (
            "*-*~29",
            "column 5: the day from the end of the month is not from 1 to 28",
        ),
        ("24:00", "column 1: the hour is not from 0 to 23"),
        ("12:60", "column 4: the minute is not from 0 to 59"),
        ("23:59:60", "column 7: the second is not from 0 to 59"),
        ("1969-01-01", "column 1: the year is not from 1970 to 2199"),
        ("2200-01-01", "column 1: the year"),
        ("Mon 2026-02-30..31 1:2", "never fires"),
        ("9999999999:00", "column 1: the hour is too large"),
        ("00:00:2300", "column 7: the second is too large"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(place), "{text:?}: {error}");
    }
}

#[test]
fn bi_40_malformed_calendar_expressions_are_refused() {
    let long = format!("*:{}", "1,".repeat(200));
    for (text, place) in [
        ("test", "column 1: `test` is not a weekday"),
        ("Mon,,Tue", "column 5: `` is not a weekday"),
        ("Monday..", "column 9: `` is not a weekday"),
        (
            "Fri..Mon",
            "column 1: this range runs backwards: the week starts on Monday",
        ),
        ("Mon..Wed..Fri", "column 9: after a weekday"),
        ("Mon.Fri 1:00", "column 4: after a weekday"),
        ("Mon Fri", "column 5: `Fri` is not a time zone"),
        ("7", "a date is"),
        ("12:", "column 4: a number is missing here (the minute)"),
        ("12:00:", "column 7: a number is missing here (the second)"),
        ("12", "a date is"),
        (":30", "column 1: a number is missing here (the hour)"),
        ("12:00:00:00", "column 9: a time is"),
        ("*/2:00", "column 3: `*` takes no repetition: write `0/…`"),
        ("*-*/2-1", "write `1/…`"),
        ("*:5,*", "column 5: a number is missing"),
        ("*:*,5", "column 4: a time is"),
        ("1,,2:00", "column 3: a number is missing"),
        ("00:00/0", "column 4: a repetition of 0"),
        ("00:00/60", "column 4: this repetition never comes"),
        ("20/4:00", "column 1: this repetition never comes"),
        ("*-*~5/5", "column 5: this repetition never comes"),
        ("12..1/2-*", "column 1: this range runs backwards"),
        ("*:*:0.0..0.9", "column 5: a range of less than a second"),
        ("*:*:1.", "column 7: decimals are missing"),
        ("2026~11-22", "a date is"),
        ("2026-11-22-3", "a date is"),
        ("2026- 11- 24 12: 30: 00", "this has 6"),
        ("Mon 2026-01-01 1:00 2:00", "`2:00` is too much"),
        ("-1:00", "column 1: a number is missing"),
        ("+1:00", "column 1: a number is missing"),
        (
            "12:00 Mars/Base",
            "column 7: `Mars/Base` is not a time zone",
        ),
        ("12:00 CEST", "column 7: `CEST` is not a time zone"),
        ("12:00 europe/berlin", "here `Europe/Berlin`"),
        ("@1700000000", "known are @yearly"),
        ("*\u{2013}1:00", "column 2: '\u{2013}' cannot"),
        (long.as_str(), "at most 256"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(place), "{text:?}: {error}");
    }
    let moment = "@1700000000".parse::<Calendar>().expect_err("moment");
    assert!(
        moment
            .to_string()
            .contains("a single moment is not a schedule"),
        "{moment}"
    );
}

#[test]
fn bi_41_a_calendar_of_no_date_is_refused_and_one_of_the_past_has_no_next() {
    for text in ["*-02-30", "*-04-31", "2025-02-29", "Mon 2026-11-24"] {
        let error = refused(text);
        assert!(
            matches!(error, BadWhen::NeverFires { .. }),
            "{text}: {error}"
        );
    }
    // The 28th from the end is the first of a short February.
    let after = "2026-01-01T00:00:00Z";
    assert_eq!(times("*-02~28", "UTC", after, 1), ["2026-02-01T00:00:00Z"]);
    let past = when("2020-*-*");
    assert_eq!(past.next(&zone("UTC"), at("2026-01-01T00:00:00Z")), None);
    // A single time that the clock leaves out.
    let gap = when("2026-03-29 02:30");
    assert_eq!(
        gap.next(&zone("Europe/Berlin"), at("2026-01-01T00:00:00Z")),
        None
    );
    assert!(gap.next(&zone("UTC"), at("2026-01-01T00:00:00Z")).is_some());
}

#[test]
fn the_zone_of_the_expression_goes_before_the_schedules() {
    let after = "2026-07-01T00:00:00Z";
    assert_eq!(
        times("12:00 Asia/Kolkata", "Europe/Berlin", after, 1),
        ["2026-07-01T06:30:00Z"]
    );
    assert_eq!(
        times("12:00 utc", "Europe/Berlin", after, 1),
        ["2026-07-01T12:00:00Z"]
    );
    assert_eq!(
        times("12:00", "Europe/Berlin", after, 1),
        ["2026-07-01T10:00:00Z"]
    );
    assert_eq!(when("12:00 utc").to_string(), "*-*-* 12:00:00 UTC");
}

#[test]
fn daylight_saving_time_is_systemds() {
    for (text, zone, after, expected) in [
        // Left out: not at all.
        (
            "02:30",
            "Europe/Berlin",
            "2026-03-28T02:00:00Z",
            ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"],
        ),
        (
            "*:30",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
        ),
        // Twice: the first time.
        (
            "02:30",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        (
            "*:30",
            "Europe/Berlin",
            "2026-10-25T00:00:00Z",
            ["2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"],
        ),
        (
            "hourly",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z"],
        ),
        (
            "*:0/20",
            "Australia/Lord_Howe",
            "2026-04-04T14:30:00Z",
            ["2026-04-04T14:40:00Z", "2026-04-04T15:30:00Z"],
        ),
        // Also when the clock is looked at only within the second time.
        (
            "*:30",
            "Europe/Berlin",
            "2026-10-25T01:10:00Z",
            ["2026-10-25T02:30:00Z", "2026-10-25T03:30:00Z"],
        ),
    ] {
        assert_eq!(times(text, zone, after, 2), expected, "{text} in {zone}");
    }
}

#[test]
fn seconds_have_fractions() {
    let after = "2026-01-01T00:00:00Z";
    assert_eq!(
        times("*:*:0/0.4", "UTC", after, 4),
        [
            "2026-01-01T00:00:00.4Z",
            "2026-01-01T00:00:00.8Z",
            "2026-01-01T00:00:01.2Z",
            "2026-01-01T00:00:01.6Z"
        ]
    );
    assert_eq!(
        times("00:00:07.4200005", "UTC", after, 1),
        ["2026-01-01T00:00:07.420001Z"]
    );
    assert_eq!(
        when("00:00:07.4200005").to_string(),
        "*-*-* 00:00:07.420001"
    );
}

/// Expressions with each form of each component.
const WRITTEN: &[&str] = &[
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "yearly",
    "annually",
    "quarterly",
    "semiannually",
    "semi-annually",
    "biannually",
    "Daily",
    "WEEKLY",
    "Mon",
    "sunday",
    "Tue,",
    "Mon..Fri",
    "Sat,Thu,Mon..Wed",
    "Mon-Wed 7:00",
    "Wed, 17:48",
    "Sat..Sun 10:00",
    "Mon,Tue,Wed,Thu,Fri,Sat,Sun 3:00",
    "Wed..Wed 1:00",
    "5:00",
    "05:40:12",
    "*:*",
    "*:*:*",
    "12:*",
    "*:07",
    "*:0/15",
    "*:3/20",
    "0/6:00",
    "9..17:00",
    "9..17/4:30",
    "8,12,16:05",
    "12,11,12:30,15",
    "*:4,30:0/1,7",
    "*:*:0/20",
    "*:*:10..50/10",
    "00:00:01..03",
    "*:20..39/5",
    "23:59:59",
    "22/1:00",
    "*:05..05",
    "*:05..10/6",
    "10-15",
    "*-10-15",
    "03-05 08:05:40",
    "*-*-7",
    "*-*-1,15",
    "*-*-1/5 04:00",
    "*-1/3-1",
    "*-*-25..31 2:00",
    "*-01,07-01",
    "1..3-1..3 1..3:1..3",
    "*-02-29",
    "*-*-31 12:00",
    "Fri *-*-13",
    "Mon *-*-1..7 6:00",
    "*-2/4-1/10 0/8:30",
    "*-*~1",
    "*-*~01..07",
    "Mon *-*~1..7 4:00",
    "*-*~7/1",
    "*-*~1..10/4",
    "*-02~1",
    "*~3",
    "*-*~05,3",
    "Fri *-*~7/1 16:00",
    "*-*~28",
    "*-*~20/7",
    "*-*~*",
    "02~1..2 0/12:00",
    "2027-*-*",
    "2026..2028-06-15",
    "2026/2-01-01",
    "27-05-01 9:00",
    "2028-02-29 12:00",
    "2027,2029-07-04",
    "2026-12-31 23:59:59",
    "2030-01-01",
    "2020/3-*-1",
];

/// A number, list, range or repetition.
fn component(dice: &mut Dice, low: u64, high: u64) -> String {
    let number = |dice: &mut Dice| low + dice.below(high - low + 1);
    let one = |dice: &mut Dice| {
        let first = number(dice);
        let last = first + dice.below(high - first + 1);
        let step = 1 + dice.below((high - first).max(2) / 2);
        match dice.below(6) {
            0 | 1 => format!("{first:02}"),
            2 | 3 if last > first => format!("{first}..{last}"),
            4 if last > first => format!("{first}..{last}/{step}"),
            _ if first + step <= high => format!("{first}/{step}"),
            _ => first.to_string(),
        }
    };
    match dice.below(8) {
        0..3 => "*".to_owned(),
        3..6 => one(dice),
        _ => format!("{},{}", one(dice), one(dice)),
    }
}

fn generated(dice: &mut Dice) -> String {
    let weekdays = dice.one_of(&[
        "",
        "",
        "",
        "Mon ",
        "Sat,Sun ",
        "Mon..Fri ",
        "Wed,Fri..Sun ",
        "tuesday ",
    ]);
    let date = match dice.below(6) {
        0 | 1 => String::new(),
        2 => format!("{}-{} ", component(dice, 1, 12), component(dice, 1, 31)),
        3 => format!("*-{}~{} ", component(dice, 1, 12), 1 + dice.below(28)),
        _ => format!("*-{}-{} ", component(dice, 1, 12), component(dice, 1, 31)),
    };
    // Most changes of the clock are at night.
    let high = if dice.below(2) == 0 { 3 } else { 23 };
    let time = format!("{}:{}", component(dice, 0, high), component(dice, 0, 59));
    let seconds = match dice.below(4) {
        0 => format!(":{}", component(dice, 0, 59)),
        1 => format!(":{}", dice.below(60)),
        _ => String::new(),
    };
    format!("{weekdays}{date}{time}{seconds}")
}

/// What systemd-analyze says of expressions: the normalized form, and the
/// next times in whole seconds. Of an expression that it gives up at it says
/// nothing. None where it is missing.
fn ask(
    expressions: &[String],
    base: &str,
    count: usize,
) -> Option<BTreeMap<String, (String, Vec<String>)>> {
    let mut answers = BTreeMap::new();
    for some in expressions.chunks(100) {
        let base = base.replace('T', " ").replace('Z', " UTC");
        let output = Command::new("systemd-analyze")
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .arg("calendar")
            .arg(format!("--iterations={count}"))
            .arg(format!("--base-time={base}"))
            .args(some)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).expect("text");
        let told = String::from_utf8_lossy(&output.stderr);
        // It searches a thousand steps at most, and then says this.
        let gave_up =
            |text: &&String| told.contains(&format!("'{text}': Resource deadlock avoided"));
        let left_out = some.iter().filter(gave_up).count();
        assert_eq!(told.lines().count(), left_out, "{told}");
        let mut sections = text.split("Normalized form: ").skip(1);
        for expression in some.iter().filter(|text| !gave_up(text)) {
            let mut lines = sections.next().expect(&told).lines();
            let normal = lines.next().expect("a form").to_owned();
            let elapse = |line: &str| {
                let (what, time) = line.trim().split_once(": ")?;
                let is = what == "Next elapse" || what.starts_with("Iter");
                let mut words = time.split(' ');
                let (Some(_), Some(day), Some(hour)) = (words.next(), words.next(), words.next())
                else {
                    return None;
                };
                is.then(|| format!("{day}T{hour}Z"))
            };
            let answer = (normal, lines.filter_map(elapse).collect());
            answers.insert(expression.clone(), answer);
        }
    }
    Some(answers)
}

#[test]
fn calendar_expressions_are_what_systemd_says() {
    let mut dice = Dice(20_261_124);
    let mut texts: Vec<_> = WRITTEN.iter().map(|text| (*text).to_owned()).collect();
    while texts.len() < WRITTEN.len() + 220 {
        let text = generated(&mut dice);
        if !matches!(text.parse::<When>(), Err(BadWhen::NeverFires { .. })) {
            when(&text);
            texts.push(text);
        }
    }
    let count = 12;
    let (mut compared, mut gave_up) = (0, 0);
    for (zone, bases) in [
        ("UTC", ["2026-01-01T00:00:00Z", "2027-12-30T23:59:59Z"]),
        (
            "Europe/Berlin",
            ["2026-03-28T22:00:00Z", "2026-10-24T21:00:00Z"],
        ),
        (
            "Australia/Lord_Howe",
            ["2026-04-04T13:00:00Z", "2026-10-03T13:30:00Z"],
        ),
    ] {
        let texts: Vec<_> = texts.iter().map(|text| format!("{text} {zone}")).collect();
        for base in bases {
            let Some(answers) = ask(&texts, base, count) else {
                println!(
                    "skipped: calendar_expressions_are_what_systemd_says: no systemd-analyze (apt install systemd)"
                );
                return;
            };
            for text in &texts {
                let Some((normal, theirs)) = answers.get(text) else {
                    gave_up += 1;
                    continue;
                };
                assert_eq!(when(text).to_string(), *normal, "{text}");
                assert_eq!(when(normal), when(text), "{text}");
                let ours = times(text, "UTC", base, count);
                let whole = |time: &String| told(at(&format!("{}Z", &time[..19])));
                let ours: Vec<_> = ours.iter().map(whole).collect();
                assert_eq!(ours, *theirs, "{text} after {base}");
                compared += ours.len();
            }
        }
    }
    let asked = texts.len() * 6;
    println!("{asked} questions, {compared} times; it gave up at {gave_up}");
    assert!(
        compared > 10_000 && gave_up * 50 < asked,
        "{compared} {gave_up}"
    );
}

#[test]
fn what_systemd_refuses_is_refused() {
    let texts = [
        "test",
        "Mon..",
        "Fri..Mon",
        "7",
        "12:",
        "*/2:00",
        "*:5,*",
        "00:00/0",
        "00:00/60",
        "20/4:00",
        "*-*~5/5",
        "12..1/2-*",
        "*:*:0.0..0.9",
        "2026~11-22",
        "-1:00",
        "24:00",
        "23:59:60",
        "*-13-01",
        "*~29",
        "12:00 Mars/Base",
        "*:*:05..05",
        "*-*~16..31",
        "1969-1-1",
        "Mon.Fri 1:00",
        "12:00:00:00",
    ];
    for text in texts {
        let output = Command::new("systemd-analyze")
            .args(["calendar", "--", text])
            .output();
        let Ok(output) = output else {
            println!(
                "skipped: what_systemd_refuses_is_refused: no systemd-analyze (apt install systemd)"
            );
            return;
        };
        assert!(!output.status.success(), "systemd reads {text:?}");
        refused(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_canonical_text_of_a_calendar_is_its_own(seed in any::<u64>(), day in 0_i64..20_000) {
        let text = generated(&mut Dice(seed));
        let Ok(read) = text.parse::<When>() else { return Ok(()) };
        let canonical = read.to_string();
        prop_assert_eq!(&when(&canonical), &read);
        prop_assert_eq!(when(&canonical).to_string(), canonical.clone());
        let mut time = taskdaemon::model::time::Time::from_micros(day * 86_400_000_000);
        let zone = zone("America/New_York");
        for _ in 0..20 {
            let Some(next) = read.next(&zone, time) else { break };
            prop_assert!(next > time);
            let before = next.before(std::time::Duration::from_micros(1));
            let again = read.next(&zone, before);
            prop_assert_eq!(again, Some(next));
            time = next;
        }
    }
}
