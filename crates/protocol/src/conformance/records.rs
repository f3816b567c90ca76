//! Receipts of steps: what is done is reused, what may have happened is in doubt, and nothing is
//! said twice.

use super::*;
use domain::limits::{RECORDS_BYTES_MAX, RECORDS_MAX};
use domain::record::{EffectClass, Finding, NewRecord, RecordState};

fn recorded(key: &str, effect: EffectClass, state: RecordState) -> Report {
    Report::Recorded(NewRecord {
        key: name(key),
        effect,
        state,
        cost: None,
    })
}

fn done(output: Value) -> RecordState {
    RecordState::Done {
        output: output.into(),
    }
}

/// Each record's key and state.
fn stand(records: &[domain::record::Record]) -> Vec<(&str, &RecordState)> {
    let each = records.iter();
    each.map(|record| (record.key.as_str(), &record.state))
        .collect()
}

async fn notes(api: &Subject) -> usize {
    let noted = |recorded: &&Recorded| matches!(recorded.event, Event::RecordNoted { .. });
    events(api).await.iter().filter(noted).count()
}

/// A step that one attempt finished comes with the next attempt's assignment, with its output.
pub async fn a_finished_step_is_reused(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    assert_eq!(held.records, []);
    let output = json!({"tokens": 812, "text": "ü"});
    for (key, effect, state) in [
        ("draft", EffectClass::Keyed, RecordState::Intended),
        ("draft", EffectClass::Keyed, done(output.clone())),
        ("read", EffectClass::Pure, RecordState::Intended),
    ] {
        let said = report(&api, "w", &held, recorded(key, effect, state)).await;
        said.unwrap();
    }
    api.worker_leave(name("w"), None, "it died".into())
        .await
        .unwrap();
    register(&api, worker("v")).await;
    let again = take(&api, "v").await;
    assert_eq!((again.task_id, again.attempt), (task, 2));
    let known = done(output);
    let expected = [("draft", &known), ("read", &RecordState::Intended)];
    assert_eq!(stand(&again.records), expected);
    assert_eq!(again.records[0].attempt, 1);
    // What may simply be done again is.
    let read = |state| recorded("read", EffectClass::Pure, state);
    report(&api, "v", &again, read(RecordState::Intended))
        .await
        .unwrap();
    report(&api, "v", &again, read(done(json!(1))))
        .await
        .unwrap();
    complete(&api, "v", &again, json!("all")).await;
    let view = api.task_get(task).await.unwrap();
    let one = done(json!(1));
    assert_eq!(
        stand(&view.records),
        [("draft", &known), ("read", &one)],
        "receipts stay"
    );
}

/// A worker that is lost between intent and outcome leaves its step in doubt. Done at most once, it
/// waits for a person; to be verified first, for the next attempt to find out.
pub async fn an_intended_step_is_in_doubt_after_a_loss(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let intends = |key, effect| recorded(key, effect, RecordState::Intended);
    for (key, effect) in [
        ("pay", EffectClass::AtMostOnce),
        ("post", EffectClass::VerifyFirst),
    ] {
        report(&api, "w", &held, intends(key, effect))
            .await
            .unwrap();
    }
    let finding = Finding::Done {
        output: json!("receipt 7").into(),
    };
    let resolve = |key: &str| api.record_resolve(task, name(key), finding.clone());
    assert_eq!(code(resolve("pay").await), Code::RecordState);
    api.worker_leave(name("w"), None, "it died".into())
        .await
        .unwrap();
    register(&api, worker("v")).await;
    let again = take(&api, "v").await;
    let in_doubt = RecordState::InDoubt;
    let expected = [("pay", &in_doubt), ("post", &in_doubt)];
    assert_eq!(stand(&again.records), expected);
    for (key, effect) in [
        ("pay", EffectClass::AtMostOnce),
        ("post", EffectClass::VerifyFirst),
    ] {
        let refused = report(&api, "v", &again, intends(key, effect)).await;
        assert_eq!(code(refused), Code::RecordInDoubt, "never repeated");
    }
    let pays = recorded("pay", EffectClass::AtMostOnce, done(json!(1)));
    let refused = report(&api, "v", &again, pays).await;
    assert_eq!(code(refused), Code::RecordInDoubt, "a person must say");
    let posted = recorded("post", EffectClass::VerifyFirst, done(json!("it is there")));
    report(&api, "v", &again, posted).await.unwrap();
    let ends = Failure::in_doubt("“pay” may have happened");
    report(&api, "v", &again, failed(ends)).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.unwrap().code, Code::RecordInDoubt.as_str());

    assert_eq!(code(resolve("else").await), Code::RecordUnknown);
    assert_eq!(code(resolve("post").await), Code::RecordState);
    resolve("pay").await.unwrap();
    resolve("pay").await.unwrap();
    api.task_redrive(task).await.unwrap();
    let last = take(&api, "v").await;
    let (paid, posted) = (done(json!("receipt 7")), done(json!("it is there")));
    assert_eq!(stand(&last.records), [("pay", &paid), ("post", &posted)]);
    complete(&api, "v", &last, json!(null)).await;
}

/// The same said twice, because an answer was lost, is accepted and is one event; what is done stays
/// as it is; and an attempt that is over says nothing new.
pub async fn what_is_done_is_final_and_said_once(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let pay = |state| recorded("pay", EffectClass::AtMostOnce, state);
    let early = report(&api, "w", &held, pay(done(json!(1)))).await;
    assert_eq!(code(early), Code::RecordState, "intended first");
    for state in [RecordState::Intended, done(json!(1))] {
        for _ in 0..2 {
            report(&api, "w", &held, pay(state.clone())).await.unwrap();
        }
    }
    assert_eq!(notes(&api).await, 2);
    for state in [
        RecordState::Intended,
        RecordState::InDoubt,
        done(json!(2)),
        RecordState::Failed {
            failure: Failure::new("x", "y"),
        },
    ] {
        let refused = report(&api, "w", &held, pay(state)).await;
        assert_eq!(code(refused), Code::RecordState);
    }
    let released = Report::Released {
        reason: "tired".into(),
        checkpoint: None,
        after_ms: 0,
    };
    report(&api, "w", &held, released).await.unwrap();
    report(&api, "w", &held, pay(done(json!(1)))).await.unwrap();
    let late = recorded("mail", EffectClass::AtMostOnce, RecordState::Intended);
    let late = report(&api, "w", &held, late).await;
    assert_eq!(code(late), Code::AttemptStale);
    let view = api.task_get(task).await.unwrap();
    assert_eq!(stand(&view.records), [("pay", &done(json!(1)))]);
    assert_eq!(notes(&api).await, 2);
}

/// Records of a task are bounded, in number and in bytes; what is refused changes nothing.
pub async fn records_are_bounded(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let step = |number: usize, bytes: usize| {
        let output = done(json!("x".repeat(bytes - 2)));
        recorded(&format!("step {number}"), EffectClass::Pure, output)
    };
    let many = Work {
        worker: name("w"),
        session: None,
        reports: (0..=RECORDS_MAX)
            .map(|number| (held.task_id, held.attempt, step(number, 2)))
            .collect(),
        claim: None,
    };
    let mut answers = api.work(many).await.unwrap().reports;
    let beyond = answers.pop().unwrap();
    assert_eq!(code(beyond), Code::LimitExceeded);
    assert_eq!(answers, vec![Ok(()); RECORDS_MAX]);
    let last = submit(&api, spec("b")).await;
    let held = {
        complete(&api, "w", &held, json!(null)).await;
        take(&api, "w").await
    };
    assert_eq!(held.task_id, last);
    let too_large = report(&api, "w", &held, step(0, PAYLOAD_BYTES_MAX + 1)).await;
    assert_eq!(code(too_large), Code::PayloadTooLarge);
    let whole = RECORDS_BYTES_MAX / PAYLOAD_BYTES_MAX;
    for number in 0..whole {
        let said = report(&api, "w", &held, step(number, PAYLOAD_BYTES_MAX)).await;
        said.unwrap();
    }
    let too_much = report(&api, "w", &held, step(whole, 2)).await;
    assert_eq!(code(too_much), Code::PayloadTooLarge);
    let count = |task| {
        let api = Arc::clone(&api);
        async move { api.task_get(task).await.unwrap().records.len() }
    };
    assert_eq!((count(task).await, count(last).await), (RECORDS_MAX, whole));
}
