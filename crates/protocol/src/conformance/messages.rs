//! Messages between agents.

use super::*;

pub(super) fn message(from: &str, to: To, kind: &str, payload: Value) -> NewMessage {
    NewMessage::new(name(from), to, name(kind), payload.into())
}

pub(super) fn to(agent: &str) -> To {
    To::Agent(name(agent))
}

pub(super) async fn subscribe(api: &Subject, agent: &str, kinds: &[&str]) {
    api.message_subscribe(name(agent), names(kinds))
        .await
        .unwrap();
}

/// What waits for the agent now.
async fn inbox(api: &Subject, agent: &str) -> Vec<Delivered> {
    api.message_receive(name(agent), 100, ms(0)).await.unwrap()
}

async fn settle(api: &Subject, message: MessageId, agent: &str, failure: Option<&str>) {
    api.message_settle(message, name(agent), failure.map(str::to_owned))
        .await
        .unwrap();
}

async fn part(api: &Subject, message: MessageId, agent: &str) -> Delivery {
    let message = api.message_get(message).await.unwrap();
    message.recipients[&name(agent)].clone()
}

/// A direct message reaches the agent it names and those who listen to its type, with all it
/// carries; a message by type reaches those who listen to it.
// S3-72, S3-74, S3-75, S3-76, S3-78, S3-79, S3-82: routed by id and by type, direct sends too; headers,
// time and correlation are carried; success means accepted.
// S3-31: a direct send. S4-62: communication. S3-184: one suite for every transport: in memory, on disk, over HTTP.
pub async fn a_message_reaches_whom_it_names(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    subscribe(&api, "bob", &["report"]).await;
    subscribe(&api, "eve", &["other"]).await;
    let before = now();
    let sent = NewMessage {
        headers: [(name("trace"), "7".to_owned())].into(),
        correlation: Some(MessageId::new(7)),
        ..message("boss", to("ann"), "report", json!({"n": 1}))
    };
    let id = api.message_send(sent).await.unwrap();
    for agent in ["ann", "bob"] {
        let got = inbox(&api, agent).await;
        assert_eq!(got.len(), 1, "{agent}");
        let got = &got[0];
        assert_eq!((got.id, &got.message.from), (id, &name("boss")));
        assert_eq!(got.message.kind, name("report"));
        assert_eq!(got.message.payload.value(), json!({"n": 1}));
        assert_eq!(got.message.headers[&name("trace")], "7");
        assert_eq!(got.message.correlation, Some(MessageId::new(7)));
        assert!((before..=now()).contains(&got.message.at));
        settle(&api, id, agent, None).await;
        assert!(matches!(
            part(&api, id, agent).await,
            Delivery::Delivered { .. }
        ));
    }
    assert!(inbox(&api, "eve").await.is_empty());
    let by_type = message("boss", To::Type, "report", json!(2));
    let id = api.message_send(by_type).await.unwrap();
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(inbox(&api, "bob").await[0].id, id);
    let all = api.message_list(None, 100).await.unwrap();
    assert_eq!(all.len(), 2);
    let rest = api.message_list(Some(all[0].id), 100).await.unwrap();
    assert_eq!((rest.len(), rest[0].id), (1, id));
    // Whoever waits is woken.
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.message_receive(name("ann"), 1, SOON).await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    let direct = message("boss", to("ann"), "note", json!(3));
    let id = api.message_send(direct).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap()[0].id, id);
}

/// A message to everybody reaches every subscriber once and not its sender; one with a prefix only
/// those whose id begins so.
// S3-162, S3-80: all subscribers once; the filter is honoured.
// S3-184: one suite for every transport.
pub async fn a_broadcast_reaches_everybody_once(api: Subject) {
    let agents = ["reader-1", "reader-2", "writer-1"];
    for agent in agents {
        subscribe(&api, agent, &["document_processed"]).await;
    }
    let kind = "document_processed";
    let everybody = message("writer-1", To::Everybody, kind, json!(1));
    let id = api.message_send(everybody).await.unwrap();
    for agent in &agents[..2] {
        let got = inbox(&api, agent).await;
        assert_eq!(got.iter().map(|got| got.id).collect::<Vec<_>>(), [id]);
        settle(&api, id, agent, None).await;
    }
    assert!(inbox(&api, "writer-1").await.is_empty());
    let some = message("boss", To::Prefix("reader-".into()), kind, json!(2));
    let id = api.message_send(some).await.unwrap();
    assert_eq!(inbox(&api, "reader-1").await[0].id, id);
    assert_eq!(inbox(&api, "reader-2").await[0].id, id);
    assert!(inbox(&api, "writer-1").await.is_empty());
    let recipients = api.message_get(id).await.unwrap().recipients;
    assert_eq!(recipients.len(), 2);
}

/// Nobody to deliver to is no success, in any form of address; the message is kept as a dead letter.
// S3-78: no subscriber is not success.
pub async fn nobody_there_is_an_error_and_a_dead_letter(api: Subject) {
    subscribe(&api, "listener", &["note"]).await;
    let forms = [
        (to("nobody"), "note"),
        (To::Type, "unheard"),
        (To::Prefix("zz".into()), "note"),
    ];
    for (n, (to, kind)) in forms.into_iter().enumerate() {
        let id = MessageId::new(1_000 + n as u128);
        let sent = NewMessage {
            id: Some(id),
            ..message("boss", to, kind, json!(n))
        };
        assert_eq!(code(api.message_send(sent).await), Code::NoRecipient);
        let dead = api.message_get(id).await.unwrap();
        assert!(dead.dead.is_some() && dead.recipients.is_empty());
    }
    // The only one who listens is the sender.
    let alone = message("listener", To::Everybody, "note", json!(0));
    assert_eq!(code(api.message_send(alone).await), Code::NoRecipient);
    assert!(inbox(&api, "listener").await.is_empty());
    assert_eq!(api.message_list(None, 100).await.unwrap().len(), 4);
}

/// A message whose time is over while it waits is expired, says so, and is not delivered.
pub async fn a_message_expires_while_it_waits(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    let brief = NewMessage {
        ttl_ms: Some(100),
        ..message("boss", to("ann"), "note", json!(1))
    };
    let id = api.message_send(brief).await.unwrap();
    let since = Instant::now();
    while !matches!(part(&api, id, "ann").await, Delivery::Expired { .. }) {
        assert!(since.elapsed() < ms(3_000), "it never expires");
        sleep(ms(20)).await;
    }
    assert!(since.elapsed() >= ms(80));
    assert!(inbox(&api, "ann").await.is_empty());
    // Too late to settle: the first ending stands.
    settle(&api, id, "ann", None).await;
    assert!(matches!(
        part(&api, id, "ann").await,
        Delivery::Expired { .. }
    ));
}

/// A receiver that fails is asked three times in all; then its part is a dead letter, with the
/// reason, and the others' parts are as they were.
// S3-83: retried, then dead-lettered; never lost silently.
// S3-184: one suite for every transport.
pub async fn a_failing_receiver_is_asked_again_then_it_is_dead(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    subscribe(&api, "bob", &["note"]).await;
    let id = api
        .message_send(message("boss", To::Type, "note", json!(1)))
        .await
        .unwrap();
    assert_eq!(inbox(&api, "bob").await.len(), 1);
    settle(&api, id, "bob", None).await;
    for n in 1..=3 {
        let got = inbox(&api, "ann").await;
        assert_eq!(got.len(), 1, "offer {n}");
        settle(&api, id, "ann", Some("no disk")).await;
    }
    assert!(inbox(&api, "ann").await.is_empty());
    match part(&api, id, "ann").await {
        Delivery::DeadLettered { reason, .. } => assert_eq!(reason, "no disk"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        part(&api, id, "bob").await,
        Delivery::Delivered { .. }
    ));
    assert!(inbox(&api, "bob").await.is_empty());
}

/// The same id twice is one message.
// S3-69: a duplicate id is handled once.
pub async fn the_same_message_is_sent_once(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    let id = MessageId::new(77);
    for _ in 0..2 {
        let sent = NewMessage {
            id: Some(id),
            ..message("boss", to("ann"), "note", json!(1))
        };
        assert_eq!(api.message_send(sent).await.unwrap(), id);
    }
    assert_eq!(inbox(&api, "ann").await.len(), 1);
    settle(&api, id, "ann", None).await;
    let again = NewMessage {
        id: Some(id),
        ..message("boss", to("ann"), "note", json!(1))
    };
    api.message_send(again).await.unwrap();
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(api.message_list(None, 100).await.unwrap().len(), 1);
}

/// A message that its recipient settled before it asked for it is dealt with; the others still get it.
pub async fn what_is_settled_is_not_delivered(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    subscribe(&api, "bob", &["note"]).await;
    let sent = message("boss", To::Type, "note", json!(1));
    let id = api.message_send(sent).await.unwrap();
    settle(&api, id, "ann", None).await;
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(inbox(&api, "bob").await[0].id, id);
    settle(&api, id, "bob", Some("no disk")).await;
    settle(&api, id, "bob", None).await;
    assert!(inbox(&api, "bob").await.is_empty());
}

/// A request waits for the message that answers it, and for no other.
// S3-161, S3-76: request and response, linked by correlation, with a time limit.
pub async fn a_request_gets_its_answer(api: Subject) {
    subscribe(&api, "asker", &[]).await;
    subscribe(&api, "oracle", &[]).await;
    let answering = {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let got = api.message_receive(name("oracle"), 1, SOON).await.unwrap();
            let asked = got[0].clone();
            assert_eq!(asked.message.kind, name("data_request"));
            let noise = message("oracle", to("asker"), "noise", json!("not this"));
            api.message_send(noise).await.unwrap();
            let answer = NewMessage {
                correlation: Some(asked.id),
                ..message("oracle", to("asker"), "data_response", json!(42))
            };
            let answer = api.message_send(answer).await.unwrap();
            settle(&api, asked.id, "oracle", None).await;
            (asked.id, answer)
        })
    };
    let question = message("asker", to("oracle"), "data_request", json!("?"));
    let answer = api.message_request(question, SOON).await.unwrap();
    let (asked, answered) = answering.await.unwrap();
    assert_eq!(
        (answer.id, answer.message.correlation),
        (answered, Some(asked))
    );
    assert_eq!(answer.message.payload.value(), json!(42));
    assert!(matches!(
        part(&api, answered, "asker").await,
        Delivery::Delivered { .. }
    ));
    let left = inbox(&api, "asker").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message.kind, name("noise"));
    let unasked = message("asker", to("nobody"), "data_request", json!("?"));
    let asked = Instant::now();
    let refused = api.message_request(unasked, SOON).await;
    assert_eq!(code(refused), Code::NoRecipient);
    assert!(asked.elapsed() < ms(2_000));
}

/// A request that nobody answers in time fails, and an answer that comes later is not taken for the
/// next request's.
// S3-161: the late reply is ignored.
pub async fn a_late_answer_answers_nothing(api: Subject) {
    subscribe(&api, "asker", &[]).await;
    subscribe(&api, "oracle", &[]).await;
    let question = || message("asker", to("oracle"), "data_request", json!("?"));
    let began = Instant::now();
    let unanswered = api.message_request(question(), ms(120)).await;
    assert_eq!(code(unanswered), Code::WaitTimedOut);
    assert!((ms(120)..ms(2_000)).contains(&began.elapsed()));
    let asked = inbox(&api, "oracle").await[0].id;
    let late = NewMessage {
        correlation: Some(asked),
        ..message("oracle", to("asker"), "data_response", json!("late"))
    };
    let late = api.message_send(late).await.unwrap();
    let unanswered = api.message_request(question(), ms(120)).await;
    assert_eq!(code(unanswered), Code::WaitTimedOut);
    assert_eq!(inbox(&api, "asker").await[0].id, late);
}

/// Who has unsubscribed gets nothing more; who subscribes again starts afresh.
// S3-81: ending a subscription stops delivery.
pub async fn unsubscribing_stops_delivery(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    let send = |to| api.message_send(message("boss", to, "note", json!(1)));
    send(to("ann")).await.unwrap();
    assert_eq!(inbox(&api, "ann").await.len(), 1);
    api.message_unsubscribe(name("ann")).await.unwrap();
    for form in [to("ann"), To::Type, To::Everybody] {
        assert_eq!(code(send(form).await), Code::NoRecipient);
    }
    assert!(inbox(&api, "ann").await.is_empty());
    subscribe(&api, "ann", &[]).await;
    send(to("ann")).await.unwrap();
    assert_eq!(code(send(To::Type).await), Code::NoRecipient);
    assert_eq!(inbox(&api, "ann").await.len(), 1);
}
