//! What was measured: one row for each figure, samples of all rounds, medians
//! in the table.

use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Nothing is asked of it.
    None,
    /// At least so much of the yardstick.
    Ratio(f64),
    /// No more than so much of the yardstick.
    RatioAtMost(f64),
    /// No more than this.
    AtMost(f64),
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    ours: Vec<f64>,
    yardstick: Vec<f64>,
    goal: Goal,
}

/// A row as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'r> {
    #[serde(flatten)]
    row: &'r Row,
    median: Option<f64>,
    yardstick_median: Option<f64>,
    ratio: Option<f64>,
    met: Option<bool>,
}

/// All figures, in the order in which they were first measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// Name of the benchmark.
    name: &'static str,
    /// Headings of what is measured, and of what it is measured by.
    heads: [&'static str; 2],
    rounds: u32,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) const fn new(name: &'static str, heads: [&'static str; 2], rounds: u32) -> Self {
        Self {
            name,
            heads,
            rounds,
            rows: Vec::new(),
        }
    }

    /// What the machine can do.
    pub(crate) fn limit(&mut self, name: &str, unit: &'static str, limit: f64) {
        self.row(name, unit, Goal::None).yardstick.push(limit);
    }

    /// What we do.
    pub(crate) fn value(&mut self, name: &str, unit: &'static str, ours: f64, goal: Goal) {
        self.row(name, unit, goal).ours.push(ours);
    }

    /// What we do beside what can be done.
    pub(crate) fn pair(
        &mut self,
        name: &str,
        unit: &'static str,
        ours: f64,
        yardstick: f64,
        goal: Goal,
    ) {
        let row = self.row(name, unit, goal);
        row.ours.push(ours);
        row.yardstick.push(yardstick);
    }

    fn row(&mut self, name: &str, unit: &'static str, goal: Goal) -> &mut Row {
        let place = self.rows.iter().position(|row| row.name == name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                unit,
                ours: Vec::new(),
                yardstick: Vec::new(),
                goal,
            });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// The table.
    pub(crate) fn print(&self) {
        println!(
            "\n{} cores, Linux {}, medians of {} rounds; the ratio is the median of each round's own\n",
            cores(),
            kernel(),
            self.rounds
        );
        println!(
            "{:<44} {:>12} {:>12} {:>4}  {:>6}  {:<10} verdict",
            "", self.heads[0], self.heads[1], "", "ratio", "goal"
        );
        let mut missed = 0;
        for shown in self.rows.iter().map(Row::shown) {
            let verdict = match shown.met {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            };
            missed += u32::from(shown.met == Some(false));
            let figure = |value: Option<f64>| value.map(figure).unwrap_or_default();
            println!(
                "{:<44} {:>12} {:>12} {:>4}  {:>6}  {:<10} {verdict}",
                shown.row.name,
                figure(shown.median),
                figure(shown.yardstick_median),
                shown.row.unit,
                shown
                    .ratio
                    .map(|ratio| format!("{ratio:.2}"))
                    .unwrap_or_default(),
                shown.row.goal.text(),
            );
        }
        println!("\n{missed} goals missed");
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        let rows: Vec<_> = self.rows.iter().map(Row::shown).collect();
        let value = serde_json::json!({
            "benchmark": self.name,
            "version": taskdaemon::VERSION,
            "cores": cores(),
            "kernel": kernel(),
            "rounds": self.rounds,
            "rows": rows,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}

impl Row {
    fn shown(&self) -> Shown<'_> {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.yardstick)
            .map(|(ours, yardstick)| ours / yardstick)
            .collect();
        let (median, ratio) = (middle(&self.ours), middle(&ratios));
        let met = match self.goal {
            Goal::None => None,
            Goal::Ratio(least) => ratio.map(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Goal::AtMost(most) => median.map(|median| median <= most),
        };
        Shown {
            row: self,
            median,
            yardstick_median: middle(&self.yardstick),
            ratio,
            met,
        }
    }
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Ratio(least) => format!("≥ {least:.2} ×"),
            Self::RatioAtMost(most) => format!("≤ {most:.2} ×"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

/// Both measured, one right after the other, and the other one first in every
/// second round.
pub(crate) fn in_turn<A, B>(
    round: u32,
    ours: impl FnOnce() -> anyhow::Result<A>,
    yardstick: impl FnOnce() -> anyhow::Result<B>,
) -> anyhow::Result<(A, B)> {
    if round.is_multiple_of(2) {
        Ok((ours()?, yardstick()?))
    } else {
        let yardstick = yardstick()?;
        Ok((ours()?, yardstick))
    }
}

fn middle(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| quantile(samples, 0.5))
}

/// The sample below which this part of all of them is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Three digits or more, with thousands apart.
fn figure(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, Into::into)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
