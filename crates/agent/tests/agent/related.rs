//! The related patterns, each as `docs/patterns.md` says it is done here, and the page itself.

use crate::crew::{self, *};
use chargehand::{Context, Ended};
use domain::blackboard::{EntryFilter, NewEntry};
use domain::command::RunStart;
use domain::graph::Graph;
use domain::run::{Crew, RunStatus};
use serde_json::json;

// S1-91: agents of one run share what they learn: one writes, the others read what is not their own.
#[tokio::test]
async fn insights_are_shared() {
    let api = open();
    let mut workers = Vec::new();
    for id in names(3) {
        let share = |task: Context| async move {
            let insight = json!(format!("{} found the invoices", task.worker()));
            let mut entry = NewEntry::new(task.worker().clone(), insight.into());
            entry.tags = vec![name("insight")];
            match task.write(entry).await {
                Ok(_) => Ended::done(json!(1)),
                Err(error) => Ended::failed("board", error.message),
            }
        };
        workers.push(start(&api, &id, share).await);
    }
    let run = supervisor(&api)
        .start(&crew::plan("any", 3, &names(3)))
        .await
        .unwrap();
    assert_eq!(
        crew::supervise(&api, run).await.status,
        RunStatus::Completed
    );
    for reader in names(3) {
        let filter = EntryFilter {
            run: Some(run),
            tags_all: vec![name("insight")],
            exclude_own: Some(reader.clone()),
            ..EntryFilter::default()
        };
        let read = api.entry_list(filter).await.unwrap();
        let mut authors: Vec<_> = read.into_iter().map(|entry| entry.author).collect();
        authors.sort();
        let others: Vec<_> = names(3)
            .into_iter()
            .filter(|other| *other != reader)
            .collect();
        assert_eq!(authors, others);
    }
}

// S1-92: what one step produces the next consumes, a task for each element that came out.
#[tokio::test]
async fn a_producer_feeds_consumers() {
    let api = open();
    let work = |task: Context| async move {
        match task.assignment().kind.as_str() {
            "produce" => Ended::done(json!([3, 4, 5])),
            _ => Ended::done(json!(task.input().as_u64().map(|n| n * n))),
        }
    };
    let _workers = (
        start(&api, "worker_1", work).await,
        start(&api, "worker_2", work).await,
    );
    let graph: Graph = serde_json::from_value(json!({"steps": [
        {"id": "produce", "task": {"kind": "produce"}},
        {"id": "consume", "needs": ["produce"], "each": {"over": "produce", "task": {"kind": "consume"}}},
        {"id": "all", "needs": ["consume"], "gate": {"join": "all", "reduce": "collect"}},
    ]}))
    .unwrap();
    let run = RunStart {
        goal: "square what comes".into(),
        supervisor: name("supervisor_1"),
        graph,
        crew: Crew::default(),
        metadata: [].into(),
        key: None,
        trace: None,
        budget: None,
    };
    let run = api.run_start(run).await.unwrap();
    let view = crew::supervise(&api, run).await;
    assert_eq!(
        (view.status, view.tasks.completed),
        (RunStatus::Completed, 4)
    );
    assert_eq!(view.final_result.unwrap().value(), json!([9, 16, 25]));
}

// S1-91, S1-92, S1-93, S1-94, S1-95, S1-96: the page says for each related pattern how it is done here or that it
// is not, and when to use this one: five uses, four alternatives; what it points at exists.
#[test]
fn the_page_helps_to_decide() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let page = std::fs::read_to_string(format!("{root}/docs/patterns.md")).unwrap();
    let section = |heading: &str| {
        let (_, after) = page
            .split_once(&format!("\n{heading}\n"))
            .unwrap_or_else(|| panic!("{heading}"));
        after.split("\n#").next().unwrap().to_owned()
    };
    let when = section("## When to use supervisor and workers");
    assert_eq!(
        when.lines().filter(|line| line.starts_with("- ")).count(),
        5
    );
    assert_eq!(
        when.lines().filter(|line| line.starts_with("| ")).count(),
        1 + 4
    );
    for pattern in [
        "Shared insights",
        "Producer and consumer",
        "Domain specialists",
        "Consensus",
    ] {
        assert!(
            section(&format!("### {pattern}")).contains("Here"),
            "{pattern}"
        );
    }
    assert!(section("### Debate").contains("Not here, and not planned"));
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        let heading = |line: &str| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        };
        assert!(
            page.lines()
                .any(|line| line.starts_with('#') && heading(line) == anchor),
            "{anchor}"
        );
    }
    for example in page.split("`examples/").skip(1) {
        let name = example.split('`').next().unwrap();
        assert!(
            std::path::Path::new(&format!("{root}/examples/{name}/run.sh")).exists(),
            "{name}"
        );
    }
}
