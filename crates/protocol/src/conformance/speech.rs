//! What agents say while they work.

use super::*;
use crate::speech::{Cursor, Heard, Said, Say, Utterance};
use domain::limits::{SAID_BYTES_MAX, SAID_PIECES_MAX, STREAM_PIECES_MAX};

fn text(text: &str) -> Said {
    let text = text.to_owned();
    Said::Text { turn: 1, text }
}

fn saying(held: &Assignment, said: Vec<Said>) -> Say {
    let piece = |said| Utterance {
        agent: name("ann"),
        said,
    };
    Say {
        task_id: held.task_id,
        attempt: held.attempt,
        pieces: said.into_iter().map(piece).collect(),
    }
}

async fn say(api: &Subject, worker: &str, held: &Assignment, said: Vec<Said>) {
    api.task_say(name(worker), saying(held, said))
        .await
        .unwrap();
}

async fn hear(api: &Subject, run: RunId, after: Option<Cursor>) -> Heard {
    api.run_stream(run, after, Duration::ZERO).await.unwrap()
}

fn said(heard: &Heard) -> Vec<Said> {
    heard
        .pieces
        .iter()
        .map(|piece| piece.said.clone())
        .collect()
}

/// A run of one task, in somebody's hands.
async fn in_hands(api: &Subject) -> (RunId, Assignment) {
    register(api, worker("w")).await;
    let run = start(api, "talk", fan_out(&[1], "collect"), &["w"]).await;
    (run, take(api, "w").await)
}

/// What an attempt says is heard in its order, piece by piece, by whoever follows its run; and from
/// where the reader was, however often it comes back.
pub async fn what_an_attempt_says_is_heard_once_in_order(api: Subject) {
    let (run, held) = in_hands(&api).await;
    let quiet = hear(&api, run, None).await;
    assert_eq!((quiet.pieces.len(), quiet.lost, quiet.ended), (0, 0, false));
    let first = vec![
        Said::TurnBegan { turn: 1 },
        text("Hello, "),
        text("wörld."),
        Said::TurnEnded {
            turn: 1,
            whole: true,
        },
    ];
    let second = vec![
        Said::ToolCall {
            tool: "files.read".into(),
            arguments: json!({"path": "a"}).to_string(),
        },
        Said::ToolResult {
            tool: "files.read".into(),
            succeeded: false,
            bytes: 7,
        },
        Said::Note { text: "…".into() },
        Said::Dropped { pieces: 3 },
    ];
    say(&api, "w", &held, first.clone()).await;
    let begin = hear(&api, run, None).await;
    assert_eq!(said(&begin), first);
    say(&api, "w", &held, second.clone()).await;
    let more = hear(&api, run, begin.next).await;
    assert_eq!(said(&more), second);
    assert!(!more.anew && more.lost == 0 && !more.ended);
    // Any position is one to go on from.
    let all = hear(&api, run, None).await;
    assert_eq!(all.pieces.len(), 8);
    for (n, piece) in all.pieces.iter().enumerate() {
        assert_eq!(piece.position, n as u64 + 1);
        assert_eq!((piece.task_id, piece.attempt), (held.task_id, held.attempt));
        assert_eq!(piece.agent, name("ann"));
        let after = Cursor {
            position: piece.position,
            ..all.next.unwrap()
        };
        let rest = hear(&api, run, Some(after)).await;
        assert_eq!(rest.pieces, all.pieces[n + 1..]);
    }
    // It is no event: the log does not grow by it.
    let before = events(&api).await.len();
    say(&api, "w", &held, second).await;
    assert_eq!(events(&api).await.len(), before);
}

/// Whoever waits hears at once what is said, and that the run has ended.
pub async fn a_listener_is_woken(api: Subject) {
    let (run, held) = in_hands(&api).await;
    let listening = tokio::spawn({
        let api = Arc::clone(&api);
        async move { api.run_stream(run, None, 4 * SOON).await.unwrap() }
    });
    sleep(ms(100)).await;
    say(&api, "w", &held, vec![text("hi")]).await;
    let heard = tokio::time::timeout(2 * SOON, listening).await;
    let heard = heard.unwrap().unwrap();
    assert_eq!(said(&heard), [text("hi")]);
    let waiting = tokio::spawn({
        let api = Arc::clone(&api);
        async move { api.run_stream(run, heard.next, 4 * SOON).await.unwrap() }
    });
    sleep(ms(100)).await;
    complete(&api, "w", &held, json!(2)).await;
    let over = tokio::time::timeout(2 * SOON, waiting).await;
    let over = over.unwrap().unwrap();
    assert!(over.ended && over.pieces.is_empty());
    // Who comes later hears all the same what was said.
    let late = hear(&api, run, None).await;
    assert!(late.ended && late.pieces.len() == 1);
    // In time, also when nothing is said.
    let silent = start(&api, "silence", fan_out(&[1], "collect"), &["w"]).await;
    let begin = Instant::now();
    let nothing = api.run_stream(silent, None, ms(300)).await.unwrap();
    assert!(nothing.pieces.is_empty() && !nothing.ended);
    assert!(begin.elapsed() >= ms(300));
    let unknown = api.run_stream(RunId::new(5), None, Duration::ZERO).await;
    assert_eq!(code(unknown), Code::RunUnknown);
}

/// Only the attempt under way is heard: another worker, an old token, and one that has ended are
/// refused.
pub async fn only_the_current_attempt_is_heard(api: Subject) {
    let (run, held) = in_hands(&api).await;
    register(&api, worker("other")).await;
    let refused = api.task_say(name("other"), saying(&held, vec![text("me")]));
    assert_eq!(code(refused.await), Code::AttemptStale);
    api.task_reassign(held.task_id, Address::Only(name("other")))
        .await
        .unwrap();
    let again = take(&api, "other").await;
    let late = api.task_say(name("w"), saying(&held, vec![text("late")]));
    assert_eq!(code(late.await), Code::AttemptStale);
    say(&api, "other", &again, vec![text("now")]).await;
    complete(&api, "other", &again, json!(2)).await;
    let after = api.task_say(name("other"), saying(&again, vec![text("after")]));
    assert_eq!(code(after.await), Code::AttemptStale);
    let heard = hear(&api, run, None).await;
    assert_eq!(said(&heard), [text("now")]);
    assert!(heard.pieces[0].attempt > held.attempt);
}

/// What is said at once is bounded, and so is what is kept: the oldest goes, and a reader that had
/// not come so far is told how much it has missed.
pub async fn what_is_said_is_bounded(api: Subject) {
    let (run, held) = in_hands(&api).await;
    let many = vec![text("x"); SAID_PIECES_MAX + 1];
    let refused = api.task_say(name("w"), saying(&held, many)).await;
    assert_eq!(code(refused), Code::LimitExceeded);
    let large = vec![text(&"x".repeat(SAID_BYTES_MAX + 1))];
    let refused = api.task_say(name("w"), saying(&held, large)).await;
    assert_eq!(code(refused), Code::LimitExceeded);
    let arguments = "x".repeat(domain::limits::SAID_ARGUMENT_BYTES_MAX + 1);
    let call = vec![Said::ToolCall {
        tool: "t".into(),
        arguments,
    }];
    let refused = api.task_say(name("w"), saying(&held, call)).await;
    assert_eq!(code(refused), Code::LimitExceeded);
    say(&api, "w", &held, vec![text("first")]).await;
    let begin = hear(&api, run, None).await;
    let rounds = STREAM_PIECES_MAX / SAID_PIECES_MAX + 2;
    for _ in 0..rounds {
        say(&api, "w", &held, vec![text("x"); SAID_PIECES_MAX]).await;
    }
    let total = (rounds * SAID_PIECES_MAX) as u64 + 1;
    let mut heard = hear(&api, run, begin.next).await;
    assert_eq!(heard.lost, total - 1 - STREAM_PIECES_MAX as u64);
    let mut next = 2 + heard.lost;
    while !heard.pieces.is_empty() {
        assert!(heard.pieces.len() <= SAID_PIECES_MAX);
        for piece in &heard.pieces {
            assert_eq!(piece.position, next);
            next += 1;
        }
        heard = hear(&api, run, heard.next).await;
        assert_eq!(heard.lost, 0);
    }
    assert_eq!(next, total + 1);
    // A position of another stream is told from one of this.
    let strange = Cursor {
        stream: 1,
        position: 3,
    };
    assert!(hear(&api, run, Some(strange)).await.anew);
}
