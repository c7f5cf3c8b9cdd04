//! `man`: the manual pages, made of the definitions of the command line, the
//! settings and the fields of a task, and of what is written beside this file.

use std::fs;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Command};
use clap_mangen::Man;

use crate::config::print::{Described, described};

use super::completions::command;
use super::{Failure, Outcome, Setting, not_in_json};

mod fields;
mod text;

use text::{plain, roff};

const TASKDAEMON: &str = include_str!("man/taskdaemon.roff");
const COMMON: &str = include_str!("man/common.roff");
const HEALTH: &str = include_str!("man/health.roff");
const RUN: &str = include_str!("man/run.roff");
const RUNNER: &str = include_str!("man/runner.roff");
const CONFIG: &str = include_str!("man/config.roff");
const JOBS: &str = include_str!("man/jobs.roff");
const JOBS_END: &str = include_str!("man/jobs-end.roff");

/// What all pages belong to.
const MANUAL: &str = "taskdaemon";

/// Where to.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The directory in which the pages are written
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// `man`.
pub(super) fn man(args: &Args, setting: &Setting) -> Outcome {
    not_in_json(setting, "man")?;
    let dir = &args.dir;
    let failed = |error: std::io::Error| {
        let dir = dir.display();
        Failure::Code(
            1,
            format!("cannot write the manual pages to {dir}: {error}"),
        )
    };
    let pages = pages()?;
    fs::create_dir_all(dir).map_err(failed)?;
    for (name, page) in pages {
        fs::write(dir.join(name), page).map_err(failed)?;
    }
    Ok(0)
}

/// All pages: the names of their files, and their text.
fn pages() -> Result<Vec<(String, String)>, Failure> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![
        ("taskdaemon.toml.5".to_owned(), plain(&settings())),
        ("taskdaemon-jobs.5".to_owned(), plain(&jobs())),
    ];
    let mut left = vec![root];
    while let Some(command) = left.pop() {
        let name = format!("{}.{}", name(&command), section(&command));
        pages.push((name, plain(&page(&command)?)));
        left.extend(shown(&command).cloned());
    }
    Ok(pages)
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|verb| !verb.is_hide_set())
}

fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// What somebody calls is in section 1, what runs on and on in section 8.
fn section(command: &Command) -> &'static str {
    match name(command) {
        "taskdaemon-run" | "taskdaemon-runner" => "8",
        _ => "1",
    }
}

fn page(command: &Command) -> Result<String, Failure> {
    // What the short help leaves out is in the manual.
    let whole = command
        .clone()
        .subcommand_value_name("COMMAND")
        .mut_args(|arg| arg.hide_short_help(false));
    let man = Man::new(whole)
        .section(section(command))
        .source(format!("taskdaemon {}", crate::VERSION))
        .manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    let mut verbs = shown(command).peekable();
    if verbs.peek().is_some() {
        page.push_str(".SH COMMANDS\n");
    }
    for verb in verbs {
        let (name, about) = (roff(name(verb)), verb.get_about().map(ToString::to_string));
        let about = roff(&about.unwrap_or_default());
        page.push_str(&format!(
            ".TP\n\\fB{name}\\fR({})\n{about}\n",
            section(verb)
        ));
    }
    page.push_str(match name(command) {
        "taskdaemon" => TASKDAEMON,
        "taskdaemon-health" => HEALTH,
        "taskdaemon-run" => RUN,
        "taskdaemon-runner" => RUNNER,
        _ => "",
    });
    if !page.contains(".SH EXIT STATUS") && section(command) == "1" {
        page.push_str(COMMON);
    }
    page.push_str(&see_also(name(command)));
    Ok(page)
}

fn see_also(own: &str) -> String {
    let all = [
        ("taskdaemon", "1"),
        ("taskdaemon.toml", "5"),
        ("taskdaemon-jobs", "5"),
        ("taskdaemon-run", "8"),
        ("taskdaemon-runner", "8"),
    ];
    let others: Vec<String> = all
        .into_iter()
        .filter(|(name, _)| *name != own)
        .map(|(name, section)| format!("\\fB{}\\fR({section})", roff(name)))
        .collect();
    format!(".SH SEE ALSO\n{}\n", others.join(", "))
}

fn title(name: &str) -> String {
    let version = crate::VERSION;
    format!(".TH {name} 5 \"\" \"taskdaemon {version}\" {MANUAL}\n")
}

/// Each setting with its meaning and default.
fn settings() -> String {
    let mut page = title("taskdaemon.toml") + CONFIG;
    let mut section = Some("");
    for setting in described() {
        if section != setting.section {
            section = setting.section;
            match section {
                None => page.push_str(".SH SETTINGS\n"),
                Some(name) => page.push_str(&format!(".SH SECTION [{name}]\n")),
            }
        }
        page.push_str(&one(&setting));
    }
    page + &see_also("taskdaemon.toml")
}

fn one(setting: &Described) -> String {
    let (key, default) = (roff(setting.key), roff(&setting.default));
    let doc: Vec<String> = setting.doc.iter().map(|line| roff(line.trim())).collect();
    let restart = if setting.restart {
        " A change needs a restart."
    } else {
        ""
    };
    format!(
        ".TP\n\\fB{key}\\fR\n{}\n.br\nDefault: {default}.{restart}\n",
        doc.join("\n")
    )
}

/// Each field of a task, and what stands in those that are tables.
fn jobs() -> String {
    let mut page = title("taskdaemon-jobs") + JOBS;
    for (heading, fields) in fields::tables() {
        page.push_str(&format!(".SH {heading}\n"));
        for (name, doc) in fields {
            let (name, doc) = (roff(&name), roff(&doc));
            page.push_str(&format!(".TP\n\\fB{name}\\fR\n{doc}\n"));
        }
    }
    page + JOBS_END + &see_also("taskdaemon-jobs")
}
