//! Who gets which task, and when.

use super::*;

/// A worker that waits gets what is submitted later, without asking again.
// S1-104: a worker is woken instead of polling.
pub async fn a_waiting_worker_gets_what_comes(api: Subject) {
    register(&api, worker("w")).await;
    let asked = Instant::now();
    let nothing = api.work(claiming("w", 1, 120)).await.unwrap();
    assert!(nothing.tasks.is_empty());
    // The engine counts whole milliseconds.
    assert!((ms(119)..ms(2_000)).contains(&asked.elapsed()));
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { take(&api, "w").await })
    };
    sleep(ms(100)).await;
    assert!(!waiting.is_finished());
    let submitted = Instant::now();
    let task = submit(&api, spec("a")).await;
    assert_eq!(waiting.await.unwrap().task_id, task);
    assert!(submitted.elapsed() < ms(1_000));
}

/// Of two workers that wait, the one with less to do is served, though the other waited longer.
pub async fn of_waiting_workers_the_least_loaded_is_first(api: Subject) {
    register(&api, sized("loaded", 2)).await;
    register(&api, sized("idle", 2)).await;
    submit(&api, spec("a")).await;
    take(&api, "loaded").await;
    let wait = |worker: &'static str| {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.work(claiming(worker, 1, 2_000)).await.unwrap().tasks })
    };
    let loaded = wait("loaded");
    sleep(ms(200)).await;
    let idle = wait("idle");
    sleep(ms(200)).await;
    let task = submit(&api, spec("b")).await;
    assert_eq!(ids(&idle.await.unwrap()), [task]);
    assert!(loaded.await.unwrap().is_empty());
}

/// Higher priority first, equals in the order they came; a look ahead shows just that order.
// S1-107, S3-170, S3-137: what a peek shows next is what is claimed next.
pub async fn the_more_urgent_goes_first_and_equals_in_order(api: Subject) {
    let at = |priority| TaskSpec {
        priority,
        ..spec("a")
    };
    let given = [
        Priority::NORMAL,
        Priority::BATCH,
        Priority::HIGH,
        Priority::NORMAL,
        Priority::CRITICAL,
        Priority::LOW,
        Priority::HIGH,
    ];
    let tasks = submit_all(&api, given.map(at).into()).await;
    let expected: Vec<TaskId> = [4, 2, 6, 0, 3, 5, 1].map(|n| tasks[n]).into();
    let peeked = api.queue_peek(name("default"), 100).await.unwrap();
    let peeked: Vec<TaskId> = peeked.iter().map(|task| task.task_id).collect();
    assert_eq!(peeked, expected);
    let first = api.queue_peek(name("default"), 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(api.statistics().await.unwrap().tasks_pending, 7);
    register(&api, sized("w", 10)).await;
    let mut claimed = ids(&claim(&api, "w", 3).await);
    claimed.extend(ids(&claim(&api, "w", 10).await));
    assert_eq!(claimed, expected);
    let empty = api.queue_peek(name("default"), 9).await.unwrap();
    assert!(empty.is_empty());
}

/// Starts a run of one step with this many tasks like this one.
async fn heavy(api: &Subject, tasks: u64, task: Value) -> RunId {
    let items: Vec<u64> = (0..tasks).collect();
    let steps = json!([{"id": "part", "each": {"items": items, "task": task}}]);
    start(api, "a lot", steps, &[]).await
}

/// Claims one by one, completing each, until this many that are wanted have come: how many claims
/// it took.
async fn claims_until(api: &Subject, count: usize, wanted: impl Fn(&Assignment) -> bool) -> usize {
    let (mut claims, mut found) = (0, 0);
    while found < count {
        let held = take(api, "w").await;
        claims += 1;
        assert!(claims < 1_000, "{found} of {count} after {claims} claims");
        found += usize::from(wanted(&held));
        complete(api, "w", &held, json!(1)).await;
    }
    claims
}

/// A run with few tasks beside one with many waits no more than three times its time alone; a look
/// ahead shows the turns; and one claim of many is as fair as many of one.
pub async fn a_light_run_takes_turns_with_a_heavy_one(api: Subject) {
    register(&api, sized("w", 100)).await;
    let big = heavy(&api, 1_000, json!({"kind": "big"})).await;
    claims_until(&api, 5, |held| held.kind == name("big")).await;
    let small = heavy(&api, 10, json!({"kind": "small"})).await;
    let claims = claims_until(&api, 10, |held| held.kind == name("small")).await;
    assert!(claims <= 30, "{claims} claims");
    let small_run = api.run_get(small).await.unwrap();
    assert_eq!(small_run.status, RunStatus::Completed);
    heavy(&api, 10, json!({"kind": "small"})).await;
    let peeked = api.queue_peek(name("default"), 30).await.unwrap();
    let ahead: Vec<TaskId> = peeked.iter().map(|task| task.task_id).collect();
    let held = claim(&api, "w", 30).await;
    assert_eq!(ids(&held), ahead);
    let small = held.iter().filter(|held| held.kind == name("small"));
    assert_eq!(small.count(), 10);
    let left = api.run_get(big).await.unwrap();
    assert_eq!(left.status, RunStatus::Running);
}

/// Many types, or a bound on what runs at once, get a run no more turns than another has.
pub async fn a_run_has_one_share_whatever_its_tasks_are(api: Subject) {
    register(&api, worker("w")).await;
    let items: Vec<u64> = (0..100).collect();
    let step = |n: u64| {
        let kind = format!("big-{n}");
        json!({"id": kind.as_str(), "each": {"items": items, "task": {"kind": kind}, "concurrency": 90}})
    };
    let steps: Vec<Value> = (0..9).map(step).collect();
    start(&api, "a lot of everything", json!(steps), &[]).await;
    claims_until(&api, 20, |_| true).await;
    heavy(&api, 10, json!({"kind": "small"})).await;
    let claims = claims_until(&api, 10, |held| held.kind == name("small")).await;
    assert!(claims <= 30, "{claims} claims");
}

/// Tasks of a key beside many of another; each key has its turns.
pub async fn a_light_concurrency_key_takes_turns_with_a_heavy_one(api: Subject) {
    register(&api, worker("w")).await;
    let keyed = |key: &str| TaskSpec {
        slot: Some(SlotUse {
            key: name(key),
            max: 50,
        }),
        ..spec("a")
    };
    submit_all(&api, vec![keyed("customer-1"); 1_000]).await;
    let light = submit_all(&api, vec![keyed("customer-2"); 10]).await;
    let claims = claims_until(&api, 10, |held| light.contains(&held.task_id)).await;
    assert!(claims <= 30, "{claims} claims");
}

/// A task of no run is not kept waiting by a run, however big that is; nor a run by many such tasks.
pub async fn a_single_task_passes_a_big_run(api: Subject) {
    register(&api, worker("w")).await;
    heavy(&api, 1_000, json!({"kind": "big"})).await;
    let single = submit(&api, spec("a")).await;
    let claims = claims_until(&api, 1, |held| held.task_id == single).await;
    assert!(claims <= 3, "{claims} claims");
    submit_all(&api, vec![spec("a"); 1_000]).await;
    let run = heavy(&api, 1, json!({"kind": "small"})).await;
    let claims = claims_until(&api, 1, |held| held.run_id == Some(run)).await;
    assert!(claims <= 4, "{claims} claims");
}

/// However long another has not been served, what is more urgent goes first; of equally urgent runs
/// each has its turn.
pub async fn urgent_work_comes_before_turns(api: Subject) {
    register(&api, sized("w", 100)).await;
    heavy(&api, 100, json!({"kind": "normal"})).await;
    heavy(&api, 10, json!({"kind": "one", "priority": 10})).await;
    heavy(&api, 10, json!({"kind": "two", "priority": 10})).await;
    let held = claim(&api, "w", 24).await;
    let kinds: Vec<&str> = held.iter().map(|held| held.kind.as_str()).collect();
    let of = |kinds: &[&str], kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!(of(&kinds[..10], "one"), 5, "{kinds:?}");
    assert_eq!(of(&kinds[..20], "normal"), 0, "{kinds:?}");
    assert_eq!(of(&kinds[20..], "normal"), 4, "{kinds:?}");
}

/// Who cannot do it does not get it; the task says what is missing; case does not matter.
// S3-105, S3-44: never sent to an incapable worker; none capable is a visible reason.
pub async fn a_capability_is_needed(api: Subject) {
    register(&api, worker("blind")).await;
    let needs = TaskSpec {
        capability: Some(name("vision")),
        ..spec("see")
    };
    let task = submit(&api, needs).await;
    assert!(claim(&api, "blind", 1).await.is_empty());
    match waits(&api, task).await {
        Some(Waits::NoCapableWorker { missing }) => assert!(missing.contains("vision")),
        other => panic!("{other:?}"),
    }
    let seeing = WorkerSpec {
        capabilities: names(&["sql", "Vision"]),
        ..worker("seeing")
    };
    register(&api, seeing).await;
    assert_eq!(waits(&api, task).await, Some(Waits::Ready));
    assert!(claim(&api, "blind", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "seeing", 1).await), [task]);
}

/// A task for one worker alone goes to nobody else, however idle they are.
// S0-57: only the worker that a task is for gets it.
pub async fn an_address_is_kept(api: Subject) {
    register(&api, worker("me")).await;
    register(&api, worker("other")).await;
    let mine = TaskSpec {
        address: Address::Only(name("me")),
        ..spec("a")
    };
    let task = submit(&api, mine).await;
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "me", 1).await), [task]);
    let absent = TaskSpec {
        address: Address::Only(name("nobody")),
        ..spec("a")
    };
    let lonely = submit(&api, absent).await;
    match waits(&api, lonely).await {
        Some(Waits::NoCapableWorker { missing }) => assert!(missing.contains("nobody")),
        other => panic!("{other:?}"),
    }
}

/// The preferred worker has it while it has room; a worker that is gone is waited for by nobody.
// S3-106: the preferred worker is honoured when it is available.
pub async fn a_preference_is_honoured(api: Subject) {
    register(&api, worker("fond")).await;
    register(&api, sized("other", 9)).await;
    let prefers = || TaskSpec {
        address: Address::Prefer(name("fond")),
        ..spec("a")
    };
    let tasks = submit_all(&api, vec![prefers(), prefers()]).await;
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "fond", 1).await), tasks[..1]);
    // It is full now: the second waits a moment for it, and then takes whoever is there.
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(take(&api, "other").await.task_id, tasks[1]);
    api.worker_leave(name("fond"), None, "good-bye".into())
        .await
        .unwrap();
    let third = submit(&api, prefers()).await;
    assert_eq!(ids(&claim(&api, "other", 9).await), [tasks[0], third]);
}

/// A task with an instant is not given before it, and soon after it.
pub async fn nothing_is_given_before_its_time(api: Subject) {
    register(&api, worker("w")).await;
    let until = now().plus_ms(800);
    let later = TaskSpec {
        not_before: Some(until),
        ..spec("a")
    };
    let task = submit(&api, later).await;
    assert_eq!(waits(&api, task).await, Some(Waits::NotDue { until }));
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(take(&api, "w").await.task_id, task);
    let late = now().since_ms(until);
    assert!(now() >= until && late < 1_000, "{late} ms late");
}

/// A task waits for the tasks it names, says for which, and is free when the last has completed.
// S4-36: a blocked task is not given out, and says what blocks it.
pub async fn dependencies_hold_back(api: Subject) {
    register(&api, sized("w", 9)).await;
    let first = submit_all(&api, vec![spec("a"), spec("b")]).await;
    let after = TaskSpec {
        after: first.clone(),
        ..spec("c")
    };
    let task = submit(&api, after.clone()).await;
    let blocked = Some(Waits::BlockedBy {
        tasks: first.clone(),
    });
    assert_eq!(waits(&api, task).await, blocked);
    let held = claim(&api, "w", 9).await;
    assert_eq!(ids(&held), first);
    complete(&api, "w", &held[0], json!(1)).await;
    let blocked = Some(Waits::BlockedBy {
        tasks: vec![first[1]],
    });
    assert_eq!(waits(&api, task).await, blocked);
    assert!(claim(&api, "w", 9).await.is_empty());
    complete(&api, "w", &held[1], json!(1)).await;
    assert_eq!(ids(&claim(&api, "w", 9).await), [task]);
    // What it waits for is done already: it waits for nothing.
    let next = submit(&api, after).await;
    assert_eq!(waits(&api, next).await, Some(Waits::Ready));
}

/// At most so many tasks with one key run at once; others pass, and the reason is visible.
pub async fn a_concurrency_key_bounds_what_runs(api: Subject) {
    register(&api, sized("w", 9)).await;
    let keyed = || TaskSpec {
        slot: Some(SlotUse {
            key: name("customer-7"),
            max: 2,
        }),
        ..spec("a")
    };
    let tasks = submit_all(&api, vec![keyed(), keyed(), keyed(), keyed(), spec("b")]).await;
    let held = claim(&api, "w", 9).await;
    // The key and the rest take turns.
    assert_eq!(ids(&held), [tasks[0], tasks[4], tasks[1]]);
    match waits(&api, tasks[2]).await {
        Some(Waits::AtCapacity { full }) => assert!(full.contains("customer-7")),
        other => panic!("{other:?}"),
    }
    assert!(claim(&api, "w", 9).await.is_empty());
    complete(&api, "w", &held[0], json!(1)).await;
    assert_eq!(ids(&claim(&api, "w", 9).await), [tasks[2]]);
    let fault = Failure::permanent("x", "no");
    report(&api, "w", &held[2], failed(fault)).await.unwrap();
    assert_eq!(ids(&claim(&api, "w", 9).await), [tasks[3]]);
}

/// An attempt that takes too long is taken back on time: its worker is told and free, the task goes
/// on with somebody else, and the late result is refused.
// S3-108: the time limit is enforced.
pub async fn a_time_limit_returns_the_task(api: Subject) {
    register(&api, worker("slow")).await;
    register(&api, worker("quick")).await;
    let limited = TaskSpec {
        timeout_ms: 200,
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 0,
            ..RetryPolicy::default()
        },
        ..spec("a")
    };
    let task = submit(&api, limited).await;
    let began = Instant::now();
    let held = take(&api, "slow").await;
    let next = take(&api, "quick").await;
    let took = began.elapsed();
    assert!((ms(190)..ms(1_200)).contains(&took), "{took:?}");
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.ended[0].state, AttemptState::TimedOut);
    let failure = view.ended[0].failure.clone().unwrap();
    assert_eq!(failure.code, "attempt.timed_out");
    let slow = api.worker_get(name("slow")).await.unwrap();
    assert_eq!(
        (slow.status, slow.current_task_count),
        (WorkerStatus::Available, 0)
    );
    let signals = api
        .worker_heartbeat(name("slow"), None, SOON)
        .await
        .unwrap();
    assert!(matches!(&signals[..], [Signal::Stop { task: told, attempt: 1, .. }] if *told == task));
    let late = report(&api, "slow", &held, completed(json!("late"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    // The second attempt was the last.
    let view = api.task_wait(task, SOON).await.unwrap();
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.unwrap().code, "attempt.timed_out");
}

/// A failure is followed by a wait and another attempt, the last one by the dead letters; from there
/// somebody can send it on its way again.
// S3-142, S3-120: transitions are guarded; a task counts as failed when no attempt is left.
// S2-39, S2-41: retries and what follows the last one are built in. S4-136: a dead letter can be seen
// and redriven. S0-211: failing, waiting for the next attempt, redriving.
pub async fn failures_are_retried_then_dead_then_redriven(api: Subject) {
    register(&api, worker("w")).await;
    let given = TaskSpec {
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 1_000,
            factor_percent: 200,
            backoff_max_ms: 60_000,
        },
        ..spec("a")
    };
    let task = submit(&api, given.clone()).await;
    let held = take(&api, "w").await;
    let reported = now();
    let failure = Failure::new("tool.broken", "the first try");
    report(&api, "w", &held, failed(failure)).await.unwrap();
    let Some(Waits::NotDue { until }) = waits(&api, task).await else {
        panic!("no wait before the second attempt")
    };
    let wait = until.since_ms(reported);
    assert!((500..=3_000).contains(&wait), "{wait} ms");
    assert_eq!(api.statistics().await.unwrap().tasks_failed, 0);
    assert!(claim(&api, "w", 1).await.is_empty());
    let held = take(&api, "w").await;
    assert!(now() >= until);
    assert_eq!((held.task_id, held.attempt), (task, 2));
    let long = "x".repeat(2 * FAILURE_BYTES_MAX);
    let failure = Failure::new("tool.broken", long);
    report(&api, "w", &held, failed(failure)).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.status, view.attempts), (TaskStatus::Failed, 2));
    let failure = view.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.message.len()),
        ("tool.broken", FAILURE_BYTES_MAX)
    );
    let cancelled = api.task_cancel(task, "too late".into()).await;
    assert_eq!(code(cancelled), Code::TaskState);
    api.task_redrive(task).await.unwrap();
    assert_eq!(code(api.task_redrive(task).await), Code::TaskState);
    let held = take(&api, "w").await;
    assert_eq!((held.task_id, held.attempt), (task, 3));
    complete(&api, "w", &held, json!("at last")).await;
    assert_eq!(status(&api, task).await, TaskStatus::Completed);
    // What another attempt would only repeat is not tried again.
    let hopeless = submit(&api, given).await;
    let held = take(&api, "w").await;
    let failure = Failure::permanent("input.bad", "no text");
    report(&api, "w", &held, failed(failure)).await.unwrap();
    assert_eq!(status(&api, hopeless).await, TaskStatus::Failed);
    let statistics = api.statistics().await.unwrap();
    assert_eq!((statistics.tasks_failed, statistics.attempts), (1, 4));
}

/// A task given to another worker is a new attempt there; the old worker is told and its late result
/// is refused.
// S1-12: a new attempt on the new worker; the old worker's late result is ignored.
pub async fn a_reassigned_task_changes_hands(api: Subject) {
    for id in ["old", "new", "third"] {
        register(&api, worker(id)).await;
    }
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "old").await;
    api.task_reassign(task, Address::Only(name("new")))
        .await
        .unwrap();
    assert!(claim(&api, "third", 1).await.is_empty());
    let next = take(&api, "new").await;
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let signals = api.worker_heartbeat(name("old"), None, SOON).await.unwrap();
    assert!(matches!(signals[..], [Signal::Stop { attempt: 1, .. }]));
    let late = report(&api, "old", &held, completed(json!("old"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "new", &next, json!("new")).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(
        (view.output, view.worker),
        (Some(json!("new").into()), Some(name("new")))
    );
    let done = api.task_reassign(task, Address::Any).await;
    assert_eq!(code(done), Code::TaskState);
}
