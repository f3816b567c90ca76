//! Runs, from their start to their result.

use super::*;

/// Two runs side by side: each splits its goal as planned, shares it out in turn, and ends with the
/// results of its own tasks, all of them.
// S1-09, S1-10, S1-11, S3-168: one request's results alone, and all of them; done exactly when every
// task has ended; the failed ones listed exactly; task 0 to worker_1, 1 to worker_2, and round again.
// S2-26: n items are n tasks, and one that fails drops none of the rest. S4-20: counted for the run and
// for each of its steps.
pub async fn a_run_ends_with_its_own_results(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let crew = ["worker_1", "worker_2"];
    let one = start(&api, "double these", fan_out(&[1, 2, 3], "collect"), &crew).await;
    let two = start(&api, "and these", fan_out(&[40, 50], "collect"), &crew).await;
    let view = api.run_get(one).await.unwrap();
    assert_eq!(
        (view.status, view.goal.as_str()),
        (RunStatus::Running, "double these")
    );
    assert_eq!((view.tasks.total, view.tasks.pending), (3, 3));
    assert!(!view.tasks.all_ended() && view.waits_for.is_some());
    let tasks = api.task_list(of_run(one)).await.unwrap().items;
    let shares: Vec<_> = tasks.iter().map(|task| task.address.clone()).collect();
    let to = |id| Address::Only(name(id));
    assert_eq!(shares, ["worker_1", "worker_2", "worker_1"].map(to));
    let items: Vec<_> = tasks.iter().map(|task| (task.run_id, task.item)).collect();
    assert_eq!(items, [0, 1, 2].map(|n| (Some(one), Some(n))));
    let (first, second) = (
        claim(&api, "worker_1", 9).await,
        claim(&api, "worker_2", 9).await,
    );
    assert_eq!((first.len(), second.len()), (3, 2));
    // The second worker is done first: results stand in the order of the items all the same.
    double(&api, "worker_2", &second).await;
    let halfway = api.run_get(one).await.unwrap();
    assert_eq!((halfway.tasks.completed, halfway.tasks.running), (1, 2));
    assert!(!halfway.tasks.all_ended() && halfway.final_result.is_none());
    double(&api, "worker_1", &first).await;
    for (run, result) in [(one, json!([2, 4, 6])), (two, json!([80, 100]))] {
        let view = api.run_get(run).await.unwrap();
        assert_eq!(view.status, RunStatus::Completed);
        assert_eq!(view.final_result, Some(result.into()));
        assert!(view.tasks.all_ended() && view.waits_for.is_none() && !view.partial);
    }
    // A run with a failure says which task it was, and names no other run's.
    let bad = start(&api, "fail one", fan_out(&[1, 2, 3], "collect"), &crew).await;
    let other = start(&api, "fail none", fan_out(&[4], "collect"), &crew).await;
    let mut held = claim(&api, "worker_1", 9).await;
    let failing = held.remove(0);
    let failure = Failure::new("input.bad", "no text in it");
    report(&api, "worker_1", &failing, failed(failure))
        .await
        .unwrap();
    double(&api, "worker_1", &held).await;
    double(&api, "worker_2", &claim(&api, "worker_2", 9).await).await;
    let failures = |run| TaskQuery {
        status: Some(TaskStatus::Failed),
        ..of_run(run)
    };
    let listed = api.task_list(failures(bad)).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].task_id, failing.task_id);
    assert_eq!(listed[0].failure.as_ref().unwrap().code, "input.bad");
    assert!(
        api.task_list(failures(other))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let view = api.run_get(bad).await.unwrap();
    assert_eq!((view.status, view.partial), (RunStatus::Failed, true));
    assert!(view.tasks.all_ended());
    assert_eq!((view.tasks.completed, view.tasks.failed), (2, 1));
    let part = &view.steps[0];
    assert_eq!((&part.step, &part.tasks), (&name("part"), &view.tasks));
    assert!(
        view.failure
            .unwrap()
            .message
            .contains("1 of 3 tasks failed")
    );
    let statistics = api.statistics().await.unwrap();
    assert_eq!((statistics.runs, statistics.runs_open), (4, 0));
}

/// A gate that its supervisor reduces waits for it, says so, and takes the first answer.
pub async fn a_supervisor_settles_its_gate(api: Subject) {
    register(&api, sized("w", 9)).await;
    let run = start(&api, "sum up", fan_out(&[1, 2], "supervisor"), &["w"]).await;
    let early = api.run_settle(run, name("all"), json!("early").into());
    assert_eq!(code(early.await), Code::RunState);
    double(&api, "w", &claim(&api, "w", 9).await).await;
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Running);
    assert_eq!(view.awaits_supervisor, Some(name("all")));
    assert!(view.waits_for.unwrap().who.contains("supervisor"));
    for answer in ["the first", "the second"] {
        api.run_settle(run, name("all"), json!(answer).into())
            .await
            .unwrap();
    }
    let view = api.run_get(run).await.unwrap();
    assert_eq!(
        (view.status, view.final_result),
        (RunStatus::Completed, Some(json!("the first").into()))
    );
}

/// A run that is stopped stops its open tasks, keeps what is done, and tells who works on it.
pub async fn a_run_is_cancelled(api: Subject) {
    register(&api, sized("w", 2)).await;
    let run = start(&api, "stop this", fan_out(&[1, 2, 3], "collect"), &["w"]).await;
    let held = claim(&api, "w", 2).await;
    double(&api, "w", &held[..1]).await;
    for _ in 0..2 {
        api.run_cancel(run, "changed my mind".into()).await.unwrap();
    }
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Cancelled);
    assert_eq!(view.cancelled.as_deref(), Some("changed my mind"));
    assert_eq!((view.tasks.completed, view.tasks.cancelled), (1, 2));
    let signals = api.worker_heartbeat(name("w"), None, SOON).await.unwrap();
    assert!(matches!(&signals[..], [Signal::Stop { task, .. }] if *task == held[1].task_id));
    let late = report(&api, "w", &held[1], completed(json!(4))).await;
    assert_eq!(code(late), Code::AttemptStale);
    assert!(claim(&api, "w", 9).await.is_empty());
}

/// A run that failed goes on with what failed, and only with that.
pub async fn a_failed_run_is_retried(api: Subject) {
    register(&api, sized("w", 9)).await;
    let run = start(&api, "twice", fan_out(&[1, 2], "collect"), &["w"]).await;
    assert_eq!(code(api.run_retry(run).await), Code::RunState);
    let held = claim(&api, "w", 9).await;
    double(&api, "w", &held[..1]).await;
    let failure = Failure::new("tool.broken", "not today");
    report(&api, "w", &held[1], failed(failure)).await.unwrap();
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Failed);
    assert_eq!(view.final_result, Some(json!([2]).into()));
    api.run_retry(run).await.unwrap();
    let view = api.run_get(run).await.unwrap();
    assert_eq!((view.status, view.partial), (RunStatus::Running, false));
    let again = claim(&api, "w", 9).await;
    assert_eq!(ids(&again), [held[1].task_id]);
    double(&api, "w", &again).await;
    let view = api.run_get(run).await.unwrap();
    assert_eq!(
        (view.status, view.final_result),
        (RunStatus::Completed, Some(json!([2, 4]).into()))
    );
    let cancelled = api.run_cancel(run, "too late".into()).await;
    assert_eq!(code(cancelled), Code::RunState);
}

/// Runs are listed newest first, in pages, by state; a key starts one run.
pub async fn runs_are_listed_newest_first(api: Subject) {
    let mut runs = Vec::new();
    for goal in ["one", "two", "three"] {
        runs.push(start(&api, goal, fan_out(&[1], "collect"), &[]).await);
    }
    api.run_cancel(runs[1], "no".into()).await.unwrap();
    let list = |query| {
        let api = Arc::clone(&api);
        async move {
            let page = api.run_list(query).await.unwrap();
            let runs: Vec<RunId> = page.items.iter().map(|run| run.run_id).collect();
            (runs, page.next)
        }
    };
    let first = RunQuery {
        limit: 2,
        ..RunQuery::default()
    };
    let (items, next) = list(first.clone()).await;
    assert_eq!(items, [runs[2], runs[1]]);
    let after = RunQuery {
        after: Some(next.unwrap().parse().unwrap()),
        ..first
    };
    assert_eq!(list(after).await, (vec![runs[0]], None));
    let cancelled = RunQuery {
        status: Some(RunStatus::Cancelled),
        ..RunQuery::default()
    };
    assert_eq!(list(cancelled).await, (vec![runs[1]], None));
    let keyed = |goal: &str| RunStart {
        goal: goal.to_owned(),
        supervisor: name("supervisor"),
        graph: serde_json::from_value(json!({"steps": fan_out(&[1], "collect")})).unwrap(),
        crew: Crew::default(),
        metadata: Default::default(),
        key: Some(name("monday")),
        trace: None,
        budget: None,
    };
    let known = api.run_start(keyed("four")).await.unwrap();
    assert_eq!(api.run_start(keyed("four")).await.unwrap(), known);
    let other = api.run_start(keyed("five")).await;
    assert_eq!(code(other), Code::IdempotencyMismatch);
    assert_eq!(
        code(api.run_start(keyed(" ")).await),
        Code::IdempotencyMismatch
    );
    let empty = RunStart {
        key: None,
        ..keyed(" ")
    };
    assert_eq!(code(api.run_start(empty).await), Code::GoalEmpty);
    let hollow = RunStart {
        key: None,
        graph: Default::default(),
        ..keyed("six")
    };
    assert_eq!(code(api.run_start(hollow).await), Code::GraphInvalid);
}

/// The tasks of a run come in pages that miss none, in whatever order its steps were written.
pub async fn a_runs_tasks_are_listed_in_pages(api: Subject) {
    register(&api, sized("w", 9)).await;
    let steps = json!([
        {"id": "late", "needs": ["early"], "each": {"items": [1, 2, 3], "task": {"kind": "double"}}},
        {"id": "early", "each": {"items": [4, 5], "task": {"kind": "double"}}},
    ]);
    let run = start(&api, "in two stages", steps, &["w"]).await;
    double(&api, "w", &claim(&api, "w", 9).await).await;
    let mut query = TaskQuery {
        limit: 2,
        ..of_run(run)
    };
    let mut inputs = Vec::new();
    loop {
        let page = api.task_list(query.clone()).await.unwrap();
        inputs.extend(page.items.iter().map(|task| task.input.value()));
        match page.next {
            Some(next) => query.after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(inputs, [4, 5, 1, 2, 3].map(Value::from), "oldest first");
    let done = TaskQuery {
        status: Some(TaskStatus::Completed),
        ..of_run(run)
    };
    assert_eq!(api.task_list(done).await.unwrap().items.len(), 2);
}
