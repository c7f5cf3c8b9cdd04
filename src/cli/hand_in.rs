//! One task handed in, and waited for as asked: what `submit` and `prompt` share.

use std::io::{self, IsTerminal as _, Write as _};

use bytes::Bytes;

use crate::api::asked::{Accepted, Submit};
use crate::client::Client;
use crate::client::follow::{Event, Wish};

use super::interrupt::Interrupt;
use super::text::Sink;
use super::{Failure, Outcome, Setting, complain, tasks};

/// What is waited for once a task is handed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// Its end.
    pub(super) wait: bool,
    /// Its output, and its end.
    pub(super) follow: bool,
}

/// Hands one task in, and waits as asked for.
pub(super) async fn hand_in(order: &Submit, how: Waiting, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let body = serde_json::to_vec(order).map_err(io::Error::from)?;
    if how.wait || how.follow {
        return submit_and_wait(how, setting, &client, body.into()).await;
    }
    let answer = client.submit(body.into()).await?;
    let accepted: Accepted = answer.read()?;
    let id = accepted.id;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else if !out.is_terminal() {
        // The number alone, for `id=$(taskdaemon submit -- …)`.
        writeln!(out, "{id}")?;
    } else if accepted.created {
        writeln!(out, "task {id} {}", accepted.state)?;
    } else {
        writeln!(
            out,
            "task {id} {} (it is there already, with this key)",
            accepted.state
        )?;
    }
    Ok(0)
}

/// Hands it in and waits for its end; with Ctrl-C at any time the task goes on.
async fn submit_and_wait(how: Waiting, setting: &Setting, client: &Client, body: Bytes) -> Outcome {
    let mut interrupt = Interrupt::listen()?;
    let answer = interrupt.answer(client.submit(body)).await?;
    let id = answer.read::<Accepted>()?.id;
    if how.follow || !setting.json {
        complain(&format!("task {id} accepted"));
    }
    if how.follow {
        let task = interrupt.patiently(id, follow(client, id)).await?;
        return tasks::finish(&task, setting, io::sink());
    }
    let waiting = async { Ok(client.wait(id).await?) };
    let task = interrupt.patiently(id, waiting).await?;
    tasks::finish(&task, setting, io::stdout().lock())
}

/// Shows both outputs where they belong, every attempt from the first.
async fn follow(client: &Client, id: i64) -> Result<crate::api::dto::TaskInfo, Failure> {
    let mut out = Sink::new(io::stdout(), false);
    let mut err = Sink::new(io::stderr(), false);
    let wish = Wish {
        from_first: true,
        ..Wish::default()
    };
    let mut current = 1;
    let task = client
        .follow(id, &wish, |event| match event {
            Event::Out(bytes, _) => out.put(&bytes),
            Event::Err(bytes, _) => err.put(&bytes),
            Event::Gap(bytes) => {
                complain(&format!("{bytes} bytes of output are missing here"));
                Ok(())
            }
            Event::Attempt(number) => {
                if number > current {
                    current = number;
                    complain(&format!("task {id}: attempt {number}"));
                }
                Ok(())
            }
        })
        .await?;
    out.finish()?;
    err.finish()?;
    Ok(task)
}
