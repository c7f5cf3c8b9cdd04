//! Small pieces of pages: states, times, bars.

use maud::{Markup, html};

use crate::api::dto::TaskInfo;
use crate::api::number::Stamp;
use crate::clock;
use crate::model::time::Time;

/// A word for how something stands, and its colour.
pub(super) fn state(word: &str) -> Markup {
    html! { span class={ "state " (word) } { (word) } }
}

/// A time as how long ago or ahead it is; in full for who asks.
pub(super) fn when(at: Stamp) -> Markup {
    let full = at.to_string();
    let (now, at) = (clock::now(), at.0);
    let near = if at > now {
        format!("in {}", span(at, now))
    } else {
        format!("{} ago", span(now, at))
    };
    let second = full.get(..19).unwrap_or(&full).replace('T', " ");
    html! { time datetime=(full) title={ (second) " UTC" } { (near) } }
}

/// The same where there may be none.
pub(super) fn maybe(at: Option<Stamp>) -> Markup {
    html! { @match at { Some(at) => (when(at)), None => span .quiet { "–" } } }
}

/// The time of day, with the day behind a pointer.
pub(super) fn clock_time(at: Stamp) -> Markup {
    let full = at.to_string();
    let short = full.get(11..19).unwrap_or(&full);
    let second = full.get(..19).unwrap_or(&full).replace('T', " ");
    html! { time datetime=(full) title={ (second) " UTC" } { (short) } }
}

/// How much later a time is, in the largest unit that says something.
pub(super) fn span(later: Time, earlier: Time) -> String {
    let seconds = later.since(earlier).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Bytes in a unit that leaves few digits.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count;
    for unit in ["B", "KiB", "MiB"] {
        if value < 10_240 {
            return format!("{value} {unit}");
        }
        value /= 1024;
    }
    format!("{value} GiB")
}

/// How a part of a whole looks, with the words that say it.
pub(super) fn bar(part: i64, whole: i64, words: &str) -> Markup {
    let width = (part.clamp(0, whole.max(1)) * 100) / whole.max(1);
    html! {
        span .bar {
            svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
                rect .whole width="100" height="6" {}
                rect .part width=(width) height="6" {}
            }
            span { (words) }
        }
    }
}

/// What a task is called: its name, or what it runs.
pub(super) fn title(task: &TaskInfo) -> String {
    let name = task.name.clone().filter(|name| !name.is_empty());
    name.unwrap_or_else(|| brief(&task.run.words()))
}

/// Some letters of a command; of one for a shell only what the shell is told.
pub(super) fn brief(words: &[String]) -> String {
    match words {
        [shell, flag, text] if shell == "sh" && flag == "-c" => cut(text, 80),
        _ => cut(&line(words), 80),
    }
}

/// A command as one would type it.
pub(super) fn line(words: &[String]) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,@%+".contains(letter);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Some letters of a text, in one line.
pub(super) fn cut(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let mut short: String = line.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Tasks in rows: number, state, name, queue, what there is to say, since when.
pub(super) fn rows(tasks: &[TaskInfo], boxes: bool) -> Markup {
    html! {
        div .wide tabindex="0" role="region" aria-label="Tasks" {
            table {
                thead {
                    tr {
                        @if boxes { th { span .unseen { "Chosen" } } }
                        th .number scope="col" { "Task" }
                        th scope="col" { "State" }
                        th scope="col" { "Name" }
                        th scope="col" { "Queue" }
                        th scope="col" { "Why" }
                        th .number scope="col" { "Since" }
                    }
                }
                tbody { @for task in tasks { (row(task, boxes)) } }
            }
        }
    }
}

fn row(task: &TaskInfo, boxes: bool) -> Markup {
    let since = task.ended_at.or(task.started_at).unwrap_or(task.created_at);
    html! {
        tr {
            @if boxes {
                td { input type="checkbox" name="id" value=(task.id) aria-label={ "Task " (task.id) }; }
            }
            td .number { a href={ "/tasks/" (task.id) } { (task.id) } }
            td { (state(&task.state)) }
            td .name { a href={ "/tasks/" (task.id) } tabindex="-1" { (title(task)) } }
            td { (task.queue) }
            td .why { (why(task)) }
            td .number { (when(since)) }
        }
    }
}

/// What there is to say about where a task stands.
pub(super) fn why(task: &TaskInfo) -> Markup {
    let progress = task.progress.map(|done| format!("{done:.0} %"));
    let outcome = task.outcome.as_ref().filter(|_| task.state != "succeeded");
    // The state alone says it already.
    let reason = task.reason.as_ref().filter(|reason| **reason != task.state);
    html! {
        @if let Some(reason) = reason {
            (reason)
            @if let Some(until) = task.until { ", " (when(until)) }
        } @else if let Some(done) = progress {
            (done) " " @if let Some(status) = &task.status { (status) }
        } @else if let Some(status) = &task.status {
            (status)
        } @else if let Some(outcome) = outcome {
            (outcome.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_say_what_matters() {
        let at = |seconds: i64| Time::from_micros(seconds * 1_000_000);
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(at(seconds), at(0)), text);
        }
        assert_eq!(span(at(0), at(9)), "0 s", "a clock that was set back");
        for (count, text) in [(0, "0 B"), (10_240, "10 KiB"), (1 << 40, "1024 GiB")] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(cut("a\n b   c", 9), "a b c");
        assert_eq!(cut("äöüß", 3), "äö…");
        let words = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            line(&words(&["a-b", "", "it's", "$x"])),
            "a-b '' 'it'\\''s' '$x'"
        );
        assert_eq!(brief(&words(&["sh", "-c", "echo a b"])), "echo a b");
    }

    #[test]
    fn everything_is_escaped() {
        let bad = "<script>alert(1)</script>\"'&";
        let shown = state(bad).into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert!(!shown.contains("\"'&\""), "{shown}");
    }
}
