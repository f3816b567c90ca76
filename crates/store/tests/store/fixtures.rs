//! Stores that earlier versions wrote: they open for ever.
//!
//! `fixtures/vN/store.db` was written in form N, and `fixtures/v1-records/store.db` in the first. Run
//! this test once with `CHARGEHAND_WRITE_FIXTURES=1` to write the fixture of a new form; never write
//! an old one again.

use crate::world::{all_rows, open};
use domain::blackboard::NewEntry;
use domain::command::{Claimant, Command, Outcome, Report, RunStart, Submission};
use domain::error::Code;
use domain::event::{AttemptRef, Origin};
use domain::graph::Graph;
use domain::id::{CountedIds, RunId, TaskId};
use domain::json::Json;
use domain::message::{NewMessage, To};
use domain::name::Name;
use domain::pool::{Pool, Strategy};
use domain::record::{EffectClass, NewRecord, RecordState};
use domain::run::{Crew, RunStatus};
use domain::state::{Key, Row};
use domain::task::{Failure, SlotUse, TaskSpec, TaskStatus};
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::backend::sqlite::FILE;
use store::backend::sqlite::backup::backup;
use store::backend::sqlite::restore::restore;
use store::replay::replay;
use store::{Answer, Claimed, Op, Query, Request, Store};

const NOW: Time = Time(1_700_000_000_000);
/// What the fixture was written from: changed, it would be another fixture.
const SEED: u64 = 1;
const SINGLE: TaskId = TaskId::new((2 << 64) + (1 << 32));
const WAITING: TaskId = TaskId::new((2 << 64) + (2 << 32));
const RUN: RunId = RunId::new((2 << 64) + (3 << 32));

/// The forms there have been.
const FORMS: std::ops::RangeInclusive<u32> = 1..=3;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fixtures.join(name)
}

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

fn json(text: &str) -> Json {
    Json::from_text(text.into()).unwrap()
}

fn ask(store: &mut Store, op: Op) -> Answer {
    ask_at(store, op, NOW)
}

fn ask_at(store: &mut Store, op: Op, now: Time) -> Answer {
    let origin = Origin {
        cause: Some(name("fixture")),
        by: Some(name("fixture-maker")),
    };
    let request = Request {
        origin,
        ops: vec![op],
    };
    let mut applied = store.apply(&[request], now).unwrap();
    applied.answers.remove(0).remove(0)
}

fn command(store: &mut Store, command: Command) -> Outcome {
    match ask(store, Op::Command(command)) {
        Answer::Outcome(Ok(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

fn claim(store: &mut Store, max: u32) -> Vec<Claimed> {
    let worker = name("worker_1");
    let starts = true;
    match ask(
        store,
        Op::Claim {
            by: Claimant::new(worker, starts),
            max,
        },
    ) {
        Answer::Claimed(Ok(claimed)) => claimed,
        other => panic!("{other:?}"),
    }
}

fn report(store: &mut Store, lease: &AttemptRef, report: Report) {
    let lease = lease.clone();
    command(store, Command::TaskReport { lease, report });
}

/// A task that failed for good, one that waits, a run of three tasks that completed with a vote, a
/// pool, a worker, an entry, a message, an idempotency key.
fn write(folder: &Path) {
    let mut store = open(folder, SEED).unwrap();
    let mut worker = WorkerSpec::new(name("worker_1"));
    worker.capacity = 5;
    command(&mut store, Command::WorkerRegister(Arc::new(worker)));
    let mut single = TaskSpec::new(name("text.stats"), json(r#"{"text": "Grüße 🦀"}"#));
    single.slot = Some(SlotUse {
        key: name("customer-1"),
        max: 1,
    });
    let mut new = Submission::new(single);
    new.key = Some(name("once"));
    assert_eq!(
        command(&mut store, Command::TaskSubmit(new)),
        Outcome::Task(SINGLE)
    );
    let lease = claim(&mut store, 1).remove(0).lease;
    let failure = Failure::permanent("input.unreadable", "not text");
    report(&mut store, &lease, Report::Failed { failure });
    let mut waiting = TaskSpec::new(name("text.summary"), Json::default());
    waiting.capability = Some(name("vision"));
    let new = Submission::new(waiting);
    assert_eq!(
        command(&mut store, Command::TaskSubmit(new)),
        Outcome::Task(WAITING)
    );
    let graph: Graph = serde_json::from_str(
        r#"{"steps": [
            {"id": "parts", "each": {"items": [1, 2, 3], "task": {"kind": "part"}}},
            {"id": "vote", "needs": ["parts"], "gate": {"join": "all", "reduce": "vote"}}]}"#,
    )
    .unwrap();
    let start = RunStart {
        goal: "Which is it?".into(),
        supervisor: name("supervisor_1"),
        graph,
        crew: Crew::default(),
        metadata: BTreeMap::from([(name("asked-by"), json("\"a person\""))]),
        key: None,
        trace: None,
        budget: None,
    };
    assert_eq!(
        command(&mut store, Command::RunStart(Box::new(start))),
        Outcome::Run(RUN)
    );
    for (n, claimed) in claim(&mut store, 9).iter().enumerate() {
        let note = "half".to_owned();
        let fraction = Some(0.5);
        report(
            &mut store,
            &claimed.lease,
            Report::Progressed { fraction, note },
        );
        let output = json(if n == 1 { "\"no\"" } else { "\"yes\"" });
        report(&mut store, &claimed.lease, Report::Completed { output });
    }
    command(
        &mut store,
        Command::PoolDefine {
            pool: Pool {
                id: name("crew"),
                strategy: Strategy::Weighted,
                members: vec![name("worker_1")],
                version: 0,
            },
            expected: None,
        },
    );
    let mut entry = NewEntry::new(name("worker_1"), json(r#"["seen", 0.1]"#));
    entry.run = Some(RUN);
    entry.tags = vec![name("result")];
    command(&mut store, Command::EntryWrite(entry));
    let to = To::Agent(name("worker_1"));
    let message = NewMessage::new(name("supervisor_1"), to, name("hello"), json("1"));
    let recipients = vec![name("worker_1")];
    command(
        &mut store,
        Command::MessageSend {
            message,
            recipients,
        },
    );
    store.flush().unwrap();
}

/// What is in the fixture, as a person would list it.
fn lists_what_is_known(folder: &Path) {
    let mut store = open(folder, 99).unwrap();
    let mut reader = store.reader().unwrap();
    let listed = replay(&mut *reader).unwrap();
    assert_eq!(listed.differences, [""; 0]);
    assert_eq!(listed.events, store.head());
    let events = reader.events(0, 1_000).unwrap();
    assert_eq!(events[0].event.name(), "worker.registered");
    assert!(events.iter().all(|event| event.at == NOW));
    assert!(
        events
            .iter()
            .all(|event| event.cause == Some(name("fixture")))
    );

    let rows = reader
        .rows(&Query::Tasks {
            after: None,
            last: None,
            status: None,
            kind: None,
            worker: None,
            limit: 100,
        })
        .unwrap();
    let states: Vec<_> = rows
        .iter()
        .map(|(_, row)| match row {
            Row::Task(task) => (task.spec.kind.to_string(), task.status()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("text.stats", TaskStatus::Failed),
        ("text.summary", TaskStatus::Pending),
        ("part", TaskStatus::Completed),
        ("part", TaskStatus::Completed),
        ("part", TaskStatus::Completed),
    ];
    assert_eq!(
        states,
        expected.map(|(kind, status)| (kind.to_owned(), status))
    );
    let Some(Row::Run(run)) = store.get(&Key::Run(RUN)).unwrap() else {
        panic!("the run is gone")
    };
    assert_eq!(
        (run.status(), run.goal.as_str()),
        (RunStatus::Completed, "Which is it?")
    );
    assert!(
        format!("{:?}", run.state).contains("yes"),
        "{:?}",
        run.state
    );
    let rows = all_rows(&mut *reader).len();
    assert_eq!((rows, listed.rows), (rows, rows as u64));

    // It is a store to work with, not only to look at: what waits can be claimed.
    let mut worker = WorkerSpec::new(name("worker_2"));
    worker.capabilities = vec![name("vision")];
    command(&mut store, Command::WorkerRegister(Arc::new(worker)));
    let claim = Op::Claim {
        by: Claimant::new(name("worker_2"), false),
        max: 9,
    };
    match ask(&mut store, claim) {
        Answer::Claimed(Ok(claimed)) => assert_eq!(claimed[0].lease.task, WAITING),
        other => panic!("{other:?}"),
    }
    let redrive = Command::TaskRedrive(SINGLE);
    command(&mut store, redrive);
    // What is appended follows what was there, for whoever opens it next.
    let log = reader.events(0, 1_000).unwrap();
    store.flush().unwrap();
    drop((store, reader));
    let store = open(folder, 100).unwrap();
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.events(0, 1_000).unwrap(), log);
    assert_eq!(replay(&mut *reader).unwrap().differences, [""; 0]);
    assert!(log.starts_with(&events) && log.len() > events.len());
}

#[test]
fn a_store_of_any_form_opens_for_ever() {
    for form in FORMS {
        let folder = fixture(&format!("v{form}"));
        if std::env::var_os("CHARGEHAND_WRITE_FIXTURES").is_some() && !folder.join(FILE).exists() {
            let fresh = tempfile::tempdir().unwrap();
            write(fresh.path());
            assert!(
                !fresh.path().join("store.db-wal").exists(),
                "it is all in the one file"
            );
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::copy(fresh.path().join(FILE), folder.join(FILE)).unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join(FILE), copy.path().join(FILE)).unwrap();
        let file = rusqlite::Connection::open(copy.path().join(FILE)).unwrap();
        let of = file.pragma_query_value(None, "user_version", |row| row.get(0));
        assert_eq!(of, Ok(form));
        drop(file);
        lists_what_is_known(copy.path());
    }
}

/// What this version writes today reads as the fixture does: the script above still makes it.
#[test]
fn todays_store_shows_the_same() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    lists_what_is_known(folder.path());
}

/// A task with receipts, written by the first form, whose process was killed before the task's row
/// had seen the last of them: an order whose draft is written, whose customer is charged, that could
/// not be shipped, and whose mail may or may not have been sent.
fn with_records() -> PathBuf {
    fixture("v1-records")
}

const ORDER: TaskId = TaskId::new((2 << 64) + (1 << 32));

/// What became of the order's steps, each as text.
fn steps(store: &mut Store) -> Vec<String> {
    let behind = store.settle().unwrap();
    let mut reader = store.reader().unwrap();
    let page = store::records::page(&mut *reader, behind, ORDER, 0, 100).unwrap();
    assert_eq!(page.next, None);
    let Some(Row::Task(task)) = store.get(&Key::Task(ORDER)).unwrap() else {
        panic!("the order is gone")
    };
    assert_eq!(task.finished.steps as usize, page.records.len());
    let all = page.records.iter().chain(&task.records);
    all.map(|record| serde_json::to_string(record).unwrap())
        .collect()
}

const STEPS: [&str; 4] = [
    r#"{"key":"draft","effect":"pure","state":{"done":{"output":{"text": "Dear Ms Lee"}}},"attempt":1,"at":1700000000000}"#,
    r#"{"key":"charge","effect":"at_most_once","state":{"done":{"output":7}},"attempt":1,"at":1700000000000}"#,
    r#"{"key":"ship","effect":"keyed","state":{"failed":{"failure":{"code":"address.unknown","message":"no such street","retryable":true}}},"attempt":1,"at":1700000000000}"#,
    r#"{"key":"mail","effect":"at_most_once","state":"in_doubt","attempt":1,"at":1700000000000}"#,
];

#[test]
fn receipts_of_the_first_form_are_still_worth_their_money() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(with_records().join(FILE), folder.path().join(FILE)).unwrap();
    for seed in [5, 6] {
        let mut store = open(folder.path(), seed).unwrap();
        let listed = replay(&mut *store.reader().unwrap()).unwrap();
        assert_eq!(listed.differences, [""; 0]);
        assert_eq!(steps(&mut store), STEPS);
    }
    // The next attempt is held to them.
    let mut store = open(folder.path(), 7).unwrap();
    let claim = Op::Claim {
        by: Claimant::new(name("worker_1"), true),
        max: 1,
    };
    let lease = match ask_at(&mut store, claim, NOW.plus_ms(60_000)) {
        Answer::Claimed(Ok(mut claimed)) => claimed.remove(0).lease,
        other => panic!("{other:?}"),
    };
    let mut say = |key: &'static str, effect, state| {
        let report = Report::Recorded(NewRecord {
            key: name(key),
            effect,
            state,
            cost: None,
        });
        let lease = lease.clone();
        let command = Command::TaskReport { lease, report };
        match ask(&mut store, Op::Command(command)) {
            Answer::Outcome(outcome) => outcome.map_err(|error| error.code),
            other => panic!("{other:?}"),
        }
    };
    let done = |text: &str| RecordState::Done { output: json(text) };
    use EffectClass::{AtMostOnce, Keyed, Pure};
    let again = say("charge", AtMostOnce, RecordState::Intended);
    assert_eq!(again, Err(Code::RecordState));
    assert_eq!(say("charge", AtMostOnce, done("8")), Err(Code::RecordState));
    assert_eq!(say("charge", AtMostOnce, done("7")), Ok(Outcome::Done));
    let again = say("mail", AtMostOnce, RecordState::Intended);
    assert_eq!(again, Err(Code::RecordInDoubt));
    assert_eq!(say("ship", Keyed, done("9")), Ok(Outcome::Done));
    assert_eq!(say("thanks", Pure, done("0")), Ok(Outcome::Done));
    let keys = steps(&mut store);
    assert_eq!(keys.len(), 5);
    let listed = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!(listed.differences, [""; 0]);
}

/// A copy that the first form made is as good as it was, and is brought up to date where it is put.
#[test]
fn a_backup_of_the_first_form_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let [live, copy, back] = ["live", "copy", "back"].map(|name| folder.path().join(name));
    std::fs::create_dir(&live).unwrap();
    std::fs::copy(with_records().join(FILE), live.join(FILE)).unwrap();
    backup(&live, &copy, NOW).unwrap();
    restore(&copy, &back, false, NOW, &|| Box::new(CountedIds::new(9))).unwrap();
    assert_eq!(steps(&mut open(&back, 5).unwrap()), STEPS);
}
