//! A day from now on as a strip, with a mark for each time.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::api::number::Stamp;
use crate::model::time::Time;

/// Width of the strip, in its own units.
const WIDTH: i64 = 480;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Where a time stands on the strip that begins now.
fn place(now: Time, at: Time) -> Option<i64> {
    let ahead = at.micros() - now.micros();
    (0..DAY).contains(&ahead).then(|| ahead * WIDTH / DAY)
}

/// Times in the coming day. Those too near to each other to be told apart are
/// one mark.
pub(super) fn day(now: Time, times: &[Stamp]) -> Markup {
    let marks: BTreeSet<_> = times.iter().filter_map(|at| place(now, at.0)).collect();
    let count = times.iter().filter(|at| place(now, at.0).is_some()).count();
    let words = match (count, count == times.len() && count > 0) {
        (0, _) => "none in the next 24 hours".to_owned(),
        (count, false) => format!("{count} in the next 24 hours"),
        // There are times behind the last one that was asked for.
        (count, true) => format!("{count} or more in the next 24 hours"),
    };
    html! {
        svg .day viewBox={ "0 0 " (WIDTH) " 20" } preserveAspectRatio="none" role="img" aria-label=(words) {
            rect .whole y="4" width=(WIDTH) height="12" rx="3" {}
            @for mark in marks { rect .mark x=(mark) y="2" width="2" height="16" {} }
        }
        div .quiet { (words) }
    }
}

/// The hours above the strips, each sixth one, as UTC tells them.
pub(super) fn hours(now: Time) -> Markup {
    let first = now.micros().div_euclid(6 * HOUR) + 1;
    let marks = (first..first + 4).filter_map(|six| {
        let at = Time::from_micros(six * 6 * HOUR);
        place(now, at).map(|x| (x, six * 6 % 24))
    });
    html! {
        svg .hours viewBox={ "0 0 " (WIDTH) " 14" } aria-hidden="true" {
            @for (x, hour) in marks {
                text x=(x) y="11" { (format!("{hour:02}:00")) @if hour == 0 { " UTC" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_where_their_times_are() {
        let now = Time::from_micros(1_000);
        let at = |micros: i64| Time::from_micros(1_000 + micros);
        for (ahead, place_) in [
            (0, Some(0)),
            (DAY / 2, Some(WIDTH / 2)),
            (DAY - 1, Some(WIDTH - 1)),
            (DAY, None),
            (-1, None),
        ] {
            assert_eq!(place(now, at(ahead)), place_, "{ahead}");
        }
        let drawn = day(now, &[Stamp(at(5)), Stamp(at(6)), Stamp(at(2 * DAY))]).into_string();
        assert_eq!(drawn.matches("class=\"mark\"").count(), 1, "{drawn}");
        assert!(drawn.contains("2 in the next 24 hours"), "{drawn}");
        let all = day(now, &[Stamp(at(5))]).into_string();
        assert!(all.contains("1 or more"), "{all}");
    }

    #[test]
    fn four_hours_stand_above() {
        let drawn = hours(Time::from_micros(7 * HOUR)).into_string();
        for hour in ["12:00", "18:00", "00:00 UTC", "06:00"] {
            assert!(drawn.contains(hour), "{drawn}");
        }
    }
}
