//! Receipts of steps: what may be said in which state, what an attempt's end leaves in doubt, and
//! who may say how it was.

use crate::world::{World, n, spec};
use domain::command::{Command, Outcome, Report};
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Event};
use domain::id::TaskId;
use domain::json::Json;
use domain::limits::*;
use domain::record::{EffectClass, Finding, NewRecord, Record, RecordState};
use domain::retry::RetryPolicy;
use domain::task::{Failure, TaskSpec};
use serde_json::json;

use EffectClass::{AtMostOnce, Keyed, Pure, VerifyFirst};
use RecordState::{InDoubt, Intended};

fn done(output: &str) -> RecordState {
    RecordState::Done {
        output: json!(output).into(),
    }
}

fn failed() -> RecordState {
    RecordState::Failed {
        failure: Failure::new("card.declined", "no"),
    }
}

fn record(key: &str, effect: EffectClass, state: RecordState) -> Report {
    Report::Recorded(NewRecord {
        key: n(key),
        effect,
        state,
        cost: None,
    })
}

fn say(
    world: &mut World,
    lease: &AttemptRef,
    effect: EffectClass,
    state: RecordState,
) -> Result<Outcome, Error> {
    world.report(lease, record("pay", effect, state))
}

fn leased() -> (World, AttemptRef) {
    let mut world = World::with_workers(&["a", "b"]);
    let task = world.submit(TaskSpec {
        retry: RetryPolicy {
            attempts: 100,
            ..RetryPolicy::default()
        },
        ..spec(json!("order"))
    });
    let lease = world.claim(task, "a").unwrap();
    (world, lease)
}

/// The receipt, from the task's row or, once an attempt has done it, from where its own row points.
fn pay(world: &World, task: TaskId) -> Option<Record> {
    let open = world.task(task).record(&n("pay")).cloned();
    let Some(kept) = world.state.kept(&task, &n("pay")) else {
        return open;
    };
    assert_eq!(open, None, "it is in one place");
    let event = &world.log[kept.position as usize - 1];
    Some(kept.read(event).unwrap())
}

fn resolve(task: TaskId, key: &str, finding: Finding) -> Command {
    Command::RecordResolve {
        task,
        key: n(key),
        finding,
    }
}

fn it_happened(output: &str) -> Finding {
    Finding::Done {
        output: json!(output).into(),
    }
}

/// A task whose step `pay` stands in `state` for the attempt that is current: said by this one, or
/// by an earlier one that released the task.
fn standing(state: &str, effect: EffectClass, earlier: bool) -> (World, AttemptRef) {
    let (mut world, lease) = leased();
    let says: Vec<RecordState> = match state {
        "nothing" => vec![],
        "intended" => vec![Intended],
        "done" => vec![Intended, done("7")],
        "failed" => vec![Intended, failed()],
        "in_doubt" => vec![Intended, InDoubt],
        other => panic!("{other}"),
    };
    for said in says {
        say(&mut world, &lease, effect, said).unwrap();
    }
    if !earlier {
        return (world, lease);
    }
    world.release(&lease);
    let lease = world.claim(lease.task, "b").unwrap();
    (world, lease)
}

/// What saying each of: intended, done with the same output, done with another, failed the same,
/// failed otherwise, in doubt, does. `+` is an event, `=` said already, `x` refused with
/// `record.state`, `?` with `record.in_doubt`.
fn row(state: &str, effect: EffectClass, earlier: bool) -> String {
    let otherwise = RecordState::Failed {
        failure: Failure::new("other", "no"),
    };
    let says = [Intended, done("7"), done("8"), failed(), otherwise, InDoubt];
    let cell = |said: RecordState| {
        let (mut world, lease) = standing(state, effect, earlier);
        let before = pay(&world, lease.task);
        let from = world.log.len();
        let answer = say(&mut world, &lease, effect, said.clone());
        let after = pay(&world, lease.task);
        match (
            answer.map_err(|error| error.code),
            world.names(from)[..].as_ref(),
        ) {
            (Ok(Outcome::Done), ["record.noted"]) => {
                let after = after.unwrap();
                assert_eq!((after.state, after.attempt), (said, lease.attempt));
                '+'
            }
            (Ok(Outcome::Done), []) if before == after => '=',
            (Err(Code::RecordState), []) if before == after => 'x',
            (Err(Code::RecordInDoubt), []) if before == after => '?',
            other => panic!("{state} {effect:?}: {said:?} gives {other:?}"),
        }
    };
    says.map(cell).iter().collect()
}

#[test]
fn each_report_in_each_state_is_noted_answered_or_refused() {
    // Columns: intended, done, done otherwise, failed, failed otherwise, in doubt.
    // Within one attempt:
    for (state, repeatable, verify_first, at_most_once) in [
        ("nothing", "+++++x", "+xxxxx", "+xxxxx"),
        ("intended", "=+++++", "=+++++", "=+++++"),
        ("done", "x=xxxx", "x=xxxx", "x=xxxx"),
        ("failed", "+++=+x", "+xx=xx", "+xx=xx"),
        ("in_doubt", "+++++=", "?++++=", "?????="),
    ] {
        for effect in [Pure, Keyed] {
            assert_eq!(row(state, effect, false), repeatable, "{state} {effect:?}");
        }
        assert_eq!(row(state, VerifyFirst, false), verify_first, "{state}");
        assert_eq!(row(state, AtMostOnce, false), at_most_once, "{state}");
    }
    // In the next attempt; what was intended is in doubt, unless it may be done again.
    for (state, repeatable, verify_first, at_most_once) in [
        ("intended", "++++++", "?++++=", "?????="),
        ("done", "x=xxxx", "x=xxxx", "x=xxxx"),
        ("failed", "+++++x", "+xxxxx", "+xxxxx"),
        ("in_doubt", "+++++=", "?++++=", "?????="),
    ] {
        for effect in [Pure, Keyed] {
            assert_eq!(row(state, effect, true), repeatable, "{state} {effect:?}");
        }
        assert_eq!(row(state, VerifyFirst, true), verify_first, "{state}");
        assert_eq!(row(state, AtMostOnce, true), at_most_once, "{state}");
    }
}

#[test]
fn an_attempt_that_ends_in_any_way_leaves_its_intent_in_doubt() {
    type End = fn(&mut World, &AttemptRef);
    let ends: [(&str, End); 7] = [
        ("lost", |world, _| world.lose("a")),
        ("failed", |world, lease| {
            world.fail(lease, Failure::new("x", "y"))
        }),
        ("released", |world, lease| world.release(lease)),
        ("timed out", |world, lease| {
            world.pass(TIMEOUT_MS_DEFAULT);
            world.ask(Command::TaskTimeOut(lease.task)).unwrap();
        }),
        ("completed", |world, lease| world.complete(lease, json!(1))),
        ("cancelled", |world, lease| world.cancel(lease.task)),
        ("reassigned", |world, lease| {
            world.reassign(lease.task, domain::task::Address::Any)
        }),
    ];
    for (how, end) in ends {
        for effect in EffectClass::ALL {
            let (mut world, lease) = leased();
            say(&mut world, &lease, effect, Intended).unwrap();
            world.pass(5);
            end(&mut world, &lease);
            let expected = if effect.is_repeatable() {
                "intended"
            } else {
                "in_doubt"
            };
            let found = pay(&world, lease.task).unwrap();
            assert_eq!(found.state.as_str(), expected, "{how} {effect:?}");
            assert_eq!(found.attempt, 1);
            assert!(effect.is_repeatable() || found.at == world.now, "{how}");
        }
    }
}

#[test]
fn a_class_changes_with_a_new_intent_only() {
    let (mut world, lease) = leased();
    say(&mut world, &lease, Pure, Intended).unwrap();
    for state in [Intended, done("7"), failed(), InDoubt] {
        let error = say(&mut world, &lease, AtMostOnce, state).unwrap_err();
        assert_eq!(error.code, Code::RecordState);
    }
    say(&mut world, &lease, Pure, failed()).unwrap();
    say(&mut world, &lease, AtMostOnce, Intended).unwrap();
    // Now it is grave: no later word makes it harmless again.
    world.lose("a");
    let lease = world.claim(lease.task, "b").unwrap();
    let error = say(&mut world, &lease, Pure, Intended).unwrap_err();
    assert_eq!(error.code, Code::RecordInDoubt);
    assert!(say(&mut world, &lease, Pure, done("7")).is_err());
}

#[test]
fn records_count_with_the_current_token_only() {
    let (mut world, old) = leased();
    say(&mut world, &old, Keyed, Intended).unwrap();
    say(&mut world, &old, Keyed, done("7")).unwrap();
    world.report(&old, record("mail", Keyed, Intended)).unwrap();
    world.lose("a");
    let from = world.log.len();
    // The same outcome again, because its answer was lost, is no fault; anything else comes late,
    // an intent above all: its worker would go on and do it.
    say(&mut world, &old, Keyed, done("7")).unwrap();
    assert!(world.names(from).is_empty());
    for late in [
        record("mail", Keyed, Intended),
        record("mail", Keyed, done("8")),
        record("pay", Keyed, done("8")),
        record("new", Pure, done("9")),
    ] {
        assert_eq!(
            world.report(&old, late).unwrap_err().code,
            Code::AttemptStale
        );
    }
    assert_eq!(world.names(from), ["result.refused"; 4]);
    let task = world.task(old.task);
    assert_eq!((task.records.len(), task.finished.steps), (1, 1));
}

#[test]
fn records_stay_for_later_attempts_and_later_lives() {
    let (mut world, lease) = leased();
    say(&mut world, &lease, AtMostOnce, Intended).unwrap();
    say(&mut world, &lease, AtMostOnce, done("7")).unwrap();
    world.fail(&lease, Failure::permanent("no", "no"));
    world.redrive(lease.task);
    let lease = world.claim(lease.task, "b").unwrap();
    assert_eq!(pay(&world, lease.task).unwrap().state, done("7"));
    world.complete(&lease, json!("all"));
    assert_eq!(pay(&world, lease.task).unwrap().attempt, 1);
    world.check();
}

#[test]
fn a_person_says_how_it_was() {
    let (mut world, lease) = leased();
    let task = lease.task;
    let unknown = resolve(TaskId::new(404), "pay", it_happened("7"));
    assert_eq!(world.refusal(unknown), Code::TaskUnknown);
    assert_eq!(
        world.refusal(resolve(task, "pay", it_happened("7"))),
        Code::RecordUnknown
    );
    say(&mut world, &lease, AtMostOnce, Intended).unwrap();
    // Under way is not in doubt.
    assert_eq!(
        world.refusal(resolve(task, "pay", it_happened("7"))),
        Code::RecordState
    );
    world.fail(&lease, Failure::in_doubt("no answer came"));
    assert_eq!(world.status(task).as_str(), "failed", "a person is needed");
    let from = world.log.len();
    let outcome = world.ask(resolve(task, "pay", it_happened("7")));
    assert_eq!(outcome, Ok(Outcome::Task(task)));
    assert_eq!(world.names(from), ["record.resolved"]);
    // Again is said already; otherwise is too late.
    world.ask(resolve(task, "pay", it_happened("7"))).unwrap();
    assert_eq!(world.names(from), ["record.resolved"]);
    assert_eq!(
        world.refusal(resolve(task, "pay", it_happened("8"))),
        Code::RecordState
    );
    assert_eq!(pay(&world, task).unwrap().state, done("7"));

    // Found not to have happened, it may be intended again.
    world.redrive(task);
    let lease = world.claim(task, "a").unwrap();
    let mail = |state| record("mail", AtMostOnce, state);
    world.report(&lease, mail(Intended)).unwrap();
    world.report(&lease, mail(InDoubt)).unwrap();
    let finding = Finding::Failed {
        failure: Failure::new("mail.lost", "it is not in the outbox"),
    };
    world.ask(resolve(task, "mail", finding)).unwrap();
    world.report(&lease, mail(Intended)).unwrap();
    world.check();
}

#[test]
fn a_follower_of_the_run_sees_its_records() {
    let mut world = World::with_workers(&["a"]);
    let graph = json!([{"id": "one", "task": {"kind": "work"}}]);
    let run = world.start(crate::world::start(graph));
    let lease = world.next("a").unwrap();
    say(&mut world, &lease, VerifyFirst, Intended).unwrap();
    say(&mut world, &lease, VerifyFirst, InDoubt).unwrap();
    world
        .ask(resolve(lease.task, "pay", it_happened("7")))
        .unwrap();
    let of_run = |name: &str| {
        let seen = |event: &Event| event.name() == name && event.run() == Some(run);
        world.log.iter().filter(|r| seen(&r.event)).count()
    };
    assert_eq!((of_run("record.noted"), of_run("record.resolved")), (2, 1));
}

/// JSON text of exactly `bytes` bytes.
fn text_of(bytes: usize) -> Json {
    json!("x".repeat(bytes - 2)).into()
}

#[test]
fn records_are_bounded_in_number_and_bytes() {
    let (mut world, lease) = leased();
    world.recounts = false;
    let say = |world: &mut World, key: &str, state: RecordState| {
        world.report(&lease, record(key, Pure, state))
    };
    let refused = |answer: Result<Outcome, Error>| {
        let error = answer.unwrap_err();
        (error.code, error.message)
    };
    for number in 0..RECORDS_OPEN_MAX {
        say(&mut world, &format!("step {number}"), Intended).unwrap();
    }
    assert_eq!(
        refused(say(&mut world, "one more", Intended)),
        (
            Code::LimitExceeded,
            "1001 records of one task that are not done; at most 1000 are allowed".into()
        )
    );
    // One that is there changes all the same, and what is done makes room.
    say(&mut world, "step 0", failed()).unwrap();
    say(&mut world, "step 0", done("7")).unwrap();
    say(&mut world, "one more", Intended).unwrap();
    for number in RECORDS_OPEN_MAX..RECORDS_MAX - 1 {
        say(&mut world, &format!("step {number}"), done("7")).unwrap();
    }
    let task = world.task(lease.task);
    let count = (task.records.len(), task.finished.steps as usize);
    assert_eq!(count, (RECORDS_OPEN_MAX, RECORDS_MAX - RECORDS_OPEN_MAX));
    assert_eq!(
        refused(say(&mut world, "too many", done("7"))),
        (
            Code::LimitExceeded,
            "10001 records of one task; at most 10000 are allowed".into()
        )
    );
    say(&mut world, "step 1", done("7")).unwrap();
    world.check_rows();
}

#[test]
fn the_bytes_of_records_are_bounded_in_all_and_in_the_tasks_row() {
    let (mut world, lease) = leased();
    world.recounts = false;
    let say = |world: &mut World, key: &str, state: RecordState| {
        world.report(&lease, record(key, Pure, state))
    };
    let large = |bytes| RecordState::Done {
        output: text_of(bytes),
    };
    let error = say(&mut world, "step 0", large(PAYLOAD_BYTES_MAX + 1)).unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    assert_eq!(
        error.message,
        "the step's output is 1048577 bytes; at most 1048576 are allowed"
    );
    for number in 0..RECORDS_BYTES_MAX / PAYLOAD_BYTES_MAX {
        say(
            &mut world,
            &format!("step {number}"),
            large(PAYLOAD_BYTES_MAX),
        )
        .unwrap();
    }
    let error = say(&mut world, "one more", large(2)).unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    assert_eq!(
        error.message,
        "the task's records are 67108866 bytes; at most 67108864 are allowed"
    );
    let long = Failure::new(&"c".repeat(9_000), "m".repeat(9_000));
    let failed = RecordState::Failed { failure: long };
    assert!(say(&mut world, "one more", failed).is_err());

    // What people found out stays in the task's row.
    let (mut world, lease) = leased();
    world.recounts = false;
    for number in 0..=RECORDS_OPEN_BYTES_MAX / PAYLOAD_BYTES_MAX {
        for state in [Intended, InDoubt] {
            let report = record(&format!("step {number}"), AtMostOnce, state);
            world.report(&lease, report).unwrap();
        }
    }
    let found = |key: &str, bytes| {
        let output = text_of(bytes);
        resolve(lease.task, key, Finding::Done { output })
    };
    for number in 0..RECORDS_OPEN_BYTES_MAX / PAYLOAD_BYTES_MAX {
        let found = found(&format!("step {number}"), PAYLOAD_BYTES_MAX);
        world.ask(found).unwrap();
    }
    let error = world.ask(found("step 4", 2)).unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    assert_eq!(
        error.message,
        "the task's records that are not done are 4194306 bytes; at most 4194304 are allowed"
    );
    world.check_rows();
}

#[test]
fn a_failures_text_is_cut_and_still_repeats() {
    let (mut world, lease) = leased();
    say(&mut world, &lease, AtMostOnce, Intended).unwrap();
    let long = RecordState::Failed {
        failure: Failure::new("x", "m".repeat(FAILURE_BYTES_MAX + 1)),
    };
    let from = world.log.len();
    for _ in 0..2 {
        say(&mut world, &lease, AtMostOnce, long.clone()).unwrap();
    }
    assert_eq!(world.names(from), ["record.noted"]);
    let RecordState::Failed { failure } = pay(&world, lease.task).unwrap().state else {
        panic!()
    };
    assert_eq!(failure.message.len(), FAILURE_BYTES_MAX);
}

#[test]
fn the_wire_is_what_a_person_would_write() {
    let text = r#"{"key":"pay","effect":"verify_first","state":{"done":{"output":[7]}},"attempt":2,"at":5}"#;
    let read: Record = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    for (state, name) in [
        (Intended, "intended"),
        (done("7"), "done"),
        (failed(), "failed"),
        (InDoubt, "in_doubt"),
    ] {
        assert_eq!(state.as_str(), name);
        let json = serde_json::to_value(&state).unwrap();
        assert!(json == json!(name) || json.get(name).is_some());
    }
    for effect in EffectClass::ALL {
        assert_eq!(
            serde_json::to_value(effect).unwrap(),
            json!(effect.as_str())
        );
    }
    let finding: Finding = serde_json::from_str(r#"{"done": {"output": 7}}"#).unwrap();
    assert_eq!(RecordState::from(finding).as_str(), "done");
}
