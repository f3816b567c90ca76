//! Models, from outside: recorded streams, a server of the tests' own that speaks every dialect,
//! and what reaches it.

mod faults;
mod live;
mod price;
mod requests;
mod scripted;
mod server;
mod streams;

use agent::model::{
    Answer, Ask, Call, Delta, Key, Model, ModelError, ModelName, Provider, Settings, Stop, Turn,
    Usage, connect,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Those that speak HTTP.
const SPOKEN: [Provider; 5] = [
    Provider::Openai,
    Provider::OpenaiResponses,
    Provider::Anthropic,
    Provider::Gemini,
    Provider::Ollama,
];

/// A key that must show nowhere but in a header.
const HUSH: &str = "sk-hush-4711";

/// Within which everything here happens; only a fault takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A provider's recorded stream: of a text, or of calls.
fn recorded(provider: Provider, what: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/model/wire");
    std::fs::read(format!("{folder}/{provider}_{what}.txt")).unwrap()
}

/// What every provider's recorded text says.
fn text_answer(provider: Provider) -> Answer {
    let cached_tokens = match provider {
        Provider::Ollama => 0,
        _ => 1_024,
    };
    Answer {
        text: "Grüezi 🌍,\n\"world\"".into(),
        calls: vec![],
        stop: Stop::Done,
        usage: Usage {
            input_tokens: 1_117,
            cached_tokens,
            output_tokens: 46,
        },
    }
}

/// What every provider's recorded calls say. Ids are the provider's where it has any.
fn calls_answer(provider: Provider) -> Answer {
    let ids = match provider {
        // Behind the provider's id there is the signature that must come back with it.
        Provider::Gemini => ["call_A~CiQBcsj+/a==", "call_B"],
        Provider::Ollama => ["call_made_up_1_0", "call_made_up_1_1"],
        _ => ["call_A", "call_B"],
    };
    let call = |n: usize, tool: &str, arguments| Call {
        id: ids[n].into(),
        tool: tool.into(),
        arguments,
    };
    Answer {
        text: "I look.".into(),
        calls: vec![
            call(0, "get_weather", json!({"city": "Zürich"})),
            call(1, "now", json!({})),
        ],
        stop: Stop::Calls,
        usage: Usage {
            input_tokens: 82,
            cached_tokens: 0,
            output_tokens: 33,
        },
    }
}

/// Something to say.
fn hello() -> Ask {
    Ask {
        turns: vec![Turn::user("Hello?")],
        ..Ask::default()
    }
}

fn name(provider: Provider) -> ModelName {
    format!("{provider}/some-model").parse().unwrap()
}

/// A model at this address, with a key.
fn model_at(provider: Provider, url: &str) -> Arc<dyn Model> {
    let settings = Settings {
        base_url: Some(url.into()),
        key: Some(Key::new(HUSH).unwrap()),
        ..Settings::default()
    };
    connect(&name(provider), &settings).unwrap()
}

/// An answer, and what was heard of it while it was written.
async fn ask(model: &dyn Model, ask: &Ask) -> (Result<Answer, ModelError>, Vec<String>) {
    let mut heard = Vec::new();
    let mut listener = |delta: Delta<'_>| heard.push(shown(delta));
    let asked = model.ask(ask, &mut listener);
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    (answer, heard)
}

fn shown(delta: Delta<'_>) -> String {
    match delta {
        Delta::Begun | Delta::Late(_) => String::new(),
        Delta::Text(text) => text.into(),
        Delta::Call(tool) => format!("[{tool}]"),
    }
}
