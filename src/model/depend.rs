//! What waits for what: how a request names the tasks that others wait for,
//! which of those graphs can be carried out, and what the end of a task means
//! for those that wait for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::attempt::Outcome;
use super::id::TaskId;
use super::invalid::Invalid;
use super::spec::{After, NewTask, Parent, Wants};
use super::task::State;

/// Most tasks that one task can wait for.
pub const PARENTS_MAX: usize = 1_000;
/// Most waits of one task for another in one request.
const LINKS_MAX: usize = 100_000;
/// Most letters of a name that tasks of one request have for each other.
const REF_MAX: usize = 64;
/// Most names that a message about a circle gives.
const SHOWN: usize = 5;
/// Most letters of a parent's own message that are passed on.
const CAUSE_MAX: usize = 200;
/// What stands between a skipped task and the first cause.
const SINCE: &str = " was skipped, since ";

/// A task of a request, as far as the others are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named<'a> {
    /// What the others call it.
    pub name: Option<&'a str>,
    /// What it waits for: `12`, `build`, `12:any`, `build:ok`.
    pub after: Vec<&'a str>,
    /// The task whose output it reads.
    pub stdin_from: Option<&'a str>,
}

/// What a task of a request has to do with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// What it waits for.
    pub after: Vec<After>,
    /// Whose output it reads, which is among those.
    pub stdin_from: Option<Parent>,
}

/// A task of a request that cannot be accepted, from 0, and why.
pub type Misfit = (usize, Invalid);

/// One task waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The one that waits.
    pub child: TaskId,
    /// The one it waits for.
    pub parent: TaskId,
    /// How that has to end.
    pub wants: Wants,
    /// Whether it has ended so.
    pub met: bool,
    /// Where that stands; absent when it is no longer kept.
    pub state: Option<State>,
}

impl Wants {
    /// The word on the wire and behind the colon.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Any => "any",
        }
    }

    /// Whether a task in this state is over as wanted; nothing while it is not
    /// over.
    #[must_use]
    pub fn met_by(self, state: State) -> Option<bool> {
        state
            .is_terminal()
            .then_some(self == Self::Any || state == State::Succeeded)
    }
}

fn after(index: usize, reason: impl Into<String>) -> Misfit {
    let reason = reason.into();
    (
        index,
        Invalid {
            field: "after",
            reason,
        },
    )
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    short.escape_debug().to_string()
}

/// Turns the words of a request into tasks that exist and members of the
/// request itself, task by task.
///
/// # Errors
/// The first task with a name or word that makes no sense.
pub fn resolve(tasks: &[Named<'_>]) -> Result<Vec<Links>, Misfit> {
    let mut places = HashMap::new();
    for (index, task) in tasks.iter().enumerate() {
        let Some(name) = task.name else { continue };
        let bad = |reason: String| {
            let field = "ref";
            Err((index, Invalid { field, reason }))
        };
        if !is_ref(name) {
            return bad(format!(
                "`{}` must be 1 to {REF_MAX} letters, digits, `.`, `_` or `-`, the first a letter",
                shown(name)
            ));
        }
        if let Some(first) = places.insert(name, index) {
            return bad(format!("`{name}` is also the ref of tasks[{first}]"));
        }
    }
    let links = |(index, task): (usize, &Named<'_>)| {
        let link = |word: &&str| one(word, &places).map_err(|reason| after(index, reason));
        let after: Result<Vec<After>, Misfit> = task.after.iter().map(link).collect();
        let mut after = after?;
        let feed = task.stdin_from.map(|word| feed(word, index, &places));
        let feed = feed.transpose().map_err(|reason| {
            let field = "stdin_from";
            (index, Invalid { field, reason })
        })?;
        if let Some(parent) = feed {
            // Nobody reads what is not written to its end.
            match after.iter_mut().find(|link| link.parent == parent) {
                Some(link) => link.wants = Wants::Ok,
                None => after.push(After {
                    parent,
                    wants: Wants::Ok,
                }),
            }
        }
        let stdin_from = feed;
        Ok(Links { after, stdin_from })
    };
    tasks.iter().enumerate().map(links).collect()
}

/// The task whose output another one reads.
fn feed(word: &str, index: usize, places: &HashMap<&str, usize>) -> Result<Parent, String> {
    if word.contains(':') {
        let shown = shown(word);
        return Err(format!(
            "`{shown}`: write the task alone; it has to succeed"
        ));
    }
    let parent = one(word, places)?.parent;
    match parent {
        // Its number is written down with the one that reads.
        Parent::Member(place) if place >= index => Err(format!(
            "names tasks[{place}], which has to stand before it in the request"
        )),
        Parent::Member(_) | Parent::Task(_) => Ok(parent),
    }
}

fn is_ref(name: &str) -> bool {
    let letter = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    letter && name.len() <= REF_MAX && name.bytes().all(plain)
}

fn one(word: &str, places: &HashMap<&str, usize>) -> Result<After, String> {
    let (name, wants) = match word.split_once(':') {
        None => (word, Wants::Ok),
        Some((name, "ok")) => (name, Wants::Ok),
        Some((name, "any")) => (name, Wants::Any),
        Some(_) => {
            let shown = shown(word);
            return Err(format!("`{shown}`: only `:ok` or `:any` may follow a task"));
        }
    };
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let number: Option<i64> = name.parse().ok().filter(|id| digits && *id > 0);
    let parent = match (number, places.get(name)) {
        (Some(id), _) => Parent::Task(TaskId(id)),
        (None, Some(place)) => Parent::Member(*place),
        (None, None) if is_ref(name) => {
            return Err(format!("no task of this request has the ref `{name}`"));
        }
        (None, None) => {
            let shown = shown(word);
            return Err(format!(
                "`{shown}` is neither the number of a task nor a ref of this request"
            ));
        }
    };
    Ok(After { parent, wants })
}

/// Checks what the tasks of a request wait for, as far as that can be judged
/// without those that exist.
///
/// # Errors
/// The first task that waits for too many, for one twice, or for itself,
/// directly or through others.
pub fn check(tasks: &[NewTask]) -> Result<(), Misfit> {
    let mut links = 0;
    for (index, task) in tasks.iter().enumerate() {
        let count = task.after.len();
        links += count;
        if links > LINKS_MAX {
            let reason = format!("the request names more than {LINKS_MAX} in all");
            return Err(after(index, reason));
        }
        if count > PARENTS_MAX {
            return Err(after(
                index,
                format!(
                    "names {count} tasks; {PARENTS_MAX} are allowed: put a task between that \
                     waits for some of them"
                ),
            ));
        }
        let mut seen = HashSet::with_capacity(count);
        for link in &task.after {
            if !seen.insert(link.parent) {
                let name = name(link.parent);
                return Err(after(index, format!("names {name} twice")));
            }
            match link.parent {
                Parent::Member(place) if place == index => {
                    return Err(after(index, "names the task itself"));
                }
                Parent::Member(place) if place >= tasks.len() => {
                    return Err(after(index, "names a task that is not in this request"));
                }
                Parent::Member(_) | Parent::Task(_) => {}
            }
        }
    }
    let parents = |index: usize| {
        let links = tasks.get(index).map_or(&[][..], |task| &task.after);
        links.iter().filter_map(|link| match link.parent {
            Parent::Member(place) => Some(place),
            Parent::Task(_) => None,
        })
    };
    let pairs = (0..tasks.len()).flat_map(|child| parents(child).map(move |one| (child, one)));
    let left = circling(&pairs.collect::<Vec<_>>());
    let Some(first) = left.first() else {
        return Ok(());
    };
    // Each of those left waits for another one of them, so this comes round.
    let mut path = vec![*first];
    while let Some(next) = path
        .last()
        .and_then(|last| parents(*last).find(|parent| left.contains(parent)))
    {
        let start = path.iter().position(|place| *place == next);
        path.push(next);
        if let Some(start) = start {
            path.drain(..start);
            break;
        }
    }
    Err(after(path.first().copied().unwrap_or(*first), round(&path)))
}

fn name(parent: Parent) -> String {
    match parent {
        Parent::Task(id) => format!("task {id}"),
        Parent::Member(place) => format!("tasks[{place}]"),
    }
}

/// A way round, in words.
fn round(path: &[usize]) -> String {
    let names = path.iter().map(|place| format!("tasks[{place}]"));
    let names: Vec<_> = names.collect();
    let more = if names.len() > SHOWN + 1 {
        let left = names.len() - 1 - SHOWN;
        format!(", through {left} more, after {}", names[0])
    } else {
        String::new()
    };
    let some: Vec<_> = names.into_iter().take(SHOWN + 1).collect();
    format!("goes round in a circle: {}{more}", some.join(" after "))
}

/// Those that wait for themselves, through whomever, or for such, in order;
/// of pairs of one that waits and what it waits for.
fn circling<T: Copy + Ord>(pairs: &[(T, T)]) -> BTreeSet<T> {
    let all: BTreeSet<T> = pairs
        .iter()
        .flat_map(|(one, other)| [*one, *other])
        .collect();
    let free: BTreeSet<T> = in_order(all.iter().copied(), pairs).into_iter().collect();
    all.difference(&free).copied().collect()
}

/// An order in which each comes behind what it waits for.
///
/// `pairs` are of one that waits and what it waits for. Those that cannot be
/// brought into such an order, in a circle or behind one, are missing.
#[must_use]
pub fn in_order<T: Copy + Ord>(all: impl Iterator<Item = T>, pairs: &[(T, T)]) -> Vec<T> {
    let mut waits: BTreeMap<T, usize> = all.map(|one| (one, 0)).collect();
    let mut children: BTreeMap<T, Vec<T>> = BTreeMap::new();
    for (child, parent) in pairs {
        if waits.contains_key(parent)
            && let Some(count) = waits.get_mut(child)
        {
            *count += 1;
            children.entry(*parent).or_default().push(*child);
        }
    }
    let free = waits.iter().filter(|(_, count)| **count == 0);
    let mut order: Vec<T> = free.map(|(one, _)| *one).collect();
    let mut next = 0;
    while let Some(parent) = order.get(next).copied() {
        next += 1;
        for child in children.remove(&parent).unwrap_or_default() {
            if let Some(count) = waits.get_mut(&child) {
                *count -= 1;
                if *count == 0 {
                    order.push(child);
                }
            }
        }
    }
    order
}

/// Why a task is skipped: which of those it waited for ended how, and what
/// was the first cause when that one was skipped as well.
#[must_use]
pub fn why_skipped(parent: TaskId, state: State, outcome: Option<&Outcome>) -> String {
    let message = outcome.map_or("", |outcome| outcome.message.as_str());
    let cause: String = message.chars().take(CAUSE_MAX).collect();
    match state {
        State::Skipped => {
            let first = cause
                .split_once(SINCE)
                .filter(|(head, _)| head.strip_prefix("task ").is_some_and(is_number))
                .map_or(cause.as_str(), |(_, first)| first);
            format!("task {parent}{SINCE}{first}")
        }
        State::Cancelled => format!("task {parent} was cancelled"),
        State::Expired => format!("task {parent} expired: {cause}"),
        State::Failed => format!("task {parent} failed: {cause}"),
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Running
        | State::Paused
        | State::Stopping
        | State::Succeeded => format!("task {parent} is {state}"),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attempt::Class;
    use super::*;

    fn named<'a>(name: Option<&'a str>, after: &[&'a str]) -> Named<'a> {
        Named {
            name,
            after: after.to_vec(),
            stdin_from: None,
        }
    }

    fn member(place: usize) -> After {
        After {
            parent: Parent::Member(place),
            wants: Wants::Ok,
        }
    }

    fn graph(edges: &[(usize, usize)], count: usize) -> Vec<NewTask> {
        let mut tasks = vec![NewTask::default(); count];
        for (child, parent) in edges {
            tasks[*child].after.push(member(*parent));
        }
        tasks
    }

    #[test]
    fn whose_output_is_read_has_to_succeed_and_stands_before() {
        let reading = |after: &[&'static str], stdin_from| Named {
            name: None,
            after: after.to_vec(),
            stdin_from: Some(stdin_from),
        };
        let build = || named(Some("build"), &[]);
        let tasks = [
            build(),
            reading(&["build:any", "7"], "build"),
            reading(&[], "12"),
        ];
        let links = resolve(&tasks).unwrap();
        let ok = |parent| After {
            parent,
            wants: Wants::Ok,
        };
        let task = |id| Parent::Task(TaskId(id));
        assert_eq!(links[0], Links::default());
        assert_eq!(links[1].stdin_from, Some(Parent::Member(0)));
        assert_eq!(links[1].after, [member(0), ok(task(7))]);
        assert_eq!(links[2].stdin_from, Some(task(12)));
        assert_eq!(links[2].after, [ok(task(12))]);
        for (word, words) in [
            ("12:any", "write the task alone"),
            ("nobody", "nobody"),
            ("last", "tasks[1], which has to stand before"),
        ] {
            let tasks = [reading(&[], word), named(Some("last"), &[])];
            let (place, invalid) = resolve(&tasks).expect_err(word);
            assert_eq!((place, invalid.field), (0, "stdin_from"));
            assert!(invalid.reason.contains(words), "{invalid:?}");
        }
    }

    #[test]
    fn words_name_tasks_and_members() {
        let tasks = [
            named(Some("build"), &["12", "13:any", "14:ok"]),
            named(None, &["build:any", "last"]),
            named(Some("last"), &[]),
        ];
        let links = resolve(&tasks).unwrap();
        let read = |parent, wants| After { parent, wants };
        assert_eq!(
            links[0].after,
            [
                read(Parent::Task(TaskId(12)), Wants::Ok),
                read(Parent::Task(TaskId(13)), Wants::Any),
                read(Parent::Task(TaskId(14)), Wants::Ok),
            ]
        );
        assert_eq!(
            links[1].after,
            [
                read(Parent::Member(0), Wants::Any),
                read(Parent::Member(2), Wants::Ok)
            ]
        );
        assert!(links[2].after.is_empty());
    }

    #[test]
    fn words_that_name_nothing_are_refused_with_task_and_field() {
        let long = "x".repeat(65);
        for (tasks, index, field, words) in [
            (vec![named(Some("a"), &["b"])], 0, "after", "ref `b`"),
            (vec![named(None, &["a:maybe"])], 0, "after", ":any"),
            (vec![named(None, &[""])], 0, "after", "neither"),
            (vec![named(None, &["0"])], 0, "after", "neither"),
            (vec![named(None, &["-1"])], 0, "after", "neither"),
            (vec![named(None, &["+1"])], 0, "after", "neither"),
            (
                vec![named(None, &["9223372036854775808"])],
                0,
                "after",
                "neither",
            ),
            (vec![named(None, &["a\u{202e}b"])], 0, "after", "\\u{202e}"),
            (
                vec![named(None, &[]), named(Some("1"), &[])],
                1,
                "ref",
                "letter",
            ),
            (vec![named(Some(""), &[])], 0, "ref", "letter"),
            (vec![named(Some(&long), &[])], 0, "ref", "64"),
            (
                vec![named(Some("a"), &[]), named(Some("a"), &[])],
                1,
                "ref",
                "tasks[0]",
            ),
        ] {
            let (place, invalid) = resolve(&tasks).expect_err(words);
            assert_eq!((place, invalid.field), (index, field), "{tasks:?}");
            assert!(invalid.reason.contains(words), "{invalid}");
        }
    }

    #[test]
    fn circles_are_found_and_named() {
        for (edges, at, words) in [
            (vec![(1, 1)], 1, "itself"),
            (
                vec![(0, 1), (1, 0)],
                0,
                "tasks[0] after tasks[1] after tasks[0]",
            ),
            (vec![(0, 3), (3, 2), (2, 3)], 3, "tasks[3] after tasks[2]"),
            (vec![(0, 1), (0, 1)], 0, "twice"),
            (vec![(0, 9)], 0, "not in this request"),
        ] {
            let (index, invalid) = check(&graph(&edges, 4)).expect_err(words);
            assert_eq!((index, invalid.field), (at, "after"), "{invalid}");
            assert!(invalid.reason.contains(words), "{invalid}");
        }
        let ring: Vec<_> = (0..10_000).map(|n| (n, (n + 1) % 10_000)).collect();
        let (_, invalid) = check(&graph(&ring, 10_000)).expect_err("a circle");
        assert!(invalid.reason.contains("9995 more"), "{invalid}");
        assert!(invalid.reason.len() < 200, "{invalid}");
        let chain: Vec<_> = (1..10_000).map(|n| (n, n - 1)).collect();
        assert_eq!(check(&graph(&chain, 10_000)), Ok(()));
        let fan: Vec<_> = (0..PARENTS_MAX).map(|n| (PARENTS_MAX, n)).collect();
        assert_eq!(check(&graph(&fan, PARENTS_MAX + 1)), Ok(()));
        let wide: Vec<_> = (0..=PARENTS_MAX).map(|n| (PARENTS_MAX + 1, n)).collect();
        let (_, invalid) = check(&graph(&wide, PARENTS_MAX + 2)).expect_err("too many");
        assert!(invalid.reason.contains("1001"), "{invalid}");
    }

    #[test]
    fn the_first_cause_is_passed_down_and_does_not_grow() {
        let outcome = |message: &str| Outcome {
            class: Class::Skipped,
            exit_code: None,
            signal: None,
            message: message.to_owned(),
        };
        let mut message = why_skipped(TaskId(1), State::Failed, Some(&outcome("exit code 7")));
        assert_eq!(message, "task 1 failed: exit code 7");
        for id in 2..10 {
            message = why_skipped(TaskId(id), State::Skipped, Some(&outcome(&message)));
            let wanted = format!("task {id} was skipped, since task 1 failed: exit code 7");
            assert_eq!(message, wanted);
        }
        let odd = outcome("task x was skipped, since it said so");
        let message = why_skipped(TaskId(3), State::Skipped, Some(&odd));
        assert!(message.ends_with("since task x was skipped, since it said so"));
        let long = outcome(&"x".repeat(10_000));
        assert!(why_skipped(TaskId(1), State::Failed, Some(&long)).len() < 250);
    }

    proptest! {
        #[test]
        fn an_order_puts_everyone_behind_what_it_waits_for(
            pairs in prop::collection::vec((0_usize..12, 0_usize..12), 0..30)
        ) {
            let order = in_order(0..12, &pairs);
            let place = |one: &usize| order.iter().position(|other| other == one);
            for (child, parent) in &pairs {
                if let Some(own) = place(child) {
                    prop_assert!(place(parent).is_some_and(|place| place < own));
                }
            }
            let left: Vec<_> = (0..12).filter(|one| place(one).is_none()).collect();
            for one in left {
                // Whoever is missing waits for someone who is missing.
                let waits = pairs.iter().any(|(child, parent)| *child == one && place(parent).is_none());
                prop_assert!(waits);
            }
        }
    }
}
