//! `demo`: the product at work, on a throw-away directory and without root.
//!
//! A daemon and a runner are started, tasks are handed in, the daemon is killed
//! in the middle and started again. What then became of the tasks is judged by
//! the file that they themselves wrote, not by what the daemon says of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::signal::ctrl_c;
use tokio::sync::Notify;

use crate::api::asked::{Accepted, RetryRule, Submit};
use crate::api::dto::TaskInfo;
use crate::api::number::{Pairs, Span};
use crate::client::Client;
use crate::client::follow::{Event, Wish};
use crate::clock;

use super::text::{escape, table};
use super::{Failure, Outcome, online};

mod stage;

use stage::Stage;

/// Lines the long task prints, one a second.
const LINES: usize = 6;
/// The line after which the daemon is killed.
const FATAL: &str = "line 2 ";
/// Tasks that only leave a mark.
const QUICK: usize = 20;

/// `demo`.
pub(super) fn demo() -> Outcome {
    online(async {
        let mut stage = Stage::build()?;
        tokio::select! {
            played = play(&mut stage) => played,
            _ = ctrl_c() => Err(Failure::Code(130, "interrupted; everything is stopped and removed".to_owned())),
        }
    })
}

/// A task of the demo, and what has to become of it.
struct Part {
    submit: Submit,
    id: i64,
    state: &'static str,
    code: i32,
    attempts: usize,
    marks: usize,
}

fn part(dir: &Path, name: &str, script: &str) -> Part {
    let env = BTreeMap::from([
        ("MARKS".to_owned(), dir.join("marks").display().to_string()),
        ("NAME".to_owned(), name.to_owned()),
    ]);
    Part {
        submit: Submit {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            name: Some(name.to_owned()),
            key: Some(format!("demo-{name}")),
            cwd: Some("/".to_owned()),
            env: Pairs(env),
            ..Submit::default()
        },
        id: 0,
        state: "succeeded",
        code: 0,
        attempts: 1,
        marks: 1,
    }
}

/// The programme: the long task first.
fn parts(dir: &Path) -> Vec<Part> {
    let long = format!(
        "for i in $(seq {LINES}); do echo \"line $i of {LINES}\"; echo $NAME >>$MARKS; sleep 1; done; exit 7"
    );
    let flaky = "echo $NAME >>$MARKS; [ $TASKDAEMON_ATTEMPT -ge 2 ]";
    let mut all = vec![
        Part {
            state: "failed",
            code: 7,
            marks: LINES,
            ..part(dir, "long", &long)
        },
        part(dir, "later", "echo $NAME >>$MARKS"),
        Part {
            attempts: 2,
            marks: 2,
            ..part(dir, "flaky", flaky)
        },
    ];
    if let Some(later) = all.get_mut(1) {
        later.submit.delay = Some(Span(Duration::from_secs(5)));
    }
    if let Some(flaky) = all.get_mut(2) {
        flaky.submit.retry = Some(RetryRule {
            max_attempts: Some(3),
            backoff: Some(Span(Duration::from_millis(500))),
            ..RetryRule::default()
        });
    }
    all.extend((1..=QUICK).map(|n| part(dir, &format!("quick-{n}"), "echo $NAME >>$MARKS")));
    all
}

async fn submit(client: &Client, submit: &Submit) -> Result<Accepted, Failure> {
    let body = serde_json::to_vec(submit).map_err(io::Error::from)?;
    Ok(client.submit(body.into()).await?.read()?)
}

async fn play(stage: &mut Stage) -> Outcome {
    let begun = clock::instant();
    stage.say(
        "1",
        "taskdaemon demo: a daemon of its own, killed in the middle of its work",
    )?;
    let took = stage.ready().await?;
    let (daemon, runner) = (stage.daemon.id(), stage.runner.id());
    stage.head("1  Start")?;
    let (place, took) = (stage.dir.display(), took.as_millis());
    stage.say(
        "",
        &format!("   everything is in {place}, and goes with it"),
    )?;
    stage.say(
        "",
        &format!("   daemon {daemon} and runner {runner} are ready after {took} ms"),
    )?;

    stage.head("2  Submit: acknowledged means on disk")?;
    let mut parts = parts(&stage.dir);
    let submitting = clock::instant();
    for part in &mut parts {
        part.id = submit(&stage.client, &part.submit).await?.id;
    }
    let took = (clock::instant() - submitting).as_millis();
    stage.say(
        "",
        &format!("   {} tasks acknowledged in {took} ms:", parts.len()),
    )?;
    stage.say(
        "",
        "   one that prints a line a second and then fails, one for later,",
    )?;
    stage.say(
        "",
        "   one that works at the second try, and many quick ones",
    )?;

    stage.head("3  Follow the long one, and kill the daemon meanwhile")?;
    let long = parts.first().map_or(0, |part| part.id);
    perform(stage, long).await?;

    stage.head("4  What became of them")?;
    let mut tasks = Vec::new();
    for part in &parts {
        tasks.push(stage.client.wait(part.id).await?);
    }
    stage.say("", &summary(&tasks))?;
    let verdicts = judge(stage, &parts, &tasks).await?;
    for (good, what) in &verdicts {
        let (style, mark) = if *good { ("32", "yes") } else { ("31", "NO ") };
        stage.say(style, &format!("   {mark}  {what}"))?;
    }
    let good = verdicts.iter().all(|(good, _)| *good);
    let seconds = (clock::instant() - begun).as_secs_f64();
    if good {
        stage.say(
            "1",
            &format!("\nNothing was lost and nothing ran twice, in {seconds:.1} s."),
        )?;
    } else {
        let log = fs::read_to_string(stage.dir.join("daemon.log")).unwrap_or_default();
        stage.say(
            "1",
            &format!("\nThat is not as promised. The daemon's log:\n{log}"),
        )?;
    }
    Ok(u8::from(!good))
}

/// Shows the long task's output over the daemon's death.
async fn perform(stage: &mut Stage, id: i64) -> Result<(), Failure> {
    let fatal = Notify::new();
    let client = stage.client.clone();
    let wish = Wish {
        from_first: true,
        ..Wish::default()
    };
    let mut shown = String::new();
    let following = client.follow(id, &wish, |event| {
        if let Event::Out(bytes, _) = event {
            shown.push_str(&String::from_utf8_lossy(&bytes));
            while let Some((line, rest)) = shown.split_once('\n') {
                writeln!(io::stdout(), "   | {}", escape(line))?;
                if line.starts_with(FATAL) {
                    fatal.notify_one();
                }
                shown = rest.to_owned();
            }
        }
        Ok(())
    });
    let crashing = async {
        fatal.notified().await;
        let dying = stage.daemon.id();
        stage.say(
            "31",
            &format!("   kill -9 {dying}: the daemon is dead, the task is not"),
        )?;
        let (_, took) = stage.crash().await?;
        let (new, took) = (stage.daemon.id(), took.as_millis());
        let text = format!("   started again as {new}, ready after {took} ms");
        stage.say("32", &text)?;
        Ok::<(), Failure>(())
    };
    let (followed, crashed) = tokio::join!(following, crashing);
    crashed?;
    followed?;
    Ok(())
}

/// The tasks in a table, the quick ones in one row.
fn summary(tasks: &[TaskInfo]) -> String {
    let mut rows = vec![
        ["TASK", "NAME", "STATE", "CODE", "ATTEMPTS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for task in tasks.iter().take(4) {
        let code = task.outcome.as_ref().and_then(|outcome| outcome.exit_code);
        let attempts = task.attempts.as_ref().map_or(0, Vec::len);
        rows.push(vec![
            task.id.to_string(),
            task.name.clone().unwrap_or_default(),
            task.state.clone(),
            code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            attempts.to_string(),
        ]);
    }
    let table = table(&rows);
    let lines: Vec<String> = table.lines().map(|line| format!("   {line}")).collect();
    format!(
        "{}\n   … and {} more quick ones\n",
        lines.join("\n"),
        tasks.len().saturating_sub(4)
    )
}

/// What was promised, and whether it was kept.
async fn judge(
    stage: &Stage,
    parts: &[Part],
    tasks: &[TaskInfo],
) -> Result<Vec<(bool, String)>, Failure> {
    let marks = fs::read_to_string(stage.dir.join("marks")).unwrap_or_default();
    let count = |name: &str| marks.lines().filter(|line| *line == name).count();
    let named = |part: &Part| part.submit.name.clone().unwrap_or_default();
    let ended = parts.iter().zip(tasks).all(|(part, task)| {
        let code = task.outcome.as_ref().and_then(|outcome| outcome.exit_code);
        let attempts = task.attempts.as_ref().map_or(0, Vec::len);
        task.state == part.state && code == Some(part.code) && attempts == part.attempts
    });
    let wrong: Vec<String> = parts
        .iter()
        .filter(|part| count(&named(part)) != part.marks)
        .map(|part| {
            format!(
                "{}: {} marks for {}",
                named(part),
                count(&named(part)),
                part.marks
            )
        })
        .collect();
    let again = match parts.first() {
        Some(part) => {
            let again = submit(&stage.client, &part.submit).await?;
            !again.created && again.id == part.id
        }
        None => false,
    };
    let (lost, detail) = (wrong.is_empty(), wrong.join(", "));
    let marks = format!("every mark is in the tasks' own file exactly once {detail}");
    Ok(vec![
        (
            ended,
            "every acknowledged task is over, with its own exit code".to_owned(),
        ),
        (lost, marks.trim_end().to_owned()),
        (
            again,
            "the same key again is the same task, not a second one".to_owned(),
        ),
    ])
}
