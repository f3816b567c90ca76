//! Transcripts: what they answer, that a resumed process is answered alike, and what is wrong
//! with them.

use super::*;
use agent::model::scripted::Script;
use agent::model::{CallResult, Fault};
use serde_json::Value;

const WEATHER: &str = r#"{"rules": [
    {"when": {"system_contains": "rude"}, "error": {"fault": "refused", "message": "Be polite."}},
    {"when": {"model": "other"}, "answer": {"text": "I am another."}},
    {"when": {"turn": 1, "last_contains": "weather"},
     "answer": {"text": "I look.", "calls": [
        {"tool": "forecast", "arguments": {"city": "Bern"}}, {"tool": "now"}]}},
    {"when": {"tool_result_contains": "rain"}, "answer": {"text": "Take an umbrella."}},
    {"when": {"turn": 2, "last_contains": "sun"},
     "answer": {"text": "Take a hat.", "usage": {"input_tokens": 9, "output_tokens": 2}}}
]}"#;

fn said(text: &str) -> Ask {
    Ask {
        turns: vec![Turn::user(text)],
        ..Ask::default()
    }
}

/// The conversation after the forecast.
fn after(forecast: &str) -> Ask {
    let result = CallResult {
        id: "call_1_0".into(),
        tool: "forecast".into(),
        text: forecast.into(),
        failed: false,
        untrusted: false,
    };
    Ask {
        turns: vec![
            Turn::user("How is the weather?"),
            Turn::Model {
                text: "I look.".into(),
                calls: vec![],
            },
            Turn::Tools {
                results: vec![result],
            },
        ],
        ..Ask::default()
    }
}

async fn answered(script: &Script, ask: &Ask) -> Result<Answer, ModelError> {
    super::ask(script, ask).await.0
}

#[tokio::test]
async fn the_first_rule_that_matches_answers() {
    let script = Script::parse(WEATHER).unwrap();
    let (first, heard) = super::ask(&script, &said("How is the weather?")).await;
    let first = first.unwrap();
    assert_eq!(heard, ["I ", "look.", "[forecast]", "[now]"]);
    assert_eq!(first.stop, Stop::Calls);
    let ids: Vec<&str> = first.calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["call_1_0", "call_1_1"]);
    assert_eq!(first.calls[0].arguments, json!({"city": "Bern"}));
    assert_eq!(first.calls[1].arguments, json!({}));
    // A token is four bytes: 19 were read, 7 + 8 + 15 + 3 + 2 written.
    let usage = Usage {
        input_tokens: 5,
        cached_tokens: 0,
        output_tokens: 9,
    };
    assert_eq!(first.usage, usage);

    let rain = answered(&script, &after("rain all day")).await.unwrap();
    assert_eq!(
        (rain.text.as_str(), rain.stop),
        ("Take an umbrella.", Stop::Done)
    );
    let sun = answered(&script, &after("sun all day")).await.unwrap();
    assert_eq!(sun.text, "Take a hat.");
    assert_eq!((sun.usage.input_tokens, sun.usage.output_tokens), (9, 2));

    let other = Ask {
        model: "other".into(),
        ..said("Who?")
    };
    assert_eq!(
        answered(&script, &other).await.unwrap().text,
        "I am another."
    );
    let rude = Ask {
        system: "You are rude.".into(),
        ..said("weather")
    };
    let error = answered(&script, &rude).await.unwrap_err();
    assert_eq!(
        (error.fault, error.message.as_str()),
        (Fault::Refused, "Be polite.")
    );
}

// A process that is resumed reads the file anew and goes on in the middle of a conversation.
#[tokio::test]
async fn a_resumed_process_is_answered_alike() {
    let asks = [said("weather"), after("rain"), after("sun")];
    let script = Script::parse(WEATHER).unwrap();
    for ask in asks.iter().chain(asks.iter().rev()) {
        let fresh = Script::parse(WEATHER).unwrap();
        assert_eq!(answered(&script, ask).await, answered(&fresh, ask).await);
    }
}

/// What only a tool can know is taken over from what it said, and from nowhere else.
#[tokio::test]
async fn an_answer_takes_over_what_tools_have_said() {
    let script = |answer: Value| Script::parse(&json!({"rules": [{"answer": answer}]}).to_string());
    let answer = json!({
        "text": "Sent $ID to $IDLE, in $N parts, not $O.",
        "calls": [{"tool": "note", "arguments": {"of": ["$ID"], "n": 1, "$ID": "x"}}],
        "fill": {"$ID": "/id", "$IDLE": "/to/0", "$N": "/n"}
    });
    let written = script(answer).unwrap();
    let ask = after(r#"{"id": "m-$N", "to": ["Ada"], "n": 2}"#);
    let said = answered(&written, &ask).await.unwrap();
    assert_eq!(said.text, "Sent m-$N to Ada, in 2 parts, not $O.");
    let arguments = json!({"of": ["m-$N"], "n": 1, "$ID": "x"});
    assert_eq!(said.calls[0].arguments, arguments);
    // The newest that has it counts, whatever came after it.
    let mut ask = after(r#"{"id": "old", "to": [1], "n": 1}"#);
    for newer in [r#"{"id": "new"}"#, "no JSON"] {
        ask.turns.extend(after(newer).turns.drain(2..));
    }
    let said = answered(&written, &ask).await.unwrap();
    assert_eq!(said.text, "Sent new to 1, in 1 parts, not $O.");
    // Nothing is made up.
    let nothing = answered(&written, &after("rain")).await.unwrap_err();
    assert_eq!(nothing.code, "model.script");
    assert!(nothing.message.contains("`/id`"), "{nothing}");
    let none = json!({"fill": {"": "/id"}});
    assert!(script(none).unwrap_err().message.contains("rule 1: `fill`"));
    let fills: serde_json::Map<_, _> = (0..21).map(|n| (format!("${n}"), json!("/n"))).collect();
    let many = script(json!({"fill": fills})).unwrap_err();
    assert!(many.message.contains("more than 20 words"), "{many}");
}

#[tokio::test]
async fn what_no_rule_answers_is_shown() {
    let script = Script::parse(WEATHER).unwrap();
    let long = format!("About {}", "ü".repeat(500));
    let error = answered(&script, &said(&long)).await.unwrap_err();
    assert_eq!((error.fault, error.code), (Fault::Refused, "model.script"));
    assert!(
        error.message.contains("turn 1") && error.message.contains("About üüü"),
        "{error}"
    );
    assert!(error.message.len() < 300, "{}", error.message.len());
}

#[tokio::test]
async fn errors_pass_after_so_many_times() {
    let script = Script::parse(
        r#"{"rules": [
            {"times": 2, "error": {"fault": "limited", "retry_after_ms": 250}},
            {"times": 1, "error": {"fault": "silent"}},
            {"answer": {"text": "Yes."}}
        ]}"#,
    )
    .unwrap();
    let ask = said("Well?");
    for _ in 0..2 {
        let error = answered(&script, &ask).await.unwrap_err();
        assert_eq!((error.fault, error.code), (Fault::Limited, "model.limited"));
        assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
    }
    assert_eq!(
        answered(&script, &ask).await.unwrap_err().fault,
        Fault::Silent
    );
    for _ in 0..2 {
        assert_eq!(answered(&script, &ask).await.unwrap().text, "Yes.");
    }
}

#[tokio::test]
async fn every_fault_can_be_written() {
    for fault in [
        Fault::Key,
        Fault::Unknown,
        Fault::Refused,
        Fault::Limited,
        Fault::Overloaded,
        Fault::Silent,
        Fault::Broken,
    ] {
        let word = fault.code().trim_start_matches("model.");
        let text = json!({"rules": [{"error": {"fault": word}}]}).to_string();
        let script = Script::parse(&text).unwrap();
        let error = answered(&script, &said("?")).await.unwrap_err();
        assert_eq!((error.fault, error.code), (fault, fault.code()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_its_time() {
    let script = Script::parse(r#"{"rules": [{"answer": {"text": "So.", "delay_ms": 5000}}]}"#);
    let begun = tokio::time::Instant::now();
    let answer = answered(&script.unwrap(), &said("?")).await.unwrap();
    assert_eq!(answer.text, "So.");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

// S4-109: a model that needs no provider ships, and is chosen like any other.
#[tokio::test]
async fn a_transcript_is_connected_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.json");
    std::fs::write(&path, WEATHER).unwrap();
    let name = format!("scripted/{}", path.display());
    let model = connect(&name.parse().unwrap(), &Settings::default()).unwrap();
    let (answer, _) = super::ask(model.as_ref(), &said("weather")).await;
    assert_eq!(answer.unwrap().text, "I look.");

    let missing = "scripted/no/such.json".parse().unwrap();
    let error = connect(&missing, &Settings::default()).unwrap_err();
    assert_eq!(error.code, "model.script");
    assert!(error.message.contains("no/such.json"), "{error}");
    std::fs::write(&path, "{").unwrap();
    let error = connect(&name.parse().unwrap(), &Settings::default()).unwrap_err();
    assert!(
        error.message.contains("demo.json") && error.message.contains("line 1"),
        "{error}"
    );
}

#[test]
fn a_faulty_transcript_says_what_is_wrong() {
    let answer = json!({"text": "Yes."});
    let calls: Vec<Value> = (0..129).map(|_| json!({"tool": "go"})).collect();
    for (document, fault) in [
        (json!([]), "expected"),
        (json!({"rule": []}), "unknown field `rule`"),
        (
            json!({"rules": [{"answer": answer, "tims": 1}]}),
            "unknown field `tims`",
        ),
        (
            json!({"rules": [{"when": {"trun": 1}, "answer": answer}]}),
            "unknown field `trun`",
        ),
        (
            json!({"rules": [{"answer": {"txt": ""}}]}),
            "unknown field `txt`",
        ),
        (
            json!({"rules": [{"answer": {"calls": [{}]}}]}),
            "missing field `tool`",
        ),
        (
            json!({"rules": [{"answer": {"calls": [{"tool": ""}]}}]}),
            "names no tool",
        ),
        (
            json!({"rules": [{"answer": {"calls": calls}}]}),
            "more than 128 calls",
        ),
        (
            json!({"rules": [{"error": {"fault": "tired"}}]}),
            "unknown variant `tired`",
        ),
        (json!({"rules": [{"when": {}}]}), "rule 1: it has neither"),
        (
            json!({"rules": [{"answer": answer}, {"answer": answer, "error": {"fault": "key"}}]}),
            "rule 2: it has an `answer` and an `error`",
        ),
        (
            json!({"rules": [{"answer": answer, "times": 0}]}),
            "`times` is 0",
        ),
        (
            json!({"rules": [{"when": {"turn": 0}, "answer": answer}]}),
            "`turn` is 0",
        ),
        (
            json!({"rules": [{"answer": {"delay_ms": 600_001}}]}),
            "longer than 600000 ms",
        ),
        (
            json!({"rules": [{"answer": {"text": "x".repeat(1024 * 1024 + 1)}}]}),
            "longer than 1048576 bytes",
        ),
        (
            json!({"rules": vec![json!({"answer": answer}); 10_001]}),
            "more than 10000 rules",
        ),
    ] {
        let error = Script::parse(&document.to_string()).unwrap_err();
        assert_eq!((error.fault, error.code), (Fault::Refused, "model.script"));
        assert!(error.message.contains(fault), "not {fault}: {error}");
    }
}
