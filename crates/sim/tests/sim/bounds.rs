//! Bounds in time, which only a world with a clock of its own can measure to the millisecond.

use domain::name::Name;
use domain::retry::RetryPolicy;
use domain::task::{Priority, TaskSpec};
use domain::worker::{Home, WorkerSpec};
use serde_json::{Value, json};
use sim::check::events;
use sim::scenario::{Act, Scenario, What, make};
use sim::world::{Climate, Disk, Report, World};

fn submit(
    at_ms: u64,
    label: &str,
    priority: Priority,
    does: &str,
    ms: u64,
    timeout_ms: u64,
) -> Act {
    let input = json!({"label": label, "does": does, "ms": ms});
    let spec = TaskSpec {
        priority,
        timeout_ms,
        retry: RetryPolicy {
            backoff_ms: 10,
            ..RetryPolicy::default()
        },
        ..TaskSpec::new(Name::literal("work"), input.into())
    };
    Act {
        at_ms,
        after: Vec::new(),
        what: What::Submit {
            label: label.into(),
            spec,
            after: Vec::new(),
            key: false,
        },
    }
}

fn alone(acts: Vec<Act>) -> Scenario {
    let worker = WorkerSpec {
        home: Home::InProcess,
        ..WorkerSpec::new(Name::literal("worker_1"))
    };
    Scenario {
        name: "alone",
        workers: vec![worker],
        acts,
        listeners: Vec::new(),
    }
}

fn calm(seed: u64, scenario: &Scenario) -> (Report, Vec<Value>) {
    let report = World::new(seed, scenario, Climate::CALM, Disk::memory())
        .run()
        .unwrap();
    assert_eq!(report.violations, [], "seed={seed}");
    let log = events(&report.evidence.pages);
    (report, log)
}

/// When a labelled task was submitted, and each time it was assigned, in milliseconds.
fn times(log: &[Value], label: &str) -> (u64, Vec<u64>) {
    let ms = |event: &Value| event["at"].as_u64().unwrap();
    let is =
        |event: &&Value| event["event"]["task.submitted"]["spec"]["metadata"]["label"] == label;
    let submitted = log.iter().find(is).unwrap();
    let id = &submitted["event"]["task.submitted"]["task"];
    let leases = log
        .iter()
        .filter(|event| event["event"]["task.assigned"]["lease"]["task"] == *id);
    (ms(submitted), leases.map(ms).collect())
}

// H-11: an urgent task starts within a bound while every worker is busy with less urgent work.
#[test]
fn an_urgent_task_starts_within_a_bound() {
    for seed in 0..20 {
        let (report, log) = calm(seed, &make(6, 4));
        let (submitted, leases) = times(&log, "urgent 0");
        assert!(
            leases[0] - submitted < 1_000,
            "seed={seed}: {} ms",
            leases[0] - submitted
        );
        let all = report.ends.tasks.values();
        assert!(
            all.into_iter().all(|(status, _)| status == "completed"),
            "seed={seed}"
        );
    }
}

// H-11: nobody starves: behind a stream of better work that never ends, age brings the turn.
#[test]
fn a_batch_task_has_its_turn_behind_an_endless_stream() {
    let mut acts = vec![submit(1, "batch", Priority::BATCH, "ok", 100, 60_000)];
    for n in 0..200u64 {
        acts.push(submit(
            4_000 * n,
            &format!("normal {n}"),
            Priority::NORMAL,
            "ok",
            5_000,
            60_000,
        ));
    }
    let (_, log) = calm(3, &alone(acts));
    let (submitted, leases) = times(&log, "batch");
    let (last, _) = times(&log, "normal 199");
    let waited = leases[0] - submitted;
    // Two bands are ten minutes; what came within them goes first, and nothing that came later.
    assert!((600_000..800_000).contains(&waited), "{waited} ms");
    assert!(leases[0] < last, "the stream had not ended");
}

// The engine's half of a time limit: it strikes on time, the worker is told and free at once, and
// what was done is done once. (That a program is really stopped is for the worker's own tests.)
#[test]
fn a_time_limit_strikes_on_time_and_frees_the_worker() {
    for seed in 0..10 {
        let (report, log) = calm(
            seed,
            &alone(vec![
                submit(0, "hangs", Priority::HIGH, "hang", 20, 30_000),
                submit(500, "waits", Priority::NORMAL, "ok", 20, 30_000),
            ]),
        );
        let (_, hangs) = times(&log, "hangs");
        let (_, waits) = times(&log, "waits");
        let ended = log
            .iter()
            .find(|event| event["event"]["attempt.ended"].is_object())
            .unwrap();
        assert_eq!(ended["event"]["attempt.ended"]["end"], "timed_out");
        let ran = ended["at"].as_u64().unwrap() - hangs[0];
        assert!((30_000..31_000).contains(&ran), "seed={seed}: {ran} ms");
        assert!(
            waits[0] - hangs[0] < 31_500,
            "seed={seed}: the worker is free"
        );
        assert_eq!(hangs.len(), 2, "seed={seed}");
        assert_eq!(report.evidence.effects.len(), 2, "seed={seed}: each once");
    }
}
