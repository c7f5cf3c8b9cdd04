//! What to do now: which nominal times become tasks, and how they are spread.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::When;
use super::zone::Zone;
use crate::model::draw::{draw, share};
use crate::model::time::Time;

/// How late a nominal time may be and not count as missed.
const ON_TIME: Duration = Duration::from_secs(60);

/// The most tasks that one look makes.
pub const MOST: u32 = 1_000;

/// The most nominal times that are counted as skipped.
const COUNTED: u64 = 1_000;

/// What lies between one time and the next.
const TICK: Duration = Duration::from_micros(1);

/// First reach of the search backwards; it doubles.
const REACH: Duration = Duration::from_secs(60);

/// What becomes of the nominal times that passed while nobody looked.
///
/// As JSON `"skip"`, `"last"` or `{"all": {"most": 10}}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing. Only the latest can make a task, and only when it is at most
    /// a minute ago.
    Skip,
    /// The latest makes a task, however long ago it was.
    #[default]
    Last,
    /// Each makes a task, the latest so many of them.
    All {
        /// From 1 to [`MOST`]; what is above counts as that.
        most: u32,
    },
}

/// What a new task does that finds the one before it not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is not made.
    #[default]
    Skip,
    /// It waits until the one before has ended.
    Queue,
    /// It cancels the one before, and starts when that has ended.
    Replace,
    /// It runs beside it.
    Allow,
}

impl Overlap {
    /// The word for it, as in JSON and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Replace => "replace",
            Self::Allow => "allow",
        }
    }
}

/// The answer of [`due`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The nominal times that become tasks, in order; at most [`MOST`].
    pub fire: Vec<Time>,
    /// The cursor from now on, to be stored together with the tasks.
    pub cursor: Time,
    /// How many nominal times make no task. Counting stops at 1000.
    pub skipped: u64,
}

/// Decides about the nominal times after `cursor` and up to `now`.
///
/// The cursor moves to the last of them, whether it fires or not, and never
/// back. A clock that was set back therefore fires nothing until it passes
/// the cursor again, and one that was set forth looks like a time away, for
/// which there is `missed`. The first cursor of a schedule is the time of its
/// creation.
#[must_use]
pub fn due(when: &When, zone: &Zone, cursor: Time, now: Time, missed: Missed) -> Due {
    let nothing = Due {
        fire: Vec::new(),
        cursor,
        skipped: 0,
    };
    // Most looks find nothing: one step tells.
    if when.next(zone, cursor).is_none_or(|next| next > now) {
        return nothing;
    }
    let Some(latest) = latest(when, zone, cursor, now) else {
        return nothing;
    };
    let most = match missed {
        Missed::Skip => u32::from(now.since(latest) <= ON_TIME),
        Missed::Last => 1,
        Missed::All { most } => most.clamp(1, MOST),
    };
    let mut fire = Vec::new();
    let mut before = Some(latest);
    for _ in 0..most {
        let Some(time) = before else { break };
        fire.push(time);
        let below = time.before(TICK);
        before = self::latest(when, zone, cursor, below);
    }
    fire.reverse();
    let end = fire.first().copied();
    let end = end.unwrap_or_else(|| latest.after(TICK));
    let skipped = count(when, zone, cursor, end);
    Due {
        fire,
        cursor: latest,
        skipped,
    }
}

/// The last nominal time after `low` and not after `high`.
///
/// Looks back from `high` twice as far each time, and then halves what lies
/// between a time from which one follows and a time from which none does; so
/// it costs some dozen steps and not one for each nominal time.
fn latest(when: &When, zone: &Zone, low: Time, high: Time) -> Option<Time> {
    let next = |after: Time| when.next(zone, after).filter(|time| *time <= high);
    let mut reach = REACH;
    let mut none_from = high;
    let mut found = loop {
        let from = high.before(reach).max(low);
        if let Some(time) = next(from) {
            break time;
        }
        if from == low {
            return None;
        }
        none_from = from;
        reach = reach.saturating_mul(2);
    };
    while let Some(time) = next(found) {
        found = time;
        let middle = found.after(none_from.since(found) / 2);
        if middle == found {
            continue;
        }
        match next(middle) {
            Some(time) => found = time,
            None => none_from = middle,
        }
    }
    Some(found)
}

/// How many nominal times lie after `low` and before `end`, counting up to
/// [`COUNTED`].
fn count(when: &When, zone: &Zone, low: Time, end: Time) -> u64 {
    let mut counted = 0;
    let mut at = low;
    while counted < COUNTED {
        match when.next(zone, at) {
            Some(time) if time < end => at = time,
            _ => break,
        }
        counted += 1;
    }
    counted
}

/// How long after its nominal time a task of a schedule may start: from zero
/// to below `most`, the same at each call, different from schedule to schedule
/// and from time to time.
#[must_use]
pub fn jitter(schedule: i64, nominal: Time, most: Duration) -> Duration {
    let seed = draw(schedule.cast_unsigned()) ^ nominal.micros().cast_unsigned();
    share(most, draw(seed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;

    fn when(text: &str) -> When {
        text.parse().expect(text)
    }

    fn at(text: &str) -> Time {
        let time: jiff::Timestamp = text.parse().expect(text);
        Time::from_micros(time.as_microsecond())
    }

    fn seconds(count: i64) -> Time {
        Time::from_micros(count * SECOND)
    }

    #[test]
    fn a_time_fires_once_and_moves_the_cursor() {
        let (when, zone) = (when("*/10 * * * *"), Zone::utc());
        let mut cursor = at("2026-01-01T00:03:00Z");
        for (now, fires) in [
            ("2026-01-01T00:09:59Z", false),
            ("2026-01-01T00:10:00Z", true),
            ("2026-01-01T00:10:00Z", false),
            ("2026-01-01T00:19:59.999999Z", false),
            ("2026-01-01T00:20:00.005Z", true),
            ("2026-01-01T00:20:01Z", false),
        ] {
            for missed in [Missed::Skip, Missed::Last, Missed::All { most: 5 }] {
                let due = due(&when, &zone, cursor, at(now), missed);
                assert_eq!(due.fire.len(), usize::from(fires), "{now} {missed:?}");
                assert_eq!(due.skipped, 0);
            }
            cursor = due(&when, &zone, cursor, at(now), Missed::Last).cursor;
        }
        assert_eq!(cursor, at("2026-01-01T00:20:00Z"));
    }

    #[test]
    fn a_time_away_goes_by_the_policy() {
        let (when, zone) = (when("0 * * * *"), Zone::utc());
        let cursor = at("2026-01-01T00:00:00Z");
        for (now, missed, fire, skipped) in [
            ("2026-01-01T05:30:00Z", Missed::Skip, vec![], 5),
            ("2026-01-01T05:01:00Z", Missed::Skip, vec![5], 4),
            ("2026-01-01T05:01:00.000001Z", Missed::Skip, vec![], 5),
            ("2026-01-01T05:30:00Z", Missed::Last, vec![5], 4),
            (
                "2026-01-01T05:30:00Z",
                Missed::All { most: 3 },
                vec![3, 4, 5],
                2,
            ),
            (
                "2026-01-01T05:30:00Z",
                Missed::All { most: 9 },
                vec![1, 2, 3, 4, 5],
                0,
            ),
            ("2026-01-01T05:30:00Z", Missed::All { most: 0 }, vec![5], 4),
        ] {
            let due = due(&when, &zone, cursor, at(now), missed);
            let hours = fire
                .iter()
                .map(|hour| cursor.after(Duration::from_hours(*hour)));
            assert_eq!(due.fire, hours.collect::<Vec<_>>(), "{now} {missed:?}");
            assert_eq!(due.skipped, skipped, "{now} {missed:?}");
            assert_eq!(due.cursor, at("2026-01-01T05:00:00Z"), "{now} {missed:?}");
        }
    }

    #[test]
    fn fi_38_a_clock_that_jumps_repeats_nothing_and_floods_nothing() {
        let zone = Zone::utc();
        for text in ["* * * * *", "minutely", "every 1m"] {
            let when = when(text);
            let mut cursor = at("2026-06-01T12:00:00Z");
            let mut fired = Vec::new();
            for now in [
                "2026-06-01T12:01:00Z",
                // An hour forth, back, and on until it is reached again.
                "2026-06-01T13:01:00Z",
                "2026-06-01T12:02:00Z",
                "2026-06-01T12:03:00Z",
                "1970-01-01T00:00:00Z",
                "2026-06-01T13:01:59Z",
                "2026-06-01T13:02:00Z",
                // Ten years forth.
                "2036-06-01T13:02:30Z",
                "2026-06-01T13:03:00Z",
            ] {
                let due = due(&when, &zone, cursor, at(now), Missed::All { most: 2 });
                assert!(due.cursor >= cursor && due.fire.len() <= 2, "{text} {now}");
                assert!(due.fire.iter().all(|time| *time > cursor), "{text} {now}");
                cursor = due.cursor;
                fired.extend(due.fire);
            }
            let expected = [
                "2026-06-01T12:01:00Z",
                "2026-06-01T13:00:00Z",
                "2026-06-01T13:01:00Z",
                "2026-06-01T13:02:00Z",
                "2036-06-01T13:01:00Z",
                "2036-06-01T13:02:00Z",
            ];
            assert_eq!(fired, expected.map(at), "{text}");
        }
    }

    #[test]
    fn fi_39_steps_of_half_a_second_repeat_nothing() {
        let (when, zone) = (when("every 1s"), Zone::utc());
        let mut cursor = seconds(1_000);
        let mut fired = Vec::new();
        for second in 0..60 {
            let now = seconds(1_000 + second);
            let half = Duration::from_millis(500);
            for now in [now.after(half), now.before(half), now] {
                let due = due(&when, &zone, cursor, now, Missed::All { most: 10 });
                cursor = due.cursor;
                fired.extend(due.fire);
            }
        }
        assert_eq!(fired, (1_001..=1_059).map(seconds).collect::<Vec<_>>());
    }

    #[test]
    fn a_century_away_is_answered_in_bounds() {
        let zone: Zone = "Europe/Berlin".parse().expect("zone");
        for text in ["every 1s", "*:*:*", "* * * * *", "0 0 29 2 *", "*:*:0/0.5"] {
            let (cursor, now) = (at("1971-01-01T00:00:00Z"), at("2071-01-01T12:00:00Z"));
            let due = due(
                &when(text),
                &zone,
                cursor,
                now,
                Missed::All { most: u32::MAX },
            );
            let most = usize::try_from(MOST).expect("small");
            let few = text.contains("29");
            assert_eq!(due.fire.len(), if few { 25 } else { most }, "{text}");
            assert_eq!(due.skipped, if few { 0 } else { COUNTED }, "{text}");
            assert!(due.fire.is_sorted_by(|a, b| a < b), "{text}");
            assert_eq!(due.fire.last(), Some(&due.cursor), "{text}");
        }
    }

    #[test]
    fn jitter_is_below_its_bound_and_the_same_each_time() {
        let most = Duration::from_secs(60);
        let (mut low, mut high) = (most, Duration::ZERO);
        for schedule in 1..50 {
            for minute in 0..50 {
                let nominal = seconds(1_700_000_000 + minute * 60);
                let wait = jitter(schedule, nominal, most);
                assert!(wait < most);
                assert_eq!(wait, jitter(schedule, nominal, most));
                assert_eq!(jitter(schedule, nominal, Duration::ZERO), Duration::ZERO);
                (low, high) = (low.min(wait), high.max(wait));
            }
        }
        assert!(
            low < Duration::from_secs(1) && high > Duration::from_secs(59),
            "{low:?} {high:?}"
        );
    }

    #[test]
    fn policies_have_words() {
        for (overlap, word) in [
            (Overlap::Skip, "skip"),
            (Overlap::Queue, "queue"),
            (Overlap::Replace, "replace"),
            (Overlap::Allow, "allow"),
        ] {
            assert_eq!(overlap.word(), word);
            assert_eq!(serde_json::to_value(overlap).expect("json"), word);
        }
        for (missed, json) in [
            (Missed::Skip, r#""skip""#),
            (Missed::Last, r#""last""#),
            (Missed::All { most: 10 }, r#"{"all":{"most":10}}"#),
        ] {
            assert_eq!(serde_json::to_string(&missed).expect("json"), json);
            assert_eq!(
                serde_json::from_str::<Missed>(json).expect("policy"),
                missed
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn due_is_the_end_of_the_whole_list(
            text in prop::sample::select(vec![
                "* * * * *", "*/7 3 * * *", "0,30 2 * * *", "0 5 1 * 1", "every 13m", "every 5h",
                "*:0/15", "Mon 9..10:*", "*-*~1 0/6:00", "0 0 29 2 *",
            ]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
            start in 20_000 * DAY..21_000 * DAY,
            length in prop_oneof![0..DAY, 0..40 * DAY],
            most in 1_u32..100,
        ) {
            let (when, zone): (When, Zone) = (when(text), zone.parse().expect("zone"));
            let (cursor, now) = (Time::from_micros(start), Time::from_micros(start + length));
            let mut all = Vec::new();
            let mut next = when.next(&zone, cursor);
            while let Some(time) = next.filter(|time| *time <= now) {
                all.push(time);
                next = when.next(&zone, time);
            }
            let due = due(&when, &zone, cursor, now, Missed::All { most });
            let most = usize::try_from(most).expect("small");
            let (skipped, fire) = all.split_at(all.len().saturating_sub(most));
            prop_assert_eq!(&due.fire[..], fire);
            prop_assert_eq!(due.skipped, COUNTED.min(skipped.len() as u64));
            prop_assert_eq!(due.cursor, all.last().copied().unwrap_or(cursor));
        }
    }
}
