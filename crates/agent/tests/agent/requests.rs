//! Requests side by side, and what can be seen of them while they run.

use crate::crew::{self, *};
use agent::input::Item;
use agent::monitor::Watch;
use agent::worker::SkillHandler;
use chargehand::{Context, Ended};
use domain::command::{Report, Submission};
use domain::run::RunStatus;
use domain::task::{Failure, TaskSpec, TaskStatus};
use protocol::api::{Claim, Work};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;

// S1-09, S1-10, S1-11, S1-17, S1-29, H-10: two requests of 100 tasks each, worked on by turns by the same
// two workers: at every stage all counts are exact for each, and three tags that must all match find
// one request's results alone.
#[tokio::test]
async fn two_requests_never_mix() {
    let api = open();
    puppet(&api, "worker_1", 200).await;
    puppet(&api, "worker_2", 200).await;
    let supervisor = supervisor(&api);
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(
            supervisor
                .start(&crew::plan("any", 100, &names(2)))
                .await
                .unwrap(),
        );
    }
    let mut held = Vec::new();
    for worker in ["worker_1", "worker_2"] {
        let tasks = claim(&api, worker, 200).await;
        assert_eq!(tasks.len(), 100);
        held.extend(tasks.into_iter().map(|task| (worker, task)));
    }
    // By turns: a task of the one, a task of the other.
    held.sort_by_key(|(_, task)| (task.item, task.run_id));
    let mut monitor = Watch::new(api.clone());
    let (mut completed, mut failed) = ([0, 0], [0, 0]);
    for (n, (worker, task)) in held.iter().enumerate() {
        let which = usize::from(task.run_id == Some(runs[1]));
        let item = task.item.unwrap();
        let told = if which == 0 && item % 10 == 3 {
            failed[which] += 1;
            let failure = Failure::new("no", "every tenth of the first");
            Report::Failed { failure }
        } else {
            completed[which] += 1;
            done(json!([which, item]))
        };
        report(&api, worker, task.task_id, task.attempt, told)
            .await
            .unwrap();
        if n % 40 != 39 {
            continue;
        }
        for (which, run) in runs.iter().enumerate() {
            let results = tagged(&api, *run, &["result", "completed", &run.to_string()]).await;
            assert_eq!(results.len(), completed[which]);
            assert!(
                results
                    .iter()
                    .all(|entry| entry.content.value()[0] == json!(which))
            );
            let other = runs[1 - which].to_string();
            let foreign = tagged(&api, *run, &["result", "completed", &other]).await;
            assert_eq!(foreign, [], "two of three tags are not enough");
            let counts = api.run_get(*run).await.unwrap().tasks;
            let open = 100 - completed[which] - failed[which];
            assert_eq!(
                (counts.completed, counts.failed),
                (completed[which] as u32, failed[which] as u32)
            );
            assert_eq!((counts.total, counts.running as usize), (100, open));
            assert_eq!(
                supervisor.check_failures(*run).await.unwrap().len(),
                failed[which]
            );
            assert_eq!(
                supervisor.check_all_tasks_completed(*run).await.unwrap(),
                open == 0
            );
        }
        let seen = monitor.monitor_progress().await.unwrap();
        assert_eq!(seen.completed_tasks as usize, completed[0] + completed[1]);
        assert_eq!(seen.failed_tasks as usize, failed[0] + failed[1]);
        assert_eq!(seen.pending_tasks as usize, 199 - n);
    }
    assert_eq!((completed, failed), ([90, 100], [10, 0]));
    for (which, run) in runs.iter().enumerate() {
        let view = crew::supervise(&api, *run).await;
        let expected = [RunStatus::Failed, RunStatus::Completed][which];
        assert_eq!((view.status, view.partial), (expected, which == 0));
        let made = supervisor.aggregate_results(*run).await.unwrap();
        assert_eq!(
            (made.task_results.len(), made.results.len()),
            (100, completed[which])
        );
        let of_other = made
            .results
            .iter()
            .find(|result| result.output[0] != json!(which));
        assert_eq!(of_other, None);
    }
}

// S1-11: exactly the failed tasks are listed, also when they are more than a page holds.
#[tokio::test]
async fn thousands_of_failures_are_all_listed() {
    let api = open();
    puppet(&api, "worker_1", 1_000).await;
    let run = supervisor(&api)
        .start(&crew::plan("any", 2_500, &names(1)))
        .await
        .unwrap();
    loop {
        let held = claim(&api, "worker_1", 1_000).await;
        if held.is_empty() {
            break;
        }
        let failed = |task: protocol::v1::Assignment| {
            let failure = Failure::new("no", "not today");
            (task.task_id, task.attempt, Report::Failed { failure })
        };
        let reports = held.into_iter().map(failed).collect();
        let work = Work {
            worker: name("worker_1"),
            session: None,
            reports,
            claim: None,
        };
        assert!(
            api.work(work)
                .await
                .unwrap()
                .reports
                .iter()
                .all(Result::is_ok)
        );
    }
    let failures = supervisor(&api).check_failures(run).await.unwrap();
    assert_eq!(failures.len(), 2_500);
}

// S1-53, S1-57: a worker with several items writes how far it is, with importance 0.5.
#[tokio::test]
async fn workers_write_progress() {
    let api = open();
    let _worker = start(&api, "worker_1", SkillHandler).await;
    let mut plan = crew::plan("text.sentiment", 1, &names(1));
    let item = |n| Item {
        source: crate::source(&format!("{n}.txt")),
        ..crate::text("I love it.")
    };
    plan.items = (0..4).map(item).collect();
    let run = supervisor(&api).start(&plan).await.unwrap();
    crew::supervise(&api, run).await;
    let entries = tagged(&api, run, &["progress"]).await;
    assert_eq!(entries.len(), 1, "the newest word replaces the one before");
    let entry = &entries[0];
    assert_eq!(
        entry.tags,
        ["progress", &run.to_string(), "worker_1"].map(name)
    );
    assert_eq!(
        (entry.segment.as_str(), entry.importance),
        ("progress", 0.5)
    );
    assert_eq!(
        entry.content.value(),
        json!({"fraction": 0.75, "note": "3 of 4 items"})
    );
}

// S1-108, S1-111: the first result can be read before the last task starts.
#[tokio::test]
async fn results_are_visible_as_they_arrive() {
    let api = open();
    let (gate, begun) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
    let shared = (Arc::clone(&gate), Arc::clone(&begun));
    let _worker = start(&api, "worker_1", move |task: Context| {
        let (gate, begun) = shared.clone();
        async move {
            begun.add_permits(1);
            gate.acquire().await.unwrap().forget();
            Ended::done(json!(item(&task)))
        }
    })
    .await;
    let run = supervisor(&api)
        .start(&crew::plan("any", 10, &names(1)))
        .await
        .unwrap();
    for seen in 1..10 {
        until("one more result is there", || async {
            tagged(&api, run, &["result", "completed"]).await.len() == seen
        })
        .await;
        let made = supervisor(&api).aggregate_results(run).await.unwrap();
        assert_eq!(made.results.len(), seen);
        let last = tasks(&api, run).await.remove(9);
        if seen < 9 {
            assert_eq!((last.status, last.attempts), (TaskStatus::Pending, 0));
        }
        assert_eq!(api.run_get(run).await.unwrap().status, RunStatus::Running);
        gate.add_permits(1);
    }
    assert_eq!(crew::supervise(&api, run).await.tasks.completed, 10);
}

// S1-103: a thousand tasks are one submission, a hundred are one assignment, a hundred reports and
// the next hundred tasks are one request.
#[tokio::test]
async fn many_tasks_go_in_one_request() {
    let api = open();
    puppet(&api, "worker_1", 100).await;
    let submission = |n| Submission::new(TaskSpec::new(name("any"), json!(n).into()));
    let accepted = api
        .task_submit((0..1_000).map(submission).collect())
        .await
        .unwrap();
    assert!(accepted.len() == 1_000 && accepted.iter().all(Result::is_ok));
    let mut reports = Vec::new();
    for round in 0..=10 {
        let claim = Some(Claim {
            max: 100,
            starts: true,
            wait_ms: 0,
            key: None,
            again: false,
        });
        let worked = api
            .work(Work {
                worker: name("worker_1"),
                session: None,
                reports,
                claim,
            })
            .await
            .unwrap();
        assert_eq!(worked.reports.len(), if round == 0 { 0 } else { 100 });
        assert!(worked.reports.iter().all(Result::is_ok));
        assert_eq!(worked.tasks.len(), if round == 10 { 0 } else { 100 });
        let done = |task: &protocol::v1::Assignment| (task.task_id, task.attempt, done(json!(1)));
        reports = worked.tasks.iter().map(done).collect();
    }
    assert_eq!(api.statistics().await.unwrap().tasks_completed, 1_000);
}
