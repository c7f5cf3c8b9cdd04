//! System calls that fail, by a tracer.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, append};

/// A tracer at work on a process, as long as this lives.
pub(crate) struct Tracer {
    tracer: Child,
    trace: PathBuf,
}

impl Tracer {
    /// Has system calls of a running process fail as the injection says, in the tracer's own words, such as
    /// `fsync:error=EIO:when=2`. Each thread has counts of its own.
    pub(crate) fn attach(host: &Host, pid: Pid, inject: &str) -> Self {
        let calls = inject.split(':').next().expect("calls");
        let trace = host.path(&format!("trace-{}", inject.replace([':', ',', '='], "-")));
        let said = trace.with_extension("said");
        let tracer = Command::new("strace")
            .args(["-f", "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={inject}")])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(&said))
            .spawn()
            .expect("a tracer");
        let tracer = Self { tracer, trace };
        host.until("the tracer is there", |_| {
            fs::read_to_string(&said).is_ok_and(|text| text.contains("attached"))
        });
        tracer
    }

    /// The words before a program's own by which it is traced from its start, the tracer being nobody's parent.
    pub(crate) fn under(trace: &str, calls: &str, inject: &str) -> Vec<String> {
        let words = ["strace", "-D", "-f", "-o", trace, "-e", calls, "-e", inject];
        words.map(str::to_owned).to_vec()
    }

    /// The words before a program's own by which these calls are written down, with the paths of descriptors; nothing
    /// fails.
    pub(crate) fn watching(trace: &str, calls: &str) -> Vec<String> {
        let words = ["strace", "-D", "-f", "-y", "-o", trace, "-e", calls];
        words.map(str::to_owned).to_vec()
    }

    /// Calls that were made to fail.
    pub(crate) fn injected(&self) -> usize {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        text.matches("(INJECTED").count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = i32::try_from(self.tracer.id()).expect("a pid");
        // It lets go of whom it traces.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGINT).is_err();
        drop(self.tracer.wait());
    }
}

/// Whether there is a tracer, and it may trace.
pub(crate) fn why_not() -> Option<&'static str> {
    let status = Command::new("strace")
        .args(["-qq", "-e", "trace=none", "true"])
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => None,
        Ok(_) => Some("strace may not trace here"),
        Err(_) => Some("strace is not installed"),
    }
}
