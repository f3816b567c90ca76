//! What agents say, followed over real sockets: by readers that are cut off, that are slow, that come
//! late, and while the server is started again.

use super::*;
use chargehand::sse::{Message, Parser};
use chargehand::{Client, Context, Ended, Said, Worker};
use domain::limits::{STREAM_BYTES_MAX, STREAM_PIECES_MAX};
use protocol::ApiRead as _;
use protocol::speech::{Cursor, Piece};
use std::collections::VecDeque;

/// A reader of a run's stream.
struct Reader {
    response: reqwest::Response,
    parser: Parser,
    ready: VecDeque<Message>,
}

impl Reader {
    async fn open(house: &House, run: &str, after: Option<&str>, last: Option<&str>) -> Self {
        let query = after.map_or(String::new(), |after| format!("?after={after}"));
        let path = format!("/v1/runs/{run}/stream{query}");
        let mut ask = house.get(&path).header("accept", "text/event-stream");
        if let Some(last) = last {
            ask = ask.header("last-event-id", last);
        }
        let response = ask.open().await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            parser: Parser::new(1 << 20),
            ready: VecDeque::new(),
        }
    }

    /// The next message; none when the stream has ended.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let chunk = within(self.response.chunk()).await.ok()??;
            self.ready.extend(self.parser.feed(&chunk).unwrap());
        }
    }

    async fn message(&mut self) -> Message {
        self.next().await.expect("the stream ended")
    }
}

fn piece(message: &Message) -> Piece {
    let piece: Piece = serde_json::from_str(&message.data).unwrap();
    // What it is called and where it is says the frame as well.
    assert_eq!(message.event, piece.said.name());
    let id: Cursor = message.id.as_ref().unwrap().parse().unwrap();
    assert_eq!(id.position, piece.position);
    piece
}

/// A run of one task, begun by worker `w`; the run and the task.
async fn begun(house: &House) -> (String, String) {
    house.register("w", 1).await;
    let run = json!({"goal": "talk", "supervisor": "sup",
        "graph": {"steps": [{"id": "one", "task": {"kind": "talk"}}]}});
    let told = house.post("/v1/runs", &run).told().await;
    let run = told.of(201)["run_id"].as_str().unwrap().to_owned();
    let claim = json!({"claim": {"max": 1, "starts": true, "wait_ms": 5_000}});
    let worked = house.work("w", &claim).await;
    let task = worked["tasks"][0]["task_id"].as_str().unwrap().to_owned();
    (run, task)
}

async fn say(house: &House, task: &str, texts: &[&str]) {
    let pieces = texts
        .iter()
        .map(|text| json!({"agent": "ann", "said": {"kind": "text", "turn": 1, "text": text}}));
    let body = json!({"task_id": task, "attempt": 1, "pieces": pieces.collect::<Vec<_>>()});
    let told = house.post("/v1/workers/w/say", &body).told().await;
    assert_eq!(told.status, 204, "{}", told.text);
}

async fn finish(house: &House, task: &str) {
    let report = json!({"reports": [{"task_id": task, "attempt": 1,
        "report": {"completed": {"output": 7}}}]});
    house.work("w", &report).await;
}

#[tokio::test]
async fn a_reader_that_is_cut_off_again_and_again_misses_nothing_and_hears_nothing_twice() {
    let house = House::memory().await;
    let (run, task) = begun(&house).await;
    let saying = async {
        for n in 0..300 {
            say(&house, &task, &[&format!("{n} ")]).await;
        }
        finish(&house, &task).await;
    };
    let reading = async {
        let (mut text, mut last, mut round) = (String::new(), None::<String>, 0_usize);
        'all: loop {
            round += 1;
            let mut reader = match round % 2 {
                // The header goes before the query.
                0 => Reader::open(&house, &run, Some("1.1"), last.as_deref()).await,
                _ => Reader::open(&house, &run, last.as_deref(), None).await,
            };
            for _ in 0..1 + (round * 7) % 40 {
                let message = reader.message().await;
                match message.event.as_str() {
                    "ended" => {
                        assert_eq!(reader.next().await, None);
                        break 'all;
                    }
                    // Nobody has a position before the first piece.
                    "anew" => assert!(last.is_none()),
                    _ => {
                        let Said::Text { text: words, .. } = piece(&message).said else {
                            panic!("{message:?}");
                        };
                        text.push_str(&words);
                        last = message.id;
                    }
                }
            }
        }
        text
    };
    let ((), text) = tokio::join!(saying, reading);
    let expected: String = (0..300).map(|n| format!("{n} ")).collect();
    assert_eq!(text, expected);
    house.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_costs_no_more_than_the_others() {
    let house = House::memory().await;
    let (run, task) = begun(&house).await;
    let mut slow = Reader::open(&house, &run, None, None).await;
    say(&house, &task, &["first"]).await;
    assert_eq!(piece(&slow.message().await).position, 1);
    // More than sockets hold, while it reads nothing.
    let words = "x".repeat(32 * 1024);
    let rounds = 600;
    for _ in 0..rounds {
        say(&house, &task, &[&words, &words]).await;
    }
    finish(&house, &task).await;
    let (mut next, mut lost) = (2, 0);
    loop {
        let message = slow.message().await;
        match message.event.as_str() {
            "ended" => break,
            "lost" => {
                let told: Value = serde_json::from_str(&message.data).unwrap();
                let gap = told["lost"].as_u64().unwrap();
                assert!(gap > 0);
                (next, lost) = (next + gap, lost + gap);
            }
            _ => {
                assert_eq!(piece(&message).position, next);
                next += 1;
            }
        }
    }
    assert_eq!(next, 2 * rounds + 2);
    assert!(lost > 0);
    // What is kept for everybody is what there is room for.
    let told = house.get(&format!("/v1/runs/{run}/stream")).told().await;
    let first = told.of(200)["pieces"][0]["position"].as_u64().unwrap();
    let kept = (2 * rounds + 2 - first) as usize;
    assert!(kept <= STREAM_PIECES_MAX && kept * words.len() <= STREAM_BYTES_MAX);
    house.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_stream_begins_anew_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    let (run, task) = begun(&house).await;
    say(&house, &task, &["half a "]).await;
    let mut reader = Reader::open(&house, &run, None, None).await;
    let last = reader.message().await.id.unwrap();
    let stopping = tokio::spawn(house.stop());
    assert_eq!(reader.next().await, None);
    stopping.await.unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    // The worker lives elsewhere: it has its task still, and goes on.
    let mut reader = Reader::open(&house, &run, None, Some(&last)).await;
    say(&house, &task, &["whole"]).await;
    assert_eq!(reader.message().await.event, "anew");
    let whole = reader.message().await;
    assert_eq!(piece(&whole).position, 1);
    assert_ne!(whole.id, Some(last));
    drop(reader);
    house.stop().await;
}

#[tokio::test]
async fn a_position_that_is_none_is_refused_before_anything_is_streamed() {
    let house = House::memory().await;
    let (run, task) = begun(&house).await;
    let path = format!("/v1/runs/{run}/stream");
    for wrong in ["42", "x.y", "-1.1", "1.", "1.99999999999999999999"] {
        let ask = house.get(&path).header("accept", "text/event-stream");
        let told = ask.header("last-event-id", wrong).told().await;
        told.problem(400, "value.out_of_range");
    }
    let nothing = format!("/v1/runs/run_{}/stream", "0".repeat(26));
    let ask = house.get(&nothing).header("accept", "text/event-stream");
    ask.told().await.problem(404, "run.unknown");
    // A token that is not current is refused, and so is what nobody could say.
    let stale = json!({"task_id": task, "attempt": 2, "pieces": []});
    let told = house.post("/v1/workers/w/say", &stale).told().await;
    told.problem(409, "attempt.stale");
    let strange = json!({"task_id": task, "attempt": 1, "pieces": [{"agent": "a", "said": {"kind": "sing"}}]});
    let told = house.post("/v1/workers/w/say", &strange).told().await;
    assert!((400..500).contains(&told.status), "{told:?}");
    told.well_formed();
    house.stop().await;
}

// A worker elsewhere says a thousand words: whoever listens hears them all, in far fewer pieces, and
// the last of them before the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_worker_elsewhere_are_collected_and_all_heard() {
    let house = House::memory().await;
    let client = Arc::new(Client::builder(house.url.clone()).build().unwrap());
    let talk = |task: Context| async move {
        let task = task.speaking_as("ann");
        let turn = task.next_turn();
        task.say(Said::TurnBegan { turn });
        for n in 0..1_000 {
            let text = format!("{n} ");
            task.say(Said::Text { turn, text });
            tokio::task::yield_now().await;
        }
        task.say(Said::TurnEnded { turn, whole: true });
        Ended::done(json!("done"))
    };
    let worker = Worker::new("talker").unwrap().handle("talk", talk).unwrap();
    let worker = worker.start(client.clone()).await.unwrap();
    let run = json!({"goal": "talk", "supervisor": "sup",
        "graph": {"steps": [{"id": "one", "task": {"kind": "talk"}}]}});
    let told = house.post("/v1/runs", &run).told().await;
    let run = told.of(201)["run_id"].as_str().unwrap().parse().unwrap();
    let (mut after, mut said) = (None, Vec::new());
    loop {
        let heard = within(client.run_stream(run, after, PATIENCE)).await;
        let heard = heard.unwrap();
        assert_eq!(heard.lost, 0);
        after = heard.next;
        said.extend(heard.pieces);
        if heard.ended {
            break;
        }
    }
    assert!(said.iter().all(|piece| piece.agent.as_str() == "ann"));
    let words = said.iter().filter_map(|piece| match &piece.said {
        Said::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let expected: String = (0..1_000).map(|n| format!("{n} ")).collect();
    assert_eq!(words.collect::<String>(), expected);
    assert_eq!(said[0].said, Said::TurnBegan { turn: 1 });
    assert_eq!(
        said.last().unwrap().said,
        Said::TurnEnded {
            turn: 1,
            whole: true
        }
    );
    assert!(said.len() < 500, "{} pieces", said.len());
    worker.stop().await.unwrap();
    house.stop().await;
}
