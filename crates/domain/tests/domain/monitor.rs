//! The monitor reads the log and counts; nobody tags anything for it.

use crate::world::{World, n, spec, start};
use domain::command::{Command, Report};
use domain::event::{AttemptRef, Event, Recorded};
use domain::id::TaskId;
use domain::monitor::{Concern, Conflict, Monitor, Progress, nobody_can};
use domain::pool::Member;
use domain::task::TaskSpec;
use domain::time::Time;
use domain::worker::WorkerSpec;
use serde_json::json;

/// A monitor that has read the whole log.
pub(crate) fn watch(world: &World) -> Monitor {
    let mut monitor = Monitor::default();
    for recorded in &world.log {
        monitor.read(recorded).unwrap();
    }
    monitor
}

/// The monitor's counts, and that they are the tally's.
pub(crate) fn counts(world: &World) -> Progress {
    let progress = watch(world).progress();
    let tally = world.tally();
    let told = (
        progress.pending_tasks,
        progress.running_tasks,
        progress.completed_tasks,
        progress.failed_tasks,
        progress.cancelled_tasks,
    );
    let running = tally.assigned + tally.in_progress;
    let kept = (
        tally.pending + running,
        running,
        tally.completed,
        tally.failed,
        tally.cancelled,
    );
    assert_eq!(told, kept);
    progress
}

// S1-29: counted from data, exact, at each moment.
#[test]
fn progress_is_counted_from_the_log_at_each_moment() {
    let mut world = World::with_workers(&["worker_1", "worker_2"]);
    let tasks: Vec<TaskId> = (0..5).map(|i| world.submit(spec(json!(i)))).collect();
    let now = |world: &World| {
        let progress = counts(world);
        let Progress {
            active_workers,
            pending_tasks,
            completed_tasks,
            ..
        } = progress;
        (active_workers, pending_tasks, completed_tasks)
    };
    assert_eq!(now(&world), (2, 5, 0));
    world.finish(tasks[0], "worker_1", json!(1));
    assert_eq!(now(&world), (2, 4, 1));
    let lease = world.claim(tasks[1], "worker_1").unwrap();
    assert_eq!(now(&world), (2, 4, 1), "what is held has not ended");
    world.lose("worker_1");
    assert_eq!(now(&world), (1, 4, 1), "who is gone is not active");
    world.report(&lease, Report::Started).unwrap_err();
    world.give_up(tasks[1], "worker_2");
    world.cancel(tasks[2]);
    assert_eq!(now(&world), (1, 2, 1));
    world.register(WorkerSpec::new(n("worker_1")));
    world.redrive(tasks[1]);
    assert_eq!(now(&world), (2, 3, 1));
    assert_eq!(watch(&world).position(), world.log.len() as u64);
}

// S1-30: a doubly assigned task is found without anyone tagging it; one owner remains.
#[test]
fn work_that_is_assigned_twice_is_found_and_one_owner_remains() {
    let mut world = World::with_workers(&["worker_1", "worker_2"]);
    let twice = || {
        let mut new = start(json!([
            {"id": "work", "each": {"items": ["a", "b", "a"], "task": {"kind": "work"}}}
        ]));
        new.crew.members = ["worker_1", "worker_2"].map(|id| Member::new(n(id))).into();
        new
    };
    let run = world.start(twice());
    let other = world.start(twice());
    let (tasks, others) = (
        world.step_tasks(run, "work"),
        world.step_tasks(other, "work"),
    );
    let pair = |tasks: &[TaskId]| Conflict::DuplicateAssignment {
        task: tasks[0],
        duplicate: tasks[2],
    };
    // Another run may well do the same; that is no conflict between the two.
    assert_eq!(watch(&world).conflicts(), [pair(&tasks), pair(&others)]);
    world.cancel(tasks[2]);
    assert_eq!(watch(&world).conflicts(), [pair(&others)]);
    assert_eq!(world.status(tasks[0]).as_str(), "pending");
    world.finish(others[0], "worker_1", json!(1));
    assert_eq!(watch(&world).conflicts(), []);
}

#[test]
fn a_result_that_came_too_late_is_a_conflict() {
    let mut world = World::with_workers(&["a", "b"]);
    let task = world.submit(spec(json!(1)));
    let lease = world.claim(task, "a").unwrap();
    world.lose("a");
    assert_eq!(watch(&world).conflicts(), []);
    let output = json!("late").into();
    world
        .report(&lease, Report::Completed { output })
        .unwrap_err();
    assert_eq!(watch(&world).conflicts(), [Conflict::LateResult { lease }]);
}

#[test]
fn two_leases_of_one_task_would_be_seen() {
    let mut world = World::with_workers(&["a", "b"]);
    let task = world.submit(spec(json!(1)));
    world.claim(task, "a").unwrap();
    let mut monitor = watch(&world);
    // No decision gives this log; a monitor does not take that on trust.
    let mut forged = world.log.last().unwrap().clone();
    forged.position += 1;
    let Event::TaskAssigned { lease, .. } = &mut forged.event else {
        panic!()
    };
    *lease = AttemptRef {
        task,
        attempt: 2,
        worker: n("b"),
    };
    monitor.read(&forged).unwrap();
    let workers = [n("a"), n("b")];
    assert_eq!(
        monitor.conflicts(),
        [Conflict::DoubleLease { task, workers }]
    );
}

#[test]
fn a_gap_or_a_repeat_in_the_log_is_an_error() {
    let mut world = World::with_workers(&["a"]);
    world.submit(spec(json!(1)));
    world.submit(spec(json!(2)));
    let mut monitor = Monitor::default();
    let code = |monitor: &mut Monitor, recorded: &Recorded| {
        monitor
            .read(recorded)
            .err()
            .map(|error| error.code.as_str())
    };
    assert_eq!(
        code(&mut monitor, &world.log[1]),
        Some("store.corrupt"),
        "it begins at 1"
    );
    assert_eq!(code(&mut monitor, &world.log[0]), None);
    assert_eq!(
        code(&mut monitor, &world.log[2]),
        Some("store.corrupt"),
        "2 is missing"
    );
    assert_eq!(
        code(&mut monitor, &world.log[0]),
        Some("store.corrupt"),
        "1 again"
    );
    assert_eq!(monitor.position(), 1);
    assert_eq!(code(&mut monitor, &world.log[1]), None);
}

#[test]
fn slow_is_ten_times_the_usual_and_never_below_ten_seconds() {
    for (usual_ms, slow_ms) in [(100, 10_000), (1_000, 10_000), (2_000, 20_000)] {
        let mut world = World::with_workers(&["w"]);
        let (first, second) = (world.submit(spec(json!(1))), world.submit(spec(json!(2))));
        let lease = world.claim(first, "w").unwrap();
        world.pass(3_600_000);
        let nothing = watch(&world).concerns(world.now);
        assert_eq!(
            nothing,
            [],
            "without a finished task nobody knows what is usual"
        );
        world.release(&lease);
        let lease = world.claim(first, "w").unwrap();
        world.pass(usual_ms);
        world.complete(&lease, json!(1));
        world.claim(second, "w").unwrap();
        let monitor = watch(&world);
        assert_eq!(monitor.concerns(world.now.plus_ms(slow_ms - 1)), []);
        let slow = Concern::Slow {
            task: second,
            worker: n("w"),
            ms: slow_ms,
        };
        assert_eq!(monitor.concerns(world.now.plus_ms(slow_ms)), [slow]);
    }
}

#[test]
fn silent_is_who_spoke_before_and_says_nothing_for_a_minute() {
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(spec(json!(1)));
    let lease = world.claim(task, "w").unwrap();
    assert_eq!(
        watch(&world).concerns(world.now.plus_ms(60_000)),
        [],
        "it never spoke"
    );
    let report = Report::Progressed {
        fraction: None,
        note: "on it".into(),
    };
    world.pass(30_000);
    world.report(&lease, report).unwrap();
    let monitor = watch(&world);
    assert_eq!(monitor.concerns(world.now.plus_ms(59_999)), []);
    let silent = Concern::Silent {
        task,
        worker: n("w"),
        ms: 60_000,
    };
    assert_eq!(monitor.concerns(world.now.plus_ms(60_000)), [silent]);
    world.complete(&lease, json!(1));
    assert_eq!(watch(&world).concerns(Time(u64::MAX)), []);
}

#[test]
fn what_waits_for_a_task_that_ended_badly_is_blocked_for_ever_until_that_goes_on() {
    let mut world = World::with_workers(&["w"]);
    let (failed, cancelled) = (world.submit(spec(json!(1))), world.submit(spec(json!(2))));
    let waits = |world: &mut World, by: TaskId| {
        world.submit(TaskSpec {
            after: vec![by],
            ..spec(json!(3))
        })
    };
    let (a, b) = (waits(&mut world, failed), waits(&mut world, cancelled));
    assert_eq!(watch(&world).concerns(world.now), []);
    world.give_up(failed, "w");
    world.cancel(cancelled);
    let blocked = |task, by| Concern::BlockedForEver { task, by };
    assert_eq!(
        watch(&world).concerns(world.now),
        [blocked(a, failed), blocked(b, cancelled)]
    );
    world.redrive(failed);
    assert_eq!(watch(&world).concerns(world.now), [blocked(b, cancelled)]);
    world.finish(failed, "w", json!(1));
    world.redrive(cancelled);
    world.finish(cancelled, "w", json!(1));
    assert_eq!(watch(&world).concerns(world.now), []);
}

#[test]
fn a_task_that_nobody_can_take_is_told() {
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(TaskSpec {
        capability: Some(n("welding")),
        ..spec(json!(1))
    });
    let told = |world: &World| nobody_can(world.task(task), world.now, world.workers());
    let missing = "no worker takes type “work” from queue “default” with capability “welding”";
    let missing = missing.to_owned();
    assert_eq!(told(&world), Some(Concern::NobodyCan { task, missing }));
    world.register(WorkerSpec {
        capabilities: vec![n("welding")],
        ..WorkerSpec::new(n("welder"))
    });
    assert_eq!(told(&world), None);
    let other = world.submit(spec(json!(1)));
    world.claim(other, "welder").unwrap();
    assert_eq!(told(&world), None, "who is busy will be free");
    let worker = n("welder");
    world.ask(Command::WorkerDrain(worker)).unwrap();
    assert!(told(&world).is_some());
}
