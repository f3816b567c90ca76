//! What was measured, for machines as JSON and for people as a table.

use crate::limits::{self, Loop, Sample};
use crate::measure::{Percentiles, median, spread};
use serde::Serialize;
use std::fmt::Write;

/// Limits that differ by more than this part of their median make a verdict impossible.
pub const NOISE_MAX: f64 = 0.3;
/// Microseconds below which a sync did not reach a disk.
const SYNC_US_MIN: f64 = 5.0;

/// Everything that one run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Sizes were small: the figures show that everything works, and mean nothing else.
    pub quick: bool,
    /// How often each scenario ran.
    pub rounds: u32,
    /// Where.
    pub machine: Machine,
    /// What the machine can do.
    pub limits: Limits,
    /// What the product did.
    pub scenarios: Vec<Scenario>,
    /// Whether the machine was quiet enough to judge.
    pub noise: Noise,
}

/// The machine, without a word that would name it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors this process may use.
    pub cores: usize,
    /// Their model, when the system tells.
    pub processor: Option<String>,
    /// The kernel's version, when the system tells.
    pub kernel: Option<String>,
    /// Bytes of memory, when the system tells.
    pub memory_bytes: Option<u64>,
    /// Operating system and architecture.
    pub platform: String,
    /// The program was built with optimizations.
    pub optimized: bool,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let line = |path: &str, field: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(field))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        let kib = line("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: line("/proc/cpuinfo", "model name"),
            kernel: kernel.ok().map(|text| text.trim().to_owned()),
            memory_bytes: kib.map(|kib| kib * 1024),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            optimized: !cfg!(debug_assertions),
        }
    }
}

/// The physical limits of the machine in this run.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// F: 4 KiB written and synced.
    pub sync: Limit,
    /// L: the rules alone.
    pub rules: Limit,
    /// S: three SQLite transactions per task.
    pub sqlite: Limit,
    /// N: an echo on the server's own HTTP stack, when the server is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<Limit>,
    /// Q: three PostgreSQL statements per task, when the server is measured and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Limit>,
    /// Why there is no Q although the server is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_missing: Option<String>,
}

/// One limit.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// What a second is counted in.
    pub unit: &'static str,
    /// The median over all times it was measured.
    pub per_second: f64,
    /// Microseconds of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us: Option<Percentiles>,
    /// Processor microseconds for one of the process that is measured, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<f64>,
    /// Times it was measured.
    pub samples: usize,
}

impl Limits {
    pub(crate) fn conclude(samples: &[Sample], postgres_missing: Option<String>) -> Self {
        let limit = |unit, per_second: fn(&Sample) -> f64, us| Limit {
            unit,
            per_second: median(&samples.iter().map(per_second).collect::<Vec<_>>()),
            us,
            cpu_us: None,
            samples: samples.len(),
        };
        let optional = |unit, of: fn(&Sample) -> Option<&Loop>| {
            let loops: Vec<&Loop> = samples.iter().filter_map(of).collect();
            let all = |value: fn(&Loop) -> Option<f64>| -> Vec<f64> {
                loops.iter().filter_map(|found| value(found)).collect()
            };
            let us: Vec<f64> = loops.iter().flat_map(|found| found.us.clone()).collect();
            let cpu_us = all(|found| found.cpu_us);
            (!loops.is_empty()).then(|| Limit {
                unit,
                per_second: median(&all(|found| Some(found.per_second))),
                us: Percentiles::of(&us),
                cpu_us: (!cpu_us.is_empty()).then(|| median(&cpu_us)),
                samples: loops.len(),
            })
        };
        Self {
            echo: optional("requests/s", |s| s.echo.as_ref()),
            postgres: optional("tasks/s", |s| s.postgres.as_ref()),
            postgres_missing,
            sync: limit("syncs/s", |s| s.syncs, limits::sync_percentiles(samples)),
            rules: limit("tasks/s", |s| s.rules, None),
            sqlite: limit("tasks/s", |s| s.sqlite, limits::sqlite_percentiles(samples)),
        }
    }
}

/// Which way a goal lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The more the better.
    AtLeast,
    /// The less the better.
    AtMost,
}

/// What a figure should be, and whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Goal {
    /// Which way.
    pub side: Side,
    /// How much.
    pub bound: f64,
    /// Whether it is.
    pub reached: bool,
}

impl Goal {
    /// Judges a value.
    pub fn judge(side: Side, bound: f64, value: f64) -> Self {
        let reached = match side {
            Side::AtLeast => value >= bound,
            Side::AtMost => value <= bound,
        };
        Self {
            side,
            bound,
            reached,
        }
    }
}

/// A figure in terms of another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// The other.
    pub to: &'static str,
    /// The median over rounds of the figure divided by the other, as measured next to it.
    pub value: f64,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
}

/// What one scenario measured.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    /// Which, of [`NAMES`](crate::NAMES).
    pub name: String,
    /// What it does, in a sentence.
    pub what: &'static str,
    /// What the value is counted in.
    pub unit: &'static str,
    /// The median over rounds; absent where the system does not tell.
    pub value: Option<f64>,
    /// What the value should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// The value in terms of limits, or of the scenario's own comparison.
    pub ratios: Vec<Ratio>,
    /// The value of each round.
    pub rounds: Vec<f64>,
    /// Tasks that were to be done, over all rounds.
    pub tasks_asked: u64,
    /// Tasks that the engine's own statistics say were done, over all rounds.
    pub tasks_counted: u64,
    /// Requests that were refused or broke off, over all rounds; absent where there are no requests
    /// over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// It was stopped at its time limit in some round.
    pub stopped: bool,
    /// Requests over the network for one task, waits that ended with nothing included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_task: Option<f64>,
    /// Processor microseconds per task: of engine and load together, or of the server alone where the
    /// load has its own figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_task: Option<f64>,
    /// Of these, on the engine's own thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wheel_us_per_task: Option<f64>,
    /// Processor microseconds per task of the load generator, where that is another process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_us_per_task: Option<f64>,
    /// Microseconds of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_us: Option<Percentiles>,
    /// Bytes of memory at the peak in the worst round: engine and load together, or the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// What else has to be known to read the figure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Scenario {
    /// Whether every goal is reached; `None` when there is none, or no value to judge.
    pub fn reached(&self) -> Option<bool> {
        let of_ratios = self.ratios.iter().map(|ratio| ratio.goal);
        std::iter::once(self.goal)
            .chain(of_ratios)
            .flatten()
            .map(|goal| goal.reached)
            .reduce(|a, b| a && b)
    }
}

/// Whether the machine was quiet enough to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Quiet,
    /// It was not: every figure and every goal may be wrong either way.
    Noisy,
}

/// How much the limits differed from one time to the next.
#[derive(Debug, Clone, Serialize)]
pub struct Noise {
    /// (highest - lowest) / median of the middle sync.
    pub sync_spread: f64,
    /// Of the rules' rate.
    pub rules_spread: f64,
    /// Of the SQLite loop's rate.
    pub sqlite_spread: f64,
    /// Of the echo's rate; 0 when it was not measured.
    pub echo_spread: f64,
    /// Of the PostgreSQL loop's rate; 0 when it was not measured.
    pub postgres_spread: f64,
    /// Whether it can be judged.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

impl Noise {
    /// Judges the samples of one run.
    pub fn judge(samples: &[Sample]) -> Self {
        let of = |value: fn(&Sample) -> f64| spread(&samples.iter().map(value).collect::<Vec<_>>());
        let (sync, rules, sqlite) = (of(Sample::sync_p50), of(|s| s.rules), of(|s| s.sqlite));
        let optional = |value: fn(&Sample) -> Option<f64>| {
            spread(&samples.iter().filter_map(value).collect::<Vec<_>>())
        };
        let (echo, postgres) = (optional(Sample::echo_rate), optional(Sample::postgres_rate));
        let mut why: Vec<String> = [
            ("the disk's sync", sync),
            ("the rules alone", rules),
            ("the SQLite loop", sqlite),
            ("the echo", echo),
            ("the PostgreSQL loop", postgres),
        ]
        .into_iter()
        .filter(|(_, spread)| *spread > NOISE_MAX)
        .map(|(what, spread)| format!("{what} varied by {:.0} % of its median", spread * 100.0))
        .collect();
        let syncs: Vec<f64> = samples.iter().map(Sample::sync_p50).collect();
        let middle = median(&syncs);
        if sync > NOISE_MAX {
            let low = syncs.iter().copied().fold(f64::INFINITY, f64::min);
            let high = syncs.iter().copied().fold(0.0, f64::max);
            why.push(format!("a sync took from {low:.0} to {high:.0} µs"));
        }
        if middle < SYNC_US_MIN {
            why.push(format!(
                "a sync took {middle:.1} µs: nothing reached a disk"
            ));
        }
        let verdict = if why.is_empty() {
            why.push(format!(
                "no limit varied by more than {:.0} % of its median",
                NOISE_MAX * 100.0
            ));
            Verdict::Quiet
        } else {
            Verdict::Noisy
        };
        Self {
            sync_spread: sync,
            rules_spread: rules,
            sqlite_spread: sqlite,
            echo_spread: echo,
            postgres_spread: postgres,
            verdict,
            why: why.join("; "),
        }
    }
}

/// A number with as many digits as say something.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000_000.0 => format!("{:.1} M", value / 1e6),
        v if v >= 10_000.0 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn goal_text(goal: &Goal) -> String {
    let side = match goal.side {
        Side::AtLeast => "≥",
        Side::AtMost => "≤",
    };
    format!("{side} {}", short(goal.bound))
}

fn reached_text(goal: &Goal) -> &'static str {
    if goal.reached { "yes" } else { "NO" }
}

fn ratio_texts(ratio: &Ratio) -> [String; 3] {
    let goal = ratio.goal.as_ref();
    [
        format!("{}× {}", short(ratio.value), ratio.to),
        goal.map_or_else(String::new, goal_text),
        goal.map_or("", reached_text).to_owned(),
    ]
}

/// What only a scenario over the network has.
fn network_text(text: &mut String, scenario: &Scenario) {
    let Some(errors) = scenario.errors else {
        return;
    };
    let mut parts = vec![match errors {
        0 => "no request failed".to_owned(),
        1 => "ONE REQUEST FAILED".to_owned(),
        n => format!("{n} REQUESTS FAILED"),
    }];
    let figures = [
        (scenario.requests_per_task, "", "requests per task"),
        (
            scenario.load_us_per_task,
            " µs",
            "of the load generator's CPU per task",
        ),
        (
            scenario.wheel_us_per_task,
            " µs",
            "of the server's per task on the wheel",
        ),
        (
            scenario.peak_rss_bytes.map(|bytes| bytes as f64 / 1e6),
            " MB",
            "of memory in the server at its peak",
        ),
    ];
    for (value, unit, what) in figures {
        parts.extend(value.map(|value| format!("{}{unit} {what}", short(value))));
    }
    let _ = writeln!(text, "{}: {}", scenario.name, parts.join(", "));
}

impl Report {
    /// A table for people: figure, goal, ratio, its goal, reached; then the limits and the noise.
    pub fn to_text(&self) -> String {
        let mut table = vec![
            [
                "scenario",
                "value",
                "goal",
                "",
                "ratio",
                "goal",
                "",
                "CPU/task",
                "p50/p99 of a request",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for scenario in &self.scenarios {
            let value = scenario.value.map_or("not told".into(), |value| {
                format!("{} {}", short(value), scenario.unit)
            });
            let goal = scenario.goal.as_ref();
            let mut ratios = scenario.ratios.iter().map(ratio_texts);
            let row = [
                scenario.name.clone(),
                value,
                goal.map_or_else(String::new, goal_text),
                goal.map_or("", reached_text).to_owned(),
            ];
            let costs = [
                scenario
                    .cpu_us_per_task
                    .map_or_else(String::new, |us| format!("{} µs", short(us))),
                scenario.request_us.map_or_else(String::new, |us| {
                    format!("{} / {} µs", short(us.p50), short(us.p99))
                }),
            ];
            let first = ratios.next().unwrap_or_default();
            table.push(row.into_iter().chain(first).chain(costs).collect());
            // A second comparison has a line of its own, under the first.
            let empty = || std::iter::repeat_n(String::new(), 4);
            table.extend(ratios.map(|ratio| empty().chain(ratio).collect()));
        }
        let mut text = lay_out(&table);
        for scenario in &self.scenarios {
            if scenario.stopped {
                let _ = writeln!(
                    text,
                    "{} was stopped at its time limit: {} of {} tasks",
                    scenario.name, scenario.tasks_counted, scenario.tasks_asked
                );
            }
            if !scenario.note.is_empty() {
                let _ = writeln!(text, "{}: {}", scenario.name, scenario.note);
            }
            network_text(&mut text, scenario);
        }
        text.push('\n');
        self.limits_text(&mut text);
        text
    }

    fn limits_text(&self, text: &mut String) {
        let limits = [
            ("F  4 KiB synced", Some(&self.limits.sync)),
            ("L  rules alone", Some(&self.limits.rules)),
            ("S  SQLite loop", Some(&self.limits.sqlite)),
            ("N  HTTP echo", self.limits.echo.as_ref()),
            ("Q  PostgreSQL loop", self.limits.postgres.as_ref()),
        ];
        let mut table = vec![
            ["limit", "rate", "p50", "p95", "p99", "CPU of one"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (name, limit) in limits {
            let Some(limit) = limit else { continue };
            let us = |value: fn(&Percentiles) -> f64| {
                let value = limit.us.as_ref().map(value);
                value.map_or_else(String::new, |us| format!("{} µs", short(us)))
            };
            table.push(vec![
                name.to_owned(),
                format!("{} {}", short(limit.per_second), limit.unit),
                us(|p| p.p50),
                us(|p| p.p95),
                us(|p| p.p99),
                limit
                    .cpu_us
                    .map_or_else(String::new, |us| format!("{} µs", short(us))),
            ]);
        }
        text.push_str(&lay_out(&table));
        if let Some(why) = &self.limits.postgres_missing {
            let _ = writeln!(text, "Q not measured: {why}");
        }
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "\n{} cores, {}, kernel {}, {} rounds{}{}",
            machine.cores,
            machine.processor.as_deref().unwrap_or(&machine.platform),
            machine.kernel.as_deref().unwrap_or("unknown"),
            self.rounds,
            if machine.optimized {
                ""
            } else {
                "; BUILT WITHOUT OPTIMIZATIONS"
            },
            if self.quick {
                "; quick: the figures mean nothing"
            } else {
                ""
            },
        );
        let verdict = match self.noise.verdict {
            Verdict::Quiet => "quiet",
            Verdict::Noisy => "NOISY, judge nothing by this run",
        };
        let _ = writeln!(text, "machine: {verdict} ({})", self.noise.why);
    }
}

fn lay_out(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        let cells = table.iter().filter_map(|row| row.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sync: f64, rules: f64, sqlite: f64) -> Sample {
        Sample {
            sync_us: vec![sync],
            syncs: 1e6 / sync,
            rules,
            sqlite,
            sqlite_us: vec![1e6 / sqlite],
            echo: None,
            postgres: None,
        }
    }

    #[test]
    fn limits_that_differ_make_noise() {
        let quiet = Noise::judge(&[sample(100.0, 1e6, 1e3), sample(110.0, 1.1e6, 1.1e3)]);
        assert_eq!(quiet.verdict, Verdict::Quiet);
        let noisy = Noise::judge(&[sample(100.0, 1e6, 1e3), sample(200.0, 1e6, 1e3)]);
        assert_eq!(noisy.verdict, Verdict::Noisy);
        assert!(
            noisy.why.contains("the disk's sync varied by 67 %"),
            "{}",
            noisy.why
        );
        let memory = Noise::judge(&[sample(1.0, 1e6, 1e5)]);
        assert!(
            memory.why.contains("nothing reached a disk"),
            "{}",
            memory.why
        );
    }

    #[test]
    fn a_goal_lies_on_one_side() {
        assert!(Goal::judge(Side::AtLeast, 5.0, 5.0).reached);
        assert!(!Goal::judge(Side::AtLeast, 5.0, 4.9).reached);
        assert!(Goal::judge(Side::AtMost, 5.0, 5.0).reached);
        assert!(!Goal::judge(Side::AtMost, 5.0, 5.1).reached);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.5, 12.34, 123.4, 45_678.0, 12_345_678.0].map(short);
        assert_eq!(shown, ["0.50", "12.3", "123", "45.7 k", "12.3 M"]);
    }
}
