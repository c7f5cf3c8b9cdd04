//! How many requests each route answered, how, and how long that took.

use std::time::Duration;

use hyper::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

/// Bounds of the durations, in seconds: from what a submit takes on a fast disk
/// to what nobody should have to wait for.
const BOUNDS: [f64; 10] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0,
];

/// The counters of all routes. There are as many rows as the table of routes
/// has, whatever is asked for.
#[derive(Debug)]
pub(super) struct Requests {
    answered: IntCounterVec,
    took: HistogramVec,
}

/// The counters of one route, taken out once: counting looks nothing up.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    ok: IntCounter,
    refused: IntCounter,
    failed: IntCounter,
    took: Histogram,
}

impl Requests {
    #[expect(
        clippy::expect_used,
        reason = "names and labels are right or wrong here, whatever the host"
    )]
    pub(super) fn new() -> Self {
        let answered = Opts::new(
            "http_requests_total",
            "Answered requests; refused are 4xx, failed 5xx.",
        );
        let took = HistogramOpts::new(
            "http_request_duration_seconds",
            "Time until the head of an answer; who asks to wait for a task waits here.",
        );
        let took = took.buckets(BOUNDS.to_vec());
        Self {
            answered: IntCounterVec::new(answered, &["method", "route", "outcome"])
                .expect("a counter"),
            took: HistogramVec::new(took, &["method", "route"]).expect("a histogram"),
        }
    }

    /// Those of one route.
    pub(super) fn of(&self, method: &str, path: &str) -> Counted {
        let outcome = |word| self.answered.with_label_values(&[method, path, word]);
        Counted {
            ok: outcome("ok"),
            refused: outcome("refused"),
            failed: outcome("failed"),
            took: self.took.with_label_values(&[method, path]),
        }
    }

    /// Puts them on a page.
    pub(super) fn show(&self, page: &Registry) -> prometheus::Result<()> {
        page.register(Box::new(self.answered.clone()))?;
        page.register(Box::new(self.took.clone()))
    }
}

impl Counted {
    /// Counts one.
    pub(super) fn count(&self, status: StatusCode, took: Duration) {
        let outcome = match status.as_u16() {
            500.. => &self.failed,
            400.. => &self.refused,
            _ => &self.ok,
        };
        outcome.inc();
        self.took.observe(took.as_secs_f64());
    }
}
