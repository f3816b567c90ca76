//! What is measured of the product. Each scenario runs on a store of its own, on the disk that is
//! measured, through the in-process contract; what it claims to have done is checked against the
//! engine's own statistics.

use crate::agents;
use crate::children::{Told, fill_and_kill, queued, runtime};
use crate::figure::{Meaning, Sample, To};
use crate::flow::{self, BATCH, Flow, Load, plain, worker};
use crate::measure::{Percentiles, cpu, io, median, reset_peak, rss_peak, thread_cpu, us};
use crate::report::Side;
use domain::command::{Report, Submission};
use domain::error::{Code, Error};
use domain::id::{Ids, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::retry::RetryPolicy;
use domain::task::{Priority, SlotUse, TaskSpec};
use engine::{Engine, Place, SystemIds};
use protocol::api::{Claim, Work};
use protocol::{Api, ApiRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The scenarios, in the order they run.
pub const NAMES: [&str; 12] = [
    "fan_out_1k",
    "fan_out_10k",
    "fan_out_100k",
    "ack",
    "chain_10",
    "queued_1m",
    "features",
    "agents_1",
    "agents_16",
    "agents_64",
    "restart_1m",
    "memory",
];
/// Scenarios that are asked for by one name.
const GROUPS: [(&str, &[&str]); 1] = [("agent", &["agents_1", "agents_16", "agents_64"])];
/// Names that stand for several scenarios.
pub const GROUP_NAMES: [&str; 1] = [GROUPS[0].0];
/// The second figure of the scenario `memory`.
const IDLE: &str = "memory_idle";

/// One round of one scenario, of which nothing takes longer.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Filling the long queue takes no longer.
const FILL_TIME_MAX: Duration = Duration::from_secs(600);
/// Measuring a client that does one thing at a time.
const ONE_BY_ONE: Duration = Duration::from_secs(3);

/// The names that were asked for, in the order they run.
pub(crate) fn wanted(asked: &[String]) -> Result<Vec<&'static str>, Error> {
    let names = |asked: &str| {
        let group = GROUPS.iter().find(|(name, _)| *name == asked);
        group.map(|(_, names)| *names)
    };
    let is_known = |name: &String| NAMES.contains(&name.as_str()) || names(name).is_some();
    if let Some(unknown) = asked.iter().find(|name| !is_known(name)) {
        let text = format!("“{unknown}” is not a scenario");
        let known = NAMES.into_iter().chain(GROUPS.map(|(name, _)| name));
        let known: Vec<&str> = known.collect();
        return Err(Error::new(Code::OutOfRange, text).hint(format!("Use: {}.", known.join(", "))));
    }
    let is_asked = |name: &str, asked: &String| match names(asked) {
        Some(group) => group.contains(&name),
        None => asked == name,
    };
    let is_wanted =
        |name: &&str| asked.is_empty() || asked.iter().any(|asked| is_asked(name, asked));
    let wanted = NAMES.into_iter().filter(is_wanted);
    // Memory is two figures: what a queued task costs, and what an engine costs that does nothing.
    Ok(wanted
        .flat_map(|name| match name {
            "memory" => vec![name, IDLE],
            name => vec![name],
        })
        .collect())
}

impl Sample {
    /// A flow's figures; the value is its rate.
    fn of(flow: Flow, asked: u64, counted: u64) -> Self {
        let per_task = |time: Duration| us(time) / flow.completed.max(1) as f64;
        Self {
            value: Some(flow.rate()),
            asked,
            counted,
            stopped: flow.stopped,
            cpu_us: Some(per_task(flow.cpu)),
            wheel_us: flow.wheel.map(per_task),
            peak_rss: flow.peak_rss,
            request_us: flow.request_us,
            ..Self::default()
        }
    }
}

impl Flow {
    fn rate(&self) -> f64 {
        self.completed as f64 / self.seconds.max(f64::EPSILON)
    }

    /// This one and then another.
    fn and(mut self, other: Self) -> Self {
        self.seconds += other.seconds;
        self.completed += other.completed;
        self.request_us.extend(other.request_us);
        self.cpu += other.cpu;
        self.wheel = self.wheel.zip(other.wheel).map(|(a, b)| a + b);
        self.peak_rss = self.peak_rss.max(other.peak_rss);
        self.stopped |= other.stopped;
        self
    }
}

/// A store with a million tasks, whose owner was killed, and what that one told.
struct Killed {
    folder: PathBuf,
    tasks: u64,
    told: Told,
}

/// Everything a scenario needs.
pub(crate) struct Bench {
    folder: PathBuf,
    quick: bool,
    runtime: Runtime,
    killed: Option<Killed>,
    memory_told: bool,
    stores: u64,
    /// Which of two compared things goes first: turn about, round by round.
    swap: bool,
}

impl Bench {
    pub(crate) fn new(folder: PathBuf, quick: bool) -> Result<Self, Error> {
        Ok(Self {
            folder,
            quick,
            runtime: runtime()?,
            killed: None,
            memory_told: false,
            stores: 0,
            swap: false,
        })
    }

    /// A round begins.
    pub(crate) fn begin(&mut self, round: u32) {
        self.swap = round.is_multiple_of(2);
    }

    /// One round of one scenario; `None` for what is measured once, in the first.
    pub(crate) fn run(
        &mut self,
        name: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Option<Sample>, Error> {
        let quick = self.quick;
        let size = |full: u64, small: u64| if quick { small } else { full };
        match name {
            // A burst of a thousand is over in a moment: more of them make a figure.
            "fan_out_1k" => self.fan_out(size(1_000, 300), size(20, 2)),
            "fan_out_10k" => self.fan_out(size(10_000, 600), size(3, 1)),
            "fan_out_100k" => self.fan_out(size(100_000, 1_200), 1),
            "ack" => self.ack(size(5_000, 50)),
            "chain_10" => self.chain(size(200, 5)),
            "queued_1m" => self.queued(size(10_000, 1_000), size(200_000, 1_000), progress),
            "features" => self.features(size(30_000, 600)),
            "agents_1" => self.agents(1, size(40, 1)),
            "agents_16" => self.agents(16, size(8, 1)),
            "agents_64" => self.agents(64, size(2, 1)),
            "restart_1m" => self.restart(progress),
            "memory" => return self.memory(progress),
            IDLE => self.idle(),
            unknown => Err(Error::new(Code::Internal, format!("scenario {unknown}"))),
        }
        .map(Some)
    }

    fn new_folder(&mut self) -> PathBuf {
        self.stores += 1;
        self.folder.join(format!("store-{}", self.stores))
    }

    /// An engine over a new store, for as long as `use_it` takes; then the store is removed.
    fn on_new_store<T>(
        &mut self,
        use_it: impl AsyncFnOnce(&Engine) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let folder = self.new_folder();
        self.on_store(&folder, use_it)
    }

    fn on_store<T>(
        &mut self,
        folder: &Path,
        use_it: impl AsyncFnOnce(&Engine) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let engine = Engine::open(&Place::Folder(folder.to_owned()))?;
        let used = self.runtime.block_on(use_it(&engine));
        let stopped = engine.stop();
        drop(engine);
        remove(folder);
        stopped.and(used)
    }

    /// So many agents at once, each with so many tasks.
    fn agents(&mut self, agents: u32, tasks_each: u64) -> Result<Sample, Error> {
        let folder = self.new_folder();
        let engine = Arc::new(Engine::open(&Place::Folder(folder.clone()))?);
        let wheel = thread_cpu("wheel");
        let turned = self
            .runtime
            .block_on(agents::turns(&engine, agents, tasks_each as u32));
        let wheel = thread_cpu("wheel").zip(wheel).map(|(a, b)| a - b);
        let stopped = engine.stop();
        drop(engine);
        let bytes =
            std::fs::metadata(folder.join(store::backend::sqlite::FILE)).map(|file| file.len());
        remove(&folder);
        stopped?;
        let turned = turned?;
        let per_turn = |time: Duration| us(time) / turned.turns.max(1) as f64;
        let p99 = |figures: &[f64]| Percentiles::of(figures).map_or(0.0, |of| of.p99);
        let (took, bare) = (median(&turned.turn_us), median(&turned.bare_us));
        let more = p99(&turned.turn_us) - p99(&turned.bare_us);
        let bytes = bytes.map_or_else(
            |_| String::new(),
            |bytes| format!("; {} bytes stored a turn", bytes / turned.turns.max(1)),
        );
        Ok(Sample {
            value: Some(match agents {
                // One at a time: what a turn takes beside its model.
                1 => (took - bare) / 1_000.0,
                _ => turned.turns as f64 / turned.seconds,
            }),
            own_ratio: Some(bare / took),
            asked: u64::from(agents) * tasks_each * u64::from(agents::TURNS),
            counted: turned.turns,
            cpu_us: Some(turned.cpu_us - turned.bare_cpu_us),
            wheel_us: wheel.map(per_turn),
            note: format!(
                "a turn takes {:.2} ms, {:.2} of them ours (p99 {:.2}){bytes}",
                took / 1_000.0,
                (took - bare) / 1_000.0,
                more / 1_000.0,
            ),
            request_us: turned.turn_us,
            ..Sample::default()
        })
    }

    fn fan_out(&mut self, tasks: u64, bursts: u64) -> Result<Sample, Error> {
        self.on_new_store(async |engine| {
            let load = whole(tasks, plain());
            let mut flow = flow::run(engine, &load).await?;
            for _ in 1..bursts {
                flow = flow.and(flow::run(engine, &load).await?);
            }
            let counted = engine.statistics().await?.tasks_completed;
            Ok(Sample::of(flow, tasks * bursts, counted))
        })
    }

    fn ack(&mut self, tasks: u64) -> Result<Sample, Error> {
        self.on_new_store(async |engine| {
            reset_peak();
            let (cpu_before, wheel_before) = (cpu(), thread_cpu("wheel"));
            let begin = Instant::now();
            let mut times = Vec::new();
            while (times.len() as u64) < tasks && begin.elapsed() < ONE_BY_ONE {
                let one = Instant::now();
                let new = Submission {
                    id: None,
                    key: None,
                    spec: plain(),
                };
                for answer in engine.task_submit(vec![new]).await? {
                    answer?;
                }
                times.push(us(one.elapsed()));
            }
            let flow = Flow {
                seconds: begin.elapsed().as_secs_f64(),
                completed: times.len() as u64,
                cpu: cpu().saturating_sub(cpu_before),
                wheel: wheel(wheel_before),
                peak_rss: rss_peak(),
                request_us: times,
                stopped: false,
            };
            // As many as fit into the time are asked for: a slow disk is no fault here.
            let asked = flow.completed;
            let middle = median(&flow.request_us);
            let counted = engine.statistics().await?.total_tasks_submitted;
            Ok(Sample {
                value: Some(middle),
                ..Sample::of(flow, asked, counted)
            })
        })
    }

    fn chain(&mut self, chains: u64) -> Result<Sample, Error> {
        const STEPS: usize = 10;
        self.on_new_store(async |engine| {
            let me = worker(0, 1)?;
            engine.worker_register(me.clone()).await?;
            reset_peak();
            let (cpu_before, wheel_before) = (cpu(), thread_cpu("wheel"));
            let begin = Instant::now();
            let (mut chain_ms, mut request_us) = (Vec::new(), Vec::new());
            while (chain_ms.len() as u64) < chains && begin.elapsed() < ONE_BY_ONE {
                let one = Instant::now();
                chain_once(engine, &me.id, STEPS, &mut request_us).await?;
                chain_ms.push(us(one.elapsed()) / 1e3);
            }
            let flow = Flow {
                seconds: begin.elapsed().as_secs_f64(),
                completed: (chain_ms.len() * STEPS) as u64,
                cpu: cpu().saturating_sub(cpu_before),
                wheel: wheel(wheel_before),
                peak_rss: rss_peak(),
                request_us,
                stopped: false,
            };
            let asked = flow.completed;
            let counted = engine.statistics().await?.tasks_completed;
            Ok(Sample {
                value: Some(median(&chain_ms)),
                ..Sample::of(flow, asked, counted)
            })
        })
    }

    /// The same load with a short queue and with a long one. What is claimed is the oldest, so that
    /// the long queue's tasks come from the disk.
    fn queued(
        &mut self,
        few: u64,
        tasks: u64,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Sample, Error> {
        let long = self.copy_killed(progress)?;
        let many = self.killed(progress)?.tasks;
        let load = whole(tasks, queued());
        let measure = async |engine: &Engine| {
            let before = engine.statistics().await?.tasks_completed;
            let flow = flow::run(engine, &load).await?;
            let counted = engine.statistics().await?.tasks_completed - before;
            Ok((flow, counted))
        };
        let short = |bench: &mut Self| {
            bench.on_new_store(async |engine| {
                let fill = Load {
                    complete: 0,
                    submit: few,
                    ..load.clone()
                };
                flow::run(engine, &fill).await?;
                measure(engine).await
            })
        };
        let ((few_flow, _), (flow, counted)) = if self.swap {
            let first = short(self)?;
            (first, self.on_store(&long, measure)?)
        } else {
            let first = self.on_store(&long, measure)?;
            (short(self)?, first)
        };
        let ratio = flow.rate() / few_flow.rate();
        Ok(Sample {
            own_ratio: Some(ratio),
            note: format!(
                "{} of {few} queued: {:.0} tasks/s; of {many}: {:.0}",
                tasks,
                few_flow.rate(),
                flow.rate()
            ),
            ..Sample::of(flow, tasks, counted)
        })
    }

    fn features(&mut self, tasks: u64) -> Result<Sample, Error> {
        let swap = self.swap;
        let mut one = |spec| {
            self.on_new_store(async |engine| {
                let flow = flow::run(engine, &whole(tasks, spec)).await?;
                Ok((flow, engine.statistics().await?.tasks_completed))
            })
        };
        let ((plain_flow, _), (flow, counted)) = if swap {
            (one(plain())?, one(featured())?)
        } else {
            let first = one(featured())?;
            (one(plain())?, first)
        };
        Ok(Sample {
            own_ratio: Some(flow.rate() / plain_flow.rate()),
            note: format!("plain, right beside it: {:.0} tasks/s", plain_flow.rate()),
            ..Sample::of(flow, tasks, counted)
        })
    }

    fn restart(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Sample, Error> {
        let folder = self.copy_killed(progress)?;
        let tasks = self.killed(progress)?.tasks;
        reset_peak();
        let (begin, cpu_before) = (Instant::now(), cpu());
        self.on_store(&folder, async |engine| {
            let new = Submission::new(TaskSpec::new(Name::literal("noop"), Json::default()));
            for answer in engine.task_submit(vec![new]).await? {
                answer?;
            }
            let seconds = begin.elapsed().as_secs_f64();
            let spent = cpu().saturating_sub(cpu_before);
            let statistics = engine.statistics().await?;
            Ok(Sample {
                value: Some(seconds),
                asked: tasks,
                counted: statistics.tasks_pending.saturating_sub(1),
                stopped: false,
                cpu_us: Some(us(spent) / tasks as f64),
                peak_rss: rss_peak(),
                note: "the file is in the page cache, as after a crash of the process, not of the \
                       machine"
                    .into(),
                ..Sample::default()
            })
        })
    }

    fn memory(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Option<Sample>, Error> {
        if std::mem::replace(&mut self.memory_told, true) {
            return Ok(None);
        }
        let Killed { tasks, told, .. } = self.killed(progress)?;
        let grown = told.full_bytes.zip(told.idle_bytes);
        Ok(Some(Sample {
            value: grown.map(|(full, idle)| full.saturating_sub(idle) as f64 / *tasks as f64),
            asked: *tasks,
            counted: told.tasks,
            peak_rss: told.full_bytes,
            note: format!(
                "measured once; all growth counts, caches and write-behind included; filled at \
                 {:.0} tasks/s",
                told.tasks as f64 / told.seconds.max(f64::EPSILON)
            ),
            ..Sample::default()
        }))
    }

    fn idle(&mut self) -> Result<Sample, Error> {
        let folder = self.new_folder();
        let told = fill_and_kill(&folder, 0, TIME_MAX)?;
        remove(&folder);
        Ok(Sample {
            value: told.idle_bytes.map(|bytes| bytes as f64 / 1e6),
            peak_rss: told.idle_bytes,
            ..Sample::default()
        })
    }

    /// The store of the killed, made when it is first asked for.
    fn killed(&mut self, progress: &mut dyn FnMut(&str)) -> Result<&Killed, Error> {
        if self.killed.is_none() {
            let tasks = if self.quick { 50_000 } else { 1_000_000 };
            progress(&format!("a store with {tasks} queued tasks"));
            let folder = self.folder.join("killed");
            let told = fill_and_kill(&folder, tasks, FILL_TIME_MAX)?;
            self.killed = Some(Killed {
                folder,
                tasks,
                told,
            });
        }
        self.killed
            .as_ref()
            .ok_or_else(|| Error::new(Code::Internal, "no store of the killed"))
    }

    /// A copy of it, on disk before it is used.
    fn copy_killed(&mut self, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, Error> {
        let from = self.killed(progress)?.folder.clone();
        let to = self.new_folder();
        let copy = || -> std::io::Result<()> {
            std::fs::create_dir_all(&to)?;
            for file in std::fs::read_dir(&from)? {
                let file = file?;
                let copy = to.join(file.file_name());
                std::fs::copy(file.path(), &copy)?;
                std::fs::File::open(&copy)?.sync_all()?;
            }
            Ok(())
        };
        copy().map_err(|fault| io("a copy of the killed one's store", &fault))?;
        Ok(to)
    }
}

fn remove(folder: &Path) {
    // The run's own folder is removed at the end in any case; this only keeps the disk from filling.
    let _ = std::fs::remove_dir_all(folder);
}

fn wheel(before: Option<Duration>) -> Option<Duration> {
    thread_cpu("wheel")
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before))
}

/// As many submitted as completed.
fn whole(tasks: u64, spec: Arc<TaskSpec>) -> Load {
    Load {
        submit: tasks,
        complete: tasks,
        spec,
        time_max: TIME_MAX,
    }
}

/// Everything a task can ask for that a throughput must not suffer from.
fn featured() -> Arc<TaskSpec> {
    let mut spec = TaskSpec::new(Name::literal("noop"), Json::default());
    spec.priority = Priority::HIGH;
    spec.capability = Some(Name::literal("bench"));
    spec.timeout_ms = 120_000;
    spec.slot = Some(SlotUse {
        key: Name::literal("bench"),
        max: (flow::WORKERS * BATCH) as u32,
    });
    spec.retry = RetryPolicy {
        attempts: 5,
        backoff_ms: 500,
        factor_percent: 300,
        backoff_max_ms: 30_000,
    };
    Arc::new(spec)
}

/// One chain: submitted at once, each step after the one before; every completion claims the next.
async fn chain_once(
    engine: &Engine,
    me: &Name,
    steps: usize,
    request_us: &mut Vec<f64>,
) -> Result<(), Error> {
    let mut ids = SystemIds;
    let ids: Vec<TaskId> = (0..steps).map(|_| TaskId::new(ids.next())).collect();
    let tasks = ids.iter().enumerate().map(|(n, id)| {
        let mut spec = TaskSpec::new(Name::literal("noop"), Json::default());
        spec.after = ids[..n].last().copied().into_iter().collect();
        Submission {
            id: Some(*id),
            key: None,
            spec: Arc::new(spec),
        }
    });
    for answer in engine.task_submit(tasks.collect()).await? {
        answer?;
    }
    let mut reports = Vec::new();
    for n in 0..=steps {
        let claim = Claim {
            max: 1,
            starts: true,
            wait_ms: 1_000,
            key: None,
            again: false,
        };
        let one = Instant::now();
        let worked = engine
            .work(Work {
                worker: me.clone(),
                session: None,
                reports: std::mem::take(&mut reports),
                claim: (n < steps).then_some(claim),
            })
            .await?;
        request_us.push(us(one.elapsed()));
        for answer in worked.reports {
            answer?;
        }
        for task in worked.tasks {
            let output = Json::default();
            reports.push((task.task_id, task.attempt, Report::Completed { output }));
        }
    }
    Ok(())
}

pub(crate) fn meaning(name: &str) -> Meaning {
    use Side::{AtLeast, AtMost};
    let fan_out = |what| Meaning {
        what,
        unit: "tasks/s",
        goal: Some((AtLeast, 50_000.0)),
        ratios: vec![(To::Sqlite, Some((AtLeast, 5.0)))],
    };
    match name {
        "fan_out_1k" => fan_out("1,000 no-op tasks, submitted, claimed and completed in batches"),
        "fan_out_10k" => fan_out("10,000 no-op tasks, submitted, claimed and completed in batches"),
        "fan_out_100k" => {
            fan_out("100,000 no-op tasks, submitted, claimed and completed in batches")
        }
        "ack" => Meaning {
            what: "one client, one task a request: until it is acknowledged on disk",
            unit: "µs",
            goal: None,
            ratios: vec![(To::Sync(1.0), Some((AtMost, 5.0)))],
        },
        "chain_10" => Meaning {
            what: "ten tasks, each after the one before, one worker: the whole chain",
            unit: "ms",
            goal: Some((AtMost, 5.0)),
            // Twelve requests: below twelve syncs there is nothing to gain.
            ratios: vec![(To::Sync(1_000.0), None)],
        },
        "queued_1m" => Meaning {
            what: "submit, claim and complete while 1,000,000 tasks are queued",
            unit: "tasks/s",
            goal: None,
            ratios: vec![(To::Own("10k queued"), Some((AtLeast, 0.8)))],
        },
        "features" => Meaning {
            what: "priority, concurrency key, capability, timeout and retries on every task",
            unit: "tasks/s",
            goal: None,
            ratios: vec![(To::Own("plain"), Some((AtLeast, 0.7)))],
        },
        "agents_1" => Meaning {
            what: "one agent, an instant provider over HTTP, a tool that does nothing: a turn with two receipts, less what the client alone takes",
            unit: "ms",
            goal: Some((AtMost, 1.0)),
            ratios: vec![
                (To::Sync(1_000.0), None),
                (To::Own("the client alone"), None),
            ],
        },
        "agents_16" => Meaning {
            what: "16 such agents at once",
            unit: "turns/s",
            goal: None,
            ratios: vec![(To::Own("the client alone"), None)],
        },
        "agents_64" => Meaning {
            what: "64 such agents at once",
            unit: "turns/s",
            goal: Some((AtLeast, 3_000.0)),
            ratios: vec![(To::Own("the client alone"), None)],
        },
        "restart_1m" => Meaning {
            what: "killed with 1,000,000 queued tasks: from opening to the first acknowledgement",
            unit: "s",
            goal: Some((AtMost, 5.0)),
            ratios: Vec::new(),
        },
        "memory" => Meaning {
            what: "memory per queued task, with 1,000,000 queued",
            unit: "B",
            goal: Some((AtMost, 600.0)),
            ratios: Vec::new(),
        },
        _ => Meaning {
            what: "memory of a process with an idle engine over a new store",
            unit: "MB",
            goal: Some((AtMost, 40.0)),
            ratios: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_ones() {
        let error = wanted(&["fan_in".into()]).unwrap_err();
        assert_eq!(error.code, Code::OutOfRange);
        assert_eq!(wanted(&[]).unwrap().len(), NAMES.len() + 1);
        let two = wanted(&["memory".into(), "ack".into()]).unwrap();
        assert_eq!(two, ["ack", "memory", IDLE]);
    }
}
