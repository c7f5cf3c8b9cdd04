//! Part 1: durable submits a second, with nothing running.

use std::path::Path;

use crate::bare::Bare;
use crate::daemon::{Daemon, Runs};
use crate::http::Request;
use crate::report::{Goal, Report, in_turn};
use crate::{disk, load};

/// Numbers of clients.
const CLIENTS: [u32; 3] = [1, 16, 64];

/// One round: product and yardstick in turn, the other one first every time.
pub(crate) fn round(dir: &Path, round: u32, report: &mut Report) -> anyhow::Result<()> {
    report.limit("fdatasync of 256 bytes", "/s", disk::syncs(dir)?);
    for rows in CLIENTS {
        let name = format!("bare SQLite, {rows} rows a commit");
        report.limit(&name, "/s", disk::rows(dir, rows)?);
    }
    let task = Request::post("/v1/tasks", r#"{"command":["/bin/true"],"name":"spine"}"#);
    let bare = Bare::start(&dir.join("bare"))?;
    let daemon = Daemon::start(&dir.join("submit"), Runs::Nothing)?;
    for clients in CLIENTS {
        let threads = usize::try_from(clients)?;
        let ours = || load::rate(&daemon.socket(), daemon.pid(), threads, &task);
        let yardstick = || load::rate(&bare.socket, bare.pid(), threads, &task);
        let (ours, yardstick) = in_turn(round, ours, yardstick)?;
        let goal = if clients == 16 {
            Goal::Ratio(0.7)
        } else {
            Goal::None
        };
        let name = format!("durable submits, {clients} clients");
        report.pair(&name, "/s", ours.per_second, yardstick.per_second, goal);
        report.pair(
            &format!("server CPU of a submit, {clients} clients"),
            "µs",
            ours.cpu_micros,
            yardstick.cpu_micros,
            Goal::None,
        );
    }
    daemon.stop_all()
}
