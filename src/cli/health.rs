//! `health`: whether the daemon is well, in one line, a line for each part and
//! an exit code; and whether its database is, with or without a daemon.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use crate::api::health::{Health, PartInfo};
use crate::client;
use crate::config::{self, Sources};
use crate::model::health::Level;
use crate::model::quantity::ByteSize;
use crate::store;
use crate::store::sound::{self, Findings, Stage};

use super::page::utc;
use super::text::escape;
use super::{Failure, Outcome, Setting, online};

/// How long a check of so many bytes takes is nothing to wait for.
const SMALL: u64 = 64 << 20;

mod probe;

use probe::Written;

/// What is asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when all is well, with 1 when the daemon is degraded or \
    unhealthy or the database is not sound, with 3 when there is no database yet, and with 69 when \
    no daemon answers."
)]
pub(super) struct Args {
    /// Check the database itself, whether a daemon runs or not: its pages, its
    /// version, the checksum of every row that has one, and whether something
    /// can be written
    #[arg(long, verbatim_doc_comment)]
    check_db: bool,
    #[command(flatten)]
    place: Place,
}

/// Whose database is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Where tasks are kept [default: as configured]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The state directory that is meant.
    pub(super) fn state_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        let sources = Sources::of_process(self.config.clone());
        let loaded = config::load(&sources);
        let loaded = loaded.map_err(|error| Failure::Config(error.to_string()))?;
        Ok(loaded.config.state_dir)
    }
}

/// `health`.
pub(super) fn health(args: &Args, setting: &Setting) -> Outcome {
    if args.check_db {
        let dir = args.place.state_dir()?;
        let named = args.place.state_dir.is_some() || args.place.config.is_some();
        let written = probe::write(&dir, (!named).then_some(setting));
        return check(&dir, written, setting);
    }
    if args.place.state_dir.is_some() || args.place.config.is_some() {
        let hint = "--state-dir and --config go with --check-db: a daemon is asked by --host";
        return Err(Failure::Usage(hint.to_owned()));
    }
    online(ask(setting))
}

/// Ends with 0 where all is well, with 1 where it is not, and with 69 where
/// nobody answers.
async fn ask(setting: &Setting) -> Outcome {
    let health = match setting.client()?.health().await {
        Ok(health) => health,
        Err(error @ (client::Error::Unreachable(..) | client::Error::Usage(_))) => {
            return Err(error.into());
        }
        Err(error) => silent(error.to_string()),
    };
    let mut out = io::stdout().lock();
    if setting.json {
        writeln!(out, "{}", serde_json::json!(health))?;
    } else {
        out.write_all(in_lines(&health).as_bytes())?;
    }
    Ok(u8::from(health.status != Level::Healthy.word()))
}

/// A daemon that is there and cannot say how it is.
fn silent(why: String) -> Health {
    let status = || Level::Unhealthy.word().to_owned();
    Health {
        status: status(),
        parts: vec![PartInfo {
            name: "answer".to_owned(),
            status: status(),
            why: Some(why),
            since: None,
            until: None,
            figures: BTreeMap::new(),
        }],
    }
}

/// The word with what is missing, and then a line for each part.
fn in_lines(health: &Health) -> String {
    let whys = health.parts.iter().filter_map(|part| part.why.as_deref());
    let whys: Vec<String> = whys.map(escape).collect();
    let mut text = escape(&health.status);
    if !whys.is_empty() {
        text.push_str(&format!(": {}", whys.join("; ")));
    }
    text.push('\n');
    for part in &health.parts {
        let said: Vec<String> = [("since", part.since), ("until", part.until)]
            .into_iter()
            .filter_map(|(word, stamp)| Some(format!("{word} {}", utc(stamp?))))
            .chain(
                part.figures
                    .iter()
                    .map(|(name, figure)| format!("{} {figure}", escape(name))),
            )
            .collect();
        let (name, status) = (escape(&part.name), escape(&part.status));
        let line = format!("{name:<20} {status:<10} {}", said.join(", "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Ends with 0 where the database is sound, with 1 where it is not or cannot
/// be read, and with 3 where there is none.
fn check(dir: &Path, written: Written, setting: &Setting) -> Outcome {
    let shown = io::stderr().is_terminal();
    let found = sound::check(dir, |stage| {
        if shown {
            show(stage);
        }
    });
    if shown {
        erase();
    }
    let findings = found.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let (code, advice) = match &error {
            store::Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                (3, "; a daemon makes it at its first start")
            }
            store::Error::File { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                (1, "; ask as root, or as the daemon's user")
            }
            store::Error::File { .. }
            | store::Error::Database { .. }
            | store::Error::Damaged { .. }
            | store::Error::Fenced(_)
            | store::Error::Unusable { .. } => (1, ""),
        };
        Failure::Code(
            code,
            format!("{error}{}{advice}", cause.unwrap_or_default()),
        )
    })?;
    let mut out = io::stdout().lock();
    if setting.json {
        let mut said = in_json(dir, &findings);
        said["write"] = written.in_json();
        if !written.is_good() {
            said["status"] = "unwritable".into();
        }
        writeln!(out, "{said}")?;
    } else {
        for fault in &findings.faults {
            writeln!(out, "{}", escape(&fault.to_string()))?;
        }
        writeln!(out, "{}", in_a_line(dir, &findings))?;
        writeln!(out, "{}", escape(&written.to_string()))?;
    }
    let good = findings.faults.is_empty() && written.is_good();
    Ok(u8::from(!good))
}

fn in_a_line(dir: &Path, findings: &Findings) -> String {
    let dir = escape(&dir.display().to_string());
    let named = u64::try_from(findings.faults.len()).unwrap_or(u64::MAX);
    let faults = named.saturating_add(findings.more);
    if faults > 0 {
        let count = if faults == 1 { "fault" } else { "faults" };
        return format!(
            "damaged: the database in {dir} has {faults} {count}; a daemon puts damaged tasks \
             aside, for anything else restore a backup"
        );
    }
    let (size, version) = (ByteSize(findings.bytes), findings.version);
    let rows = if findings.has_rows {
        format!("{} tasks, {} checksums", findings.tasks, findings.sums)
    } else {
        "its pages; rows can be checked when a start has brought it up to date".to_owned()
    };
    format!("ok: the database in {dir}, {size}, schema version {version}, {rows}")
}

fn in_json(dir: &Path, findings: &Findings) -> serde_json::Value {
    let faults = findings.faults.iter().map(
        |fault| serde_json::json!({ "table": fault.table, "row": fault.row, "what": fault.what }),
    );
    let is_sound = findings.faults.is_empty();
    serde_json::json!({
        "status": if is_sound { "ok" } else { "damaged" },
        "state_dir": dir.display().to_string(),
        "schema": findings.version,
        "bytes": findings.bytes,
        "tasks": findings.tasks,
        "checksums": findings.sums,
        "faults": faults.collect::<Vec<_>>(),
        "more": findings.more,
    })
}

/// One line that the next one takes the place of. When even that cannot be
/// written, nobody is looking.
fn show(stage: Stage) {
    let line = match stage {
        Stage::Pages(bytes) if bytes < SMALL => return,
        Stage::Pages(bytes) => format!("reading {} of pages", ByteSize(bytes)),
        Stage::Tasks(read, all) => format!("reading rows: {read} of {all} tasks"),
    };
    drop(write!(io::stderr(), "\r\x1b[K{line}"));
}

fn erase() {
    drop(write!(io::stderr(), "\r\x1b[K"));
}
