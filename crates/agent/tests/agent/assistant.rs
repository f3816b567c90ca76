//! Somebody to talk with, on a real engine: what it may do, what it remembers, and a crash at every
//! moment of what it has others do.

use crate::mind::{PATIENCE, World, calls, model, one_life, says};
use crate::planning::{effects, leads, minds, start, works};
use crate::speech::heard;
use agent::assistant::{
    ASSISTANT, CHAT_KIND, ChatHandler, CrewStart, DELEGATE, DELEGATED_BY, Exchange, Message, goal,
    graph, history,
};
use agent::model::{Answer, Ask, ModelError, Turn};
use agent::planning::Minds;
use agent::supervisor::Supervisor;
use chargehand::{Api, ApiRead, Json, RunStart, Running, Worker};
use domain::budget::{Amount, Budget};
use domain::id::RunId;
use domain::run::{Crew, RunStatus};
use engine::{Engine, Place};
use protocol::api::RunQuery;
use protocol::v1::RunView;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who talks and leads: has the crew settle the invoices, and knows later that it did.
fn talks(ask: &Ask) -> Result<Answer, ModelError> {
    if !ask.system.contains("You talk with a person") {
        return leads(ask);
    }
    let said = |turn: &Turn, words: &str| json!(turn).to_string().contains(words);
    let last = ask.turns.last().unwrap();
    Ok(if said(last, "Both are settled") {
        says("The crew has settled both.")
    } else if said(last, "failed") {
        says("It did not work.")
    } else if said(last, "Settle") {
        let inputs = json!([{"invoice": 1}, {"invoice": 2}]);
        calls(&[(
            DELEGATE,
            json!({"goal": "Settle the two invoices", "inputs": inputs}),
        )])
    } else {
        let before = ask.turns.iter().filter(|turn| said(turn, "settled both"));
        says(&format!("I remember {}.", before.count()))
    })
}

/// What a message may spend, with all that is done for it.
const TOKENS: u64 = 100_000;

/// Who works for a person, and who talks with it.
async fn crew(engine: &Arc<Engine>, minds: &Arc<Minds>) -> [Running; 2] {
    let start_of = CrewStart {
        supervisor: "supervisor_1".parse().unwrap(),
        crew: Crew::default(),
        queue: None,
        metadata: BTreeMap::new(),
        budget: None,
    };
    let talking = ChatHandler {
        minds: Arc::clone(minds),
        start: start_of,
    };
    let worker = Worker::new("assistant_1").unwrap();
    let worker = worker.handle(CHAT_KIND, talking).unwrap();
    let talking = worker.start(engine.clone()).await.unwrap();
    [start(engine, minds).await, talking]
}

async fn tell(engine: &Engine, agent: &str, text: &str, previous: Option<RunId>) -> RunId {
    let message = Message {
        agent: agent.into(),
        text: text.into(),
        previous,
    };
    let run = RunStart {
        goal: goal(&message),
        supervisor: "supervisor_1".parse().unwrap(),
        graph: graph(&message, None).unwrap(),
        crew: Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: Some(Budget {
            tokens: Some(TOKENS),
            ..Budget::default()
        }),
    };
    engine.run_start(run).await.unwrap()
}

async fn ended(engine: &Arc<Engine>, run: RunId) -> RunView {
    let supervisor = Supervisor::new(engine.clone(), "supervisor_1".parse().unwrap());
    let watched = tokio::time::timeout(PATIENCE, supervisor.supervise(run)).await;
    watched.expect("it ends").unwrap()
}

fn answer(view: &RunView) -> String {
    let exchange = Exchange::of(view).expect("a message");
    exchange.words().unwrap_or_else(|| panic!("{view:?}"))
}

async fn delegated(engine: &Engine, by: RunId) -> Vec<RunView> {
    let all = engine.run_list(RunQuery::default()).await.unwrap().items;
    let own = |run: &RunView| {
        let kept = run.metadata.get(DELEGATED_BY).map(Json::value);
        kept == Some(json!(by))
    };
    all.into_iter().filter(own).collect()
}

fn names(ask: &Ask) -> BTreeSet<&str> {
    ask.tools.iter().map(|tool| tool.name.as_str()).collect()
}

// S2-01: it has all tools and a crew to delegate to. S2-20: nobody else can delegate. S2-03: who works has
// its granted tools alone. S2-23: who talks, who plans and who works are told apart in what is heard.
#[tokio::test]
async fn who_talks_may_delegate_and_who_works_may_not() {
    let world = World::default();
    let (talker, cashier) = (model(&world, talks), model(&world, works));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = crew(&engine, &minds(&talker, &cashier)).await;
    let first = tell(&engine, ASSISTANT, "Settle what is open.", None).await;
    let view = ended(&engine, first).await;
    assert_eq!(answer(&view), "The crew has settled both.");
    let runs = delegated(&engine, first).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].status, RunStatus::Completed);
    // Its answer rests on the receipt of what it delegated.
    let reply = Exchange::of(&view).unwrap().reply.unwrap();
    assert_eq!(reply.evidence.len(), 1);
    assert!(reply.evidence[0].tool == DELEGATE && reply.evidence[0].succeeded);
    // Who talks has every tool and one more; who plans has none, and who works its own.
    for ask in talker.asked.lock().unwrap().iter() {
        match ask.system.contains("You talk with a person") {
            true => assert_eq!(names(ask), BTreeSet::from(["charge", DELEGATE])),
            false => assert_eq!(names(ask), BTreeSet::new()),
        }
    }
    for ask in cashier.asked.lock().unwrap().iter() {
        assert_eq!(names(ask), BTreeSet::from(["charge"]));
    }
    // Whoever follows the message hears all levels of it.
    let pieces = heard(&engine, first).await;
    let who: BTreeSet<&str> = pieces.iter().map(|piece| piece.agent.as_str()).collect();
    let all = [ASSISTANT, "crew/cashier", "crew/supervisor"];
    assert_eq!(who, BTreeSet::from(all));

    // The next message knows of the one before, and one that begins anew does not.
    let second = tell(&engine, ASSISTANT, "What did you do?", Some(first)).await;
    assert_eq!(answer(&ended(&engine, second).await), "I remember 1.");
    let fresh = tell(&engine, ASSISTANT, "What did you do?", None).await;
    assert_eq!(answer(&ended(&engine, fresh).await), "I remember 0.");
    // One without an answer is left out, and what was before it is not.
    let lost = tell(&engine, "nobody", "Who are you?", Some(second)).await;
    let failed = ended(&engine, lost).await;
    assert_eq!(failed.status, RunStatus::Failed);
    let turns = history(&*engine, Some(lost)).await.unwrap();
    assert_eq!(turns.len(), 4);
    for worker in running {
        worker.stop().await.unwrap();
    }
}

// S2-08: what is delegated is stored letter by letter, and is what the supervisor plans for.
#[tokio::test]
async fn what_is_delegated_is_kept_as_it_was_said() {
    const TASK: &str = "Check Amazon price for B08X12345";
    let world = World::default();
    let talker = model(&world, |ask| {
        let Some(last) = ask.turns.last() else {
            return leads(ask);
        };
        match (ask.system.contains("You talk with a person"), last) {
            (true, Turn::Tools { results }) => Ok(says(&results[0].text)),
            (true, _) => Ok(calls(&[(
                DELEGATE,
                json!({"goal": TASK, "inputs": [1, 2]}),
            )])),
            (false, _) => leads(ask),
        }
    });
    let cashier = model(&world, works);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = crew(&engine, &minds(&talker, &cashier)).await;
    let run = tell(&engine, ASSISTANT, "Watch the price for me.", None).await;
    let view = ended(&engine, run).await;
    let runs = delegated(&engine, run).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].goal, TASK);
    // What came back names the run, so that it can be found again.
    assert!(
        answer(&view).contains(&runs[0].run_id.to_string()),
        "{}",
        answer(&view)
    );
    let asked = talker.asked.lock().unwrap().clone();
    let planned = asked
        .iter()
        .find(|ask| json!(ask.turns).to_string().contains("Plan how this crew"));
    assert!(
        json!(planned.unwrap().turns)
            .to_string()
            .contains(&format!("Goal: {TASK}"))
    );
    for worker in running {
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_delegated_run_that_fails_is_told_and_ends_nothing() {
    let world = World::default();
    let talker = model(&world, talks);
    let claims = model(&world, |_| Ok(says("Settled, trust me.")));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = crew(&engine, &minds(&talker, &claims)).await;
    let run = tell(&engine, ASSISTANT, "Settle what is open.", None).await;
    let view = ended(&engine, run).await;
    assert_eq!(answer(&view), "It did not work.");
    let reply = Exchange::of(&view).unwrap().reply.unwrap();
    assert!(!reply.evidence[0].succeeded);
    for worker in running {
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_long_conversation_is_shown_as_far_as_there_is_room() {
    let world = World::default();
    let talker = model(&world, talks);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = crew(&engine, &minds(&talker, &model(&world, works))).await;
    let (mut previous, long) = (None, "x".repeat(60 * 1024));
    for n in 0..6 {
        let text = format!("{n} {long}");
        let run = tell(&engine, ASSISTANT, &text, previous).await;
        ended(&engine, run).await;
        previous = Some(run);
    }
    let turns = history(&*engine, previous).await.unwrap();
    let told = json!(turns).to_string();
    assert!(told.len() < agent::assistant::HISTORY_BYTES_MAX + 1_024);
    // The newest are there, the oldest are not, and that is said.
    assert_eq!(turns.len(), 8);
    assert!(told.contains("5 xxx") && told.contains("2 xxx") && !told.contains("1 xxx"));
    assert!(told.contains("Earlier messages are left out."));
    let large = Message {
        agent: ASSISTANT.into(),
        text: "x".repeat(agent::assistant::MESSAGE_BYTES_MAX + 1),
        previous: None,
    };
    assert_eq!(
        graph(&large, None).unwrap_err().code.as_str(),
        "limit.exceeded"
    );
    for worker in running {
        worker.stop().await.unwrap();
    }
}

/// What came of a message.
struct Came {
    /// What was done outside, by key.
    done: BTreeMap<String, String>,
    /// How often the models were asked.
    asked: usize,
    /// How many moments there were.
    moments: u32,
    answer: String,
    delegated: usize,
    /// What the message has spent, and of that the run that it delegated.
    spent: (Amount, Amount),
}

/// Talks over so many lives, the first of which ends at this moment.
fn over_two_lives(moment: Option<u32>) -> Came {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    world.moments.lock().unwrap().1 = moment;
    let (talker, cashier) = (model(&world, talks), model(&world, works));
    let minds = minds(&talker, &cashier);
    let mut run = None;
    for _ in 0..2 {
        let over = one_life(async || {
            let engine = Arc::new(Engine::open(&place).unwrap());
            let running = crew(&engine, &minds).await;
            let id = match run {
                Some(id) => id,
                None => *run.insert(tell(&engine, ASSISTANT, "Settle what is open.", None).await),
            };
            tokio::select! {
                view = ended(&engine, id) => {
                    let delegated = delegated(&engine, id).await;
                    let theirs = engine.run_get(delegated[0].run_id).await.unwrap();
                    for worker in running {
                        worker.stop().await.unwrap();
                    }
                    Some((view, theirs, delegated.len()))
                }
                () = world.stopped.notified() => None,
            }
        });
        if let Some((view, theirs, delegated)) = over {
            let asked = talker.asked.lock().unwrap().len() + cashier.asked.lock().unwrap().len();
            let done = world.done.lock().unwrap().iter().cloned().collect();
            let (own, theirs) = (view.account.unwrap(), theirs.account.unwrap());
            assert!(own.ledger.held.is_zero(), "nothing is held any more");
            return Came {
                done,
                asked,
                moments: world.moments.lock().unwrap().0,
                answer: answer(&view),
                delegated,
                spent: (own.ledger.spent, theirs.ledger.used()),
            };
        }
    }
    panic!("it ended neither time");
}

#[test]
fn a_crash_at_any_moment_of_an_answer_delegates_once_and_charges_once() {
    let whole = over_two_lives(None);
    let charged = ["charge 5", "charge 7"];
    assert_eq!(
        (effects(&whole.done), whole.delegated),
        (charged.to_vec(), 1)
    );
    // Two turns of 15 tokens and a call are its own; all that its crew spent is the message's, too.
    let own = Amount {
        tokens: 30,
        usd_micros: 0,
        calls: 3,
    };
    assert_eq!(whole.spent.0, whole.spent.1.plus(own));
    for moment in 1..=whole.moments {
        let came = over_two_lives(Some(moment));
        assert_eq!(
            (came.answer, came.delegated),
            (whole.answer.clone(), 1),
            "at {moment}"
        );
        assert_eq!(
            effects(&came.done),
            charged,
            "at {moment}: under one key each"
        );
        // At most what two workers' tasks had in flight is asked again.
        assert!(
            (whole.asked..=whole.asked + 2).contains(&came.asked),
            "at {moment}: {} for {}",
            came.asked,
            whole.asked
        );
        // A question that the crash cut off counts as bought: one, and nothing else.
        let own = came.spent.0.minus(came.spent.1);
        assert!(
            (30..30 + 6_000).contains(&own.tokens),
            "at {moment}: {own:?}"
        );
        assert!(came.spent.0.tokens <= TOKENS, "at {moment}");
    }
}
