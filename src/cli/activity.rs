//! `activity`: what happened of late, newest first.

use std::io::{self, Write};

use clap::Args as ClapArgs;

use crate::api::activity::ActivityPage;
use crate::api::number::parse_time;
use crate::clock;
use crate::model::quantity::parse_duration;

use super::{Outcome, Setting, record, tasks};

/// Which.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only about this task
    #[arg(long, value_parser = tasks::number)]
    task: Option<i64>,
    /// Only about tasks of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only these kinds, such as submitted,failed
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// Only what this user asked for, by name or uid
    #[arg(long)]
    user: Option<String>,
    /// Only what this request asked for, by its X-Request-Id
    #[arg(long, value_name = "NAME")]
    request: Option<String>,
    /// Only since this time, or for so long, such as 1h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// So many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

/// A time, or one that is so long ago.
fn since(text: &str) -> Result<String, String> {
    if parse_time(text).is_some() {
        return Ok(text.to_owned());
    }
    let ago = parse_duration(text).map_err(|_| {
        "must be a time such as 2027-01-01T00:00:00Z, or a duration such as 1h".to_owned()
    })?;
    Ok(crate::api::number::Stamp(clock::now().before(ago)).to_string())
}

impl Args {
    fn path(&self, most: u32, cursor: Option<i64>) -> String {
        let mut path = format!("/v1/activity?limit={}", most.min(1000));
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let parameters = [
            ("task", number(self.task)),
            ("queue", self.queue.clone()),
            ("kind", self.kind.clone()),
            ("user", self.user.clone()),
            ("request", self.request.clone()),
            ("since", self.since.clone()),
            ("cursor", number(cursor)),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                tasks::parameter(&mut path, name, &value);
            }
        }
        path
    }
}

/// `activity`.
pub(super) async fn activity(args: &Args, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let mut out = io::stdout();
    let (mut left, mut cursor) = (args.limit, None);
    loop {
        let page: ActivityPage = client.get(&args.path(left, cursor)).await?.read()?;
        for event in &page.events {
            record::print_event(&mut out, event, setting)?;
        }
        out.flush()?;
        left = left.saturating_sub(u32::try_from(page.events.len()).unwrap_or(u32::MAX));
        cursor = page.next;
        if left == 0 || cursor.is_none() {
            return Ok(0);
        }
    }
}
