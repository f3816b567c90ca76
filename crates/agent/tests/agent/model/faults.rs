//! Why there is no answer, by who can act.

use super::server::{Reply, serve};
use super::*;
use agent::model::Fault;
use serde_json::Value;

async fn refusal(
    provider: Provider,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: &str,
) -> ModelError {
    let server = serve(Reply::Whole(status, headers, body.into())).await;
    let model = model_at(provider, &server.url);
    let (answer, heard) = ask(model.as_ref(), &hello()).await;
    assert_eq!(heard, [""; 0]);
    answer.unwrap_err()
}

/// How a provider words an error.
fn worded(provider: Provider, status: u16, kind: &str) -> Value {
    let text = format!("So it is with {HUSH}.");
    match provider {
        Provider::Openai | Provider::OpenaiResponses => {
            json!({"error": {"message": text, "type": kind, "param": null, "code": null}})
        }
        Provider::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": text}, "request_id": "r"})
        }
        Provider::Gemini => json!([{"error": {"code": status, "message": text, "status": kind}}]),
        _ => json!({"error": text}),
    }
}

#[tokio::test]
async fn every_status_says_who_can_act() {
    for provider in SPOKEN {
        for (status, kind, fault, code) in [
            (
                400,
                "invalid_request_error",
                Fault::Refused,
                "model.refused",
            ),
            (401, "authentication_error", Fault::Key, "model.key"),
            (402, "billing_error", Fault::Key, "model.key"),
            (403, "permission_error", Fault::Key, "model.key"),
            (404, "not_found_error", Fault::Unknown, "model.unknown"),
            (408, "timeout", Fault::Overloaded, "model.overloaded"),
            (413, "request_too_large", Fault::Refused, "model.refused"),
            (422, "", Fault::Refused, "model.refused"),
            (429, "rate_limit_error", Fault::Limited, "model.limited"),
            (500, "api_error", Fault::Overloaded, "model.overloaded"),
            (503, "", Fault::Overloaded, "model.overloaded"),
            (
                529,
                "overloaded_error",
                Fault::Overloaded,
                "model.overloaded",
            ),
        ] {
            let pause = vec![("retry-after", "7".to_owned())];
            let body = worded(provider, status, kind).to_string();
            let error = refusal(provider, status, pause, &body).await;
            assert_eq!(
                (error.fault, error.code),
                (fault, code),
                "{provider} {status}"
            );
            assert_eq!(
                error.retry_after,
                Some(Duration::from_secs(7)),
                "{provider} {status}"
            );
            // In the provider's words, without the key that it repeats.
            let text = format!("{provider}: answered {status}: So it is with [key].");
            assert_eq!(error.message, text);
        }
    }
}

// Their status alone would send people the wrong way.
#[tokio::test]
async fn a_providers_own_words_say_more_than_its_status() {
    use Provider::*;
    let openai = |code: &str| json!({"error": {"message": "", "type": code, "code": code}});
    let said = |text: &str| json!({"error": {"message": text, "type": "invalid_request_error"}});
    let invalid_key = json!({"error": {
        "code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                     "reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
    }});
    for (provider, status, body, fault) in [
        (Openai, 429, openai("insufficient_quota"), Fault::Key),
        (Openai, 429, openai("rate_limit_exceeded"), Fault::Limited),
        (Openai, 404, openai("model_not_found"), Fault::Unknown),
        (Openai, 403, openai("model_not_found"), Fault::Unknown),
        (Openai, 400, openai("model_not_found"), Fault::Unknown),
        (
            Openai,
            400,
            said("The model `gpt-9` does not exist"),
            Fault::Unknown,
        ),
        (
            Openai,
            400,
            said("frob/x is not a valid model ID"),
            Fault::Unknown,
        ),
        (
            Openai,
            400,
            said("This model's maximum context length is 8192"),
            Fault::Refused,
        ),
        (
            Anthropic,
            400,
            said("Your credit balance is too low"),
            Fault::Key,
        ),
        (Gemini, 400, invalid_key, Fault::Key),
        (
            Ollama,
            404,
            json!({"error": "model \"x\" not found"}),
            Fault::Unknown,
        ),
    ] {
        let error = refusal(provider, status, vec![], &body.to_string()).await;
        assert_eq!(error.fault, fault, "{provider} {status} {body}");
        assert_eq!(error.code, fault.code());
    }
}

#[tokio::test]
async fn a_pause_may_be_in_the_body() {
    let body = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow.",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}],
    }});
    let error = refusal(Provider::Gemini, 429, vec![], &body.to_string()).await;
    assert_eq!(error.retry_after, Some(Duration::from_millis(34_500)));
    let error = refusal(Provider::Openai, 429, vec![], "").await;
    assert_eq!((error.fault, error.retry_after), (Fault::Limited, None));
}

#[tokio::test]
async fn strange_refusals_are_shown_within_bounds() {
    let page = "<html>Bad\nGateway</html>";
    let error = refusal(Provider::Openai, 502, vec![], page).await;
    assert_eq!(error.fault, Fault::Overloaded);
    assert!(
        error.message.ends_with("<html>Bad Gateway</html>"),
        "{error}"
    );
    let own = r#"{"message":{"detail":[{"msg":"Extra inputs are not permitted"}]},"code":null}"#;
    let error = refusal(Provider::Openai, 422, vec![], own).await;
    assert_eq!(error.fault, Fault::Refused);
    assert!(
        error.message.contains("Extra inputs are not permitted"),
        "{error}"
    );
    let error = refusal(Provider::Openai, 500, vec![], "").await;
    assert!(error.message.ends_with("it says no more"), "{error}");
    let long = "ü".repeat(1_000_000);
    let error = refusal(Provider::Openai, 400, vec![], &long).await;
    assert!(error.message.len() < 600, "{}", error.message.len());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let there = serve(Reply::Bytes(recorded(Provider::Openai, "text"))).await;
    let to = vec![("location", format!("{}/v1/chat/completions", there.url))];
    let error = refusal(Provider::Openai, 307, to, "").await;
    assert_eq!(error.fault, Fault::Refused);
    assert_eq!(
        there.connections.load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

// An adapter asks once: whoever pays decides what is asked again.
#[tokio::test]
async fn nothing_is_asked_twice() {
    for provider in SPOKEN {
        for reply in [
            Reply::Whole(429, vec![("retry-after", "0".into())], vec![]),
            Reply::Whole(503, vec![], vec![]),
            Reply::Torn(vec![]),
            Reply::Torn(recorded(provider, "text")[..200].to_vec()),
        ] {
            let mut server = serve(reply).await;
            let model = model_at(provider, &server.url);
            ask(model.as_ref(), &hello()).await.0.unwrap_err();
            server.request().await;
            assert!(server.requests.try_recv().is_err(), "{provider}");
        }
    }
}

/// A model that waits this long for a byte.
fn hasty(provider: Provider, url: &str) -> Arc<dyn Model> {
    let settings = Settings {
        base_url: Some(url.into()),
        key: Some(Key::new(HUSH).unwrap()),
        timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    connect(&name(provider), &settings).unwrap()
}

#[tokio::test]
async fn silence_is_told_from_a_broken_answer() {
    for provider in SPOKEN {
        let bytes = recorded(provider, "text");
        let half = bytes[..bytes.len() / 2].to_vec();
        for reply in [Reply::Silence, Reply::Stuck(half)] {
            let server = serve(reply).await;
            let model = hasty(provider, &server.url);
            let error = ask(model.as_ref(), &hello()).await.0.unwrap_err();
            assert_eq!(
                (error.fault, error.code),
                (Fault::Silent, "model.silent"),
                "{provider}"
            );
            assert!(error.message.contains("0.3 s"), "{error}");
            // It was asked, and may have thought.
            assert!(!error.unsent, "{error}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_silence() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for provider in SPOKEN {
        let model = model_at(provider, &url);
        let error = ask(model.as_ref(), &hello()).await.0.unwrap_err();
        assert_eq!(error.fault, Fault::Silent, "{error}");
        assert!(error.unsent, "nothing can have been paid: {error}");
        assert!(
            error.message.contains("127.0.0.1 could not be asked"),
            "{error}"
        );
    }
}

// A stream that never ends after its end mark does not hold the answer back for long.
#[tokio::test]
async fn an_answer_is_complete_at_its_end_mark() {
    for provider in SPOKEN.into_iter().filter(|p| *p != Provider::Gemini) {
        let server = serve(Reply::Stuck(recorded(provider, "text"))).await;
        let model = model_at(provider, &server.url);
        let (answer, _) = ask(model.as_ref(), &hello()).await;
        assert_eq!(answer, Ok(text_answer(provider)));
    }
}

#[test]
fn a_key_shows_nowhere() {
    let key = Key::new(HUSH).unwrap();
    let settings = Settings {
        base_url: Some("https://host".into()),
        key: Some(key.clone()),
        ..Settings::default()
    };
    for provider in SPOKEN {
        let model = connect(&name(provider), &settings).unwrap();
        for shown in [
            format!("{model:?}"),
            format!("{settings:?}"),
            format!("{key:?}"),
        ] {
            assert!(!shown.contains("hush"), "{shown}");
        }
        let shown = format!("{model:?}");
        assert!(
            shown.contains("https://host") && shown.contains("some-model"),
            "{shown}"
        );
    }
    for odd in ["", " \n", "two\nlines"] {
        let error = Key::new(odd).unwrap_err();
        assert_eq!(error.code, "model.key");
        assert!(!error.message.contains("lines"), "{error}");
    }
}

#[test]
fn a_provider_without_its_key_is_not_asked() {
    for provider in SPOKEN {
        let connected = connect(&name(provider), &Settings::default());
        match provider.key_variable() {
            None => assert!(connected.is_ok(), "{provider}"),
            Some(variable) => {
                let error = connected.unwrap_err();
                assert_eq!(error.code, "model.key");
                assert!(error.message.contains(variable), "{error}");
            }
        }
    }
}
