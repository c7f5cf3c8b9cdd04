//! `doctor`: looks at the host, the daemon and who asks, and says what is wrong and
//! what mends it. The judgement is `model::doctor`'s.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::model::doctor::finding::{Finding, Verdict, worst};
use crate::model::doctor::judge::judge;

use super::text::escape;
use super::{Outcome, Setting};

mod look;

/// Whose house it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when nothing is bad, whatever is missing, and with 1 otherwise."
)]
pub(super) struct Args {
    /// Configuration file of the daemon
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `doctor`.
pub(super) fn doctor(args: &Args, setting: &Setting) -> Outcome {
    let facts = look::look(args.config.clone(), setting)?;
    let findings = judge(&facts);
    let worst = worst(&findings);
    let mut out = io::stdout().lock();
    if setting.json {
        let all: Vec<_> = findings.iter().map(in_json).collect();
        writeln!(
            out,
            "{}",
            json!({ "status": worst.word(), "findings": all })
        )?;
    } else {
        out.write_all(in_lines(&findings).as_bytes())?;
    }
    Ok(u8::from(worst == Verdict::Bad))
}

fn in_json(finding: &Finding) -> serde_json::Value {
    let mut value = json!({
        "topic": finding.topic,
        "status": finding.verdict.word(),
        "what": finding.what,
    });
    if let Some(fix) = &finding.fix {
        value["fix"] = fix.as_str().into();
    }
    value
}

/// A line for each finding, the fix below it, and how many there are.
fn in_lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding {
        topic,
        verdict,
        what,
        fix,
    } in findings
    {
        text.push_str(&format!(
            "{:<5} {topic:<10} {}\n",
            verdict.word(),
            escape(what)
        ));
        if let Some(fix) = fix {
            text.push_str(&format!("{:<16} fix: {}\n", "", escape(fix)));
        }
    }
    let count = |verdict| findings.iter().filter(|one| one.verdict == verdict).count();
    text.push_str(&format!(
        "{} well, {} to be looked at, {} bad\n",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Bad)
    ));
    text
}
