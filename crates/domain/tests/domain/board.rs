//! The blackboard as a crew sees it: its own work, projected, and what agents write.

use crate::world::{World, n, start};
use domain::blackboard::{Entry, EntryFilter, NewEntry, project};
use domain::command::{Command, Outcome, Report};
use domain::error::Code;
use domain::id::{EntryId, RunId, TaskId};
use domain::limits::PAGE_MAX;
use domain::pool::Member;
use domain::state::Row;
use domain::task::{Address, Failure};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A run of `items` tasks, shared out to these workers in turn.
fn crew_run(world: &mut World, workers: &[&str], items: usize) -> (RunId, Vec<TaskId>) {
    let mut new = start(json!([
        {"id": "work", "each": {"items": (0..items).collect::<Vec<_>>(), "task": {"kind": "work"}}}
    ]));
    new.crew.members = workers.iter().map(|id| Member::new(n(id))).collect();
    let run = world.start(new);
    let tasks = world.step_tasks(run, "work");
    (run, tasks)
}

/// Everything on a run's board, its own work and what was written, as a reader gets it.
fn read(world: &World, run: RunId, filter: EntryFilter) -> Vec<Entry> {
    let mut entries = Vec::new();
    for task in world.run(run).tasks() {
        project(world.run(run), world.task(task), &mut entries);
    }
    let written = world.state.iter().filter_map(|(_, row)| match row {
        Row::Entry(entry) if entry.run == Some(run) => Some((**entry).clone()),
        _ => None,
    });
    entries.extend(written);
    let ids: BTreeSet<EntryId> = entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), entries.len(), "no two entries share an id");
    filter.select(entries.into_iter(), world.now)
}

fn tagged(tags: &[&str]) -> EntryFilter {
    EntryFilter {
        tags_all: tags.iter().map(|tag| n(tag)).collect(),
        ..EntryFilter::default()
    }
}

fn tags(entry: &Entry) -> Vec<String> {
    entry.tags.iter().map(|tag| tag.to_string()).collect()
}

fn shape(entry: &Entry) -> (&str, &str, f64) {
    (&entry.segment, &entry.author, entry.importance)
}

// S1-16, S1-18, S1-41, S1-42, S1-48, S1-49, S1-50, S1-55, S1-56: four tags, exact; 0.8, then 0.9.
#[test]
fn an_assignment_has_its_four_tags_and_loses_pending_when_it_ends() {
    let mut world = World::with_workers(&["worker_1", "worker_2"]);
    let (run, tasks) = crew_run(&mut world, &["worker_1"], 1);
    let request = run.to_string();
    let on_board = |world: &World| {
        let mut found = read(world, run, tagged(&["task"]));
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    let entry = on_board(&world);
    assert_eq!(tags(&entry), ["task", "pending", &request, "worker_1"]);
    assert_eq!(shape(&entry), ("tasks", "supervisor_1", 0.8));
    assert_eq!((entry.content.value(), entry.claimed_by), (json!(0), None));
    // A worker that has begun has not ended.
    let lease = world.claim(tasks[0], "worker_1").unwrap();
    let entry = on_board(&world);
    assert_eq!(tags(&entry), ["task", "pending", &request, "worker_1"]);
    assert_eq!(entry.claimed_by, Some(n("worker_1")));
    world.release(&lease);
    // Reassigned it is more important, and the new worker's.
    world.reassign(tasks[0], Address::Only(n("worker_2")));
    let entry = on_board(&world);
    assert_eq!(tags(&entry), ["task", "pending", &request, "worker_2"]);
    assert_eq!(shape(&entry), ("tasks", "supervisor_1", 0.9));
    world.finish(tasks[0], "worker_2", json!("done"));
    assert_eq!(
        tags(&on_board(&world)),
        ["task", "completed", &request, "worker_2"]
    );
}

// S1-21, S1-24: all of its own and none of another's, also above ten; a completed one not again.
#[test]
fn a_worker_finds_all_of_its_own_tasks_and_none_of_anothers() {
    let mut world = World::with_workers(&["worker_1", "worker_2"]);
    let (run, tasks) = crew_run(&mut world, &["worker_1", "worker_2"], 51);
    let assigned = |world: &World, worker: &str| -> BTreeSet<TaskId> {
        let found = read(world, run, tagged(&["task", "pending", worker]));
        found
            .iter()
            .map(|entry| entry.provenance.as_ref().unwrap().task)
            .collect()
    };
    let every_second = |from: usize| tasks.iter().copied().skip(from).step_by(2).collect();
    assert_eq!(assigned(&world, "worker_1"), every_second(0));
    assert_eq!(assigned(&world, "worker_1").len(), 26);
    assert_eq!(assigned(&world, "worker_2"), every_second(1));
    world.finish(tasks[0], "worker_1", json!(1));
    world.give_up(tasks[2], "worker_1");
    world.cancel(tasks[4]);
    let left: BTreeSet<TaskId> = tasks.iter().copied().skip(6).step_by(2).collect();
    assert_eq!(assigned(&world, "worker_1"), left);
}

// S1-17, S1-22, S1-43, S1-44, S1-51, S1-55: three tags, all must match; one request never sees the
// other's; one result per attempt.
#[test]
fn a_supervisor_reads_the_results_of_its_own_request_alone() {
    let mut world = World::with_workers(&["worker_1"]);
    let (first, tasks) = crew_run(&mut world, &["worker_1"], 3);
    let (second, others) = crew_run(&mut world, &["worker_1"], 2);
    world.finish(tasks[1], "worker_1", json!("b"));
    world.finish(others[0], "worker_1", json!("other"));
    world.finish(tasks[0], "worker_1", json!("a"));
    world.give_up(tasks[2], "worker_1");
    let results = |run: RunId| {
        let request = run.to_string();
        let found = read(&world, run, tagged(&["result", "completed", &request]));
        for entry in &found {
            assert_eq!(tags(entry), ["result", "completed", &request]);
            assert_eq!(shape(entry), ("results", "worker_1", 0.8));
        }
        let mut contents: Vec<Value> = found.iter().map(|entry| entry.content.value()).collect();
        contents.sort_by_key(Value::to_string);
        contents
    };
    assert_eq!(results(first), [json!("a"), json!("b")]);
    assert_eq!(results(second), [json!("other")]);
    let foreign = tagged(&["result", "completed", &second.to_string()]);
    assert_eq!(read(&world, first, foreign), []);
}

// S1-11, S1-25, S1-26, S1-27, S1-45, S1-46, S1-52, S1-56: an error entry with the task's id.
#[test]
fn each_failed_attempt_is_an_error_entry() {
    let mut world = World::with_workers(&["worker_1"]);
    let (run, tasks) = crew_run(&mut world, &["worker_1"], 3);
    let lease = world.claim(tasks[0], "worker_1").unwrap();
    world.fail(&lease, Failure::new("hiccup", "first"));
    world.pass(2_000);
    world.give_up(tasks[0], "worker_1");
    world.finish(tasks[1], "worker_1", json!("fine"));
    let lease = world.claim(tasks[2], "worker_1").unwrap();
    // Handing back is no error.
    world.release(&lease);
    let request = run.to_string();
    let errors = read(&world, run, tagged(&["error", "failed", &request]));
    for entry in &errors {
        assert_eq!(tags(entry), ["error", "failed", &request]);
        assert_eq!(shape(entry), ("errors", "worker_1", 0.9));
        assert_eq!(entry.metadata["task_id"], tasks[0].to_string());
    }
    let told: Vec<(Value, Option<u32>)> = errors
        .iter()
        .map(|entry| {
            (
                entry.content.value(),
                entry.provenance.as_ref().unwrap().attempt,
            )
        })
        .collect();
    let newest = json!({"code": "no.good", "message": "it cannot be done"});
    let oldest = json!({"code": "hiccup", "message": "first"});
    assert_eq!(told, [(newest, Some(2)), (oldest, Some(1))]);
    let result = read(&world, run, tagged(&["result"])).remove(0);
    assert_eq!(shape(&result), ("results", "worker_1", 0.8));
}

// S1-53, S1-57: workers write progress, with importance 0.5.
#[test]
fn the_newest_progress_of_a_task_is_on_the_board() {
    let mut world = World::with_workers(&["worker_1"]);
    let (run, tasks) = crew_run(&mut world, &["worker_1"], 1);
    let lease = world.claim(tasks[0], "worker_1").unwrap();
    for fraction in [0.25, 0.5] {
        let report = Report::Progressed {
            fraction: Some(fraction),
            note: "reading".into(),
        };
        world.report(&lease, report).unwrap();
    }
    let found = read(&world, run, tagged(&["progress"]));
    assert_eq!(found.len(), 1);
    assert_eq!(tags(&found[0]), ["progress", &run.to_string(), "worker_1"]);
    assert_eq!(shape(&found[0]), ("progress", "worker_1", 0.5));
    assert_eq!(
        found[0].content.value(),
        json!({"fraction": 0.5, "note": "reading"})
    );
}

// S1-19, S1-33, S1-35, S1-47, S1-54, S1-56: every segment is there to read, with the conflict that
// the supervisor wrote.
#[test]
fn a_reader_that_excludes_nobody_sees_every_segment() {
    let mut world = World::with_workers(&["worker_1"]);
    let (run, tasks) = crew_run(&mut world, &["worker_1"], 3);
    world.finish(tasks[0], "worker_1", json!(1));
    world.give_up(tasks[1], "worker_1");
    let lease = world.claim(tasks[2], "worker_1").unwrap();
    let report = Report::Progressed {
        fraction: None,
        note: "half".into(),
    };
    world.report(&lease, report).unwrap();
    let conflict = NewEntry {
        run: Some(run),
        tags: vec![n("conflict"), n(&run.to_string())],
        segment: n("conflicts"),
        importance: 0.9,
        ..NewEntry::new(n("supervisor_1"), json!("assigned twice").into())
    };
    world.ask(Command::EntryWrite(conflict)).unwrap();
    let segments = |filter| {
        let found = read(&world, run, filter);
        found
            .iter()
            .map(|entry| entry.segment.to_string())
            .collect::<BTreeSet<_>>()
    };
    let all = ["conflicts", "errors", "progress", "results", "tasks"].map(String::from);
    assert_eq!(segments(EntryFilter::default()), BTreeSet::from(all));
    let not_mine = EntryFilter {
        exclude_own: Some(n("worker_1")),
        ..EntryFilter::default()
    };
    assert_eq!(
        segments(not_mine),
        BTreeSet::from(["conflicts", "tasks"].map(String::from))
    );
    let conflicts = read(&world, run, tagged(&["conflict"]));
    assert_eq!(shape(&conflicts[0]), ("conflicts", "supervisor_1", 0.9));
}

#[test]
fn an_entry_is_written_once_read_until_its_time_and_counted_on_its_board() {
    let mut world = World::with_workers(&["worker_1"]);
    let (run, _) = crew_run(&mut world, &["worker_1"], 1);
    let write = |world: &mut World, run, ttl_ms| {
        let entry = NewEntry {
            run,
            ttl_ms,
            ..NewEntry::new(n("a"), json!({"x": 1.5}).into())
        };
        match world.ask(Command::EntryWrite(entry)).unwrap() {
            Outcome::Entry(id) => id,
            other => panic!("{other:?}"),
        }
    };
    let brief = write(&mut world, Some(run), Some(100));
    let lasting = write(&mut world, Some(run), None);
    write(&mut world, None, None);
    let notes = || EntryFilter {
        segment: Some(n("notes")),
        ..EntryFilter::default()
    };
    let ids = |world: &World| {
        let found = read(world, run, notes());
        found.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&world), [lasting, brief]);
    world.pass(99);
    assert_eq!(ids(&world).len(), 2);
    world.pass(1);
    assert_eq!(ids(&world), [lasting]);
    let counts = |world: &World| {
        (
            world.state.board(Some(run)).entries,
            world.state.board(None).entries,
        )
    };
    assert_eq!(counts(&world), (2, 1));
    let reason = "its time was over".into();
    world
        .ask(Command::EntryForget {
            entry: brief,
            reason,
        })
        .unwrap();
    assert_eq!(counts(&world), (1, 1));
    let nowhere = NewEntry {
        run: Some(RunId::new(404)),
        ..NewEntry::new(n("a"), json!(1).into())
    };
    assert_eq!(
        world.refusal(Command::EntryWrite(nowhere)),
        Code::RunUnknown
    );
}

#[test]
fn a_page_is_bounded_whatever_the_reader_asks_for() {
    let mut world = World::with_workers(&["worker_1"]);
    world.recounts = false;
    let (run, _) = crew_run(&mut world, &["worker_1"], PAGE_MAX + 1);
    for limit in [None, Some(5_000)] {
        let filter = EntryFilter {
            limit,
            ..EntryFilter::default()
        };
        assert_eq!(read(&world, run, filter).len(), 1_000);
    }
}

#[test]
fn an_importance_reads_back_from_the_log_to_the_last_bit() {
    let mut world = World::new();
    // A reader that rounds once too often makes the last digits 80 of it.
    let entry = NewEntry {
        importance: 0.9574411797597279,
        ..NewEntry::new(n("a"), json!(1).into())
    };
    world.ask(Command::EntryWrite(entry)).unwrap();
}
