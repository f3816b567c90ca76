//! Workers, pools, queues and the numbers they add up to.

use super::*;
use crate::api::{WorkerQuery, worker_list_all};

/// A worker elsewhere that falls silent loses its tasks when its lease is over, and not much later.
// S3-135, S3-64, S3-53, S3-51: a heartbeat that stays out is noticed; a crash returns the task.
// S3-30, S3-37, S4-18: without a heartbeat it is unavailable and its tasks return; the number of the
// attempt fences off who held the lease before.
pub async fn a_silent_worker_loses_its_tasks(api: Subject) {
    let leased = |id, lease_ms| WorkerSpec {
        lease_ms,
        ..worker(id)
    };
    register(&api, leased("steady", 600)).await;
    let kept = submit(&api, spec("a")).await;
    take(&api, "steady").await;
    // Heartbeats keep it for longer than its lease.
    for _ in 0..6 {
        sleep(ms(150)).await;
        let before = now();
        api.worker_heartbeat(name("steady"), None, ms(0))
            .await
            .unwrap();
        let view = api.worker_get(name("steady")).await.unwrap();
        assert!(view.last_heartbeat >= Some(before));
        assert_eq!(view.current_task_count, 1);
    }
    assert_eq!(status(&api, kept).await, TaskStatus::InProgress);
    register(&api, worker("next")).await;
    let once = TaskSpec {
        retry: RetryPolicy::NEVER,
        address: Address::Prefer(name("silent")),
        ..spec("a")
    };
    register(&api, leased("silent", 200)).await;
    let task = submit(&api, once).await;
    let held = take(&api, "silent").await;
    let last = Instant::now();
    let next = take(&api, "next").await;
    let took = last.elapsed();
    assert!((ms(100)..ms(1_200)).contains(&took), "{took:?}");
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let view = api.worker_get(name("silent")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Unavailable, 0)
    );
    assert!(view.reason.unwrap().contains("no heartbeat"));
    let task = api.task_get(task).await.unwrap();
    assert_eq!(task.ended[0].state, AttemptState::Lost);
    let beat = api.worker_heartbeat(name("silent"), None, ms(0)).await;
    assert_eq!(code(beat), Code::WorkerUnknown);
    let late = report(&api, "silent", &held, completed(json!(1))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "next", &next, json!(2)).await;
}

/// A heartbeat may wait for something to say, but never so long that the worker is taken for dead.
pub async fn a_heartbeat_that_waits_comes_in_time(api: Subject) {
    let brief = WorkerSpec {
        lease_ms: 1_000,
        ..worker("w")
    };
    register(&api, brief).await;
    submit(&api, spec("a")).await;
    take(&api, "w").await;
    let began = Instant::now();
    while began.elapsed() < ms(2_200) {
        let signals = api.worker_heartbeat(name("w"), None, SOON).await.unwrap();
        assert_eq!(signals, []);
    }
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Busy, 1)
    );
}

/// A worker that starts anew gives back what its last life held, at once.
pub async fn a_new_session_releases_at_once(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let old = take(&api, "w").await;
    let reborn = WorkerSpec {
        session: 2,
        ..worker("w")
    };
    register(&api, reborn).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Pending);
    assert_eq!(view.ended[0].state, AttemptState::Lost);
    let new = claim(&api, "w", 1).await.remove(0);
    assert_eq!((new.task_id, new.attempt), (task, 2));
    let late = report(&api, "w", &old, completed(json!("old"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "w", &new, json!("new")).await;
}

/// A worker that says good-bye gives its tasks back at once; it is gone until it registers again.
// S3-58: the tasks of one that unregisters return to the queue.
// S4-18: unregistering: it is gone until it registers again.
pub async fn a_leaving_worker_gives_back(api: Subject) {
    register(&api, sized("w", 3)).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b"), spec("c")]).await;
    assert_eq!(ids(&claim(&api, "w", 2).await), tasks[..2]);
    for _ in 0..2 {
        api.worker_leave(name("w"), None, "done for today".into())
            .await
            .unwrap();
    }
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(view.status, WorkerStatus::Unavailable);
    assert_eq!(view.reason.as_deref(), Some("done for today"));
    for task in &tasks {
        assert_eq!(status(&api, *task).await, TaskStatus::Pending);
    }
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    register(&api, worker("x")).await;
    assert_eq!(take(&api, "x").await.task_id, tasks[0]);
    register(&api, sized("w", 3)).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    assert_eq!(ids(&claim(&api, "w", 9).await), tasks[1..]);
}

/// A draining worker gets nothing new, and what it has it may finish.
pub async fn a_draining_worker_finishes(api: Subject) {
    register(&api, sized("w", 2)).await;
    let first = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let second = submit(&api, spec("b")).await;
    api.worker_drain(name("w")).await.unwrap();
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Draining);
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    complete(&api, "w", &held, json!(1)).await;
    assert_eq!(status(&api, first).await, TaskStatus::Completed);
    assert_eq!(status(&api, second).await, TaskStatus::Pending);
}

/// Three failures in a row that were the worker's own fault put it into error, as its own word does;
/// it gets nothing until it registers again.
// S3-52: error after repeated failure.
pub async fn a_failing_worker_is_in_error(api: Subject) {
    register(&api, worker("w")).await;
    let once = || TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec("a")
    };
    let tasks = submit_all(&api, (0..4).map(|_| once()).collect()).await;
    for task in &tasks[..3] {
        assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
        let held = take(&api, "w").await;
        assert_eq!(held.task_id, *task);
        let failure = Failure {
            worker_fault: true,
            ..Failure::new("worker.broken", "no tools")
        };
        report(&api, "w", &held, failed(failure)).await.unwrap();
    }
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Error);
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    assert_eq!(status(&api, tasks[3]).await, TaskStatus::Pending);
    register(&api, worker("w")).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    api.worker_error(name("w"), "no disk".into()).await.unwrap();
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Error);
    register(&api, worker("w")).await;
    assert_eq!(take(&api, "w").await.task_id, tasks[3]);
}

/// Capacity three is three at once; busy means full, not "has one".
// S3-46, S3-50, S3-55: as many at once as it says; busy at capacity only; the count is exact.
pub async fn capacity_is_real(api: Subject) {
    register(&api, sized("w", 3)).await;
    submit_all(&api, (0..5).map(|_| spec("a")).collect()).await;
    let mut held = claim(&api, "w", 2).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    held.extend(claim(&api, "w", 9).await);
    assert_eq!(held.len(), 3);
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count, view.capacity),
        (WorkerStatus::Busy, 3, 3)
    );
    assert_eq!(code(api.work(claiming("w", 1, 0)).await), Code::WorkerFull);
    assert_eq!(api.statistics().await.unwrap().tasks_in_progress, 3);
    complete(&api, "w", &held[0], json!(1)).await;
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Available, 2)
    );
    let fourth = submit(&api, spec("b")).await;
    match waits(&api, fourth).await {
        Some(Waits::Ready) => {}
        other => panic!("{other:?}"),
    }
    claim(&api, "w", 9).await;
    match waits(&api, fourth).await {
        Some(Waits::AtCapacity { full }) => assert!(full.contains("busy")),
        other => panic!("{other:?}"),
    }
    for bad in [sized("bad", 0), sized("bad", 1_000_000)] {
        assert_eq!(code(api.worker_register(bad).await), Code::OutOfRange);
    }
}

/// A worker that registers again changes what it says of itself and keeps what it did.
// S3-42, S3-47, S3-49, S3-56, S3-57, S3-62: a worker with its seven parts, one for an id.
// S3-29, S3-43, S3-45, S3-60, S3-61: found by its type, and by a capability, a tool or an intent.
// S4-18: registering, looking up, metadata.
pub async fn registering_again_updates(api: Subject) {
    let first = WorkerSpec {
        agent_type: name("analyst"),
        capabilities: names(&["sql"]),
        tools: names(&["Calculator"]),
        intents: names(&["sum_up"]),
        endpoint: Some("http://10.0.0.7:9000".into()),
        metadata: [(name("zone"), "a".to_owned())].into(),
        ..sized("w", 2)
    };
    register(&api, first.clone()).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    submit_all(&api, vec![spec("a"), spec("b")]).await;
    let held = claim(&api, "w", 2).await;
    complete(&api, "w", &held[0], json!(1)).await;
    let second = WorkerSpec {
        capabilities: names(&["sql", "vision"]),
        capacity: 5,
        ..first
    };
    register(&api, second).await;
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.worker_id, view.agent_type),
        (name("w"), name("analyst"))
    );
    assert_eq!(view.status, WorkerStatus::Available);
    assert_eq!(view.capabilities, names(&["sql", "vision"]));
    assert!(view.last_heartbeat.is_some());
    assert_eq!(view.endpoint.as_deref(), Some("http://10.0.0.7:9000"));
    assert_eq!(view.metadata, [(name("zone"), "a".to_owned())].into());
    assert_eq!(
        (view.current_task_count, view.completed, view.capacity),
        (1, 1, 5)
    );
    let all = worker_list_all(&*api).await.unwrap();
    assert_eq!(all.len(), 1);
    complete(&api, "w", &held[1], json!(1)).await;
    register(&api, worker("other")).await;
    let by = |agent_type: Option<&str>, can: Option<&str>| WorkerQuery {
        agent_type: agent_type.map(name),
        capability: can.map(name),
        ..WorkerQuery::default()
    };
    let can = |what| by(None, Some(what));
    for query in [
        by(Some("analyst"), None),
        can("vision"),
        can("calculator"),
        can("Sum_Up"),
    ] {
        let found = api.worker_list(query).await.unwrap().items;
        let found: Vec<_> = found.into_iter().map(|view| view.worker_id).collect();
        assert_eq!(found, names(&["w"]));
    }
}

/// Every number is exact at every step, and the states add up to what was submitted.
// S3-103, S3-117, S3-119, S3-120, S3-121, S3-122, S3-123, S3-124, S3-125, S3-126: exact counts.
pub async fn statistics_are_exact_and_add_up(api: Subject) {
    let adds_up = || async {
        let s = api.statistics().await.unwrap();
        let states = [
            s.tasks_pending,
            s.tasks_assigned,
            s.tasks_in_progress,
            s.tasks_completed,
            s.tasks_failed,
            s.tasks_cancelled,
        ];
        let sum: u64 = states.iter().sum();
        assert_eq!(s.total_tasks_submitted, sum);
        (s, states)
    };
    assert_eq!(adds_up().await.1, [0, 0, 0, 0, 0, 0]);
    let once = |kind| TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec(kind)
    };
    let kinds = ["a", "a", "b", "a", "b", "c"];
    let tasks = submit_all(&api, kinds.map(once).into()).await;
    assert_eq!(adds_up().await.1, [6, 0, 0, 0, 0, 0]);
    register(&api, sized("w", 9)).await;
    register(&api, sized("v", 9)).await;
    let mut asked = claiming("w", 3, 0);
    asked.claim = Some(Claim {
        max: 3,
        starts: false,
        wait_ms: 0,
        key: None,
        again: false,
    });
    let held = api.work(asked).await.unwrap().tasks;
    assert_eq!(adds_up().await.1, [3, 3, 0, 0, 0, 0]);
    report(&api, "w", &held[0], Report::Started).await.unwrap();
    assert_eq!(adds_up().await.1, [3, 2, 1, 0, 0, 0]);
    sleep(ms(25)).await;
    complete(&api, "w", &held[0], json!(1)).await;
    complete(&api, "w", &held[1], json!(1)).await;
    assert_eq!(adds_up().await.1, [3, 1, 0, 2, 0, 0]);
    let failure = Failure::new("x", "no");
    report(&api, "w", &held[2], failed(failure)).await.unwrap();
    assert_eq!(adds_up().await.1, [3, 0, 0, 2, 1, 0]);
    let other = take(&api, "v").await;
    api.task_cancel(tasks[5], "no".into()).await.unwrap();
    assert_eq!(adds_up().await.1, [1, 0, 1, 2, 1, 1]);
    complete(&api, "v", &other, json!(1)).await;
    let (s, states) = adds_up().await;
    assert_eq!(states, [1, 0, 0, 3, 1, 1]);
    assert_eq!((s.total_tasks_submitted, s.attempts), (6, 4));
    let by_type: Vec<_> = s.tasks_by_type.iter().map(|(k, n)| (&**k, *n)).collect();
    assert_eq!(by_type, [("a", 3), ("b", 2), ("c", 1)]);
    let by_agent: Vec<_> = s.tasks_by_agent.iter().map(|(k, n)| (&**k, *n)).collect();
    assert_eq!(by_agent, [("v", 1), ("w", 2)]);
    let ran = |task: TaskId| {
        let api = Arc::clone(&api);
        async move { api.task_get(task).await.unwrap().ran_ms.unwrap() }
    };
    let sum = ran(tasks[0]).await + ran(tasks[1]).await + ran(tasks[3]).await;
    assert!(sum >= 50, "two took 25 ms each");
    assert!((s.average_execution_ms - sum as f64 / 3.0).abs() < 1e-9);
    let bounds: Vec<&str> = s.percentiles_ms.keys().map(String::as_str).collect();
    assert_eq!(bounds, ["p50", "p95", "p99"]);
    assert!(s.percentiles_ms["p50"] >= 25 && s.percentiles_ms["p99"] <= 2 * sum);
    assert_eq!(s.position, events(&api).await.len() as u64);
}

async fn pool(api: &Subject, id: &str, members: &[&str]) {
    let pool = Pool {
        id: name(id),
        strategy: Strategy::LeastLoaded,
        members: names(members),
        version: 0,
    };
    api.pool_define(pool, None).await.unwrap();
}

/// Only a worker that registered joins, and only once.
// S3-130: an unregistered id is refused.
// S3-06: the worker pool: who joins.
pub async fn a_pool_takes_registered_workers_only(api: Subject) {
    pool(&api, "crew", &[]).await;
    let joined = api.pool_join(name("crew"), name("w")).await;
    assert_eq!(code(joined), Code::WorkerUnknown);
    register(&api, worker("w")).await;
    register(&api, worker("v")).await;
    api.pool_join(name("crew"), name("w")).await.unwrap();
    let again = api.pool_join(name("crew"), name("w")).await;
    assert_eq!(code(again), Code::PoolMember);
    api.pool_join(name("crew"), name("v")).await.unwrap();
    let pools = api.pool_list().await.unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0].members, names(&["w", "v"]));
    // Defining it again gives it another strategy and keeps its members.
    let other = Pool {
        id: name("crew"),
        strategy: Strategy::Weighted,
        members: Vec::new(),
        version: 0,
    };
    api.pool_define(other, None).await.unwrap();
    let pools = api.pool_list().await.unwrap();
    assert_eq!(
        (pools[0].strategy, &pools[0].members),
        (Strategy::Weighted, &names(&["w", "v"]))
    );
}

/// Callers that reserve at the same moment get different room; when there is none left they are
/// told; room that was kept is nobody else's until it is given back or its time is over.
// S3-132: finding an available worker keeps its room in the same step.
// S3-06: the worker pool: who is chosen.
pub async fn reserving_is_atomic(api: Subject) {
    let able = |id, capacity| WorkerSpec {
        capabilities: names(&["vision"]),
        ..sized(id, capacity)
    };
    register(&api, able("a", 2)).await;
    register(&api, able("b", 2)).await;
    register(&api, worker("blind")).await;
    pool(&api, "crew", &["a", "b", "blind"]).await;
    let reserve = |n: usize| {
        let api = Arc::clone(&api);
        let (pool, vision) = (name("crew"), Some(name("Vision")));
        tokio::spawn(async move {
            let holder = name(format!("holder-{n}"));
            api.pool_reserve(pool, vision, holder, SOON).await
        })
    };
    let callers: Vec<_> = (0..10).map(reserve).collect();
    let (mut got, mut refused) = (Vec::new(), 0);
    for (n, caller) in callers.into_iter().enumerate() {
        match caller.await.unwrap() {
            Ok(worker) => got.push((worker, n)),
            Err(error) => {
                assert_eq!(error.code, Code::WorkerFull);
                refused += 1;
            }
        }
    }
    let of = |id: &str| got.iter().filter(|(worker, _)| **worker == *id).count();
    assert_eq!((of("a"), of("b"), refused), (2, 2, 6));
    submit(&api, spec("x")).await;
    assert_eq!(code(api.work(claiming("a", 1, 0)).await), Code::WorkerFull);
    let (worker, holder) = got.iter().find(|(worker, _)| &**worker == "a").unwrap();
    let holder = name(format!("holder-{holder}"));
    for _ in 0..2 {
        api.pool_unreserve(worker.clone(), holder.clone())
            .await
            .unwrap();
    }
    assert_eq!(claim(&api, "a", 1).await.len(), 1);
    // A reservation that nobody gives back ends by itself.
    let keep = |holder: &str, time| api.pool_reserve(name("crew"), None, name(holder), time);
    assert_eq!(keep("short", ms(700)).await.unwrap(), name("blind"));
    let view = api.pool_statistics(name("crew")).await.unwrap();
    assert_eq!((view.available_workers, view.busy_workers), (0, 3));
    assert_eq!(code(keep("next", SOON).await), Code::WorkerFull);
    sleep(ms(750)).await;
    assert_eq!(keep("next", SOON).await.unwrap(), name("blind"));
}

/// A worker that leaves a pool drains: it finishes what it has and gets nothing new.
// S3-131: what runs finishes.
// S3-06: the worker pool: who leaves.
pub async fn leaving_a_pool_drains(api: Subject) {
    register(&api, sized("w", 2)).await;
    pool(&api, "crew", &["w"]).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    let held = take(&api, "w").await;
    api.pool_leave(name("crew"), name("w")).await.unwrap();
    let again = api.pool_leave(name("crew"), name("w")).await;
    assert_eq!(code(again), Code::WorkerUnknown);
    assert!(api.pool_list().await.unwrap()[0].members.is_empty());
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Draining);
    assert_eq!(code(api.work(claiming("w", 1, 0)).await), Code::WorkerState);
    complete(&api, "w", &held, json!(1)).await;
    assert_eq!(status(&api, tasks[0]).await, TaskStatus::Completed);
    assert_eq!(status(&api, tasks[1]).await, TaskStatus::Pending);
}

/// All six numbers of a pool move with its work, and count its members only.
// S3-128, S3-129, S3-133: six numbers, all moving.
// S3-06: the worker pool: its numbers.
pub async fn pool_statistics_move(api: Subject) {
    for id in ["a", "b", "outside"] {
        register(&api, worker(id)).await;
    }
    pool(&api, "crew", &["a", "b"]).await;
    let read = || async { api.pool_statistics(name("crew")).await.unwrap() };
    let s = read().await;
    let workers = (s.total_workers, s.available_workers, s.busy_workers);
    assert_eq!(workers, (2, 2, 0));
    assert_eq!((s.total_tasks_processed, s.average_task_ms), (0, 0.0));
    submit_all(&api, (0..3).map(|_| spec("x")).collect()).await;
    let (a, other) = (take(&api, "a").await, take(&api, "outside").await);
    let s = read().await;
    assert_eq!((s.available_workers, s.busy_workers), (1, 1));
    sleep(ms(20)).await;
    complete(&api, "a", &a, json!(1)).await;
    complete(&api, "outside", &other, json!(1)).await;
    let b = take(&api, "b").await;
    sleep(ms(20)).await;
    complete(&api, "b", &b, json!(1)).await;
    let s = read().await;
    let workers = (s.total_workers, s.available_workers, s.busy_workers);
    assert_eq!((workers, s.total_tasks_processed), ((2, 2, 0), 2));
    assert_eq!(s.tasks_by_worker, [(name("a"), 1), (name("b"), 1)].into());
    assert!(s.average_task_ms >= 20.0);
    api.pool_leave(name("crew"), name("b")).await.unwrap();
    let s = read().await;
    assert_eq!((s.total_workers, s.total_tasks_processed), (1, 1));
}

/// A paused queue takes and shows tasks and gives none out; resumed it goes on where it was.
pub async fn a_paused_queue_gives_nothing(api: Subject) {
    register(&api, worker("w")).await;
    let queue = || name("default");
    for _ in 0..2 {
        api.queue_pause(queue(), true).await.unwrap();
    }
    let task = submit(&api, spec("a")).await;
    let paused = Some(Waits::Paused { queue: queue() });
    assert_eq!(waits(&api, task).await, paused);
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(api.queue_peek(queue(), 9).await.unwrap().len(), 1);
    assert!(api.queue_list().await.unwrap()[0].paused);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { take(&api, "w").await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    api.queue_pause(queue(), false).await.unwrap();
    assert_eq!(waiting.await.unwrap().task_id, task);
    assert!(!api.queue_list().await.unwrap()[0].paused);
}

/// Each queue counts its own, waiting and leased, through every way out; a worker serves the queues
/// it names.
// S3-136: the count of what waits is exact.
pub async fn queue_counts_are_exact(api: Subject) {
    let to = |queue: &str| TaskSpec {
        queue: name(queue),
        retry: RetryPolicy::NEVER,
        ..spec("a")
    };
    let queues = ["mail", "mail", "mail", "mail", "docs"];
    let tasks = submit_all(&api, queues.map(to).into()).await;
    let counts = || async {
        let queues = api.queue_list().await.unwrap().into_iter();
        let count = |q: crate::v1::QueueView| (q.queue.to_string(), q.pending, q.leased);
        queues.map(count).collect::<Vec<_>>()
    };
    let mail = |pending, leased| ("mail".to_owned(), pending, leased);
    let docs = |pending, leased| ("docs".to_owned(), pending, leased);
    assert_eq!(counts().await, [docs(1, 0), mail(4, 0)]);
    let serving = WorkerSpec {
        queues: names(&["mail"]),
        ..sized("w", 9)
    };
    register(&api, serving).await;
    let held = claim(&api, "w", 3).await;
    assert_eq!(ids(&held), tasks[..3]);
    assert_eq!(counts().await, [docs(1, 0), mail(1, 3)]);
    complete(&api, "w", &held[0], json!(1)).await;
    let failure = Failure::new("x", "no");
    report(&api, "w", &held[1], failed(failure)).await.unwrap();
    api.task_cancel(tasks[2], "no".into()).await.unwrap();
    assert_eq!(counts().await, [docs(1, 0), mail(1, 0)]);
    assert_eq!(ids(&claim(&api, "w", 9).await), tasks[3..4]);
    let mail_only = api.queue_peek(name("mail"), 9).await.unwrap();
    assert!(mail_only.is_empty());
    let docs_next = api.queue_peek(name("docs"), 9).await.unwrap();
    assert_eq!(docs_next[0].task_id, tasks[4]);
}
