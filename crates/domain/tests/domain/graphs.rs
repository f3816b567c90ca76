//! Runs: what joins open on, what reductions make, what a run gives when things go wrong.

use crate::world::{World, n, spec, start};
use domain::command::{Command, Outcome, Report, RunStart};
use domain::id::{RunId, TaskId};
use domain::pool::{Member, Strategy};
use domain::run::{Crew, RunState, RunStatus, StepStatus};
use domain::task::{Address, Failure, Waits};
use domain::worker::WorkerSpec;
use serde_json::{Value, json};

fn each(items: usize, gate: Value) -> Value {
    json!([
        {"id": "work", "each": {"items": (0..items).collect::<Vec<_>>(), "task": {"kind": "work"}}},
        {"id": "gate", "needs": ["work"], "gate": gate}
    ])
}

/// A world with one worker `w`, and a run of `items` tasks under a gate.
fn gated(items: usize, gate: Value) -> (World, RunId, Vec<TaskId>) {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(each(items, gate)));
    let tasks = world.step_tasks(run, "work");
    (world, run, tasks)
}

fn statuses(world: &World, tasks: &[TaskId]) -> String {
    let letter = |task: &TaskId| world.status(*task).as_str()[..2].to_owned();
    tasks.iter().map(letter).collect::<Vec<_>>().join(" ")
}

/// How a run ended, its result, and its tasks: `completed [1,2] co co`.
fn ending(world: &World, run: RunId, tasks: &[TaskId]) -> String {
    let result = world
        .result(run)
        .map_or("-".to_owned(), |value| value.to_string());
    let status = world.run(run).status().as_str();
    format!("{status} {result} {}", statuses(world, tasks))
}

/// What happens to a task: `+n` gives the result 10·n, `-n` fails for good, in this order.
fn play(world: &mut World, tasks: &[TaskId], moves: &[i32]) {
    for step in moves {
        let index = (step.unsigned_abs() - 1) as usize;
        match *step > 0 {
            true => world.finish(tasks[index], "w", json!(10 * (index + 1))),
            false => world.give_up(tasks[index], "w"),
        }
    }
}

// S1-79: aggregation waits for all.
#[test]
fn each_join_opens_exactly_when_its_condition_holds() {
    let rows: &[(Value, &[i32], &str)] = &[
        (json!("all"), &[3, 1], "running - co pe co"),
        (json!("all"), &[3, 1, 2], "completed [10,20,30] co co co"),
        (json!("all"), &[1, -2], "running - co fa pe"),
        (json!("all"), &[1, -2, 3], "failed [10,30] co fa co"),
        (json!("all"), &[-1, -2, -3], "failed null fa fa fa"),
        (json!({"ended": 1}), &[3, -2], "running - pe fa co"),
        (json!({"ended": 1}), &[3, -2, -1], "completed [30] fa fa co"),
        (json!({"ended": 1}), &[-1, -2, -3], "failed null fa fa fa"),
        (json!({"ended": 0}), &[-1, -2, -3], "completed [] fa fa fa"),
        (json!("any"), &[-1], "running - fa pe pe"),
        (json!("any"), &[-1, 2], "completed [20] fa co ca"),
        (json!("any"), &[-1, -2, -3], "failed null fa fa fa"),
        (json!({"quorum": 2}), &[3], "running - pe pe co"),
        (json!({"quorum": 2}), &[3, 1], "completed [10,30] co ca co"),
        (json!({"quorum": 2}), &[3, -1], "running - fa pe co"),
        (json!({"quorum": 2}), &[-3, -1], "failed null fa ca fa"),
        (json!({"quorum": 2}), &[-3, 2, -1], "failed [20] fa co fa"),
        (json!({"quorum": 4}), &[], "failed null ca ca ca"),
        (json!({"first_k": 2}), &[3, 1], "completed [30,10] co ca co"),
        (
            json!({"first_k": 2}),
            &[2, -3, 1],
            "completed [20,10] co co fa",
        ),
        (json!({"deadline": 1000}), &[3, 1], "running - co pe co"),
        (
            json!({"deadline": 1000}),
            &[3, -1, 2],
            "completed [20,30] fa co co",
        ),
        (
            json!({"deadline": 1000}),
            &[-1, -2, -3],
            "failed null fa fa fa",
        ),
    ];
    for (join, moves, expected) in rows {
        let (mut world, run, tasks) = gated(3, json!({"join": join}));
        play(&mut world, &tasks, moves);
        // The result of a run whose gate has nothing to give is nothing.
        let found = ending(&world, run, &tasks);
        let found = found.replace("failed - ", "failed null ");
        assert_eq!(found, *expected, "{join} after {moves:?}");
    }
}

#[test]
fn a_deadline_takes_what_is_there_and_not_a_millisecond_before() {
    for (moves, expected) in [
        (&[2][..], "completed [20] ca co ca"),
        (&[2, -3], "completed [20] ca co fa"),
        (&[-3], "failed - ca ca fa"),
    ] {
        let (mut world, run, tasks) = gated(3, json!({"join": {"deadline": 1_000}}));
        assert_eq!(world.run(run).due(), Some(world.now.plus_ms(1_000)));
        play(&mut world, &tasks, moves);
        world.pass(999);
        world.ask(Command::RunAdvance(run)).unwrap();
        assert_eq!(world.run(run).status(), RunStatus::Running);
        world.pass(1);
        world.ask(Command::RunAdvance(run)).unwrap();
        assert_eq!(ending(&world, run, &tasks), expected);
        assert_eq!(world.run(run).due(), None);
    }
}

#[test]
fn work_that_a_gate_no_longer_needs_is_taken_back_from_its_worker() {
    let (mut world, run, tasks) = gated(2, json!({"join": "any"}));
    world.register(WorkerSpec::new(n("slow")));
    let lease = world.claim(tasks[0], "slow").unwrap();
    world.finish(tasks[1], "w", json!("won"));
    assert_eq!(ending(&world, run, &tasks), "completed [\"won\"] ca co");
    assert!(world.worker("slow").holds.is_empty());
    let output = json!("late").into();
    let error = world
        .report(&lease, Report::Completed { output })
        .unwrap_err();
    assert_eq!(error.code.as_str(), "attempt.stale");
    assert_eq!(world.result(run), Some(json!(["won"])));
}

/// A reduction, what the task of a value gives, and what the run gives.
type Case = (Value, fn(i32) -> Value, Value);

// S1-94: voting among workers. Every join goes with every reduction.
// S3-36: results are aggregated by a step of the graph.
#[test]
fn each_reduction_works_under_each_join() {
    let objects = |value: i32| json!({"v": value, format!("k{value}"): true});
    let vote = |value: Value, votes: Value| json!({"winner": value, "votes": votes});
    for (join, order, kept) in [
        (json!("all"), [2, 0, 1], vec![0, 1, 2]),
        (json!("any"), [2, 0, 1], vec![2]),
        (json!({"quorum": 2}), [2, 0, 1], vec![0, 2]),
        (json!({"first_k": 2}), [2, 0, 1], vec![2, 0]),
        (json!({"deadline": 9}), [2, 0, 1], vec![0, 1, 2]),
    ] {
        let merged = |kept: &[i32]| {
            let mut merged = serde_json::Map::new();
            for value in kept {
                let Value::Object(fields) = objects(*value) else {
                    panic!()
                };
                merged.extend(fields);
            }
            Value::Object(merged)
        };
        let each_once: Vec<Value> = kept
            .iter()
            .map(|value| json!({"value": value, "votes": 1}))
            .collect();
        let cases: [Case; 6] = [
            (json!("collect"), |value| json!(value), json!(kept)),
            (json!("concat"), |value| json!([value]), json!(kept)),
            (
                json!("concat"),
                |value| json!(format!("line {value}")),
                json!(
                    kept.iter()
                        .map(|v| format!("line {v}"))
                        .collect::<Vec<_>>()
                        .join("\n")
                ),
            ),
            (
                json!("merge"),
                |value| json!({"v": value, format!("k{value}"): true}),
                merged(&kept),
            ),
            (
                json!("vote"),
                |value| json!(value),
                vote(json!(kept[0]), json!(each_once)),
            ),
            (
                json!({"expression": "outputs.map(o, o + 1)"}),
                |value| json!(value),
                json!(kept.iter().map(|value| value + 1).collect::<Vec<_>>()),
            ),
        ];
        for (reduce, output, expected) in cases {
            let (mut world, run, tasks) = gated(3, json!({"join": join, "reduce": reduce}));
            for value in order {
                let task = tasks[value as usize];
                if world.status(task).as_str() == "pending" {
                    world.finish(task, "w", output(value));
                }
            }
            assert_eq!(
                world.run(run).status(),
                RunStatus::Completed,
                "{join} {reduce}"
            );
            assert_eq!(world.result(run), Some(expected), "{join} {reduce}");
        }
        // And the supervisor.
        let (mut world, run, tasks) = gated(3, json!({"join": join, "reduce": "supervisor"}));
        for value in order {
            let task = tasks[value as usize];
            if world.status(task).as_str() == "pending" {
                world.finish(task, "w", json!(value));
            }
        }
        assert_eq!(
            world.run(run).awaits_supervisor(),
            Some((&n("gate"), false))
        );
        settle(&mut world, run, json!("said")).unwrap();
        assert_eq!(world.result(run), Some(json!("said")), "{join}");
    }
}

fn settle(world: &mut World, run: RunId, output: Value) -> Result<Outcome, domain::error::Error> {
    let (step, output) = (n("gate"), output.into());
    world.ask(Command::RunSettle { run, step, output })
}

#[test]
fn a_supervisor_settles_once() {
    let (mut world, run, tasks) = gated(2, json!({"join": "all", "reduce": "supervisor"}));
    play(&mut world, &tasks, &[1]);
    assert_eq!(
        settle(&mut world, run, json!("early"))
            .unwrap_err()
            .code
            .as_str(),
        "run.state"
    );
    play(&mut world, &tasks, &[2]);
    settle(&mut world, run, json!("first")).unwrap();
    settle(&mut world, run, json!("second")).unwrap();
    assert_eq!(ending(&world, run, &tasks), "completed \"first\" co co");
}

#[test]
fn a_supervisor_that_settles_a_gate_that_cannot_open_leaves_a_partial_result() {
    let (mut world, run, tasks) = gated(2, json!({"join": "all", "reduce": "supervisor"}));
    play(&mut world, &tasks, &[1, -2]);
    assert_eq!(world.run(run).awaits_supervisor(), Some((&n("gate"), true)));
    settle(&mut world, run, json!("half")).unwrap();
    assert_eq!(ending(&world, run, &tasks), "failed \"half\" co fa");
    let RunState::Failed { failure, .. } = &world.run(run).state else {
        panic!()
    };
    assert_eq!(failure.code, "run.step_failed");
    // With nothing to reduce nobody is asked.
    let (mut world, run, tasks) = gated(2, json!({"join": "all", "reduce": "supervisor"}));
    play(&mut world, &tasks, &[-1, -2]);
    assert_eq!(ending(&world, run, &tasks), "failed - fa fa");
}

#[test]
fn outputs_of_another_form_than_the_reduction_needs_fail_the_gate_with_the_reason() {
    let (mut world, run, tasks) = gated(2, json!({"join": "all", "reduce": "merge"}));
    play(&mut world, &tasks, &[1, 2]);
    let RunState::Failed { failure, .. } = &world.run(run).state else {
        panic!()
    };
    assert!(
        failure
            .message
            .contains("`merge` needs objects, but an output is 10"),
        "{failure:?}"
    );
}

// S1-87: stage 2 receives stage 1's output.
#[test]
fn a_second_stage_goes_over_what_the_first_one_gave() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "extract", "each": {"items": (0..10).collect::<Vec<_>>(), "task": {"kind": "extract"}}},
        {"id": "sources", "needs": ["extract"], "gate": {"join": "all", "reduce": {
            "expression": "outputs.filter(o, o % 2 == 0)"}}},
        {"id": "transform", "needs": ["sources"], "each": {"over": "sources", "task": {"kind": "transform"}}},
        {"id": "all", "needs": ["transform"], "gate": {"join": "all"}}
    ])));
    for (item, task) in world.step_tasks(run, "extract").into_iter().enumerate() {
        assert_eq!(
            world.step_state(run, "transform").status,
            StepStatus::Waiting
        );
        assert_eq!(world.task(task).spec.input.value(), json!(item));
        world.finish(task, "w", json!(100 + item));
    }
    let second = world.step_tasks(run, "transform");
    let inputs: Vec<Value> = second
        .iter()
        .map(|t| world.task(*t).spec.input.value())
        .collect();
    assert_eq!(inputs, [100, 102, 104, 106, 108].map(Value::from));
    for task in second {
        let input = world.task(task).spec.input.value().as_i64().unwrap();
        world.finish(task, "w", json!(-input));
    }
    assert_eq!(
        world.result(run),
        Some(json!([-100, -102, -104, -106, -108]))
    );
}

#[test]
fn a_stage_over_nothing_is_done_at_once() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "find", "task": {"kind": "find"}},
        {"id": "each", "needs": ["find"], "each": {"over": "find", "task": {"kind": "t"}}},
        {"id": "all", "needs": ["each"], "gate": {"join": "all"}}
    ])));
    let task = world.step_tasks(run, "find")[0];
    world.finish(task, "w", json!([]));
    assert_eq!(ending(&world, run, &[]), "completed [] ");
}

// A gate opens on evidence: a step that could not begin gives none.
#[test]
fn a_stage_over_what_is_no_list_fails_with_the_reason_and_no_gate_opens_on_it() {
    for join in [
        json!("all"),
        json!({"deadline": 1_000}),
        json!("any"),
        json!({"quorum": 1}),
    ] {
        let mut world = World::with_workers(&["w"]);
        let run = world.start(start(json!([
            {"id": "find", "task": {"kind": "find"}},
            {"id": "each", "needs": ["find"], "each": {"over": "find", "task": {"kind": "t"}}},
            {"id": "all", "needs": ["each"], "gate": {"join": join}}
        ])));
        let task = world.step_tasks(run, "find")[0];
        world.finish(task, "w", json!("no list"));
        assert_eq!(world.step_state(run, "each").status, StepStatus::Failed);
        assert_eq!(
            world.step_state(run, "all").status,
            StepStatus::Failed,
            "{join}"
        );
        let RunState::Failed {
            failure, partial, ..
        } = &world.run(run).state
        else {
            panic!()
        };
        assert!(
            failure.message.contains("“find” has no list"),
            "{failure:?}"
        );
        assert_eq!(*partial, None);
    }
}

#[test]
fn no_gate_opens_over_a_step_that_never_began() {
    for join in [
        json!("all"),
        json!({"deadline": 1_000}),
        json!("any"),
        json!({"quorum": 1}),
    ] {
        let mut world = World::with_workers(&["w"]);
        let run = world.start(start(json!([
            {"id": "a", "task": {"kind": "t"}},
            {"id": "b", "needs": ["a"], "task": {"kind": "t"}},
            {"id": "all", "needs": ["b"], "gate": {"join": join}}
        ])));
        let task = world.step_tasks(run, "a")[0];
        world.give_up(task, "w");
        assert_eq!(world.step_state(run, "a").status, StepStatus::Failed);
        assert_eq!(world.step_state(run, "b").status, StepStatus::Skipped);
        assert_eq!(
            world.step_state(run, "all").status,
            StepStatus::Failed,
            "{join}"
        );
        assert_eq!(world.run(run).status(), RunStatus::Failed);
    }
}

#[test]
fn what_needs_a_step_that_failed_is_skipped_and_the_rest_goes_on() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "bad", "task": {"kind": "t"}},
        {"id": "good", "task": {"kind": "t"}},
        {"id": "after_bad", "needs": ["bad"], "task": {"kind": "t"}},
        {"id": "after_both", "needs": ["good", "after_bad"], "task": {"kind": "t"}},
        {"id": "after_good", "needs": ["good"], "task": {"kind": "t"}}
    ])));
    let bad = world.step_tasks(run, "bad")[0];
    world.give_up(bad, "w");
    assert_eq!(world.run(run).status(), RunStatus::Running);
    for step in ["good", "after_good"] {
        let task = world.step_tasks(run, step)[0];
        world.finish(task, "w", json!(step));
    }
    let status = |step| world.step_state(run, step).status;
    assert_eq!(status("after_bad"), StepStatus::Skipped);
    assert_eq!(status("after_both"), StepStatus::Skipped);
    assert_eq!(status("after_good"), StepStatus::Done);
    let expected = json!({"after_both": null, "after_good": "after_good"});
    assert_eq!(world.result(run), Some(expected), "what there is, is kept");
    let RunState::Failed { failure, .. } = &world.run(run).state else {
        panic!()
    };
    assert_eq!(
        failure.message,
        "step “bad”: 1 of 1 tasks failed: it cannot be done"
    );
}

// S3-150: a step delegates a task that is made from what is known by then.
#[test]
fn the_outputs_of_several_last_steps_are_the_result_by_name() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "a", "task": {"kind": "t"}},
        {"id": "b", "needs": ["a"], "task": {"kind": "t", "input_from": "steps.a.total + 1"}},
        {"id": "c", "needs": ["a"], "task": {"kind": "t", "input_from": "{'goal': goal, 'was': steps.a}"}},
        {"id": "d", "each": {"items": ["x", "y"], "task": {"kind": "t", "input_from": "item + string(index)"}}},
        {"id": "e", "task": {"kind": "t", "input": {"fixed": true}}}
    ])));
    let input = |world: &World, step| {
        let tasks = world.step_tasks(run, step);
        tasks
            .iter()
            .map(|task| world.task(*task).spec.input.value())
            .collect::<Vec<_>>()
    };
    assert_eq!(input(&world, "d"), [json!("x0"), json!("y1")]);
    assert_eq!(input(&world, "e"), [json!({"fixed": true})]);
    assert_eq!(input(&world, "a"), [json!(null)]);
    for (step, output) in [
        ("a", json!({"total": 41})),
        ("b", json!("B")),
        ("c", json!("C")),
        ("d", json!(0)),
        ("e", json!("E")),
    ] {
        for task in world.step_tasks(run, step) {
            world.finish(task, "w", output.clone());
        }
    }
    assert_eq!(input(&world, "b"), [json!(42)]);
    assert_eq!(
        input(&world, "c"),
        [json!({"goal": "test", "was": {"total": 41}})]
    );
    assert_eq!(
        world.result(run),
        Some(json!({"b": "B", "c": "C", "d": null, "e": "E"}))
    );
}

// S3-156: what a step made is read by the step's name.
#[test]
fn a_step_reads_the_result_of_another_by_its_name() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "analysis", "task": {"kind": "analyze"}},
        {"id": "summarization", "needs": ["analysis"], "task": {"kind": "summarize", "input_from": "steps.analysis"}},
        {"id": "aggregate", "needs": ["summarization"], "gate": {"join": "all"}}
    ])));
    for (step, input) in [
        ("analysis", json!(null)),
        ("summarization", json!("analysis")),
    ] {
        let task = world.step_tasks(run, step)[0];
        assert_eq!(world.task(task).spec.input.value(), input);
        world.finish(task, "w", json!(step));
    }
    assert_eq!(world.result(run), Some(json!(["summarization"])));
}

#[test]
fn an_input_whose_expression_has_no_value_fails_its_step() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "a", "task": {"kind": "t"}},
        {"id": "b", "needs": ["a"], "task": {"kind": "t", "input_from": "steps.a.missing"}}
    ])));
    let task = world.step_tasks(run, "a")[0];
    world.finish(task, "w", json!({}));
    assert_eq!(world.step_state(run, "b").status, StepStatus::Failed);
    assert_eq!(world.run(run).status(), RunStatus::Failed);
    // When it is the first step, the run is refused and nothing is stored.
    let from = world.log.len();
    let new = start(json!([{"id": "a", "task": {"kind": "t", "input_from": "steps.z.missing"}}]));
    let code = world.refusal(Command::RunStart(Box::new(new)));
    assert_eq!(code.as_str(), "expression.invalid");
    assert_eq!(world.log.len(), from);
}

// S3-158: the tasks of parallel steps run at the same time.
#[test]
fn each_step_runs_so_many_at_once_and_steps_do_not_share_their_bound() {
    let mut world = World::with_workers(&["a", "b", "c", "d", "e"]);
    let step = |id: &str, concurrency: u32| json!({"id": id, "each": {"items": [1, 2, 3, 4], "concurrency": concurrency, "task": {"kind": "t"}}});
    // Two steps with one beginning, and two with long names that differ at the end.
    let long = "x".repeat(120);
    let (first, last) = (format!("{long}1"), format!("{long}2"));
    let graph = json!([
        step("extract", 2),
        step("enrich", 1),
        step(&first, 1),
        step(&last, 1)
    ]);
    let run = world.start(start(graph));
    let extract = world.step_tasks(run, "extract");
    world.claim(extract[0], "a").unwrap();
    world.claim(extract[1], "b").unwrap();
    assert_eq!(
        world.claim(extract[2], "c").unwrap_err().code.as_str(),
        "task.not_claimable"
    );
    assert!(matches!(
        world.waits(extract[2]),
        Some(Waits::AtCapacity { .. })
    ));
    for (step, worker) in [("enrich", "c"), (first.as_str(), "d"), (last.as_str(), "e")] {
        let tasks = world.step_tasks(run, step);
        let lease = world.claim(tasks[0], worker).unwrap();
        assert!(
            matches!(world.waits(tasks[1]), Some(Waits::AtCapacity { .. })),
            "{step}"
        );
        world.release(&lease);
        world.claim(tasks[0], worker).unwrap();
    }
    // Another run has its own room.
    world.register(WorkerSpec::new(n("f")));
    let again = world.start(start(json!([step("enrich", 1)])));
    let task = world.step_tasks(again, "enrich")[0];
    world.claim(task, "f").unwrap();
}

#[test]
fn a_cancelled_run_takes_its_open_tasks_along_and_keeps_the_rest() {
    let (mut world, run, tasks) = gated(4, json!({"join": "all"}));
    world.register(WorkerSpec::new(n("x")));
    play(&mut world, &tasks, &[1, -2]);
    let lease = world.claim(tasks[2], "x").unwrap();
    let reason = "changed my mind".into();
    world.ask(Command::RunCancel { run, reason }).unwrap();
    assert_eq!(ending(&world, run, &tasks), "cancelled - co fa ca ca");
    let late = world.report(&lease, Report::Started).unwrap_err();
    assert_eq!(late.code.as_str(), "attempt.stale");
    // Going on, it does again what failed or was cancelled, and no more.
    world.ask(Command::RunRetry(run)).unwrap();
    assert_eq!(ending(&world, run, &tasks), "running - co pe pe pe");
    play(&mut world, &tasks, &[2, 3, 4]);
    assert_eq!(
        ending(&world, run, &tasks),
        "completed [10,20,30,40] co co co co"
    );
}

#[test]
fn a_retried_run_does_again_only_what_failed() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "race", "each": {"items": [1, 2, 3], "task": {"kind": "t"}}},
        {"id": "won", "needs": ["race"], "gate": {"join": "any"}},
        {"id": "check", "needs": ["won"], "task": {"kind": "t"}},
        {"id": "tell", "needs": ["check"], "task": {"kind": "t"}}
    ])));
    let race = world.step_tasks(run, "race");
    world.finish(race[1], "w", json!("second"));
    let check = world.step_tasks(run, "check");
    world.give_up(check[0], "w");
    assert_eq!(
        ending(&world, run, &[race.as_slice(), &check].concat()),
        "failed - ca co ca fa"
    );
    world.ask(Command::RunRetry(run)).unwrap();
    // The race is won: nobody has to run it again.
    assert_eq!(statuses(&world, &race), "ca co ca");
    assert_eq!(statuses(&world, &check), "pe");
    world.finish(check[0], "w", json!("fine"));
    let tell = world.step_tasks(run, "tell");
    world.finish(tell[0], "w", json!("told"));
    assert_eq!(world.run(run).status(), RunStatus::Completed);
    assert_eq!(world.result(run), Some(json!("told")));
}

#[test]
fn redriving_one_dead_letter_reopens_its_run() {
    let (mut world, run, tasks) = gated(2, json!({"join": "all"}));
    play(&mut world, &tasks, &[1, -2]);
    assert_eq!(world.run(run).status(), RunStatus::Failed);
    world.redrive(tasks[1]);
    assert_eq!(ending(&world, run, &tasks), "running - co pe");
    play(&mut world, &tasks, &[2]);
    assert_eq!(ending(&world, run, &tasks), "completed [10,20] co co");
}

// S1-89: failures are found, and go to another worker of the same pool.
#[test]
fn failed_tasks_of_a_run_are_reassigned_to_a_backup() {
    let mut world = World::with_workers(&["worker_1", "worker_backup"]);
    let mut new = start(each(3, json!({"join": "all"})));
    new.crew.members = vec![Member::new(n("worker_1"))];
    let run = world.start(new);
    let tasks = world.step_tasks(run, "work");
    world.give_up(tasks[0], "worker_1");
    world.finish(tasks[1], "worker_1", json!("b"));
    world.give_up(tasks[2], "worker_1");
    let failed: Vec<TaskId> = tasks
        .iter()
        .copied()
        .filter(|task| world.status(*task).as_str() == "failed")
        .collect();
    assert_eq!(failed, [tasks[0], tasks[2]]);
    for task in failed {
        world.reassign(task, Address::Only(n("worker_backup")));
        assert_eq!(
            world.claim(task, "worker_1").unwrap_err().code.as_str(),
            "task.not_claimable"
        );
    }
    world.finish(tasks[2], "worker_backup", json!("c"));
    world.finish(tasks[0], "worker_backup", json!("a"));
    assert_eq!(
        ending(&world, run, &tasks),
        "completed [\"a\",\"b\",\"c\"] co co co"
    );
}

fn crew(strategy: Strategy, members: &[(&str, u32, &[&str])]) -> Crew {
    let member = |(worker, capacity, capabilities): &(&str, u32, &[&str])| Member {
        worker: n(worker),
        capacity: *capacity,
        capabilities: capabilities.iter().map(|name| n(name)).collect(),
    };
    Crew {
        strategy,
        members: members.iter().map(member).collect(),
    }
}

fn addresses(crew: Crew, steps: Value) -> Vec<String> {
    let mut world = World::new();
    let run = world.start(RunStart {
        crew,
        ..start(steps)
    });
    let tasks: Vec<TaskId> = world.run(run).tasks().collect();
    let address = |task| match world.task(task).address() {
        Address::Only(worker) => worker.to_string(),
        Address::Prefer(worker) => format!("rather {worker}"),
        Address::Any => "any".into(),
    };
    tasks.into_iter().map(address).collect()
}

fn plain(tasks: usize) -> Value {
    json!([{"id": "a", "each": {"items": vec![0; tasks], "task": {"kind": "t"}}}])
}

// S1-98, S1-07: task[0] to worker_1, [1] to worker_2, [2] to worker_3, [3] to worker_1; every one
// addressed.
// S0-130: five tasks over two workers are three and two.
#[test]
fn round_robin_addresses_the_tasks_of_a_run_in_turn() {
    let three = [
        ("worker_1", 1, &[][..]),
        ("worker_2", 1, &[]),
        ("worker_3", 1, &[]),
    ];
    let found = addresses(crew(Strategy::RoundRobin, &three), plain(5));
    assert_eq!(
        found,
        ["worker_1", "worker_2", "worker_3", "worker_1", "worker_2"]
    );
    let two = crew(Strategy::RoundRobin, &three[..2]);
    assert_eq!(
        addresses(two, plain(5)),
        ["worker_1", "worker_2", "worker_1", "worker_2", "worker_1"]
    );
}

// S1-106, S1-99, S1-109: several strategies; weights are honoured.
// S3-33: load is balanced by a strategy.
#[test]
fn other_strategies_address_as_their_names_say() {
    let weighted = [("worker_1", 10, &[][..]), ("worker_2", 5, &[])];
    let found = addresses(crew(Strategy::Weighted, &weighted), plain(15));
    let of = |id: &str| found.iter().filter(|worker| *worker == id).count();
    assert_eq!((of("worker_1"), of("worker_2")), (10, 5));
    let found = addresses(crew(Strategy::LeastLoaded, &weighted), plain(3));
    assert_eq!(found, ["any", "any", "any"], "whoever is free");
    let able = [
        ("plain", 1, &[][..]),
        ("eye", 1, &["Vision"]),
        ("both", 1, &["vision", "sql"]),
    ];
    let seeing = json!([{"id": "a", "each": {"items": [0, 0, 0], "task": {"kind": "t", "capability": "vision"}}}]);
    let found = addresses(crew(Strategy::Capability, &able), seeing);
    assert_eq!(found, ["eye", "both", "eye"]);
    let keyed = json!([{"id": "a", "each": {"items": ["x", "y", "x", "y", "x"],
        "task": {"kind": "t", "affinity_from": "item"}}}]);
    let four = [
        ("a", 1, &[][..]),
        ("b", 1, &[]),
        ("c", 1, &[]),
        ("d", 1, &[]),
    ];
    let found = addresses(crew(Strategy::Affinity, &four), keyed);
    assert_eq!((&found[0], &found[1]), (&found[2], &found[3]));
    assert_eq!(found[0], found[4]);
    assert!(found.iter().all(|worker| worker != "any"));
    let found = addresses(Crew::default(), plain(2));
    assert_eq!(found, ["any", "any"]);
}

// S1-101: 100, 1,000 and 10,000 tasks of one request complete, none lost.
#[test]
fn all_the_tasks_of_a_large_run_are_there_in_the_end() {
    for items in [100, 1_000, 10_000] {
        let mut world = World::with_workers(&["w"]);
        world.recounts = false;
        let gate = json!({"join": "all", "reduce": {"expression": "outputs.size()"}});
        let run = world.start(start(each(items, gate)));
        for (index, task) in world.step_tasks(run, "work").into_iter().enumerate() {
            world.finish(task, "w", json!(index));
        }
        assert_eq!(world.result(run), Some(json!(items)));
        assert_eq!(world.tally().completed, items as u64);
        world.recounts = true;
        world.check_rows();
    }
}

#[test]
fn a_gate_reduces_so_many_tasks_and_bytes_and_says_when_it_cannot() {
    let mut world = World::with_workers(&["w"]);
    world.recounts = false;
    let run = world.start(start(each(10_001, json!({"join": "all"}))));
    for task in world.step_tasks(run, "work") {
        world.finish(task, "w", json!(0));
    }
    let RunState::Failed { failure, .. } = &world.run(run).state else {
        panic!()
    };
    assert!(
        failure.message.contains("10001 tasks at a gate"),
        "{failure:?}"
    );
    // Five outputs of a megabyte are more than four.
    let (mut world, run, tasks) = gated(5, json!({"join": "all"}));
    world.recounts = false;
    for task in tasks {
        world.finish(task, "w", json!("x".repeat(1_048_574)));
    }
    let RunState::Failed { failure, .. } = &world.run(run).state else {
        panic!()
    };
    assert!(
        failure
            .message
            .contains("5242880 bytes of outputs at a gate"),
        "{failure:?}"
    );
    let (mut world, run, tasks) = gated(1, json!({"join": "all", "reduce": "supervisor"}));
    play(&mut world, &tasks, &[1]);
    let large = json!("x".repeat(4 * 1_048_576 - 1));
    assert_eq!(
        settle(&mut world, run, large).unwrap_err().code.as_str(),
        "limit.exceeded"
    );
}

#[test]
fn a_task_that_somebody_cancels_fails_its_step_and_retry_heals_it() {
    let (mut world, run, tasks) = gated(2, json!({"join": "all"}));
    world.cancel(tasks[0]);
    play(&mut world, &tasks, &[2]);
    assert_eq!(ending(&world, run, &tasks), "failed [20] ca co");
    world.ask(Command::RunRetry(run)).unwrap();
    play(&mut world, &tasks, &[1]);
    assert_eq!(ending(&world, run, &tasks), "completed [10,20] co co");
}

// S2-47: a graph says how its tasks are retried.
#[test]
fn a_run_lets_its_tasks_be_tried_again_by_their_own_policy() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([
        {"id": "a", "task": {"kind": "t", "timeout_ms": 100, "retry": {"attempts": 2, "backoff_ms": 10},
            "priority": 10, "queue": "default", "capability": null}}
    ])));
    let task = world.step_tasks(run, "a")[0];
    let lease = world.claim(task, "w").unwrap();
    world.fail(&lease, Failure::new("hiccup", "again"));
    assert_eq!(
        (
            world.step_state(run, "a").open(),
            world.step_state(run, "a").leased
        ),
        (1, 0)
    );
    world.pass(10);
    let lease = world.claim(task, "w").unwrap();
    world.pass(100);
    world.ask(Command::TaskTimeOut(task)).unwrap();
    let RunState::Failed {
        failure, partial, ..
    } = &world.run(run).state
    else {
        panic!()
    };
    assert_eq!(
        failure.message,
        "step “a”: 1 of 1 tasks failed: no result within 100 ms"
    );
    let partial = partial.as_ref().unwrap().value();
    assert_eq!(partial["error"]["code"], "attempt.timed_out");
    assert_eq!(partial["task"], json!(task));
    drop(lease);
    let other = world.submit(spec(json!("beside")));
    world.finish(other, "w", json!(1));
}

/// What became of each, whether good or bad, in the order of the items.
#[test]
fn outcomes_name_the_failures_too() {
    let gate = json!({"join": {"ended": 1}, "reduce": "outcomes"});
    let (mut world, run, tasks) = gated(3, gate);
    play(&mut world, &tasks, &[3, -1]);
    world.cancel(tasks[1]);
    let [first, second, third] = tasks.as_slice() else {
        panic!("three tasks");
    };
    let result = world.result(run).unwrap();
    assert_eq!(result[0]["task"], json!(first));
    assert!(result[0]["failure"]["code"].is_string(), "{result}");
    assert_eq!(
        result[1],
        json!({"task": second, "failure": {
        "code": "task.cancelled", "message": "it was cancelled", "retryable": false}})
    );
    assert_eq!(result[2], json!({"task": third, "output": 30}));
}

fn extended(steps: Value) -> Report {
    Report::Extended {
        steps: serde_json::from_value(steps).unwrap(),
    }
}

/// A task may say how its run goes on; said again, by another attempt too, it changes nothing.
#[test]
fn a_task_adds_steps_to_its_run() {
    let mut world = World::with_workers(&["a", "b"]);
    let run = world.start(start(json!([{"id": "plan", "task": {"kind": "plan"}}])));
    let more = json!([
        {"id": "work", "needs": ["plan"], "each": {"over": "plan", "task": {"kind": "work"}}},
        {"id": "all", "needs": ["work"], "gate": {"join": "all"}},
    ]);
    let lease = world.next("a").unwrap();
    world.report(&lease, extended(more.clone())).unwrap();
    world.lose("a");
    let again = world.next("b").unwrap();
    let before = world.log.len();
    world.report(&again, extended(more)).unwrap();
    assert_eq!(world.log.len(), before, "said again");
    // One that was lost adds nothing any more.
    let late = json!([{"id": "late", "task": {"kind": "late"}}]);
    assert_eq!(
        world
            .report(&lease, extended(late))
            .unwrap_err()
            .code
            .as_str(),
        "attempt.stale"
    );
    // An output may say more than its items.
    world.complete(&again, json!({"items": [7, 8], "why": "two are enough"}));
    let tasks = world.step_tasks(run, "work");
    assert_eq!(tasks.len(), 2);
    for (task, output) in tasks.iter().zip([70, 80]) {
        world.finish(*task, "b", json!(output));
    }
    assert_eq!(ending(&world, run, &tasks), "completed [70,80] co co");
}

#[test]
fn steps_that_do_not_fit_are_refused_and_change_nothing() {
    let mut world = World::with_workers(&["a"]);
    let run = world.start(start(json!([{"id": "plan", "task": {"kind": "plan"}}])));
    let lease = world.next("a").unwrap();
    let task = |id: &str, needs: &[&str]| json!({"id": id, "needs": needs, "task": {"kind": "x"}});
    let cases = [
        (json!([task("plan", &[])]), "graph.invalid"),
        (json!([task("b", &["nobody"])]), "graph.invalid"),
        (
            json!([task("b", &["c"]), task("c", &["b"])]),
            "graph.invalid",
        ),
        (
            (0..1_000).map(|n| task(&format!("s{n}"), &[])).collect(),
            "limit.exceeded",
        ),
    ];
    for (steps, code) in cases {
        let refused = world.report(&lease, extended(steps.clone()));
        assert_eq!(refused.unwrap_err().code.as_str(), code, "{steps}");
        assert_eq!(world.run(run).graph.steps.len(), 1);
    }
    let alone = world.submit(spec(json!("alone")));
    world.register(WorkerSpec::new(n("b")));
    let alone = world.claim(alone, "b").unwrap();
    let refused = world.report(&alone, extended(json!([task("b", &[])])));
    assert_eq!(refused.unwrap_err().code.as_str(), "run.unknown");
}
