//! What tasks look like on a page: colours, times, users, and columns that fit.

use std::collections::HashMap;
use std::io::IsTerminal;

use clap::ValueEnum;
use nix::unistd::{Uid, User};
use ratatui::text::Line;

use crate::api::number::Stamp;
use crate::model::time::Time;

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether what goes to `out` is coloured.
    pub(super) fn applies(self, out: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
                out.is_terminal()
                    && set("NO_COLOR").is_none()
                    && set("TERM").is_some_and(|kind| kind != "dumb")
            }
        }
    }
}

/// The colour of a state, as the number that terminals know.
pub(super) fn color_of(state: &str) -> Option<u8> {
    match state {
        "running" => Some(36),
        "succeeded" => Some(32),
        "failed" => Some(31),
        "queued" | "scheduled" | "blocked" => Some(33),
        "paused" | "stopping" => Some(35),
        "cancelled" | "skipped" | "expired" => Some(90),
        _ => None,
    }
}

/// How long ago, or ahead, a time is, for people.
pub(super) fn ago(time: Time, now: Time) -> String {
    let (ahead, apart) = if time > now {
        (true, time.since(now))
    } else {
        (false, now.since(time))
    };
    let text = match apart.as_secs() {
        0 => return "now".to_owned(),
        seconds @ ..=119 => format!("{seconds} s"),
        seconds @ ..=7_199 => format!("{} min", seconds / 60),
        seconds @ ..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    };
    if ahead {
        format!("in {text}")
    } else {
        format!("{text} ago")
    }
}

/// A time to the second; the `Z` says that it is UTC.
pub(super) fn utc(stamp: Stamp) -> String {
    let text = stamp.to_string();
    text.get(..19)
        .map_or_else(|| text.clone(), |text| format!("{text}Z"))
}

/// Names of users, asked for once each.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<u32, Option<String>>);

impl Users {
    /// The user's name, or the number where there is none.
    pub(super) fn name(&mut self, uid: u32) -> String {
        let known = self.0.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map(|user| user.name)
        });
        known.clone().unwrap_or_else(|| uid.to_string())
    }
}

/// Letters as wide as a terminal shows them.
pub(super) fn width(text: &str) -> usize {
    Line::raw(text).width()
}

/// Letters that a terminal line has.
pub(super) fn terminal_width() -> usize {
    let size = ratatui::crossterm::terminal::size();
    match size {
        Ok((columns @ 1.., _)) => usize::from(columns),
        Ok(_) | Err(_) => 80,
    }
}

/// The text in at most so many places of a terminal, with a sign that some of
/// it is missing.
pub(super) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut short = String::new();
    for letter in text.chars() {
        short.push(letter);
        // A letter can take two places, and the sign takes one.
        if width(&short) >= max {
            short.pop();
            break;
        }
    }
    if max > 0 {
        short.push('…');
    }
    short
}

/// Makes columns narrower, the widest of those that may be first, until a line
/// fits. `narrowest` is what a column keeps.
pub(super) fn fit(widths: &mut [usize], may: &[bool], room: usize, narrowest: usize) {
    const GAP: usize = 2;
    loop {
        let whole = widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP;
        let candidates = widths.iter_mut().zip(may).filter(|(_, may)| **may);
        let widest = candidates.map(|(width, _)| width).max();
        match widest {
            Some(width) if whole > room && *width > narrowest => *width -= 1,
            Some(_) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = Time::from_micros(1_700_000_000_000_000);
        for (seconds, past, future) in [
            (0, "now", "now"),
            (1, "1 s ago", "in 1 s"),
            (119, "119 s ago", "in 119 s"),
            (180, "3 min ago", "in 3 min"),
            (7_200, "2 h ago", "in 2 h"),
            (172_800, "2 d ago", "in 2 d"),
        ] {
            let apart = Duration::from_secs(seconds);
            assert_eq!(ago(now.before(apart), now), past);
            assert_eq!(ago(now.after(apart), now), future);
        }
        assert_eq!(utc(Stamp(now)), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn text_is_cut_to_places_and_not_to_bytes() {
        for (text, max, short) in [
            ("plain", 5, "plain"),
            ("plain", 4, "pla…"),
            ("plain", 1, "…"),
            ("plain", 0, ""),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 2, "…"),
        ] {
            assert_eq!(cut(text, max), short, "{text} in {max}");
            assert!(width(&cut(text, max)) <= max);
        }
    }

    #[test]
    fn the_widest_columns_give_way_first() {
        let mut widths = [3, 40, 20];
        fit(&mut widths, &[false, true, true], 47, 8);
        assert_eq!(widths, [3, 20, 20]);
        let mut widths = [3, 40, 20];
        fit(&mut widths, &[false, true, true], 1, 8);
        assert_eq!(widths, [3, 8, 8], "a terminal of one column ends nothing");
    }
}
