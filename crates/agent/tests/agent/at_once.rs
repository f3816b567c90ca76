//! Several calls in one answer: harmless ones at the same time, the others in their order.

use crate::mind::{World, brief, calls, mind, model, one_answer, says};
use agent::hands::Hands;
use agent::mind::CALLS_AT_ONCE_MAX;
use agent::model::{ToolSpec, Turn};
use async_trait::async_trait;
use chargehand::{Context, EffectClass, Failure};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Barrier;

/// Looks that end only when as many are under way as there may be, and notes that want to be alone.
#[derive(Debug)]
struct Desk {
    together: Barrier,
    under_way: AtomicUsize,
    most: AtomicUsize,
    notes: Mutex<Vec<(Value, usize)>>,
}

#[async_trait]
impl Hands for Desk {
    async fn specs(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        let effect = match tool {
            "look" | "fail" => EffectClass::Pure,
            _ => EffectClass::Keyed,
        };
        Some((tool.into(), effect))
    }
    async fn call(
        &self,
        _: &Context,
        tool: &str,
        arguments: &Value,
        _: &str,
    ) -> Result<Value, Failure> {
        let beside = self.under_way.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(beside + 1, Ordering::SeqCst);
        let outcome = match tool {
            "look" => {
                self.together.wait().await;
                // The first is answered last.
                let n = arguments["n"].as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(40 - n.min(40))).await;
                Ok(arguments["n"].clone())
            }
            "fail" => Err(Failure::permanent("desk.closed", "closed today")),
            _ => {
                let note = (arguments["n"].clone(), beside);
                self.notes.lock().unwrap().push(note);
                Ok(json!("noted"))
            }
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

// Parallel tool calls of one answer: sixteen looks end only when eight are at the desk; two
// notes with an effect are made alone, in between; the model is shown all in the order it asked in.
#[tokio::test]
async fn harmless_calls_of_one_answer_are_made_at_once_and_others_one_by_one() {
    let world = World::default();
    let told = model(&world, |ask| {
        let look = |n: usize| ("look", json!({ "n": n }));
        Ok(match ask.turns.len() {
            1 => {
                let first = (0..CALLS_AT_ONCE_MAX).map(look);
                let notes = [("note", json!({"n": 1})), ("note", json!({"n": 2}))];
                let second = (CALLS_AT_ONCE_MAX..2 * CALLS_AT_ONCE_MAX).map(look);
                let wanted = first.chain(notes).chain(second);
                let mut wanted: Vec<_> = wanted.collect();
                wanted.push(("fail", json!({})));
                calls(&wanted)
            }
            _ => says("all seen"),
        })
    });
    let desk = Arc::new(Desk {
        together: Barrier::new(CALLS_AT_ONCE_MAX),
        under_way: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        notes: Mutex::default(),
    });
    let done = one_answer(mind(&[&told], desk.clone()), brief("Look around")).await;
    assert_eq!(done.result, json!("all seen"));
    assert_eq!(desk.most.load(Ordering::SeqCst), CALLS_AT_ONCE_MAX);
    let alone = [(json!(1), 0), (json!(2), 0)];
    assert_eq!(*desk.notes.lock().unwrap(), alone);
    let asked = told.asked.lock().unwrap();
    let Turn::Tools { results } = &asked[1].turns[2] else {
        panic!("{:?}", asked[1].turns);
    };
    let texts: Vec<_> = results.iter().map(|result| result.text.as_str()).collect();
    let numbers: Vec<_> = (0..2 * CALLS_AT_ONCE_MAX).map(|n| n.to_string()).collect();
    let (first, second) = numbers.split_at(CALLS_AT_ONCE_MAX);
    let mut expected: Vec<&str> = first.iter().map(String::as_str).collect();
    expected.extend(["noted", "noted"]);
    expected.extend(second.iter().map(String::as_str));
    expected.push("desk.closed: closed today");
    assert_eq!(texts, expected);
    // One failure beside others is told as that, and leaves theirs alone.
    let failed = results.iter().filter(|result| result.failed).count();
    assert_eq!((failed, done.spend.calls), (1, 19));
    let succeeded = |evidence: &&agent::mind::Evidence| evidence.succeeded;
    assert_eq!(done.evidence.iter().filter(succeeded).count(), 18);
}
