//! A page of figures that is being made. What is wrong with a name or a label
//! is wrong for every page, so a test finds it.

use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

use crate::api::requests::Requests;
use crate::engine::counted::Spread;

/// What all names begin with.
const PREFIX: &str = "taskdaemon";
/// Microseconds in a second.
pub(super) const MICRO: f64 = 1e6;

/// A page.
pub(super) struct Page {
    registry: Registry,
    /// What is counted elsewhere and only shown here.
    spreads: Vec<MetricFamily>,
    broken: prometheus::Result<()>,
}

impl Page {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            registry: Registry::new_custom(Some(PREFIX.to_owned()), None)?,
            spreads: Vec::new(),
            broken: Ok(()),
        })
    }

    fn note(&mut self, done: prometheus::Result<()>) {
        if self.broken.is_ok() {
            self.broken = done;
        }
    }

    /// One figure with several rows, each with a value of each label.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let done = GaugeVec::new(Opts::new(name, help), &labels).and_then(|family| {
            for (values, value) in rows {
                family.get_metric_with_label_values(&values)?.set(value);
            }
            self.registry.register(Box::new(family))
        });
        self.note(done);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [], [([], value)]);
    }

    /// The same of what only grows.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let done = CounterVec::new(Opts::new(name, help), &labels).and_then(|family| {
            for (values, value) in rows {
                family.get_metric_with_label_values(&values)?.inc_by(value);
            }
            self.registry.register(Box::new(family))
        });
        self.note(done);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [], [([], super::count(value))]);
    }

    /// How durations are spread, in seconds.
    pub(super) fn spread(&mut self, name: &str, help: &str, spread: &Spread) {
        let name = format!("{PREFIX}_{name}");
        self.spreads(&name, help, [], MICRO, [([], *spread)]);
    }

    /// How something is spread, in rows with a value of each label; so many of
    /// what was counted are one of what is shown.
    pub(super) fn spreads<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        unit: f64,
        rows: impl IntoIterator<Item = ([String; N], Spread)>,
    ) {
        let rows = rows.into_iter().map(|(values, spread)| {
            let mut metric = Metric::default();
            let pairs = labels.iter().zip(values).map(|(label, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*label).to_owned());
                pair.set_value(value);
                pair
            });
            metric.set_label(pairs.collect());
            metric.set_histogram(histogram(&spread, unit));
            metric
        });
        let rows: Vec<_> = rows.collect();
        // A family without rows cannot be written down.
        if rows.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(rows);
        self.spreads.push(family);
    }

    /// The page as text, with what all programs tell of their process.
    pub(super) fn write(mut self, requests: &Requests) -> prometheus::Result<String> {
        let done = requests.show(&self.registry);
        self.note(done);
        self.broken?;
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let mut families = process.gather();
        families.extend(self.registry.gather());
        families.extend(self.spreads);
        TextEncoder::new().encode_to_string(&families)
    }
}

fn histogram(spread: &Spread, unit: f64) -> Histogram {
    let bucket = |(bound, number): (u64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(super::count(bound) / unit);
        bucket.set_cumulative_count(number);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_sample_count(spread.count);
    histogram.set_sample_sum(super::count(spread.sum) / unit);
    histogram.set_bucket(spread.up_to().map(bucket).collect());
    histogram
}
