//! Cron expressions: what is read and refused, Debian's day rule, changes of
//! the clock, and two other programs' opinions.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use taskdaemon::model::schedule::When;
use taskdaemon::model::schedule::bad::BadWhen;
use taskdaemon::model::schedule::zone::Zone;
use taskdaemon::model::time::Time;

const MINUTE: i64 = 60_000_000;

pub(crate) fn when(text: &str) -> When {
    text.parse().expect(text)
}

pub(crate) fn zone(name: &str) -> Zone {
    name.parse().expect(name)
}

pub(crate) fn at(text: &str) -> Time {
    let time: Timestamp = text.parse().expect(text);
    Time::from_micros(time.as_microsecond())
}

pub(crate) fn told(time: Time) -> String {
    let time = Timestamp::from_microsecond(time.micros()).expect("in range");
    time.to_string()
}

/// The first times after another, as text.
pub(crate) fn times(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let (when, zone) = (when(text), zone(zone_name));
    let mut time = at(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = when.next(&zone, time)
    {
        assert!(next > time, "{text}: {} after {}", told(next), told(time));
        found.push(told(next));
        time = next;
    }
    found
}

pub(crate) fn refused(text: &str) -> BadWhen {
    text.parse::<When>().expect_err(text)
}

#[test]
fn bi_39_a_cron_field_out_of_bounds_is_named() {
    for (text, place) in [
        ("* * * *", "five fields"),
        ("* * * * * *", "this has 6"),
        ("0 0 0 1 1 *", "this has 6"),
        (
            "60 * * * *",
            "minute, column 1: `60` is not a number from 0 to 59",
        ),
        ("* 24 * * *", "hour, column 3: `24`"),
        ("0 0 0 * *", "day of month, column 5: `0`"),
        ("0 0 32 * *", "day of month, column 5: `32`"),
        ("* * * 13 *", "month, column 7: `13`"),
        ("* * * 0 *", "month, column 7: `0`"),
        ("* * * * 8", "day of week, column 9: `8`"),
        ("0,15,99 * * * *", "minute, column 6: `99`"),
        ("* *  *\t* 1-9", "day of week, column 12: `9`"),
        (
            "-1 * * * *",
            "minute, column 1: a number from 0 to 59 is missing",
        ),
        ("4294967296 * * * *", "minute, column 1"),
        ("+5 * * * *", "minute, column 1: `+5`"),
        ("1.5 * * * *", "minute, column 1: `1.5`"),
        ("jan * * * *", "minute, column 1: `jan`"),
        ("* * * january *", "or a name such as `jan`"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(place), "{text:?}: {error}");
    }
}

#[test]
fn bi_40_malformed_lists_ranges_steps_and_separators_are_refused() {
    let long = "*/1,".repeat(10_000) + "*/1 * * * *";
    for (text, place) in [
        (
            "*/0 * * * *",
            "minute, column 3: `0` is not a step from 1 to 60",
        ),
        ("5-1 * * * *", "minute, column 1: `5-1` runs backwards"),
        ("* * * * fri-sun", "at the end of a range Sunday is 7"),
        (
            "1- * * * *",
            "minute, column 3: a number from 0 to 59 is missing",
        ),
        ("-5 * * * *", "minute, column 1"),
        (
            ", * * * *",
            "minute, column 1: a number, a range or `*` is missing",
        ),
        ("1,,2 * * * *", "minute, column 3: a number, a range"),
        ("1, * * * *", "minute, column 3"),
        (
            "1-59/9999999 * * * *",
            "minute, column 6: `9999999` is not a step",
        ),
        (
            "*/61 * * * *",
            "minute, column 3: `61` is not a step from 1 to 60",
        ),
        ("*/ * * * *", "minute, column 3: `` is not a step"),
        ("5/10 * * * *", "a step needs a range: write `5-59/…`"),
        ("*5 * * * *", "minute, column 1: `*5`"),
        ("1-5-7 * * * *", "minute, column 3: `5-7`"),
        ("*/5x * * * *", "minute, column 3: `5x`"),
        ("* * * * *x", "day of week, column 9: `*x`"),
        ("* * * * * # each minute", "this has 8"),
        (long.as_str(), "has 40011 bytes: at most 256"),
        (
            "\u{661} * * * *",
            "column 1: '\u{661}' cannot be in a schedule",
        ),
        ("*\u{a0}* * * *", "column 2: '\\u{a0}' cannot"),
        ("* * * * *\r\n", "column 10: '\\r' cannot"),
        ("* * * * *\n", "column 10: '\\n' cannot"),
        ("*\u{b}* * * *", "column 2"),
        ("*\0* * * *", "column 2"),
        ("", "the schedule is empty"),
        (" \t ", "the schedule is empty"),
    ] {
        let error = refused(text).to_string();
        let start: String = text.chars().take(40).collect();
        assert!(error.contains(place), "{start:?}: {error}");
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn bi_41_what_never_fires_is_refused() {
    for text in [
        "0 0 30 2 *",
        "0 0 31 4 *",
        "0 0 31 2,4,6,9,11 *",
        "0 0 30,31 feb */2",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, BadWhen::NeverFires { .. }),
            "{text}: {error}"
        );
        assert!(error.to_string().contains("never fires"), "{error}");
    }
    // A day of the week beside it makes it fire.
    assert_eq!(
        times("0 0 30 2 1", "UTC", "2026-01-01T00:00:00Z", 1),
        ["2026-02-02T00:00:00Z"]
    );
}

#[test]
fn bi_42_leap_days_letters_words_and_names() {
    assert_eq!(
        times("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2),
        ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
    );
    // 2100 is no leap year, and 29 February is rarely a Sunday.
    assert_eq!(
        times("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1),
        ["2104-02-29T00:00:00Z"]
    );
    assert_eq!(
        times("0 0 29 2 */7", "UTC", "2060-03-01T00:00:00Z", 2),
        ["2088-02-29T00:00:00Z", "2128-02-29T00:00:00Z"]
    );
    for text in [
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 LW * *",
        "0 0 * * 5L",
        "0 0 * * 6#3",
        "0 0 ? * *",
        "0 0 * * ?",
        "0 0 * * fri#2",
    ] {
        let error = refused(text).to_string();
        assert!(error.contains("are not cron's"), "{text}: {error}");
    }
    for (text, place) in [
        ("@reboot", "at boot"),
        ("@Daily", "in small letters"),
        ("@every 5m", "`every 90s`"),
        ("@daily x", "nothing can follow"),
        ("@", "known are @yearly"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(place), "{text}: {error}");
    }
    for (word, fields) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("0 0 * JAN,Mar MON-fri", "0 0 * 1,3 1-5"),
        ("0 0 * * sun", "0 0 * * 7"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        (" 05\t00 *  * * ", "5 0 * * *"),
    ] {
        let after = "2026-01-01T00:00:00Z";
        assert_eq!(
            times(word, "Europe/Berlin", after, 40),
            times(fields, "Europe/Berlin", after, 40),
            "{word}"
        );
    }
}

#[test]
fn bi_42_day_of_month_and_day_of_week_are_debians() {
    let days = |text: &str| -> Vec<String> {
        let all = times(text, "UTC", "2026-02-01T00:00:00Z", 40);
        let february = all.into_iter().filter(|time| time.starts_with("2026-02"));
        february.map(|time| time[8..10].to_owned()).collect()
    };
    // Both given: one is enough. 13 February 2026 is a Friday.
    assert_eq!(days("0 9 3 * 5"), ["03", "06", "13", "20", "27"]);
    // One of them a star: the other alone.
    assert_eq!(days("0 9 3 * *"), ["03"]);
    assert_eq!(days("0 9 * * 5"), ["06", "13", "20", "27"]);
    // A star with a step is still a star: both must match.
    assert_eq!(days("0 9 */2 * 5"), ["13", "27"]);
    assert_eq!(days("0 9 1-31/2 * 5").len(), 16);
    assert_eq!(days("0 9 6,13 * */5"), ["06", "13"]);
    // A star at the front of a list counts, one later does not.
    assert_eq!(days("0 9 *,3 * 5"), ["06", "13", "20", "27"]);
    assert_eq!(days("0 9 3,* * 5").len(), 28);
}

#[test]
fn bi_43_only_exact_names_are_zones() {
    for name in [
        "UTC",
        "Europe/Berlin",
        "EST5EDT",
        "Etc/GMT+5",
        "Australia/Lord_Howe",
    ] {
        assert_eq!(zone(name).name(), name);
        let json = serde_json::to_string(&zone(name)).expect("json");
        assert_eq!(json, format!("{name:?}"));
        assert_eq!(
            serde_json::from_str::<Zone>(&json).expect("zone"),
            zone(name)
        );
    }
    let long = "x".repeat(100_000);
    for name in [
        "UTC+25",
        "UTC+1",
        "",
        "Mars/Base",
        "../zone",
        "/etc/localtime",
        "+01:00",
        "CEST",
        "local",
        "europe/berlin",
        "utc",
        " UTC",
        "UTC ",
        "Europe/Berlin\0",
        "posixrules",
        "Factory/..",
        "EST5EDT,M3.2.0,M11.1.0",
        "Etc/Unknown",
        ":UTC",
        long.as_str(),
    ] {
        let error = name.parse::<Zone>().expect_err(name).to_string();
        assert!(
            error.contains("is not a time zone: write an IANA name"),
            "{error}"
        );
        assert!(error.len() < 200, "{error}");
        assert!(serde_json::from_value::<Zone>(name.into()).is_err());
    }
    let error = "europe/berlin"
        .parse::<Zone>()
        .expect_err("case")
        .to_string();
    assert!(error.contains("here `Europe/Berlin`"), "{error}");
}

#[test]
fn bi_44_intervals_and_jitter_have_bounds() {
    for (text, place) in [
        ("every 0s", "0s is not between 1s and 3650d"),
        ("every 1ms", "1ms is not between"),
        ("every 999ms", "not between"),
        ("every 109500d", "not between 1s and 3650d"),
        ("every 3651d", "not between"),
        ("every 99999999999999999999s", "too large"),
        ("every 90", "has no unit: write `90s`"),
        ("every -1s", "expected digits"),
        ("every 1month", "unknown unit `month`"),
        ("every", "write `every 90s`"),
        ("every 1s 2s", "write `every 90s`"),
        ("every 1s from", "write `every 90s`"),
        ("every 1s from noon", "`noon` is not a time"),
        ("Every 1s", "`Every` is not a weekday"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(place), "{text}: {error}");
    }
    for (text, jitter, good) in [
        ("every 90s", 0, true),
        ("every 90s", 90, true),
        ("every 90s", 91, false),
        ("every 7d", 86_400, true),
        ("every 7d", 86_401, false),
        ("0 5 * * *", 86_400, true),
        ("daily", 86_401, false),
    ] {
        let answer = when(text).allow_jitter(Duration::from_secs(jitter));
        assert_eq!(answer.is_ok(), good, "{text} {jitter}: {answer:?}");
    }
}

#[test]
fn intervals_are_counted_from_their_anchor() {
    assert_eq!(
        times("every 90s", "UTC", "2026-01-01T00:00:01Z", 2),
        ["2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"]
    );
    let text = "every 1h from 2026-03-29T00:20:00Z";
    assert_eq!(when(text).to_string(), text);
    // Real time: the zone and its changes have no part in it.
    assert_eq!(
        times(text, "Europe/Berlin", "2025-01-01T00:00:00Z", 2),
        ["2026-03-29T01:20:00Z", "2026-03-29T02:20:00Z"]
    );
    assert_eq!(
        times("every 1500ms", "UTC", "1970-01-01T00:00:00Z", 2),
        ["1970-01-01T00:00:01.5Z", "1970-01-01T00:00:03Z"]
    );
}

#[test]
fn fi_42_a_leap_second_is_refused_or_the_second_before() {
    let error = refused("2016-12-31 23:59:60").to_string();
    assert!(error.contains("the second is not from 0 to 59"), "{error}");
    let text = when("every 1h from 2016-12-31T23:59:60Z").to_string();
    assert_eq!(text, "every 1h from 2016-12-31T23:59:59Z");
}

#[test]
fn the_canonical_text_reads_back_as_the_same() {
    for (text, canonical) in [
        (" 5\t4 * *  SUN ", "5 4 * * sun"),
        ("@daily", "@daily"),
        ("*/5 0-23/2 1,15 JAN-mar *", "*/5 0-23/2 1,15 jan-mar *"),
        ("every 3600s", "every 1h"),
        (
            "every 90s from 2026-01-01T01:00:00+01:00",
            "every 1m30s from 2026-01-01T00:00:00Z",
        ),
        ("mon-fri 9:00", "Mon..Fri *-*-* 09:00:00"),
    ] {
        let value = when(text);
        assert_eq!(value.to_string(), canonical);
        assert_eq!(when(canonical), value);
        let json = serde_json::to_value(&value).expect("json");
        assert_eq!(json, canonical);
        assert_eq!(serde_json::from_value::<When>(json).expect("when"), value);
    }
    assert!(serde_json::from_str::<When>("5").is_err());
    assert!(serde_json::from_str::<When>("\"60 * * * *\"").is_err());
}

/// Expression, zone, after when, and the next times. In Berlin on 29 March
/// 2026 02:00 is 03:00, and on 25 October 03:00 is 02:00 again.
const SAVING: [(&str, &str, &str, &[&str]); 13] = [
    // Fixed times in a gap: once, right after it.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T02:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    ),
    (
        "0,15,30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T02:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
    ),
    (
        "0 2,3 * * *",
        "Europe/Berlin",
        "2026-03-28T02:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
    ),
    // Wild in a gap: not at all.
    (
        "*/30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T02:00:00Z",
        &["2026-03-30T00:00:00Z"],
    ),
    (
        "30 * * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
    ),
    // Fixed times in a fold: the first time only.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    ),
    (
        "0,30 1-3 * * *",
        "Europe/Berlin",
        "2026-10-25T00:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"],
    ),
    // Also when the clock is looked at only within the second time.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-25T01:10:00Z",
        &["2026-10-26T01:30:00Z"],
    ),
    // Wild in a fold: each time.
    (
        "*/30 2 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
        ],
    ),
    // Half an hour, at Lord Howe: 02:00 is 02:30, and 02:00 is 01:30 again.
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T12:00:00Z",
        &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
    ),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00:00Z",
        &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
    ),
    // A day that Samoa left out is no daylight saving time.
    (
        "0 12 30 12 *",
        "Pacific/Apia",
        "2011-12-01T00:00:00Z",
        &["2012-12-29T22:00:00Z"],
    ),
    (
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-29T21:00:00Z",
        &["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"],
    ),
];

#[test]
fn daylight_saving_time_is_as_documented() {
    for (text, zone, after, expected) in SAVING {
        assert_eq!(
            times(text, zone, after, expected.len()),
            expected,
            "{text} in {zone}"
        );
    }
}

/// Changes of offset in a zone, from 2000 to 2030: when, from and to what
/// local time.
fn changes(name: &str) -> Vec<(Timestamp, DateTime, DateTime)> {
    let zone = TimeZoneDatabase::bundled().get(name).expect(name);
    let start: Timestamp = "2000-01-01T00:00:00Z".parse().expect("time");
    let end: Timestamp = "2030-01-01T00:00:00Z".parse().expect("time");
    let instant = SignedDuration::from_nanos(1);
    let all = zone.following(start).map(|change| {
        let at = change.timestamp();
        let old = zone.to_offset(at - instant).to_datetime(at);
        (at, old, change.offset().to_datetime(at))
    });
    all.take_while(|(at, ..)| *at < end)
        .filter(|(_, old, new)| old != new)
        .collect()
}

/// What a schedule does in the day before and the day after a time.
fn around(when: &When, zone: &Zone, time: Time) -> Vec<Time> {
    let from = time.before(Duration::from_hours(26));
    let until = time.after(Duration::from_hours(26));
    let mut found = Vec::new();
    let mut next = when.next(zone, from);
    while let Some(fire) = next.filter(|fire| *fire <= until) {
        found.push(fire);
        next = when.next(zone, fire);
    }
    found
}

/// Holds the three rules against one change of one zone: true for a gap.
fn keeps_the_rules(name: &str, (at, old, new): (Timestamp, DateTime, DateTime)) -> bool {
    let zone = zone(name);
    let time = Time::from_micros(at.as_microsecond());
    let low = old.min(new);
    let size = low.duration_until(old.max(new));
    let is_large = size >= SignedDuration::from_hours(3);
    // A local time in the middle of what is left out or repeated, and when it is.
    let middle = low + SignedDuration::from_secs(size.as_secs() / 120 * 60);
    let offset = low.duration_until(middle).unsigned_abs();
    let first = time.before(size.unsigned_abs() - offset);
    let second = time.after(offset);
    let place = format!("{name} at {at}: {old} is {new}");

    let fires = |text: String| around(&when(&text), &zone, time);
    let fixed = fires(middle.strftime("%-M %-H %-d %-m *").to_string());
    let wild = fires(middle.strftime("* %-H %-d %-m *").to_string());
    let calendar = fires(middle.strftime("%F %T").to_string());
    if new > old {
        let made_up = if is_large { vec![] } else { vec![time] };
        assert_eq!(fixed, made_up, "{place}");
        assert_eq!(calendar, [], "{place}");
        let rules = TimeZoneDatabase::bundled().get(name).expect(name);
        for fire in wild {
            let fire = Timestamp::from_microsecond(fire.micros()).expect("in range");
            assert_eq!(rules.to_datetime(fire).hour(), middle.hour(), "{place}");
        }
    } else {
        let both = if is_large {
            vec![first, second]
        } else {
            vec![first]
        };
        assert_eq!(fixed, both, "{place}");
        assert_eq!(calendar, [first], "{place}");
        assert!(
            wild.contains(&first) && wild.contains(&second),
            "{place}, {wild:?}"
        );
    }
    new > old
}

#[test]
fn fi_41_each_change_of_each_zone_keeps_the_rule() {
    let (mut gaps, mut folds, mut crowded) = (0, 0, 0);
    for name in Zone::names() {
        let changes = changes(&name);
        for change in &changes {
            let near = |other: &&(Timestamp, DateTime, DateTime)| {
                other.0.duration_since(change.0).abs() < SignedDuration::from_hours(60)
            };
            if changes.iter().filter(near).count() > 1 {
                crowded += 1;
            } else if keeps_the_rules(&name, *change) {
                gaps += 1;
            } else {
                folds += 1;
            }
        }
    }
    println!("{gaps} gaps and {folds} folds; {crowded} with another within 60 hours left out");
    assert!(
        gaps > 6_000 && folds > 6_000 && crowded < 20,
        "{gaps} {folds} {crowded}"
    );
}

/// A generator of numbers that starts the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below another.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // Knuth's multiplier; the upper bits are the better ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub(crate) fn one_of<'t>(&mut self, words: &[&'t str]) -> &'t str {
        words[usize::try_from(self.below(words.len() as u64)).expect("small")]
    }

    fn number(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A cron field of any form. `stars` of ten are a plain `*`.
    fn field(&mut self, low: u64, high: u64, stars: u64, names: &[&str]) -> String {
        if self.below(10) < stars {
            return "*".to_owned();
        }
        let items = self.below(5).saturating_sub(1).max(1);
        let items: Vec<_> = (0..items)
            .map(|_| {
                let first = self.number(low, high);
                let last = self.number(first, high);
                let step = self.number(1, (high - low) / 2 + 1);
                match self.below(12) {
                    0..5 => first.to_string(),
                    5..7 => format!("{first}-{last}"),
                    7..9 => format!("{first}-{last}/{step}"),
                    9 => format!("*/{step}"),
                    10 if self.below(4) == 0 => "*".to_owned(),
                    _ if !names.is_empty() => self.one_of(names).to_owned(),
                    _ => first.to_string(),
                }
            })
            .collect();
        items.join(",")
    }

    fn expression(&mut self) -> String {
        let minute = self.field(0, 59, 2, &[]);
        // Most changes of the clock are at night.
        let high = if self.below(2) == 0 { 3 } else { 23 };
        let hour = self.field(0, high, 3, &[]);
        let day = self.field(1, 31, 6, &[]);
        let month = self.field(1, 12, 7, &["JAN", "mar", "Apr", "OCT", "nov"]);
        let weekday = self.field(0, 7, 5, &["sun", "MON", "Sat"]);
        format!("{minute} {hour} {day} {month} {weekday}")
    }
}

/// Generated expressions that fire at all.
fn expressions(count: usize) -> Vec<String> {
    let mut dice = Dice(20_261_124);
    let mut found: Vec<String> = [
        "@yearly",
        "@monthly",
        "@weekly",
        "@daily",
        "@hourly",
        "* * * * *",
        "30 2 * * *",
        "0 0 29 2 *",
    ]
    .map(str::to_owned)
    .to_vec();
    while found.len() < count {
        let text = dice.expression();
        let read = text.parse::<When>();
        if !matches!(read, Err(BadWhen::NeverFires { .. })) {
            read.expect(&text);
            found.push(text);
        }
    }
    found
}

/// What the other program says, a line for each expression; none where the
/// machine does not have it.
fn ask(arguments: &[&str], question: &serde_json::Value) -> Option<Vec<serde_json::Value>> {
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/differential/debian_cron.py"
    );
    let child = Command::new("/usr/bin/python3")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    let mut input = child.stdin.take().expect("stdin");
    // It may end before it has read everything; what it says then is looked at below.
    let sent = input.write_all(question.to_string().as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("python3");
    let told = String::from_utf8_lossy(&output.stderr);
    let missing = ["ModuleNotFoundError", "ZoneInfoNotFoundError"];
    if missing.iter().any(|word| told.contains(word)) {
        return None;
    }
    assert!(output.status.success() && sent.is_ok(), "{told}");
    let lines = String::from_utf8(output.stdout).expect("text");
    let read = |line: &str| serde_json::from_str(line).expect("json");
    Some(lines.lines().map(read).collect())
}

/// Zones, and starts of sixty hours each: changes of the clock, ends of months and years.
const WINDOWS: [(&str, [&str; 3]); 5] = [
    (
        "Europe/Berlin",
        [
            "2026-03-27T12:00:00Z",
            "2026-10-23T12:00:00Z",
            "2028-02-27T12:00:00Z",
        ],
    ),
    (
        "America/New_York",
        [
            "2026-03-06T12:00:00Z",
            "2026-10-30T12:00:00Z",
            "2026-12-30T12:00:00Z",
        ],
    ),
    (
        "Australia/Lord_Howe",
        [
            "2026-04-03T12:00:00Z",
            "2026-10-02T12:00:00Z",
            "2027-01-30T12:00:00Z",
        ],
    ),
    (
        "Asia/Kolkata",
        [
            "2026-03-27T12:00:00Z",
            "2026-07-30T12:00:00Z",
            "2026-12-30T12:00:00Z",
        ],
    ),
    (
        "UTC",
        [
            "2026-03-27T12:00:00Z",
            "2026-10-23T12:00:00Z",
            "2028-02-27T12:00:00Z",
        ],
    ),
];

#[test]
fn cron_is_what_debians_rules_say() {
    let minute = |text: &str| at(text).micros() / MINUTE;
    let mut windows = Vec::new();
    for (zone, starts) in WINDOWS {
        for start in starts {
            let start = minute(start);
            windows.push((zone, start, start + 60 * 60));
        }
    }
    let expressions = expressions(500);
    let question = serde_json::json!({
        "windows": windows.iter().map(|(zone, start, end)| serde_json::json!({"zone": zone, "start": start, "end": end})).collect::<Vec<_>>(),
        "expressions": expressions,
    });
    let Some(answers) = ask(&[], &question) else {
        println!(
            "skipped: cron_is_what_debians_rules_say: no python3 with tzdata (apt install python3 tzdata)"
        );
        return;
    };
    assert_eq!(answers.len(), expressions.len());
    let mut fires = 0;
    let mut quiet = BTreeSet::new();
    for (text, answer) in expressions.iter().zip(&answers) {
        let when = when(text);
        let answer: Vec<Vec<i64>> = serde_json::from_value(answer.clone()).expect("lists");
        for ((name, start, end), theirs) in windows.iter().zip(answer) {
            let zone = zone(name);
            let mut ours = Vec::new();
            let mut next = when.next(&zone, Time::from_micros(start * MINUTE));
            while let Some(time) = next.filter(|time| time.micros() <= end * MINUTE) {
                ours.push(time.micros() / MINUTE);
                next = when.next(&zone, time);
            }
            let only = |some: &[i64], other: &[i64]| -> Vec<String> {
                let left = some.iter().filter(|minute| !other.contains(minute));
                left.map(|minute| told(Time::from_micros(minute * MINUTE)))
                    .collect()
            };
            assert!(
                ours == theirs,
                "`{text}` in {name}: only we {:?}, only they {:?}",
                only(&ours, &theirs),
                only(&theirs, &ours)
            );
            fires += ours.len();
            if ours.is_empty() {
                quiet.insert(text);
            }
        }
    }
    println!(
        "{} expressions, {} windows, {fires} times",
        expressions.len(),
        windows.len()
    );
    assert!(fires > 100_000, "{fires}");
}

/// Why croniter's answer to an expression is no evidence, one reason for each
/// place where it reads another language than Debian's cron.
fn croniter_differs(text: &str) -> Option<&'static str> {
    let fields: Vec<_> = text.split(' ').collect();
    let [_, _, day, _, weekday] = fields.as_slice() else {
        return None;
    };
    let all = |field: &str, mut numbers: std::ops::RangeInclusive<i8>, low, names: &[&str]| {
        numbers.all(|number| includes(field, number, low, names))
    };
    // Debian looks at the first letter of a day field, croniter at whether the field means every
    // day: `*/2` is a star for the one and not for the other, `3,*` and `0-6` the other way round.
    let other = |field: &str, every: bool| every != field.starts_with('*');
    if other(day, all(day, 1..=31, 1, &[])) || other(weekday, all(weekday, 0..=6, 0, &DAYS)) {
        return Some("what a star is in a day field");
    }
    None
}

#[test]
fn croniter_agrees_where_it_reads_debians_language() {
    let start = "2026-01-01T00:00:00Z";
    let all = expressions(500);
    let (asked, left_out): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|text| croniter_differs(text).is_none());
    let count = 20;
    let question = serde_json::json!({"start": at(start).micros() / MINUTE, "count": count, "expressions": asked});
    let Some(answers) = ask(&["--croniter"], &question) else {
        println!(
            "skipped: croniter_agrees_where_it_reads_debians_language: no croniter (apt install python3-croniter)"
        );
        return;
    };
    for (text, answer) in asked.iter().zip(&answers) {
        let theirs: Vec<i64> = serde_json::from_value(answer.clone()).expect("numbers");
        let ours: Vec<_> = times(text, "UTC", start, count)
            .iter()
            .map(|time| at(time).micros() / MINUTE)
            .collect();
        assert_eq!(ours, theirs, "{text}");
    }
    println!("{} expressions, {} left out", asked.len(), left_out.len());
    assert!(asked.len() > 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn next_is_the_first_minute_that_a_walk_finds(seed in any::<u64>(), day in 0_i64..20_000) {
        let mut dice = Dice(seed);
        let text = dice.expression();
        let Ok(when) = text.parse::<When>() else { return Ok(()) };
        let start = Time::from_micros(day * 24 * 60 * MINUTE + 17);
        let mut time = start;
        for _ in 0..3 {
            let Some(next) = when.next(&Zone::utc(), time) else { break };
            prop_assert!(next > time);
            prop_assert_eq!(next.micros() % MINUTE, 0);
            // From any time before it the next is the same.
            let before = next.before(Duration::from_micros(1));
            prop_assert_eq!(when.next(&Zone::utc(), before), Some(next));
            time = next;
        }
        // Two days minute by minute, each asked by itself whether it is one.
        let mut next = when.next(&Zone::utc(), start);
        for minute in 1..=2 * 24 * 60 {
            let at = Time::from_micros((start.micros() / MINUTE + minute) * MINUTE);
            let hit = matches(&text, at);
            prop_assert_eq!(hit, next == Some(at), "{} at {}", text, told(at));
            if hit {
                next = when.next(&Zone::utc(), at);
            }
        }
    }
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Whether a number is one of a field's.
fn includes(field: &str, value: i8, low: i64, names: &[&str]) -> bool {
    let number = |text: &str| {
        let name = names
            .iter()
            .zip(low..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        name.map_or_else(|| text.parse().expect("number"), |(_, number)| number)
    };
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None if range == "*" => (low, i64::MAX),
            None => (number(range), number(range)),
        };
        let (value, step) = (i64::from(value), step.parse::<i64>().expect("step"));
        value >= first && value <= last && (value - first) % step == 0
    })
}

/// Whether a minute of universal time is one of an expression's, by reading
/// the expression for this minute alone.
fn matches(text: &str, time: Time) -> bool {
    let time = Timestamp::from_microsecond(time.micros()).expect("in range");
    let time = jiff::tz::Offset::UTC.to_datetime(time);
    let fields: Vec<_> = text.split(' ').collect();
    let is = |field: usize, value: i8, low: i64, names: &[&str]| {
        includes(fields[field], value, low, names)
    };
    let weekday = time.weekday().to_sunday_zero_offset();
    let of_month = is(2, time.day(), 1, &[]);
    let of_week = is(4, weekday, 0, &DAYS) || weekday == 0 && is(4, 7, 0, &DAYS);
    let star = fields[2].starts_with('*') || fields[4].starts_with('*');
    is(0, time.minute(), 0, &[])
        && is(1, time.hour(), 0, &[])
        && is(3, time.month(), 1, &MONTHS)
        && if star {
            of_month && of_week
        } else {
            of_month || of_week
        }
}
