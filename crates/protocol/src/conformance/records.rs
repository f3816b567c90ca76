//! Receipts of steps: what is done is reused, what may have happened is in doubt, and nothing is
//! said twice.

use super::*;
use domain::limits::{PAGE_MAX, RECORDS_OPEN_MAX, RECORDS_PAGE_BYTES_MAX};
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
    // First what attempts have done, then what people found out.
    assert_eq!(stand(&last.records), [("post", &posted), ("pay", &paid)]);
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

/// Records of a task are bounded, in number and in bytes; what is refused changes nothing. What is
/// kept comes in pages, of bounded length too: with the task, with the next attempt's assignment, and
/// asked for.
pub async fn records_are_bounded(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let say = |from: usize, to: usize, state: &dyn Fn(usize) -> RecordState| Work {
        worker: name("w"),
        session: None,
        reports: (from..to)
            .map(|number| {
                let said = recorded(&format!("step {number}"), EffectClass::Pure, state(number));
                (held.task_id, held.attempt, said)
            })
            .collect(),
        claim: None,
    };
    let intents = say(0, RECORDS_OPEN_MAX + 1, &|_| RecordState::Intended);
    let mut answers = api.work(intents).await.unwrap().reports;
    assert_eq!(code(answers.pop().unwrap()), Code::LimitExceeded);
    assert_eq!(answers, vec![Ok(()); RECORDS_OPEN_MAX]);
    // All of them but one are done, and some more; then some that are large.
    let small = |number: usize| done(json!(number));
    let many = PAGE_MAX + 200;
    let answers = api.work(say(1, many, &small)).await.unwrap().reports;
    assert_eq!(answers, vec![Ok(()); many - 1]);
    let large = |number: usize| {
        let digits = number.to_string();
        done(json!(digits + &"x".repeat(PAYLOAD_BYTES_MAX - 6)))
    };
    let too_large = done(json!("x".repeat(PAYLOAD_BYTES_MAX - 1)));
    let last = many + RECORDS_PAGE_BYTES_MAX / PAYLOAD_BYTES_MAX + 2;
    for number in many..last {
        let work = say(number, number + 1, &large);
        assert_eq!(api.work(work).await.unwrap().reports, [Ok(())]);
    }
    let refused = report(
        &api,
        "w",
        &held,
        recorded("too large", EffectClass::Pure, too_large),
    );
    assert_eq!(code(refused.await), Code::PayloadTooLarge);

    let expected: Vec<(String, RecordState)> = (1..many)
        .map(|number| (format!("step {number}"), small(number)))
        .chain((many..last).map(|number| (format!("step {number}"), large(number))))
        .chain([("step 0".to_owned(), RecordState::Intended)])
        .collect();
    let is_expected = |found: &[domain::record::Record], from: usize| {
        let expected = expected[from..from + found.len()].iter();
        let same = |(record, (key, state)): (&domain::record::Record, &(String, RecordState))| {
            record.key.as_str() == key && record.state == *state
        };
        assert!(found.iter().zip(expected).all(same), "from {from}");
    };
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.records_done as usize, last - 1);
    assert_eq!(view.records.len(), PAGE_MAX);
    is_expected(&view.records, 0);
    let listed = api.task_list(TaskQuery::default()).await.unwrap().items;
    let open = [("step 0", &RecordState::Intended)];
    assert_eq!(stand(&listed[0].records), open, "a list has no outputs");

    // The next attempt goes on page by page.
    let gone = api.worker_leave(name("w"), None, "it died".into());
    gone.await.unwrap();
    register(&api, worker("v")).await;
    let again = take(&api, "v").await;
    is_expected(&again.records, 0);
    let (mut seen, mut next) = (again.records.len(), again.records_next);
    let mut pages = vec![seen];
    while let Some(after) = next {
        let page = api.record_list(task, Some(after), 0).await.unwrap();
        is_expected(&page.items, seen);
        seen += page.items.len();
        pages.push(page.items.len());
        next = page.next;
    }
    // A whole page; two of the usual length, the second with one that is large; one that is cut by
    // its bytes; and the rest, with what is not done.
    assert_eq!(pages, [PAGE_MAX, 100, 100, 4, 2]);
    assert_eq!(seen, expected.len());
    let nowhere = api.record_list(task, Some("nowhere".into()), 0).await;
    assert_eq!(code(nowhere), Code::OutOfRange);
    let unknown = api.record_list(TaskId::new(404), None, 0).await;
    assert_eq!(code(unknown), Code::TaskUnknown);
}
