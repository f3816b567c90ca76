//! What agents say while they work, as somebody hears it who follows their run.

use crate::mind::{PATIENCE, Told, World, brief, mind, model, says};
use crate::planning::{answered, begin, ended, leads, minds, start, tasks, works};
use agent::gate::Gate;
use agent::hands::NoHands;
use agent::mind::{Mind, Seat};
use agent::model::{Answer, Ask, Delta, Fault, Listener, Model, ModelError};
use agent::planning::ANSWER_KIND;
use async_trait::async_trait;
use chargehand::{ApiRead, Piece, RunStart, Said, Worker};
use domain::id::{RunId, TaskId};
use domain::run::RunStatus;
use engine::{Engine, Place};
use protocol::Api as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

/// Everything that is said in a run, until it ends.
pub(crate) async fn heard(engine: &Engine, run: RunId) -> Vec<Piece> {
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let heard = engine.run_stream(run, after, PATIENCE).await.unwrap();
        assert!(heard.lost == 0 && !heard.anew);
        after = heard.next;
        all.extend(heard.pieces);
        if heard.ended {
            return all;
        }
    }
}

/// The words of each turn that was whole, in the order in which they ended; and how many were not.
fn turns(pieces: &[Piece]) -> (Vec<(String, String)>, usize) {
    let mut open: BTreeMap<(TaskId, u32, u32), String> = BTreeMap::new();
    let (mut whole, mut broken) = (Vec::new(), 0);
    for piece in pieces {
        let at = |turn: u32| (piece.task_id, piece.attempt, turn);
        match &piece.said {
            Said::TurnBegan { turn } => {
                assert!(open.insert(at(*turn), String::new()).is_none());
            }
            Said::Text { turn, text } => open.get_mut(&at(*turn)).unwrap().push_str(text),
            Said::TurnEnded { turn, whole: true } => {
                let words = open.remove(&at(*turn)).unwrap();
                whole.push((piece.agent.to_string(), words));
            }
            Said::TurnEnded { turn, whole: false } => {
                open.remove(&at(*turn)).unwrap();
                broken += 1;
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    (whole, broken)
}

// Words and calls of every agent, through all levels of the run: whoever plans, works, checks and
// answers is heard by name, and what was heard is what it came to.
#[tokio::test]
async fn every_agent_of_a_run_is_heard_while_it_works() {
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let run = begin(&engine).await;
    let listening = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { heard(&engine, run).await }
    });
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let view = ended(&engine, run).await;
    assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
    let pieces = listening.await.unwrap();
    let (whole, broken) = turns(&pieces);
    assert_eq!(broken, 0);
    let asked = planner.asked.lock().unwrap().len() + cashier.asked.lock().unwrap().len();
    assert_eq!(whole.len(), asked);
    // The first to speak plans, the last answers.
    assert_eq!(whole[0].0, "supervisor");
    assert!(whole[0].1.contains("briefs"));
    assert_eq!(whole.last().unwrap().1, answered(&view).text);
    assert!(whole.iter().any(|(agent, _)| agent == "cashier"));
    // Each call is told, with what it was called with and not what it gave back.
    let said = |wanted: fn(&Said) -> bool| {
        let own = pieces.iter().filter(|piece| wanted(&piece.said));
        own.map(|piece| (piece.agent.to_string(), piece.said.clone()))
            .collect::<Vec<_>>()
    };
    let calls = said(|said| matches!(said, Said::ToolCall { .. }));
    let done = said(|said| {
        matches!(
            said,
            Said::ToolResult {
                succeeded: true,
                ..
            }
        )
    });
    assert_eq!((calls.len(), done.len()), (2, 2));
    for (agent, call) in calls {
        assert_eq!(agent, "cashier");
        let Said::ToolCall { tool, arguments } = call else {
            unreachable!();
        };
        assert!(tool == "charge" && arguments.starts_with("{\"cents\":"));
    }
    assert!(!json!(pieces).to_string().contains("charged"));
    worker.stop().await.unwrap();
}

/// Breaks off in the middle of its first answers.
#[derive(Debug)]
struct Breaks {
    times: AtomicU32,
    then: Told,
}

#[async_trait]
impl Model for Breaks {
    async fn ask(&self, ask: &Ask, listener: &mut Listener<'_>) -> Result<Answer, ModelError> {
        let left = self
            .times
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return self.then.ask(ask, listener).await;
        }
        listener(Delta::Text("Half an "));
        Err(ModelError::new(Fault::Broken, "it broke off"))
    }
}

#[tokio::test]
async fn words_of_an_answer_that_broke_off_can_be_told_from_the_answer() {
    let then = model(&World::default(), |_| Ok(says("A whole answer.")));
    let breaks = Breaks {
        times: AtomicU32::new(1),
        then: then.clone(),
    };
    let mind = Mind {
        seats: vec![Seat {
            name: "test/breaks".into(),
            model: "breaks".into(),
            gate: Gate::before(Arc::new(breaks)),
            tokens_max: 0,
            temperature: None,
            price: None,
        }],
        ..mind(&[&then], Arc::new(NoHands))
    };
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("thinker").unwrap().handle("think", mind);
    let worker = worker.unwrap().start(engine.clone()).await.unwrap();
    let run: RunStart = serde_json::from_value(json!({"goal": "think", "supervisor": "s",
        "graph": {"steps": [{"id": "one", "task": {"kind": "think", "input": brief("think")}}]}}))
    .unwrap();
    let run = engine.run_start(run).await.unwrap();
    let pieces = tokio::time::timeout(PATIENCE, heard(&engine, run)).await;
    let pieces = pieces.unwrap();
    let (whole, broken) = turns(&pieces);
    // Who has no other name speaks as its worker.
    assert_eq!(
        whole,
        [("thinker".to_owned(), "A whole answer.".to_owned())]
    );
    assert_eq!(broken, 1);
    let words = json!(pieces).to_string();
    assert!(words.contains("Half an "));
    worker.stop().await.unwrap();
}

/// Answers what is asked of the second invoice only once it may.
#[derive(Debug)]
struct Holds {
    may: Arc<Notify>,
    then: Told,
}

#[async_trait]
impl Model for Holds {
    async fn ask(&self, ask: &Ask, listener: &mut Listener<'_>) -> Result<Answer, ModelError> {
        if json!(ask.turns[0]).to_string().contains("invoice 2") {
            self.may.notified().await;
            // For whoever asks next.
            self.may.notify_one();
        }
        self.then.ask(ask, listener).await
    }
}

// S1-111: the first result is heard before the last task starts. If it were not, nothing would go on.
#[tokio::test]
async fn the_first_result_is_heard_before_the_last_task_starts() {
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let may = Arc::new(Notify::new());
    let mut minds = Arc::unwrap_or_clone(minds(&planner, &cashier));
    let holds = Holds {
        may: Arc::clone(&may),
        then: cashier.clone(),
    };
    let member = minds.members.get_mut("cashier").unwrap();
    member.mind.seats[0].gate = Gate::before(Arc::new(holds));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(minds)).await;
    let run = begin(&engine).await;
    let first = async {
        let (mut after, mut all) = (None, Vec::new());
        loop {
            let heard = engine.run_stream(run, after, PATIENCE).await.unwrap();
            after = heard.next;
            all.extend(heard.pieces);
            let is_result = |piece: &Piece| match &piece.said {
                Said::Text { text, .. } => text.contains("Settled: 5"),
                _ => false,
            };
            if all.iter().any(is_result) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, first).await.unwrap();
    // The last task of the run, its answer, is not even there yet.
    let kinds = tasks(&engine, run).await.into_iter().map(|task| task.kind);
    assert!(kinds.into_iter().all(|kind| kind.as_str() != ANSWER_KIND));
    may.notify_one();
    let view = ended(&engine, run).await;
    assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
    worker.stop().await.unwrap();
}
