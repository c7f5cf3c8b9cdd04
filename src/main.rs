//! The program: hands its arguments to the command line.

use taskdaemon::runner::{self, Options};

fn main() -> anyhow::Result<()> {
    // For the runner's own tests, until the command line is here.
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("runner") => {}
        Some("run") => {
            let mut sources = taskdaemon::config::Sources::of_process(None);
            while let (Some(name), Some(value)) = (args.next(), args.next()) {
                let key = name.trim_start_matches("--").replace('-', "_");
                sources = sources.with_flag(&key, value);
            }
            return Ok(taskdaemon::daemon::run(sources)?);
        }
        _ => return Ok(()),
    }
    let mut options = Options::default();
    let mut next = || args.next();
    while let (Some(name), value) = (next(), next()) {
        let value = value.unwrap_or_default();
        match name.as_str() {
            "--resume" => options.resume = Some(value.parse()?),
            "--users" => options.users = runner::Users::Own,
            "--options" => options = serde_json::from_str(&value)?,
            _ => anyhow::bail!("unknown option {name}"),
        }
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    runner::serve(options, taskdaemon::clock::now)
}
