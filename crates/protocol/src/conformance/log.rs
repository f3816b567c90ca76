//! The log and those who follow it; urgent work; bounds.

use super::messages::{message, subscribe, to};
use super::*;

/// Events are numbered 1, 2, 3, … and any page begins right after the one before.
// S3-100: the log is read again from any position.
pub async fn events_are_paged_without_a_gap(api: Subject) {
    register(&api, sized("w", 9)).await;
    submit_all(&api, (0..7).map(|_| spec("a")).collect()).await;
    for held in claim(&api, "w", 9).await {
        complete(&api, "w", &held, json!(1)).await;
    }
    let all = events(&api).await;
    let positions: Vec<u64> = all.iter().map(|recorded| recorded.position).collect();
    assert_eq!(positions, (1..=22).collect::<Vec<_>>());
    assert!(all.is_sorted_by_key(|recorded| recorded.at));
    for size in [1, 2, 5, 22] {
        let mut paged = Vec::new();
        while let page = api.event_list(paged.len() as u64, size).await.unwrap()
            && !page.is_empty()
        {
            assert!(page.len() <= size);
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }
    assert!(api.event_list(22, 10).await.unwrap().is_empty());
    assert!(api.event_list(99, 10).await.unwrap().is_empty());
    assert_eq!(api.statistics().await.unwrap().position, 22);
}

/// Who waits for an event is woken by it, and after the wait knows where the log stands.
pub async fn waiting_for_an_event_wakes(api: Subject) {
    submit(&api, spec("a")).await;
    assert_eq!(api.event_wait(0, SOON).await.unwrap(), 1);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.event_wait(1, SOON).await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    submit(&api, spec("b")).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    let began = Instant::now();
    assert_eq!(api.event_wait(2, ms(100)).await.unwrap(), 2);
    assert!((ms(100)..ms(2_000)).contains(&began.elapsed()));
    // Nobody is that far: the answer is where the log really is.
    assert_eq!(api.event_wait(99, ms(10)).await.unwrap(), 2);
}

/// A reader that follows while many write sees every position once, in order.
// S4-130: a gap-free consumer; nothing skipped or repeated under concurrent writers.
pub async fn a_follower_sees_each_event_once(api: Subject) {
    let write = |_| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..50 {
                made.push(submit(&api, spec("a")).await);
            }
            made
        })
    };
    let writers: Vec<_> = (0..4).map(write).collect();
    let mut followed: Vec<Recorded> = Vec::new();
    let began = Instant::now();
    while followed.len() < 200 {
        assert!(began.elapsed() < ms(20_000), "{} events", followed.len());
        let after = followed.len() as u64;
        if api.event_wait(after, ms(500)).await.unwrap() > after {
            let page = api.event_list(after, 7).await.unwrap();
            assert!(!page.is_empty(), "what was announced can be read");
            followed.extend(page);
        }
    }
    let positions: Vec<u64> = followed.iter().map(|recorded| recorded.position).collect();
    assert_eq!(positions, (1..=200).collect::<Vec<_>>());
    let seen: BTreeSet<TaskId> = followed
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::TaskSubmitted { task, .. } => Some(*task),
            _ => None,
        })
        .collect();
    let mut made = BTreeSet::new();
    for writer in writers {
        made.extend(writer.await.unwrap());
    }
    assert_eq!((seen.len(), seen), (200, made));
}

/// Critical work that finds the crew full makes the least urgent work yield: its worker is told,
/// hands it back with a checkpoint, does the urgent task, and goes on where it was.
// S1-110: a running low task yields, with a checkpoint, to an urgent one.
pub async fn urgent_work_makes_running_work_yield(api: Subject) {
    register(&api, sized("w", 2)).await;
    let at = |priority| TaskSpec {
        priority,
        ..spec("a")
    };
    let slow = submit(&api, at(Priority::BATCH)).await;
    let normal = submit(&api, at(Priority::NORMAL)).await;
    let held = claim(&api, "w", 2).await;
    assert_eq!(ids(&held), [normal, slow]);
    // High work waits its turn: only critical work evicts.
    let high = submit(&api, at(Priority::HIGH)).await;
    let quiet = api
        .worker_heartbeat(name("w"), None, ms(400))
        .await
        .unwrap();
    assert_eq!(quiet, []);
    let urgent = submit(&api, at(Priority::CRITICAL)).await;
    let began = Instant::now();
    let signals = api.worker_heartbeat(name("w"), None, SOON).await.unwrap();
    assert!(began.elapsed() < ms(1_500));
    let asked = Signal::Yield {
        task: slow,
        attempt: 1,
    };
    assert_eq!(signals, [asked]);
    // It is asked once, however long it takes to get to a safe point.
    let quiet = api
        .worker_heartbeat(name("w"), None, ms(300))
        .await
        .unwrap();
    assert_eq!(quiet, []);
    let released = Report::Released {
        reason: "more urgent work".into(),
        checkpoint: Some(json!({"page": 7}).into()),
        after_ms: 0,
    };
    let mut work = claiming("w", 1, 0);
    work.reports = vec![(slow, 1, released)];
    let worked = api.work(work).await.unwrap();
    assert_eq!(
        (&worked.reports[..], ids(&worked.tasks)),
        (&[Ok(())][..], vec![urgent])
    );
    for (task, done) in [(high, &worked.tasks[0]), (slow, &held[0])] {
        let mut work = claiming("w", 1, 0);
        work.reports = vec![(done.task_id, done.attempt, completed(json!(1)))];
        let next = api.work(work).await.unwrap().tasks.remove(0);
        assert_eq!(next.task_id, task);
        if task == slow {
            assert_eq!(next.attempt, 2);
            assert_eq!(next.checkpoint, Some(json!({"page": 7}).into()));
            complete(&api, "w", &next, json!("whole")).await;
        }
    }
    let view = api.task_get(slow).await.unwrap();
    assert_eq!(view.output, Some(json!("whole").into()));
}

/// What is too large is refused with its size and the bound; an output that is too large ends its
/// attempt, so that the task does not hang.
// S3-104: the size limit is stated.
pub async fn payloads_are_bounded(api: Subject) {
    register(&api, worker("w")).await;
    let large = || Json::from(json!("x".repeat(PAYLOAD_BYTES_MAX)));
    let fits = || Json::from(json!("x".repeat(PAYLOAD_BYTES_MAX - 2)));
    let too_large = |error: Error| {
        assert_eq!(error.code, Code::PayloadTooLarge);
        let (size, bound) = (PAYLOAD_BYTES_MAX + 2, PAYLOAD_BYTES_MAX);
        assert!(error.message.contains(&size.to_string()), "{error}");
        assert!(error.message.contains(&bound.to_string()), "{error}");
    };
    let sized = |input| Submission::new(TaskSpec::new(name("a"), input));
    let tasks = vec![sized(fits()), sized(large())];
    let mut answers = api.task_submit(tasks).await.unwrap();
    too_large(answers.pop().unwrap().unwrap_err());
    let task = answers.pop().unwrap().unwrap();
    let held = take(&api, "w").await;
    assert_eq!(
        (held.task_id, held.input.bytes()),
        (task, PAYLOAD_BYTES_MAX)
    );
    let released = Report::Released {
        reason: "too much to keep".into(),
        checkpoint: Some(large()),
        after_ms: 0,
    };
    too_large(report(&api, "w", &held, released).await.unwrap_err());
    // It is released all the same: its worker has let go of it.
    let held = take(&api, "w").await;
    assert_eq!((held.task_id, &held.checkpoint), (task, &None));
    let output = large();
    let done = Report::Completed { output };
    too_large(report(&api, "w", &held, done).await.unwrap_err());
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.unwrap().code, "payload.too_large");
    let entry = NewEntry::new(name("ann"), large());
    too_large(api.entry_write(entry).await.unwrap_err());
    subscribe(&api, "ann", &[]).await;
    let mut sent = message("boss", to("ann"), "note", json!(1));
    sent.payload = large();
    too_large(api.message_send(sent).await.unwrap_err());
    let many = TaskSpec {
        metadata: (0..65)
            .map(|n| (name(format!("key-{n}")), String::new()))
            .collect(),
        ..spec("a")
    };
    let answer = api.task_submit(vec![Submission::new(many)]).await.unwrap();
    assert_eq!(answer[0].as_ref().unwrap_err().code, Code::LimitExceeded);
}
