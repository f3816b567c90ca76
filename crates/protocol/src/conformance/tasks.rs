//! Submitting, reading, reporting, cancelling, waiting: a task from its first word to its last.

use super::*;

/// Each for itself: good ones are accepted in order, a bad one is refused with its reason.
// S3-112, S3-138: many in one request with an outcome for each.
pub async fn submissions_are_answered_one_by_one(api: Subject) {
    let bad = TaskSpec {
        timeout_ms: 0,
        ..spec("bad")
    };
    let tasks = [spec("a"), bad, spec("b")].map(Submission::new);
    let answers = api.task_submit(tasks.into()).await.unwrap();
    let [Ok(a), Err(refused), Ok(b)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(refused.code, Code::OutOfRange);
    assert!(a < b, "ids are ordered by submission");
    assert_eq!(api.task_get(*a).await.unwrap().kind, name("a"));
    assert_eq!(api.task_get(*b).await.unwrap().kind, name("b"));
    assert_eq!(api.task_submit(Vec::new()).await.unwrap(), []);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 2);
}

/// More commands than a request may have are refused together, with the bound in the message.
pub async fn a_request_has_a_bound(api: Subject) {
    let one = Submission::new(spec("a"));
    let many = vec![one; REQUEST_COMMANDS_MAX + 1];
    let error = api.task_submit(many).await.unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded);
    assert!(error.message.contains("10001") && error.message.contains("10000"));
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 0);
    register(&api, worker("w")).await;
    let work = Work {
        worker: name("w"),
        session: None,
        reports: vec![(TaskId::new(1), 1, Report::Started); REQUEST_COMMANDS_MAX + 1],
        claim: None,
    };
    assert_eq!(code(api.work(work).await), Code::LimitExceeded);
}

/// The same key and content is one task; the same key with another content is refused.
pub async fn an_idempotency_key_makes_one_task(api: Subject) {
    let keyed = |kind| Submission {
        key: Some(name("order-1")),
        ..Submission::new(spec(kind))
    };
    let both = vec![keyed("a"), keyed("a")];
    let answers = api.task_submit(both).await.unwrap();
    let again = api.task_submit(vec![keyed("a")]).await.unwrap();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], again[0]);
    let other = api.task_submit(vec![keyed("b")]).await.unwrap().remove(0);
    assert_eq!(code(other), Code::IdempotencyMismatch);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 1);
}

/// An id that the submitter chose, twice, is one task.
// S3-102: a client-supplied id is idempotent.
pub async fn a_chosen_id_makes_one_task(api: Subject) {
    let id = TaskId::new(0x0190_0000_0000_7000_8000_0000_0000_0001);
    let chosen = |kind| Submission {
        id: Some(id),
        ..Submission::new(spec(kind))
    };
    for _ in 0..2 {
        let answers = api.task_submit(vec![chosen("a")]).await.unwrap();
        assert_eq!(answers, [Ok(id)]);
    }
    let other = api.task_submit(vec![chosen("b")]).await.unwrap().remove(0);
    assert_eq!(code(other), Code::TaskExists);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 1);
    assert_eq!(api.task_get(id).await.unwrap().kind, name("a"));
}

/// What was submitted is what is read, to the byte.
// S3-139: a task is read by its id.
pub async fn a_task_reads_back(api: Subject) {
    let input = Json::from_text("{\"b\": 1.50, \"a\": \"ü\"}".into()).unwrap();
    let given = TaskSpec {
        queue: name("mail"),
        priority: Priority(12),
        capability: Some(name("vision")),
        address: Address::Prefer(name("w")),
        metadata: [(name("customer"), "7".to_owned())].into(),
        ..TaskSpec::new(name("summarize"), input.clone())
    };
    let before = now();
    let task = submit(&api, given).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.task_id, view.status), (task, TaskStatus::Pending));
    assert_eq!(view.kind, name("summarize"));
    assert_eq!(view.input.text(), input.text());
    assert_eq!((view.priority, view.band.as_str()), (Priority(12), "high"));
    assert_eq!(
        (view.queue, view.capability),
        (name("mail"), Some(name("vision")))
    );
    assert_eq!(view.address, Address::Prefer(name("w")));
    assert_eq!(view.metadata, [(name("customer"), "7".to_owned())].into());
    assert_eq!((view.attempts, view.output), (0, None));
    assert!((before..=now()).contains(&view.submitted_at));
    assert!(matches!(
        view.waits_for,
        Some(Waits::NoCapableWorker { .. })
    ));
}

/// Pages follow each other without a gap, each filter filters, and together they all hold.
// S3-172: batch submit, batch result retrieval, parallel execution.
pub async fn tasks_are_listed_in_pages_and_filtered(api: Subject) {
    let kinds = |n: usize| spec(if n.is_multiple_of(2) { "even" } else { "odd" });
    let all = submit_all(&api, (0..25).map(kinds).collect()).await;
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    let mut query = TaskQuery {
        limit: 10,
        ..TaskQuery::default()
    };
    loop {
        let page = api.task_list(query.clone()).await.unwrap();
        sizes.push(page.items.len());
        found.extend(page.items.iter().map(|task| task.task_id));
        match page.next {
            Some(next) => query.after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!((found, sizes), (all.clone(), vec![10, 10, 5]));
    register(&api, sized("w", 3)).await;
    let held = claim(&api, "w", 3).await;
    assert_eq!(ids(&held), all[..3], "three at once");
    complete(&api, "w", &held[0], json!(1)).await;
    complete(&api, "w", &held[1], json!(2)).await;
    let list = |query| {
        let api = Arc::clone(&api);
        async move {
            let page = api.task_list(query).await.unwrap();
            assert_eq!(page.next, None);
            page.items
        }
    };
    let base = TaskQuery::default;
    let odd = list(TaskQuery {
        kind: Some(name("odd")),
        ..base()
    })
    .await;
    assert_eq!(odd.len(), 12);
    let done = list(TaskQuery {
        status: Some(TaskStatus::Completed),
        ..base()
    })
    .await;
    let results: Vec<_> = done.iter().map(|t| (t.task_id, t.output.clone())).collect();
    let result = |n: usize| (all[n], Some(Json::from(json!(n + 1))));
    assert_eq!(results, [result(0), result(1)]);
    let of_w = list(TaskQuery {
        worker: Some(name("w")),
        ..base()
    })
    .await;
    assert_eq!(of_w.len(), 3);
    let together = TaskQuery {
        worker: Some(name("w")),
        status: Some(TaskStatus::Completed),
        kind: Some(name("odd")),
        ..base()
    };
    let together = list(together).await;
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].task_id, all[1]);
}

/// Whoever names what does not exist is told so, with the code of what is missing.
// S3-113, S3-59: an unknown id is an error, never an answer that looks like one.
pub async fn unknown_ids_are_errors(api: Subject) {
    let (task, run) = (TaskId::new(1), RunId::new(1));
    let (entry, message) = (EntryId::new(1), MessageId::new(1));
    let nobody = || name("nobody");
    let why = || "why".to_owned();
    let after = TaskSpec {
        after: vec![task],
        ..spec("a")
    };
    let waits = api.task_submit(vec![Submission::new(after)]).await;
    register(&api, worker("w")).await;
    let reports = Work {
        worker: name("w"),
        session: None,
        reports: vec![(task, 1, Report::Started)],
        claim: None,
    };
    let mut reported = api.work(reports).await.unwrap().reports;
    for found in [
        code(api.task_get(task).await),
        code(api.task_wait(task, ms(10)).await),
        code(api.task_cancel(task, why()).await),
        code(api.task_redrive(task).await),
        code(api.task_reassign(task, Address::Any).await),
        code(waits.unwrap().remove(0)),
        code(reported.remove(0)),
    ] {
        assert_eq!(found, Code::TaskUnknown);
    }
    let mut written = NewEntry::new(nobody(), Json::default());
    written.run = Some(run);
    let filter = EntryFilter {
        run: Some(run),
        ..EntryFilter::default()
    };
    for found in [
        code(api.run_get(run).await),
        code(api.run_settle(run, name("all"), Json::default()).await),
        code(api.run_cancel(run, why()).await),
        code(api.run_retry(run).await),
        code(api.task_list(of_run(run)).await),
        code(api.entry_list(filter).await),
        code(api.entry_write(written).await),
    ] {
        assert_eq!(found, Code::RunUnknown);
    }
    let known = start(&api, "a goal", fan_out(&[1], "collect"), &[]).await;
    let settled = api.run_settle(known, nobody(), Json::default()).await;
    assert_eq!(code(settled), Code::StepUnknown);
    let pool = Pool {
        id: name("pool"),
        strategy: Strategy::RoundRobin,
        members: vec![nobody()],
        version: 0,
    };
    for found in [
        code(api.worker_get(nobody()).await),
        code(api.worker_heartbeat(nobody(), None, ms(0)).await),
        code(api.worker_leave(nobody(), None, why()).await),
        code(api.worker_drain(nobody()).await),
        code(api.worker_error(nobody(), why()).await),
        code(api.work(claiming("nobody", 1, 0)).await),
        code(api.pool_define(pool, None).await),
        code(api.pool_unreserve(nobody(), name("me")).await),
    ] {
        assert_eq!(found, Code::WorkerUnknown);
    }
    for found in [
        code(api.pool_statistics(nobody()).await),
        code(api.pool_join(nobody(), name("w")).await),
        code(api.pool_leave(nobody(), name("w")).await),
        code(api.pool_reserve(nobody(), None, name("me"), SOON).await),
    ] {
        assert_eq!(found, Code::PoolUnknown);
    }
    let taken = api.entry_claim(entry, None, Some(nobody())).await;
    assert_eq!(code(taken), Code::EntryUnknown);
    assert_eq!(code(api.message_get(message).await), Code::MessageUnknown);
    let settled = api.message_settle(message, nobody(), None).await;
    assert_eq!(code(settled), Code::MessageUnknown);
}

/// The way of a task: pending, assigned, in progress, completed, with all that a result says.
// S3-114, S3-110, S3-109, S3-141: the states by their names; the seven parts of a result.
// S0-211: submitting, assigning, starting, progress, completing.
pub async fn work_is_claimed_begun_and_completed(api: Subject) {
    register(&api, worker("w")).await;
    let given = TaskSpec {
        metadata: [(name("ticket"), "7".to_owned())].into(),
        ..spec("summarize")
    };
    let task = submit(&api, given).await;
    assert_eq!(waits(&api, task).await, Some(Waits::Ready));
    let mut asked = claiming("w", 1, 0);
    asked.claim = Some(Claim {
        max: 1,
        starts: false,
        wait_ms: 0,
        key: None,
        again: false,
    });
    let held = api.work(asked).await.unwrap().tasks.remove(0);
    assert_eq!((held.task_id, held.attempt), (task, 1));
    assert_eq!(held.kind, name("summarize"));
    assert_eq!(held.metadata, [(name("ticket"), "7".to_owned())].into());
    let view = api.task_get(task).await.unwrap();
    assert_eq!(
        (view.status.as_str(), view.worker, view.waits_for),
        ("assigned", Some(name("w")), None)
    );
    report(&api, "w", &held, Report::Started).await.unwrap();
    report(&api, "w", &held, Report::Started).await.unwrap();
    let progress = Report::Progressed {
        fraction: Some(0.5),
        note: "half".into(),
    };
    report(&api, "w", &held, progress).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status.as_str(), "in_progress");
    let progress = view.progress.unwrap();
    assert_eq!(
        (progress.fraction, progress.note.as_str(), progress.attempt),
        (Some(0.5), "half", 1)
    );
    sleep(ms(30)).await;
    complete(&api, "w", &held, json!({"words": 12})).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.task_id, view.status.as_str()), (task, "completed"));
    assert_eq!(view.output, Some(json!({"words": 12}).into()));
    assert_eq!((view.failure, view.worker), (None, Some(name("w"))));
    assert!(view.ran_ms.is_some_and(|ran| (30..5_000).contains(&ran)));
    assert_eq!(view.metadata, [(name("ticket"), "7".to_owned())].into());
    assert_eq!(view.ended.len(), 1);
    assert_eq!(view.ended[0].state, AttemptState::Succeeded);
    assert!(view.ended_at >= Some(view.submitted_at));
}

/// One request says what became of the last task and brings the next; each report is answered.
pub async fn completing_and_claiming_is_one_request(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b"), spec("c")]).await;
    let mut held = take(&api, "w").await;
    for expected in &tasks[1..] {
        let mut work = claiming("w", 1, 0);
        work.reports = vec![(held.task_id, held.attempt, completed(json!(1)))];
        let worked = api.work(work).await.unwrap();
        assert_eq!(worked.reports, [Ok(())]);
        assert_eq!(ids(&worked.tasks), [*expected]);
        held = worked.tasks[0].clone();
    }
    let mut work = claiming("w", 1, 0);
    work.reports = vec![
        (held.task_id, 9, completed(json!(1))),
        (held.task_id, held.attempt, completed(json!(1))),
    ];
    let worked = api.work(work).await.unwrap();
    let refused = worked.reports[0].as_ref().unwrap_err();
    assert_eq!(refused.code, Code::AttemptStale);
    assert_eq!((&worked.reports[1], worked.tasks.len()), (&Ok(()), 0));
    assert_eq!(api.statistics().await.unwrap().tasks_completed, 3);
}

/// A task handed back goes to the next attempt with its checkpoint, at no cost to its retries.
pub async fn a_released_task_keeps_its_checkpoint(api: Subject) {
    register(&api, worker("w")).await;
    let once = TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec("long")
    };
    let task = submit(&api, once).await;
    let held = take(&api, "w").await;
    assert_eq!(held.checkpoint, None);
    let released = Report::Released {
        reason: "stopping".into(),
        checkpoint: Some(json!({"page": 7}).into()),
        after_ms: 0,
    };
    report(&api, "w", &held, released).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Pending);
    assert_eq!(view.ended[0].state, AttemptState::Cancelled);
    let again = take(&api, "w").await;
    assert_eq!((again.task_id, again.attempt), (task, 2));
    assert_eq!(again.checkpoint, Some(json!({"page": 7}).into()));
    complete(&api, "w", &again, json!(null)).await;
}

/// A result with a token that is not current any more changes nothing, and the log tells of it.
// S3-142: a state changes only by a report that may change it.
pub async fn a_stale_token_is_refused_and_recorded(api: Subject) {
    register(&api, worker("old")).await;
    register(&api, worker("new")).await;
    let task = submit(&api, spec("a")).await;
    let old = take(&api, "old").await;
    let released = Report::Released {
        reason: "tired".into(),
        checkpoint: None,
        after_ms: 0,
    };
    report(&api, "old", &old, released).await.unwrap();
    let new = take(&api, "new").await;
    assert_eq!((old.attempt, new.attempt), (1, 2));
    for late in [
        completed(json!("late")),
        failed(Failure::new("x", "late")),
        // No result is lost with this one: it is refused, and the log need not tell.
        Report::Started,
    ] {
        let refused = report(&api, "old", &old, late).await;
        assert_eq!(code(refused), Code::AttemptStale);
    }
    // The right token from the wrong worker is no better.
    let foreign = report(&api, "old", &new, completed(json!("foreign"))).await;
    assert_eq!(code(foreign), Code::AttemptStale);
    assert_eq!(status(&api, task).await, TaskStatus::InProgress);
    complete(&api, "new", &new, json!("right")).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.output, Some(json!("right").into()));
    assert_eq!(api.statistics().await.unwrap().results_refused, 3);
    let events = events(&api).await;
    let refused = events.iter().filter_map(|recorded| match &recorded.event {
        Event::ResultRefused { lease, .. } => Some((lease.task, lease.attempt)),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused, [(task, 1), (task, 1), (task, 2)]);
}

/// A second result for what is done is refused, whoever sends it.
// S3-140, S1-22: the first terminal result wins; one result for an attempt.
pub async fn the_first_result_stands(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    complete(&api, "w", &held, json!("first")).await;
    for second in [completed(json!("second")), failed(Failure::new("x", "no"))] {
        let refused = report(&api, "w", &held, second).await;
        assert_eq!(code(refused), Code::AttemptStale);
    }
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Completed);
    assert_eq!(view.output, Some(json!("first").into()));
    assert_eq!(api.statistics().await.unwrap().tasks_completed, 1);
    let cancelled = api.task_cancel(task, "too late".into()).await;
    assert_eq!(code(cancelled), Code::TaskState);
    assert_eq!(code(api.task_redrive(task).await), Code::TaskState);
}

/// A pending task that is cancelled leaves its queue; saying it twice changes nothing.
pub async fn a_pending_task_is_cancelled(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    for _ in 0..2 {
        api.task_cancel(tasks[0], "not wanted".into())
            .await
            .unwrap();
    }
    let view = api.task_get(tasks[0]).await.unwrap();
    assert_eq!(view.status, TaskStatus::Cancelled);
    assert_eq!(view.cancelled.as_deref(), Some("not wanted"));
    assert_eq!(ids(&claim(&api, "w", 1).await), [tasks[1]]);
    let queues = api.queue_list().await.unwrap();
    assert_eq!((queues[0].pending, queues[0].leased), (0, 1));
    api.task_redrive(tasks[0]).await.unwrap();
    assert_eq!(status(&api, tasks[0]).await, TaskStatus::Pending);
}

/// The worker of a running task that is cancelled is told; what it makes of it is refused.
// S3-116: a pending task leaves the queue, a running one is told to stop, both read cancelled.
pub async fn a_running_task_is_cancelled(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    api.task_cancel(tasks[1], "never began".into())
        .await
        .unwrap();
    let held = take(&api, "w").await;
    let listener = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.worker_heartbeat(name("w"), None, SOON).await })
    };
    sleep(ms(20)).await;
    let asked = Instant::now();
    api.task_cancel(tasks[0], "not wanted".into())
        .await
        .unwrap();
    let signals = listener.await.unwrap().unwrap();
    assert!(asked.elapsed() < ms(2_000), "the worker is told at once");
    let stop = Signal::Stop {
        task: tasks[0],
        attempt: 1,
        reason: "not wanted".into(),
    };
    assert_eq!(signals, [stop]);
    for task in &tasks {
        assert_eq!(status(&api, *task).await, TaskStatus::Cancelled);
    }
    let late = report(&api, "w", &held, completed(json!(1))).await;
    assert_eq!(code(late), Code::AttemptStale);
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.current_task_count, view.status),
        (0, WorkerStatus::Available)
    );
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(api.statistics().await.unwrap().tasks_cancelled, 2);
}

/// A wait returns when the task has ended, in whatever way, and says when it has not in time.
// S3-115: a result is there at once, or after a wait with a deadline.
pub async fn a_wait_ends_with_the_task_or_in_time(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let asked = Instant::now();
    let error = api.task_wait(task, ms(150)).await.unwrap_err();
    assert_eq!(error.code, Code::WaitTimedOut);
    assert!((ms(150)..ms(2_000)).contains(&asked.elapsed()));
    assert_eq!(api.task_get(task).await.unwrap().output, None);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.task_wait(task, SOON).await })
    };
    let held = take(&api, "w").await;
    sleep(ms(30)).await;
    assert!(!waiting.is_finished());
    complete(&api, "w", &held, json!(7)).await;
    let view = waiting.await.unwrap().unwrap();
    assert_eq!(
        (view.status, view.output),
        (TaskStatus::Completed, Some(json!(7).into()))
    );
    let again = api.task_wait(task, ms(0)).await.unwrap();
    assert_eq!(again.status, TaskStatus::Completed);
    let other = submit(&api, spec("b")).await;
    let (waited, cancelled) = tokio::join!(
        api.task_wait(other, SOON),
        api.task_cancel(other, "no".into())
    );
    cancelled.unwrap();
    assert_eq!(waited.unwrap().status, TaskStatus::Cancelled);
}
