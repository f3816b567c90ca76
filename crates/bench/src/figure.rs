//! What one round of a scenario measured, and how rounds become a figure: the median, beside the
//! limits that were measured right before and after each round.

use crate::limits;
use crate::measure::{Percentiles, median};
use crate::report::{Goal, Ratio, Scenario, Side};

/// One round of one scenario.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample {
    pub(crate) value: Option<f64>,
    /// Against the scenario's own comparison.
    pub(crate) own_ratio: Option<f64>,
    pub(crate) asked: u64,
    pub(crate) counted: u64,
    pub(crate) stopped: bool,
    /// Requests that were refused or broke off, where requests are counted.
    pub(crate) errors: Option<u64>,
    /// Requests for one task, where they are counted.
    pub(crate) requests_per_task: Option<f64>,
    pub(crate) cpu_us: Option<f64>,
    pub(crate) wheel_us: Option<f64>,
    /// Of the load generator, where that is another process.
    pub(crate) load_us: Option<f64>,
    pub(crate) request_us: Vec<f64>,
    pub(crate) peak_rss: Option<u64>,
    pub(crate) note: String,
    pub(crate) beside: Beside,
}

/// The limits that were measured right before and after a round.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Beside {
    /// Microseconds of the middle sync.
    sync_us: f64,
    // Rates a second.
    sqlite: f64,
    echo: Option<f64>,
    postgres: Option<f64>,
}

impl Sample {
    pub(crate) fn set_neighbours(&mut self, before: &limits::Sample, after: &limits::Sample) {
        let both =
            |of: fn(&limits::Sample) -> Option<f64>| Some(f64::midpoint(of(before)?, of(after)?));
        self.beside = Beside {
            sync_us: f64::midpoint(before.sync_p50(), after.sync_p50()),
            sqlite: f64::midpoint(before.sqlite, after.sqlite),
            echo: both(limits::Sample::echo_rate),
            postgres: both(limits::Sample::postgres_rate),
        };
    }

    /// This round's value in terms of something.
    fn ratio(&self, to: &To) -> Option<f64> {
        match to {
            To::Sqlite => Some(self.value? / self.beside.sqlite),
            To::Sync(us) => Some(self.value? * us / self.beside.sync_us),
            To::Own(_) => self.own_ratio,
            To::Echo => Some(self.value? * self.requests_per_task? / self.beside.echo?),
            To::Postgres => Some(self.value? / self.beside.postgres?),
        }
    }
}

/// What a scenario's figure is compared with.
pub(crate) enum To {
    Sqlite,
    /// So many microseconds are one of the scenario's unit.
    Sync(f64),
    Own(&'static str),
    /// N in tasks: its requests a second, divided by the requests that one of the scenario's tasks
    /// took.
    Echo,
    Postgres,
}

impl To {
    const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "S",
            Self::Sync(_) => "F",
            Self::Own(name) => name,
            Self::Echo => "N in tasks",
            Self::Postgres => "Q",
        }
    }
}

/// What a figure should be.
pub(crate) type Wanted = Option<(Side, f64)>;

/// What a scenario means: all that is said about it but its figures.
pub(crate) struct Meaning {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Wanted,
    pub(crate) ratios: Vec<(To, Wanted)>,
}

/// The figure of all rounds.
pub(crate) fn conclude(name: &str, meaning: Meaning, samples: &[Sample]) -> Scenario {
    let Meaning {
        what,
        unit,
        goal,
        ratios,
    } = meaning;
    let middle = |values: Vec<f64>| (!values.is_empty()).then(|| median(&values));
    let all =
        |value: fn(&Sample) -> Option<f64>| middle(samples.iter().filter_map(value).collect());
    let judge =
        |wanted: Wanted, value: f64| wanted.map(|(side, bound)| Goal::judge(side, bound, value));
    let value = all(|s| s.value);
    let ratios = ratios.into_iter().filter_map(|(to, wanted)| {
        let value = middle(samples.iter().filter_map(|s| s.ratio(&to)).collect())?;
        Some(Ratio {
            to: to.name(),
            value,
            goal: judge(wanted, value),
        })
    });
    let request_us: Vec<f64> = samples.iter().flat_map(|s| s.request_us.clone()).collect();
    Scenario {
        name: name.to_owned(),
        what,
        unit,
        value,
        goal: value.and_then(|value| judge(goal, value)),
        ratios: ratios.collect(),
        rounds: samples.iter().filter_map(|s| s.value).collect(),
        tasks_asked: samples.iter().map(|s| s.asked).sum(),
        tasks_counted: samples.iter().map(|s| s.counted).sum(),
        errors: samples.iter().filter_map(|s| s.errors).reduce(|a, b| a + b),
        stopped: samples.iter().any(|s| s.stopped),
        requests_per_task: all(|s| s.requests_per_task),
        cpu_us_per_task: all(|s| s.cpu_us),
        wheel_us_per_task: all(|s| s.wheel_us),
        load_us_per_task: all(|s| s.load_us),
        request_us: Percentiles::of(&request_us),
        peak_rss_bytes: samples.iter().filter_map(|s| s.peak_rss).max(),
        note: samples.last().map(|s| s.note.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(ratios: Vec<(To, Wanted)>) -> Meaning {
        Meaning {
            what: "",
            unit: "tasks/s",
            goal: Some((Side::AtLeast, 50_000.0)),
            ratios,
        }
    }

    #[test]
    fn a_figure_is_the_median_and_is_compared_with_its_neighbours() {
        let round = |value: f64, sqlite: f64| Sample {
            value: Some(value),
            beside: Beside {
                sqlite,
                ..Beside::default()
            },
            asked: 10,
            counted: 10,
            ..Sample::default()
        };
        let samples = [
            round(60_000.0, 10_000.0),
            round(90_000.0, 30_000.0),
            round(80_000.0, 10_000.0),
        ];
        let wanted = Some((Side::AtLeast, 5.0));
        let scenario = conclude("fan_out_1k", meaning(vec![(To::Sqlite, wanted)]), &samples);
        assert_eq!(scenario.value, Some(80_000.0));
        assert_eq!(scenario.ratios[0].value, 6.0);
        assert_eq!(scenario.reached(), Some(true));
        assert_eq!((scenario.tasks_asked, scenario.tasks_counted), (30, 30));
        assert_eq!(scenario.errors, None);
        let none = conclude("memory", meaning(Vec::new()), &[Sample::default()]);
        assert_eq!((none.value, none.reached()), (None, None));
    }

    #[test]
    fn requests_of_the_echo_count_as_the_tasks_they_could_have_been() {
        let sample = Sample {
            value: Some(6_000.0),
            requests_per_task: Some(2.0),
            errors: Some(0),
            beside: Beside {
                echo: Some(20_000.0),
                ..Beside::default()
            },
            ..Sample::default()
        };
        let wanted = Some((Side::AtLeast, 0.6));
        let ratios = vec![(To::Echo, wanted), (To::Postgres, wanted)];
        let scenario = conclude("http_single_op", meaning(ratios), &[sample]);
        // PostgreSQL was not measured: nothing is said about it.
        assert_eq!(scenario.ratios.len(), 1);
        assert_eq!(scenario.ratios[0].to, "N in tasks");
        assert_eq!(scenario.ratios[0].value, 0.6);
        assert_eq!(scenario.reached(), Some(false), "its value is too small");
        assert_eq!(scenario.errors, Some(0));
    }
}
