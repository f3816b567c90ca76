//! The blackboard.

use super::*;

fn on_board(run: RunId) -> EntryFilter {
    EntryFilter {
        run: Some(run),
        ..EntryFilter::default()
    }
}

async fn write(api: &Subject, author: &str, content: &str) -> EntryId {
    let entry = NewEntry::new(name(author), json!(content).into());
    api.entry_write(entry).await.unwrap()
}

fn contents(entries: &[Entry]) -> Vec<Value> {
    entries.iter().map(|entry| entry.content.value()).collect()
}

/// Each filter filters; what is left stands by importance, then by recency.
// S1-37, S1-38, S1-39, S1-40: what is written is read, with any tag, all tags, segment, age,
// importance, not one's own, and a limit.
pub async fn entries_are_filtered_and_ordered(api: Subject) {
    let old = NewEntry {
        tags: names(&["a"]),
        segment: name("results"),
        importance: 0.5,
        metadata: [(name("source"), "page 7".to_owned())].into(),
        ..NewEntry::new(name("ann"), json!("old").into())
    };
    let before = now();
    let first = api.entry_write(old).await.unwrap();
    sleep(ms(1_500)).await;
    for (author, content, tags, segment, importance) in [
        ("bob", "both", &["a", "b"][..], "results", 0.9),
        ("ann", "b", &["b"], "errors", 0.5),
        ("bob", "none", &[], "notes", 0.7),
    ] {
        let entry = NewEntry {
            tags: names(tags),
            segment: name(segment),
            importance,
            ..NewEntry::new(name(author), json!(content).into())
        };
        api.entry_write(entry).await.unwrap();
    }
    let list = |filter| {
        let api = Arc::clone(&api);
        async move { contents(&api.entry_list(filter).await.unwrap()) }
    };
    let base = EntryFilter::default;
    assert_eq!(list(base()).await, ["both", "none", "b", "old"]);
    let any = EntryFilter {
        tags_any: names(&["a", "b"]),
        ..base()
    };
    assert_eq!(list(any).await, ["both", "b", "old"]);
    let all = EntryFilter {
        tags_all: names(&["a", "b"]),
        ..base()
    };
    assert_eq!(list(all).await, ["both"]);
    let segment = EntryFilter {
        segment: Some(name("results")),
        ..base()
    };
    assert_eq!(list(segment).await, ["both", "old"]);
    let young = EntryFilter {
        age_max_ms: Some(1_400),
        ..base()
    };
    assert_eq!(list(young).await, ["both", "none", "b"]);
    let important = EntryFilter {
        importance_min: Some(0.7),
        ..base()
    };
    assert_eq!(list(important).await, ["both", "none"]);
    let by_ann = EntryFilter {
        author: Some(name("ann")),
        ..base()
    };
    assert_eq!(list(by_ann).await, ["b", "old"]);
    let not_ann = EntryFilter {
        exclude_own: Some(name("ann")),
        ..base()
    };
    assert_eq!(list(not_ann).await, ["both", "none"]);
    let two = EntryFilter {
        limit: Some(2),
        ..base()
    };
    assert_eq!(list(two).await, ["both", "none"]);
    let together = EntryFilter {
        tags_any: names(&["a"]),
        segment: Some(name("results")),
        exclude_own: Some(name("bob")),
        ..base()
    };
    let found = api.entry_list(together).await.unwrap();
    assert_eq!(found.len(), 1);
    let entry = &found[0];
    assert_eq!((entry.id, &entry.author), (first, &name("ann")));
    assert_eq!(entry.metadata[&name("source")], "page 7");
    assert!((before..=now()).contains(&entry.at));
}

/// An entry outside its bounds is refused with the bound.
pub async fn an_entry_is_checked(api: Subject) {
    let entry = || NewEntry::new(name("ann"), Json::default());
    for importance in [-0.1, 1.1, f64::NAN] {
        let bad = NewEntry {
            importance,
            ..entry()
        };
        assert_eq!(code(api.entry_write(bad).await), Code::OutOfRange);
    }
    let tagged = NewEntry {
        tags: (0..33).map(|n| name(format!("tag-{n}"))).collect(),
        ..entry()
    };
    assert_eq!(code(api.entry_write(tagged).await), Code::LimitExceeded);
    for importance in [0.0, 1.0] {
        let good = NewEntry {
            importance,
            ..entry()
        };
        api.entry_write(good).await.unwrap();
    }
    let kept = api.entry_list(EntryFilter::default()).await.unwrap();
    assert_eq!(kept.len(), 2);
}

/// Of many that want an entry for themselves at the same moment exactly one has it.
// S4-107: one holds it, and the others are told.
pub async fn of_many_claims_one_wins(api: Subject) {
    let entry = write(&api, "ann", "who does this?").await;
    let claim = |n: usize| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let me = name(format!("worker-{n}"));
            api.entry_claim(entry, None, Some(me)).await
        })
    };
    let claims: Vec<_> = (0..16).map(claim).collect();
    let mut winners = Vec::new();
    for (n, claim) in claims.into_iter().enumerate() {
        match claim.await.unwrap() {
            Ok(()) => winners.push(name(format!("worker-{n}"))),
            Err(error) => assert_eq!(error.code, Code::EntryClaimed),
        }
    }
    assert_eq!(winners.len(), 1);
    let holder = async || {
        let entries = api.entry_list(EntryFilter::default()).await.unwrap();
        entries[0].claimed_by.clone()
    };
    assert_eq!(holder().await.as_ref(), winners.first());
    let wrong = api.entry_claim(entry, Some(name("nobody")), None).await;
    assert_eq!(code(wrong), Code::EntryClaimed);
    api.entry_claim(entry, winners.pop(), None).await.unwrap();
    assert_eq!(holder().await, None);
}

/// An entry with an end is not read after it, and cannot be claimed.
pub async fn entries_expire(api: Subject) {
    let brief = NewEntry {
        ttl_ms: Some(800),
        ..NewEntry::new(name("ann"), json!("brief").into())
    };
    let entry = api.entry_write(brief).await.unwrap();
    write(&api, "ann", "lasting").await;
    let list = async || contents(&api.entry_list(EntryFilter::default()).await.unwrap());
    assert_eq!(list().await, ["lasting", "brief"]);
    sleep(ms(850)).await;
    assert_eq!(list().await, ["lasting"]);
    let claimed = api.entry_claim(entry, None, Some(name("bob"))).await;
    assert_eq!(code(claimed), Code::EntryUnknown);
}

/// What is written for one run is on its board alone.
// S1-48, S1-17: entries are grouped by run, and tags that must all match find one run's alone.
pub async fn boards_are_isolated(api: Subject) {
    register(&api, sized("w", 9)).await;
    let one = start(&api, "one", fan_out(&[1, 2], "collect"), &["w"]).await;
    let two = start(&api, "two", fan_out(&[3], "collect"), &["w"]).await;
    for (run, content) in [
        (Some(one), "of one"),
        (Some(two), "of two"),
        (None, "shared"),
    ] {
        let entry = NewEntry {
            run,
            ..NewEntry::new(name("ann"), json!(content).into())
        };
        api.entry_write(entry).await.unwrap();
    }
    double(&api, "w", &claim(&api, "w", 9).await).await;
    for (run, note, outputs) in [(one, "of one", vec![4, 2]), (two, "of two", vec![6])] {
        let notes = EntryFilter {
            segment: Some(name("notes")),
            ..on_board(run)
        };
        assert_eq!(contents(&api.entry_list(notes).await.unwrap()), [note]);
        let results = EntryFilter {
            tags_all: names(&["result", "completed", &run.to_string()]),
            ..on_board(run)
        };
        let results = api.entry_list(results).await.unwrap();
        let mut found = contents(&results);
        found.sort_by_key(|value| std::cmp::Reverse(value.as_u64()));
        let outputs: Vec<Value> = outputs.into_iter().map(Value::from).collect();
        assert_eq!(found, outputs);
    }
    // The other run's tag finds nothing here.
    let foreign = EntryFilter {
        tags_all: names(&["result", &two.to_string()]),
        ..on_board(one)
    };
    assert!(api.entry_list(foreign).await.unwrap().is_empty());
    let shared = api.entry_list(EntryFilter::default()).await.unwrap();
    assert_eq!(contents(&shared), ["shared"]);
}

/// A board is counted as it stands: what was written, and what its run's tasks show.
// S1-36: a blackboard with write, read with filters, and statistics.
pub async fn a_board_is_counted(api: Subject) {
    register(&api, worker("worker_1")).await;
    let run = start(
        &api,
        "count",
        fan_out(&[1, 2, 3], "supervisor"),
        &["worker_1"],
    )
    .await;
    let held = take(&api, "worker_1").await;
    complete(&api, "worker_1", &held, json!(2)).await;
    let mut note = NewEntry::new(name("ann"), json!("a note").into());
    note.run = Some(run);
    api.entry_write(note.clone()).await.unwrap();
    note.ttl_ms = Some(0);
    api.entry_write(note).await.unwrap();
    write(&api, "bob", "on the shared board").await;
    // By hand: three assignments, one result, one note; the other note has expired already.
    let board = api.board_statistics(Some(run)).await.unwrap();
    assert_eq!(board.entries, 5);
    let count = |segment: &str| board.by_segment.get(segment).copied().unwrap_or_default();
    assert_eq!(
        (count("tasks"), count("results"), count("notes")),
        (3, 1, 1)
    );
    assert_eq!(board.by_author[&name("worker_1")], 1);
    assert_eq!(board.by_author[&name("ann")], 1);
    assert_eq!(api.board_statistics(None).await.unwrap().entries, 1);
    let unknown = api.board_statistics(Some(RunId::new(7))).await;
    assert_eq!(code(unknown), Code::RunUnknown);
}

/// Ten threads write at once, and every entry is there, whole.
// S1-58: ten threads, no lost or torn entry.
pub async fn ten_writers_lose_nothing(api: Subject) {
    let runtime = tokio::runtime::Handle::current();
    let threads: Vec<_> = (0..10u64)
        .map(|thread| {
            let (api, runtime) = (Arc::clone(&api), runtime.clone());
            std::thread::spawn(move || {
                for n in 0..50u64 {
                    let text = format!("{thread}/{n}/").repeat(100);
                    let author = name(format!("writer-{thread}"));
                    let entry = NewEntry::new(author, json!(text).into());
                    runtime.block_on(api.entry_write(entry)).unwrap();
                }
            })
        })
        .collect();
    let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|t| t.join().is_ok()));
    assert!(joined.await.unwrap());
    for thread in 0..10 {
        let by = EntryFilter {
            author: Some(name(format!("writer-{thread}"))),
            limit: Some(1_000),
            ..EntryFilter::default()
        };
        let found: BTreeSet<String> = contents(&api.entry_list(by).await.unwrap())
            .into_iter()
            .map(|value| value.as_str().unwrap().to_owned())
            .collect();
        let expected = (0..50).map(|n| format!("{thread}/{n}/").repeat(100));
        assert_eq!(found, expected.collect());
    }
}

/// A run's tasks, results, failures and progress are on its board by themselves, with exactly the
/// tags, segments and importance that readers look for.
// S1-16, S1-18, S1-19, S1-25, S1-26, S1-27, S1-41, S1-42, S1-43, S1-44, S1-45, S1-46, S1-49, S1-50,
// S1-51, S1-52, S1-53, S1-55, S1-57, S1-33, S1-35: the board as supervisor, workers and coordinator
// expect it.
pub async fn work_shows_on_the_board(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let crew = ["worker_1", "worker_2"];
    let run = start(&api, "four", fan_out(&[1, 2, 3, 4], "collect"), &crew).await;
    let request = run.to_string();
    let read = async |segment: &str| {
        let filter = EntryFilter {
            segment: Some(name(segment)),
            ..on_board(run)
        };
        let mut entries = api.entry_list(filter).await.unwrap();
        entries.sort_by_key(|entry| entry.metadata[&name("task_id")].clone());
        entries
    };
    let shown = |entry: &Entry| {
        let tags: Vec<String> = entry.tags.iter().map(|tag| tag.to_string()).collect();
        (entry.author.to_string(), tags, entry.importance)
    };
    let seen = |author: &str, tags: &[&str], importance| {
        let tags: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        (author.to_owned(), tags, importance)
    };
    let tasks = read("tasks").await;
    let ids = api.task_list(of_run(run)).await.unwrap().items;
    let ids: Vec<TaskId> = ids.iter().map(|task| task.task_id).collect();
    for (n, entry) in tasks.iter().enumerate() {
        let worker = crew[n % 2];
        let tags = ["task", "pending", &request, worker];
        assert_eq!(shown(entry), seen("supervisor", &tags, 0.8));
        assert_eq!(entry.metadata[&name("task_id")], ids[n].to_string());
        assert_eq!(entry.content.value(), json!(n + 1));
    }
    assert_eq!(tasks.len(), 4);
    let first = claim(&api, "worker_1", 9).await;
    let progress = Report::Progressed {
        fraction: Some(0.25),
        note: "reading".into(),
    };
    report(&api, "worker_1", &first[0], progress).await.unwrap();
    let progress = read("progress").await;
    assert_eq!(progress.len(), 1);
    let tags = ["progress", &request, "worker_1"];
    assert_eq!(shown(&progress[0]), seen("worker_1", &tags, 0.5));
    assert_eq!(
        progress[0].content.value(),
        json!({"fraction": 0.25, "note": "reading"})
    );
    complete(&api, "worker_1", &first[0], json!(2)).await;
    let failure = Failure::new("input.bad", "no number");
    report(&api, "worker_1", &first[1], failed(failure))
        .await
        .unwrap();
    api.task_reassign(ids[1], Address::Only(name("worker_1")))
        .await
        .unwrap();
    let results = read("results").await;
    assert_eq!(results.len(), 1);
    let tags = ["result", "completed", &request];
    assert_eq!(shown(&results[0]), seen("worker_1", &tags, 0.8));
    assert_eq!(results[0].content.value(), json!(2));
    assert_eq!(results[0].metadata[&name("task_id")], ids[0].to_string());
    let errors = read("errors").await;
    assert_eq!(errors.len(), 1);
    let tags = ["error", "failed", &request];
    assert_eq!(shown(&errors[0]), seen("worker_1", &tags, 0.9));
    assert_eq!(errors[0].metadata[&name("task_id")], ids[2].to_string());
    assert_eq!(
        errors[0].content.value(),
        json!({"code": "input.bad", "message": "no number"})
    );
    // “pending” is gone where a task has ended; the reassigned one weighs more.
    let tasks: Vec<_> = read("tasks").await.iter().map(shown).collect();
    let task = |state, worker, importance| {
        seen("supervisor", &["task", state, &request, worker], importance)
    };
    assert_eq!(
        tasks,
        [
            task("completed", "worker_1", 0.8),
            task("pending", "worker_1", 0.9),
            task("failed", "worker_1", 0.8),
            task("pending", "worker_2", 0.8),
        ]
    );
    // Who reads all sees every segment.
    let all = api.entry_list(on_board(run)).await.unwrap();
    let segments: BTreeSet<&str> = all.iter().map(|entry| &*entry.segment).collect();
    let expected = ["errors", "progress", "results", "tasks"];
    assert_eq!(segments, expected.into());
}

/// A worker finds by tags exactly the tasks that wait for it, however many, and none that is done.
// S1-21, S1-24: all of its own and none of another's, also above ten; what is done is not returned.
pub async fn a_worker_finds_its_tasks_on_the_board(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let items: Vec<u64> = (0..30).collect();
    let crew = ["worker_1", "worker_2"];
    let run = start(&api, "thirty", fan_out(&items, "collect"), &crew).await;
    let assigned = async |worker: &str| {
        let filter = EntryFilter {
            tags_all: names(&["task", "pending", worker]),
            ..on_board(run)
        };
        let found = contents(&api.entry_list(filter).await.unwrap());
        found
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect::<BTreeSet<_>>()
    };
    let even: BTreeSet<u64> = (0..30).step_by(2).collect();
    let odd: BTreeSet<u64> = (1..30).step_by(2).collect();
    assert_eq!(
        (assigned("worker_1").await, assigned("worker_2").await),
        (even, odd)
    );
    let held = claim(&api, "worker_1", 9).await;
    double(&api, "worker_1", &held).await;
    let left: BTreeSet<u64> = (18..30).step_by(2).collect();
    assert_eq!(assigned("worker_1").await, left);
    assert_eq!(assigned("worker_2").await.len(), 15);
}
