//! The pattern's own seventeen tests, in its seven classes, with exact numbers.

use crate::crew::{self, *};
use agent::monitor::Watch;
use agent::supervisor::{TASKS_DEFAULT, WORKERS_DEFAULT};
use chargehand::{Context, Ended};
use domain::command::Report;
use domain::error::Code;
use domain::monitor::{Conflict, Progress};
use domain::run::RunStatus;
use domain::task::{Failure, TaskStatus};
use protocol::ApiRead;
use protocol::api::worker_list_all;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{Barrier, Semaphore};

mod delegation {
    use super::*;

    // S1-06, S1-07, S1-08, S1-13, S1-67, S1-76, S1-77: free text is broken into exactly as many tasks as
    // were asked for, three when nothing is said; a plan is the structured form of the same.
    #[tokio::test]
    async fn a_request_is_broken_into_tasks() {
        let api = open();
        let supervisor = supervisor(&api);
        assert_eq!(supervisor.id(), &name("supervisor_1"));
        let crew = names(2);
        for (asked, number) in [(Some(7), 7), (Some(1), 1), (None, TASKS_DEFAULT)] {
            let given = supervisor.delegate("Process 3 documents", &crew, asked);
            let given = given.await.unwrap();
            let ids: BTreeSet<_> = given.iter().map(|task| task.task_id).collect();
            assert_eq!((given.len(), ids.len()), (number, number));
            let run = api.run_get(given[0].request_id).await.unwrap();
            assert_eq!(
                (run.goal.as_str(), run.tasks.total),
                ("Process 3 documents", number as u32)
            );
            assert!(given.iter().all(|task| task.request_id == run.run_id));
        }
        assert_eq!((TASKS_DEFAULT, WORKERS_DEFAULT), (3, 2));
        let run = supervisor
            .start(&crew::plan("text.stats", 4, &crew))
            .await
            .unwrap();
        assert_eq!(supervisor.delegated(run).await.unwrap().len(), 4);
        for (asked, code) in [(0, Code::OutOfRange), (usize::MAX, Code::LimitExceeded)] {
            let refused = supervisor
                .delegate("Process documents", &crew, Some(asked))
                .await;
            assert_eq!(refused.unwrap_err().code, code);
        }
        let refused = supervisor
            .delegate("Conquer the world", &crew, None)
            .await
            .unwrap_err();
        assert!(refused.hint.contains("text.sentiment"), "{refused:?}");
    }

    // S1-16, S1-18, S1-19, S1-41, S1-42, S1-48, S1-49, S1-50, S1-55: on the board stand exactly the tags
    // task, pending, the request and the worker, in segment tasks, with importance 0.8.
    #[tokio::test]
    async fn tasks_are_written_to_the_board() {
        let api = open();
        let given = delegate(&api, &names(2), 4).await;
        let request = given[0].request_id.to_string();
        let board = tagged(&api, given[0].request_id, &[]).await;
        assert_eq!(board.len(), 4);
        for task in &given {
            let found = |entry: &&_| task_of(entry) == task.task_id.to_string();
            let entry = board.iter().find(found).unwrap();
            let worker = task.assigned_to.clone().unwrap();
            assert_eq!(entry.tags, ["task", "pending", &request, &worker].map(name));
            assert_eq!((entry.segment.as_str(), entry.importance), ("tasks", 0.8));
            assert_eq!(entry.author, name("supervisor_1"));
        }
    }

    // S1-07, S1-71, S1-98: every task is addressed, in turn, in exact order; ids may count from 0 or 1.
    #[tokio::test]
    async fn tasks_are_assigned_to_available_workers() {
        let api = open();
        for ids in [
            ["worker_1", "worker_2", "worker_3"],
            ["worker_0", "worker_1", "ann"],
        ] {
            let crew = ids.map(name);
            let given = delegate(&api, &crew, 7).await;
            let turns: Vec<_> = given
                .into_iter()
                .map(|task| task.assigned_to.unwrap())
                .collect();
            let expected: Vec<_> = (0..7).map(|n| crew[n % 3].clone()).collect();
            assert_eq!(turns, expected);
        }
    }
}

mod execution {
    use super::*;

    // S1-21, S1-78: a worker finds all of its own tasks and none of another's, also above ten.
    #[tokio::test]
    async fn workers_read_their_assigned_tasks() {
        let api = open();
        let given = delegate(&api, &names(2), 31).await;
        let run = given[0].request_id;
        for (worker, share) in [("worker_1", 16), ("worker_2", 15), ("worker_3", 0)] {
            let own = given
                .iter()
                .filter(|task| task.assigned_to == Some(name(worker)));
            let own: Vec<_> = own.map(|task| task.task_id.to_string()).collect();
            assert_eq!((assigned(&api, run, worker).await, own.len()), (own, share));
        }
    }

    // S1-20, S1-22, S1-26, S1-27, S1-43, S1-44, S1-51, S1-68, S1-78: a real worker writes one result per
    // task, tagged result, completed and the request, in segment results, with importance 0.8.
    // S3-35: what the supervisor delegates its workers do.
    #[tokio::test]
    async fn workers_write_results() {
        let api = open();
        let workers = skilled(&api, &[name("worker_0"), name("worker_1")]).await;
        assert_eq!(workers[0].id(), &name("worker_0"));
        let crew = [name("worker_0"), name("worker_1")];
        let given = supervisor(&api)
            .delegate("Process 3 documents", &crew, None)
            .await
            .unwrap();
        let run = given[0].request_id;
        crew::supervise(&api, run).await;
        let request = run.to_string();
        let results = tagged(&api, run, &["result", "completed", &request]).await;
        assert_eq!(results.len(), 3);
        for task in &given {
            let of_task: Vec<_> = results
                .iter()
                .filter(|e| task_of(e) == task.task_id.to_string())
                .collect();
            assert_eq!(of_task.len(), 1);
            assert_eq!(of_task[0].tags, ["result", "completed", &request].map(name));
            assert_eq!(
                (of_task[0].segment.as_str(), of_task[0].importance),
                ("results", 0.8)
            );
            assert_eq!(Some(&of_task[0].author), task.assigned_to.as_ref());
            let words = &of_task[0].content.value()["items"][0]["output"]["words"];
            assert_eq!(*words, json!(3), "the digest of “Process 3 documents”");
        }
    }

    // S1-24, S1-42, S1-78: what is done is not pending any more, and is not found a second time.
    #[tokio::test]
    async fn done_tasks_are_marked_completed() {
        let api = open();
        puppet(&api, "worker_1", 9).await;
        let run = delegate(&api, &names(1), 12).await[0].request_id;
        for held in claim(&api, "worker_1", 9).await {
            report(&api, "worker_1", held.task_id, held.attempt, done(json!(1)))
                .await
                .unwrap();
        }
        let left = assigned(&api, run, "worker_1").await;
        let next: Vec<_> = claim(&api, "worker_1", 9)
            .await
            .iter()
            .map(|t| t.task_id.to_string())
            .collect();
        assert_eq!((left.len(), left), (3, next));
        let completed = tagged(&api, run, &["task", "completed", "worker_1"]).await;
        assert_eq!(completed.len(), 9);
    }

    // S1-23, S1-78: a worker that is stuck in its first task does not delay the others.
    #[tokio::test]
    async fn workers_do_not_wait_for_each_other() {
        let api = open();
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let slow = start(&api, "worker_1", move |_: Context| {
            let held = Arc::clone(&held);
            async move {
                let _open = held.acquire().await;
                Ended::done(json!("late"))
            }
        });
        let _slow = slow.await;
        let quick = |_: Context| async { Ended::done(json!("soon")) };
        let _others = (
            start(&api, "worker_2", quick).await,
            start(&api, "worker_3", quick).await,
        );
        let run = supervisor(&api)
            .start(&crew::plan("any", 30, &names(3)))
            .await
            .unwrap();
        until("20 done while 10 wait", || async {
            count(&api, run, TaskStatus::Completed).await == 20
        })
        .await;
        assert_eq!(assigned(&api, run, "worker_1").await.len(), 10);
        gate.add_permits(10);
        assert_eq!(crew::supervise(&api, run).await.tasks.completed, 30);
    }
}

mod aggregation {
    use super::*;

    // S1-09, S1-70, S1-79: every result of the request, in order, made one, and nothing of another's.
    #[tokio::test]
    async fn the_supervisor_aggregates_results() {
        let api = open();
        let _workers = skilled(&api, &names(2)).await;
        let supervisor = supervisor(&api);
        let mut runs = Vec::new();
        for number in [5, 3] {
            runs.push((delegate(&api, &names(2), number).await, number));
        }
        for (given, number) in runs {
            let run = given[0].request_id;
            let view = crew::supervise(&api, run).await;
            let made = supervisor.aggregate_results(run).await.unwrap();
            let of: Vec<_> = made
                .task_results
                .iter()
                .map(|result| result.task_id)
                .collect();
            assert_eq!(
                of,
                given.iter().map(|task| task.task_id).collect::<Vec<_>>()
            );
            assert_eq!((made.request_id, made.results.len()), (run, number));
            for (n, result) in made.results.iter().enumerate() {
                assert_eq!(
                    result.source["file"],
                    json!(format!("part {} of {number}", n + 1))
                );
            }
            assert!(!made.final_result.is_empty());
            assert_eq!(view.final_result.unwrap().value(), made.as_final_result());
        }
    }

    // S1-10, S1-14, S1-79: aggregation waits for the last task, and is told when it ends.
    #[tokio::test]
    async fn aggregation_waits_for_all() {
        let api = open();
        puppet(&api, "worker_1", 9).await;
        let run = supervisor(&api)
            .start(&crew::plan("any", 3, &names(1)))
            .await
            .unwrap();
        let watching = tokio::spawn({
            let api = Arc::clone(&api);
            async move { crew::supervise(&api, run).await }
        });
        let held = claim(&api, "worker_1", 9).await;
        for (n, task) in held.iter().enumerate() {
            assert!(
                !supervisor(&api)
                    .check_all_tasks_completed(run)
                    .await
                    .unwrap()
            );
            let view = api.run_get(run).await.unwrap();
            assert_eq!((view.status, view.final_result), (RunStatus::Running, None));
            assert!(!watching.is_finished());
            report(&api, "worker_1", task.task_id, task.attempt, done(json!(n)))
                .await
                .unwrap();
        }
        assert!(
            supervisor(&api)
                .check_all_tasks_completed(run)
                .await
                .unwrap()
        );
        let view = watching.await.unwrap();
        assert_eq!(
            (view.status, view.tasks.completed),
            (RunStatus::Completed, 3)
        );
        let unknown = supervisor(&api)
            .check_all_tasks_completed(domain::id::RunId::new(7))
            .await;
        assert_eq!(unknown.unwrap_err().code, Code::RunUnknown);
    }
}

mod coordinator {
    use super::*;

    // S1-03, S1-28, S1-29, S1-34, S1-69, S1-80: numbers are right at each step, counted from the log;
    // the monitor holds an `ApiRead`, which has no way to write, and the log does not grow by it.
    #[tokio::test]
    async fn the_monitor_counts_at_each_step() {
        let api = open();
        let named: fn(Arc<dyn ApiRead>, domain::name::Name) -> Watch = Watch::named;
        let mut monitor = named(api.clone(), name("coordinator_1"));
        assert_eq!(monitor.id(), &name("coordinator_1"));
        assert_eq!(
            monitor.monitor_progress().await.unwrap(),
            Progress::default()
        );
        puppet(&api, "worker_1", 9).await;
        puppet(&api, "worker_2", 9).await;
        let run = supervisor(&api)
            .start(&crew::plan("any", 5, &names(2)))
            .await
            .unwrap();
        let mut expected = Progress {
            active_workers: 2,
            pending_tasks: 5,
            ..Progress::default()
        };
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        let held = claim(&api, "worker_1", 9).await;
        expected.running_tasks = 3;
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        report(&api, "worker_1", held[0].task_id, 1, done(json!(1)))
            .await
            .unwrap();
        (
            expected.pending_tasks,
            expected.running_tasks,
            expected.completed_tasks,
        ) = (4, 2, 1);
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        let failure = Failure::new("input.bad", "no number");
        report(
            &api,
            "worker_1",
            held[1].task_id,
            1,
            Report::Failed { failure },
        )
        .await
        .unwrap();
        (
            expected.pending_tasks,
            expected.running_tasks,
            expected.failed_tasks,
        ) = (3, 1, 1);
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        let waiting = tasks(&api, run).await[1].task_id;
        api.task_cancel(waiting, "not needed".into()).await.unwrap();
        (expected.pending_tasks, expected.cancelled_tasks) = (2, 1);
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        api.worker_leave(name("worker_1"), None, "done for today".into())
            .await
            .unwrap();
        (expected.active_workers, expected.running_tasks) = (1, 0);
        let position = api.event_wait(0, std::time::Duration::ZERO).await.unwrap();
        assert_eq!(monitor.monitor_progress().await.unwrap(), expected);
        monitor.conflicts().await.unwrap();
        monitor
            .concerns(domain::time::Time(u64::MAX))
            .await
            .unwrap();
        monitor.read_board(run).await.unwrap();
        let after = api.event_wait(0, std::time::Duration::ZERO).await.unwrap();
        assert_eq!(after, position, "who only looks leaves no trace");
    }

    // S1-30, S1-33, S1-35, S1-47, S1-54, S1-56, S1-80: the same work given out twice is found, though
    // nobody tagged it; the supervisor leaves one owner, and the board tells.
    #[tokio::test]
    async fn conflicts_are_found_and_resolved() {
        let api = open();
        let supervisor = supervisor(&api);
        let twice = crate::text("the same");
        let mut plan = crew::plan("text.stats", 4, &names(2));
        plan.items = vec![
            twice.clone(),
            crate::text("another"),
            crate::text("a third"),
            twice,
        ];
        let run = supervisor.start(&plan).await.unwrap();
        let other = supervisor
            .start(&crew::plan("text.stats", 3, &names(2)))
            .await
            .unwrap();
        let given = supervisor.delegated(run).await.unwrap();
        let mut monitor = Watch::new(api.clone());
        let found = monitor.conflicts().await.unwrap();
        let (task, duplicate) = (given[0].task_id, given[3].task_id);
        assert_eq!(found, [Conflict::DuplicateAssignment { task, duplicate }]);
        // The work of one request is no double of another's, and is left alone.
        assert_eq!(
            supervisor.resolve_conflicts(other, &found).await.unwrap(),
            0
        );
        assert_eq!(supervisor.resolve_conflicts(run, &found).await.unwrap(), 1);
        assert_eq!(supervisor.resolve_conflicts(run, &found).await.unwrap(), 0);
        assert_eq!(monitor.conflicts().await.unwrap(), []);
        let entries = tagged(&api, run, &["conflict", &run.to_string()]).await;
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (entries[0].segment.as_str(), entries[0].importance),
            ("conflicts", 0.9)
        );
        assert_eq!(entries[0].content.value()["duplicate"], json!(duplicate));
        let segments: BTreeSet<_> = monitor
            .read_board(run)
            .await
            .unwrap()
            .into_iter()
            .map(|e| e.segment)
            .collect();
        assert_eq!(segments, ["conflicts", "tasks"].map(name).into());
        let _workers = skilled(&api, &names(2)).await;
        crew::supervise(&api, run).await;
        let did: Vec<_> = tasks(&api, run)
            .await
            .into_iter()
            .map(|task| (task.status, task.attempts))
            .collect();
        let once = (TaskStatus::Completed, 1);
        assert_eq!(did, [once, once, once, (TaskStatus::Cancelled, 0)]);
    }
}

mod parallel {
    use super::*;

    // S1-81: three tasks each wait for the other two to run, so they end only if all three overlap.
    #[tokio::test]
    async fn workers_run_in_parallel() {
        let api = open();
        let meeting = Arc::new(Barrier::new(3));
        let mut workers = Vec::new();
        for id in names(3) {
            let meeting = Arc::clone(&meeting);
            let meet = move |_: Context| {
                let meeting = Arc::clone(&meeting);
                async move {
                    meeting.wait().await;
                    Ended::done(json!("met"))
                }
            };
            workers.push(start(&api, &id, meet).await);
        }
        let run = supervisor(&api)
            .start(&crew::plan("any", 3, &names(3)))
            .await
            .unwrap();
        assert_eq!(crew::supervise(&api, run).await.tasks.completed, 3);
    }
}

mod errors {
    use super::*;
    use agent::command::CommandLimits;
    use agent::worker::CommandHandler;
    use domain::retry::RetryPolicy;

    // S1-11, S1-15, S1-25, S1-45, S1-46, S1-52, S1-56, S1-82: handlers that panic and a program that is
    // killed: each crash is an entry tagged error, failed and the request, with importance 0.9; policy
    // tries again by itself, and exactly what still fails is listed.
    #[tokio::test]
    async fn crashes_are_handled() {
        let api = open();
        let _panics = start(&api, "worker_1", |task: Context| async move {
            let (n, attempt) = (item(&task), task.assignment().attempt);
            assert!(n != 2 && (n != 0 || attempt > 1), "part {n} breaks");
            Ended::done(json!(n))
        })
        .await;
        let mut plan = crew::plan("any", 4, &names(1));
        plan.retry = RetryPolicy {
            attempts: 2,
            backoff_ms: 1,
            ..RetryPolicy::default()
        };
        let run = supervisor(&api).start(&plan).await.unwrap();
        let view = crew::supervise(&api, run).await;
        assert_eq!((view.status, view.partial), (RunStatus::Failed, true));
        let standing: Vec<_> = tasks(&api, run)
            .await
            .iter()
            .map(|t| (t.status, t.attempts))
            .collect();
        let completed = TaskStatus::Completed;
        assert_eq!(
            standing,
            [
                (completed, 2),
                (completed, 1),
                (TaskStatus::Failed, 2),
                (completed, 1)
            ]
        );
        let given = supervisor(&api).delegated(run).await.unwrap();
        let failures = supervisor(&api).check_failures(run).await.unwrap();
        assert_eq!(failures.len(), 1);
        let failed = &failures[0];
        assert_eq!(failed.metadata["task_id"], given[2].task_id.to_string());
        assert_eq!((failed.task_id, failed.attempts), (given[2].task_id, 2));
        assert_eq!(failed.failure.as_ref().unwrap().code, "worker.panicked");
        let entries = tagged(&api, run, &["error", "failed", &run.to_string()]).await;
        assert_eq!(
            entries.len(),
            3,
            "one crash of the first task, two of the third"
        );
        assert!(
            entries
                .iter()
                .all(|e| e.segment == name("errors") && e.importance == 0.9)
        );

        // A real process that dies of SIGKILL the first time.
        let folder = tempfile::tempdir().unwrap();
        let once = folder.path().join("once");
        let once = once.display();
        let command = CommandHandler {
            command: format!(
                "test -e '{once}' && echo '\"alive\"' || {{ : > '{once}'; kill -9 $$; }}"
            ),
            goal: "survive".into(),
            limits: CommandLimits::default(),
        };
        let _program = start(&api, "worker_2", command).await;
        let mut plan = crew::plan("command", 1, &[name("worker_2")]);
        plan.retry = RetryPolicy {
            attempts: 2,
            backoff_ms: 1,
            ..RetryPolicy::default()
        };
        let run = supervisor(&api).start(&plan).await.unwrap();
        let view = crew::supervise(&api, run).await;
        let task = tasks(&api, run).await.remove(0);
        assert_eq!((view.status, task.attempts), (RunStatus::Completed, 2));
        assert_eq!(task.output.unwrap().value(), json!("alive"));
    }

    // S1-12, S1-15, S1-82, S1-89: a worker dies with its thread in the middle of a task. The task comes
    // back, goes to a worker the run did not know, and is done there.
    #[tokio::test]
    async fn the_tasks_of_a_lost_worker_are_reassigned() {
        let api = open();
        let arrived = Arc::new(Semaphore::new(0));
        let (kill, killed) = tokio::sync::oneshot::channel::<()>();
        let doomed = std::thread::spawn({
            let (api, arrived) = (Arc::clone(&api), Arc::clone(&arrived));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async move {
                    let hang = move |_: Context| {
                        let arrived = Arc::clone(&arrived);
                        async move {
                            arrived.add_permits(1);
                            std::future::pending::<Ended>().await
                        }
                    };
                    let worker = chargehand::Worker::new("worker_1")
                        .unwrap()
                        .handle_any(hang);
                    let worker = worker
                        .home(domain::worker::Home::Remote)
                        .describe(|spec| spec.lease_ms = 200);
                    let _worker = worker.start(api).await.unwrap();
                    let _ = killed.await;
                });
            }
        });
        let mut plan = crew::plan("any", 2, &names(1));
        plan.retry = RetryPolicy {
            attempts: 3,
            backoff_ms: 1,
            ..RetryPolicy::default()
        };
        let run = crew::supervisor(&api).start(&plan).await.unwrap();
        let _ = tokio::time::timeout(PATIENCE, arrived.acquire())
            .await
            .expect("it has begun");
        kill.send(()).unwrap();
        doomed.join().unwrap();
        until("the dead is missed", || async {
            !api.worker_get(name("worker_1"))
                .await
                .unwrap()
                .reason
                .unwrap_or_default()
                .is_empty()
        })
        .await;
        let supervisor = supervisor(&api);
        for task in tasks(&api, run).await {
            supervisor
                .reassign_task(task.task_id, name("worker_backup"))
                .await
                .unwrap();
        }
        let backup = |_: Context| async { Ended::done(json!("backup")) };
        let _backup = start(&api, "worker_backup", backup).await;
        let view = crew::supervise(&api, run).await;
        assert_eq!(
            (view.status, view.tasks.completed),
            (RunStatus::Completed, 2)
        );
        let tasks = tasks(&api, run).await;
        assert!(
            tasks
                .iter()
                .all(|task| task.worker == Some(name("worker_backup")))
        );
        let lost = tasks.iter().filter(|task| task.attempts == 2).count();
        assert_eq!(lost, 1, "{tasks:?}");
    }
}

mod full {
    use super::*;
    use agent::supervisor::supervisor_worker_workflow;

    // S1-02, S1-05, S1-60, S1-61, S1-62, S1-63, S1-64, S1-65, S1-66, S1-76, S1-83: one call gives the tasks, one result
    // for each, and one final result, with exactly the numbers that were asked for, offline.
    #[tokio::test]
    async fn the_workflow_runs() {
        let api = open();
        let tickets = "Process 5 customer support tickets";
        let made = supervisor_worker_workflow(api.clone(), tickets, Some(3), Some(5))
            .await
            .unwrap();
        assert_eq!(
            (made.status, made.tasks.len(), made.results.len()),
            (RunStatus::Completed, 5, 5)
        );
        for (n, (task, result)) in made.tasks.iter().zip(&made.results).enumerate() {
            assert_eq!(task.request_id, made.request_id);
            assert_eq!(
                task.assigned_to,
                Some(name(format!("worker_{}", n % 3 + 1)))
            );
            assert_eq!(
                (task.task_id, &task.assigned_to),
                (result.task_id, &result.worker)
            );
            assert_eq!((result.status, result.attempts), (TaskStatus::Completed, 1));
            assert!(result.output.is_some() && result.error.is_none());
        }
        assert!(!made.final_result.is_empty());
        let shown = json!(made);
        assert_eq!(shown["tasks"][0]["assigned_to"], "worker_1");
        let made = supervisor_worker_workflow(api.clone(), "Process documents", None, None)
            .await
            .unwrap();
        let crew: BTreeSet<_> = made
            .tasks
            .iter()
            .filter_map(|task| task.assigned_to.clone())
            .collect();
        assert_eq!(
            (made.tasks.len(), crew),
            (3, names(2).into_iter().collect())
        );
        for (workers, tasks, code) in [
            (Some(0), None, Code::OutOfRange),
            (None, Some(0), Code::OutOfRange),
            (Some(usize::MAX), None, Code::LimitExceeded),
        ] {
            let refused = supervisor_worker_workflow(api.clone(), tickets, workers, tasks).await;
            assert_eq!(refused.unwrap_err().code, code);
        }
        let workers = worker_list_all(&*api).await.unwrap();
        assert_eq!(workers.len(), 3, "{workers:?}");
        let gone = domain::worker::WorkerStatus::Unavailable;
        assert!(
            workers.iter().all(|worker| worker.status == gone),
            "all went home"
        );
    }

    // A caller that gives up half-way leaves no worker behind that others would wait for; what is
    // done is kept, and another crew does the rest.
    #[tokio::test]
    async fn a_workflow_given_up_sends_its_workers_home() {
        let api = open();
        let call = supervisor_worker_workflow(api.clone(), "Process documents", Some(3), Some(600));
        let begun = until("some are done", || async {
            api.statistics().await.unwrap().tasks_completed > 5
        });
        tokio::select! {
            made = call => panic!("{made:?}"),
            () = begun => {}
        }
        until("all went home", || async {
            let workers = worker_list_all(&*api).await.unwrap();
            let gone = domain::worker::WorkerStatus::Unavailable;
            workers.len() == 3 && workers.iter().all(|worker| worker.status == gone)
        })
        .await;
        let run = api
            .run_list(Default::default())
            .await
            .unwrap()
            .items
            .remove(0);
        assert_eq!(run.status, RunStatus::Running);
        let _others = skilled(&api, &names(3)).await;
        let view = crew::supervise(&api, run.run_id).await;
        assert_eq!(
            (view.status, view.tasks.completed),
            (RunStatus::Completed, 600)
        );
    }

    // S1-64, S1-83, S1-88: 50 tasks for 10 workers are 5 for each; two crews at once keep apart.
    #[tokio::test]
    async fn many_workers_share_the_work() {
        let api = open();
        let reports = "Generate an overview of 50 departments";
        let (one, two) = tokio::join!(
            supervisor_worker_workflow(api.clone(), reports, Some(10), Some(50)),
            supervisor_worker_workflow(api.clone(), reports, Some(10), Some(50)),
        );
        let mut all = BTreeSet::new();
        for made in [one.unwrap(), two.unwrap()] {
            let mut shares = std::collections::BTreeMap::new();
            for result in &made.results {
                *shares.entry(result.worker.clone().unwrap()).or_insert(0) += 1;
            }
            assert_eq!(shares.len(), 10);
            assert!(shares.values().all(|share| *share == 5), "{shares:?}");
            all.extend(shares.into_keys());
        }
        let expected: BTreeSet<_> = names(20).into_iter().collect();
        assert_eq!(all, expected, "no worker served two crews");
    }

    // S1-29, S1-83: every count of the engine, the monitor and the workers tells the same.
    #[tokio::test]
    async fn statistics_are_accurate() {
        let api = open();
        let tried = Arc::new(AtomicU32::new(0));
        let mut workers = Vec::new();
        for id in names(4) {
            let tried = Arc::clone(&tried);
            let every_fifth_fails = move |task: Context| {
                tried.fetch_add(1, Ordering::Relaxed);
                async move {
                    match item(&task) % 5 {
                        4 => Ended::failed("no", "every fifth"),
                        _ => Ended::done(json!(1)),
                    }
                }
            };
            workers.push(start(&api, &id, every_fifth_fails).await);
        }
        let run = supervisor(&api)
            .start(&crew::plan("any", 40, &names(4)))
            .await
            .unwrap();
        let view = crew::supervise(&api, run).await;
        assert_eq!(
            (view.tasks.total, view.tasks.completed, view.tasks.failed),
            (40, 32, 8)
        );
        assert_eq!(tried.load(Ordering::Relaxed), 40);
        let all = api.statistics().await.unwrap();
        assert_eq!((all.total_tasks_submitted, all.attempts), (40, 40));
        assert_eq!(
            (all.tasks_completed, all.tasks_failed, all.results_refused),
            (32, 8, 0)
        );
        assert_eq!(
            (all.tasks_pending, all.tasks_assigned, all.tasks_in_progress),
            (0, 0, 0)
        );
        assert_eq!(all.tasks_by_agent.values().sum::<u64>(), 32);
        assert_eq!((all.runs, all.runs_open), (1, 0));
        for worker in worker_list_all(&*api).await.unwrap() {
            assert_eq!((worker.completed, worker.failed), (8, 2), "{worker:?}");
        }
        let seen = Watch::new(api.clone()).monitor_progress().await.unwrap();
        assert_eq!((seen.active_workers, seen.pending_tasks), (4, 0));
        assert_eq!((seen.completed_tasks, seen.failed_tasks), (32, 8));
        assert_eq!(supervisor(&api).check_failures(run).await.unwrap().len(), 8);
    }
}
