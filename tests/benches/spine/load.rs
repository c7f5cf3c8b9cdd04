//! Many clients at once, each with a connection of its own, each sending its
//! next request when the last one is answered.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use taskdaemon::clock;

use crate::http::{Client, Request};
use crate::process::{self, pause};

/// How long everyone runs before it counts.
const WARM_UP: Duration = Duration::from_millis(150);
/// How long it counts.
const WINDOW: Duration = Duration::from_millis(1_000);

/// What a server did under load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Answered requests a second.
    pub(crate) per_second: f64,
    /// CPU time of the server for one request.
    pub(crate) cpu_micros: f64,
}

/// Requests answered by the server `pid` to so many clients.
pub(crate) fn rate(
    socket: &Path,
    pid: u32,
    clients: usize,
    request: &Request,
) -> anyhow::Result<Rate> {
    let over = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
    let sum = || -> u64 { counts.iter().map(|n| n.load(Ordering::Relaxed)).sum() };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for count in &counts {
            let mut client = Client::connect(socket)?;
            let over = &over;
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                while !over.load(Ordering::Relaxed) {
                    client.ask(request)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        pause(WARM_UP);
        let (before, cpu, begun) = (sum(), process::cpu(pid)?, clock::instant());
        pause(WINDOW);
        let (after, spent, took) = (sum(), process::cpu(pid)?, begun.elapsed());
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            process::joined(thread.join())?;
        }
        let done = process::count(after - before);
        Ok(Rate {
            per_second: done / took.as_secs_f64(),
            cpu_micros: (spent - cpu).as_secs_f64() * 1e6 / done.max(1.0),
        })
    })
}
