//! Streams: the same answer however they are cut, and none from half of one.

use super::server::{Reply, serve};
use super::*;
use agent::model::{ANSWER_BYTES_MAX, CALLS_MAX, Fault, decode};
use std::sync::atomic::Ordering;
use tokio::sync::Notify;

type Decoded = (Result<Answer, ModelError>, String);

fn decoded<'a>(provider: Provider, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut heard = String::new();
    let mut listener = |delta: Delta<'_>| heard.push_str(&shown(delta));
    let answer = decode(provider, &hello(), pieces, &mut listener);
    (answer, heard)
}

fn whole(provider: Provider, text: &str) -> Result<Answer, ModelError> {
    decoded(provider, [text.as_bytes()]).0
}

/// The events of a stream.
fn events(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| format!("data: {line}\n\n"))
        .collect()
}

#[test]
fn a_stream_gives_the_same_answer_however_it_is_cut() {
    for provider in SPOKEN {
        for (what, answer, heard) in [
            ("text", text_answer(provider), "Grüezi 🌍,\n\"world\""),
            ("calls", calls_answer(provider), "I look.[get_weather][now]"),
        ] {
            let bytes = recorded(provider, what);
            let expected = (Ok(answer), heard.to_owned());
            assert_eq!(
                decoded(provider, [&bytes[..]]),
                expected,
                "{provider} {what}"
            );
            assert_eq!(
                decoded(provider, bytes.chunks(1)),
                expected,
                "{provider} {what}"
            );
            for cut in 1..bytes.len() {
                let (one, two) = bytes.split_at(cut);
                let pieces = [one, two];
                assert_eq!(
                    decoded(provider, pieces),
                    expected,
                    "{provider} {what} {cut}"
                );
            }
        }
    }
}

#[test]
fn half_a_stream_is_no_answer() {
    for provider in SPOKEN {
        for (what, answer) in [
            ("text", text_answer(provider)),
            ("calls", calls_answer(provider)),
        ] {
            let bytes = recorded(provider, what);
            let mut complete = 0;
            for cut in 0..bytes.len() {
                match decoded(provider, [&bytes[..cut]]).0 {
                    Ok(early) => {
                        assert_eq!(early, answer, "{provider} {what} {cut}");
                        complete += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.fault, Fault::Broken, "{provider} {cut}: {error}");
                        assert_eq!(complete, 0, "{provider} {what} {cut}: complete before");
                    }
                }
            }
            // Only the blank line's last bytes may be missing.
            assert!(complete <= 3, "{provider} {what}: {complete}");
        }
    }
}

// S4-16, S4-56: the five dialects answer through one interface, over HTTP, a byte at a time; the same
// connection is used for the next request. S1-72: OpenAI and Anthropic are two of them.
#[tokio::test]
async fn every_provider_answers_through_one_port() {
    for provider in SPOKEN {
        for (what, expected) in [
            ("text", text_answer(provider)),
            ("calls", calls_answer(provider)),
        ] {
            let server = serve(Reply::Bytes(recorded(provider, what))).await;
            let model = model_at(provider, &server.url);
            for _ in 0..2 {
                let (answer, heard) = ask(model.as_ref(), &hello()).await;
                assert_eq!(answer, Ok(expected.clone()), "{provider} {what}");
                assert!(heard.concat().starts_with(&expected.text), "{heard:?}");
            }
            assert_eq!(server.connections.load(Ordering::SeqCst), 1, "{provider}");
        }
    }
}

// S4-16, S4-56: words are heard while the answer is still being written. The server keeps the second
// half back until somebody has heard the first.
#[tokio::test]
async fn words_are_heard_before_the_answer_is_complete() {
    for provider in SPOKEN {
        let bytes = recorded(provider, "text");
        let text = String::from_utf8(bytes).unwrap();
        let middle = text.find("Grüezi").unwrap();
        let middle = middle + text[middle..].find('\n').unwrap() + 1;
        let end = middle + text[middle..].find('{').unwrap();
        let (one, two) = text.split_at(end);
        let go = Arc::new(Notify::new());
        let server = serve(Reply::Halves(one.into(), two.into(), go.clone())).await;
        let model = model_at(provider, &server.url);
        let mut heard = Vec::new();
        let mut listener = |delta: Delta<'_>| {
            if heard.is_empty() {
                go.notify_one();
            }
            heard.push(shown(delta));
        };
        let (about, ask) = (provider, hello());
        let asked = model.ask(&ask, &mut listener);
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let answer = answer.unwrap_or_else(|_| panic!("{about} says nothing before the end"));
        assert_eq!(answer, Ok(text_answer(provider)));
        assert_eq!(heard, ["Grüezi", " 🌍,\n\"world\""], "{provider}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_gives_no_answer() {
    for provider in SPOKEN {
        let bytes = recorded(provider, "text");
        let server = serve(Reply::Torn(bytes[..bytes.len() / 2].to_vec())).await;
        let (answer, _) = ask(model_at(provider, &server.url).as_ref(), &hello()).await;
        let error = answer.unwrap_err();
        assert_eq!(
            (error.fault, error.code),
            (Fault::Broken, "model.broken"),
            "{provider}"
        );
    }
}

#[test]
fn an_error_in_mid_stream_means_what_its_status_would() {
    use Provider::*;
    let anthropic = |kind: &str| {
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"So it is."}}}}"#)
    };
    let openai =
        |code: &str| format!(r#"{{"error":{{"code":{code},"message":"So it is.","type":null}}}}"#);
    let event = |code: &str| format!(r#"{{"type":"error","code":"{code}","message":"So it is."}}"#);
    let failed = |code: &str| {
        format!(
            r#"{{"type":"response.failed","response":{{"status":"failed","error":{{"code":"{code}","message":"So it is."}}}}}}"#
        )
    };
    let google = |code: u16, status: &str| {
        format!(r#"{{"error":{{"code":{code},"message":"So it is.","status":"{status}"}}}}"#)
    };
    for (provider, message, fault) in [
        (Anthropic, anthropic("overloaded_error"), Fault::Overloaded),
        (Anthropic, anthropic("rate_limit_error"), Fault::Limited),
        (Anthropic, anthropic("api_error"), Fault::Overloaded),
        (Anthropic, anthropic("authentication_error"), Fault::Key),
        (
            Anthropic,
            anthropic("invalid_request_error"),
            Fault::Refused,
        ),
        (Anthropic, anthropic("error_of_tomorrow"), Fault::Broken),
        (Openai, openai("\"rate_limit_exceeded\""), Fault::Limited),
        (Openai, openai("\"insufficient_quota\""), Fault::Key),
        (Openai, openai("502"), Fault::Overloaded),
        (Openai, openai("429"), Fault::Limited),
        (Openai, openai("null"), Fault::Broken),
        (OpenaiResponses, event("server_error"), Fault::Overloaded),
        (
            OpenaiResponses,
            event("rate_limit_exceeded"),
            Fault::Limited,
        ),
        (OpenaiResponses, failed("server_error"), Fault::Overloaded),
        (
            OpenaiResponses,
            failed("rate_limit_exceeded"),
            Fault::Limited,
        ),
        (Gemini, google(503, "UNAVAILABLE"), Fault::Overloaded),
        (Gemini, google(429, "RESOURCE_EXHAUSTED"), Fault::Limited),
        (Gemini, google(400, "INVALID_ARGUMENT"), Fault::Refused),
        (Ollama, r#"{"error":"So it is."}"#.into(), Fault::Broken),
    ] {
        let bytes = String::from_utf8(recorded(provider, "text")).unwrap();
        let begun = bytes.find("Grüezi").unwrap();
        let begun = begun + bytes[begun..].find('\n').unwrap() + 1;
        let stream = match provider {
            Ollama => format!("{}{message}\n", &bytes[..begun]),
            _ => format!("{}\n\nevent: error\ndata: {message}\n\n", &bytes[..begun]),
        };
        let (answer, heard) = decoded(provider, [stream.as_bytes()]);
        let error = answer.unwrap_err();
        assert_eq!(error.fault, fault, "{provider} {message}");
        assert!(error.message.contains("So it is."), "{error}");
        assert_eq!(heard, "Grüezi", "what came before was heard");
    }
}

#[test]
fn an_answer_has_bounds() {
    let mebibyte = "x".repeat(ANSWER_BYTES_MAX);
    let said = |text: &str| {
        events(&[
            &format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#),
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            "[DONE]",
        ])
    };
    let most = whole(Provider::Openai, &said(&mebibyte)).unwrap();
    assert_eq!(most.text.len(), ANSWER_BYTES_MAX);
    let error = whole(Provider::Openai, &said(&format!("{mebibyte}x"))).unwrap_err();
    assert_eq!(error.fault, Fault::Broken);
    assert!(error.message.contains("1048576 bytes"), "{error}");
    // Arguments count too.
    let arguments = format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{mebibyte}"}}}}"#
    );
    let start = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"b"}}"#;
    let error = whole(Provider::Anthropic, &events(&[start, &arguments])).unwrap_err();
    assert_eq!(error.fault, Fault::Broken);

    // What is said again as a whole does not count twice.
    let arguments = json!({"n": mebibyte[..700_000]})
        .to_string()
        .replace('"', "\\\"");
    let twice = events(&[
        r#"{"type":"response.output_item.added","item":{"type":"function_call","call_id":"a"}}"#,
        &format!(r#"{{"type":"response.function_call_arguments.delta","delta":"{arguments}"}}"#),
        &format!(r#"{{"type":"response.function_call_arguments.done","arguments":"{arguments}"}}"#),
        r#"{"type":"response.completed","response":{}}"#,
    ]);
    let answer = whole(Provider::OpenaiResponses, &twice).unwrap();
    let said = answer.calls[0].arguments["n"].as_str().unwrap();
    assert_eq!(said.len(), 700_000);

    let calls = |n: usize| {
        let calls: Vec<_> = (0..n)
            .map(|n| json!({"function": {"name": "go", "arguments": {"n": n}}}))
            .collect();
        json!({"message": {"tool_calls": calls}, "done": true}).to_string()
    };
    let most = whole(Provider::Ollama, &calls(CALLS_MAX)).unwrap();
    assert_eq!(most.calls.len(), CALLS_MAX);
    let error = whole(Provider::Ollama, &calls(CALLS_MAX + 1)).unwrap_err();
    assert_eq!(error.fault, Fault::Broken);
    assert!(error.message.contains("128 calls"), "{error}");
}

#[test]
fn a_stream_without_an_answer_has_bounds_too() {
    let comment = [b":".as_slice(), &vec![b'x'; 1024 * 1024], b"\n"].concat();
    let endless = || std::iter::repeat_n(&comment[..], 70);
    let error = decoded(Provider::Gemini, endless()).0.unwrap_err();
    assert!(error.message.contains("a stream of the answer"), "{error}");
    assert_eq!(error.fault, Fault::Broken);
    for provider in [Provider::Anthropic, Provider::Ollama] {
        let line = std::iter::repeat_n(&comment[..1024 * 1024], 20);
        let error = decoded(provider, line).0.unwrap_err();
        assert_eq!(error.fault, Fault::Broken, "{provider}");
        assert!(error.message.contains("16777216 bytes"), "{error}");
    }
}

#[test]
fn what_is_no_stream_is_no_answer() {
    for provider in SPOKEN {
        for odd in [
            "",
            "<html>Welcome</html>",
            "data: <html>\n\n",
            "data: {\n\n",
            "nonsense\n",
        ] {
            let error = whole(provider, odd).unwrap_err();
            assert_eq!(error.fault, Fault::Broken, "{provider} {odd}");
        }
    }
    // Said to be all before it was.
    let error = whole(Provider::Openai, &events(&["[DONE]"])).unwrap_err();
    assert_eq!(error.fault, Fault::Broken);
}

/// An answer of Chat Completions whose pieces of calls are these.
fn openai_calls(pieces: &[serde_json::Value]) -> Answer {
    let mut lines: Vec<String> = pieces
        .iter()
        .map(|piece| json!({"choices": [{"delta": {"tool_calls": [piece]}}]}).to_string())
        .collect();
    // Some say `stop` although there are calls.
    lines.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}).to_string());
    lines.push("[DONE]".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    whole(Provider::Openai, &events(&lines)).unwrap()
}

#[test]
fn servers_that_copied_chat_completions_are_understood() {
    let named = |id: &str, tool: &str, arguments: &str| json!({"id": id, "function": {"name": tool, "arguments": arguments}});
    let numbered = |index: u64, mut piece: serde_json::Value| {
        piece["index"] = index.into();
        piece
    };
    let go_on = |arguments: &str| json!({"function": {"arguments": arguments}});
    let shape = |answer: &Answer| -> Vec<(String, String, String)> {
        assert_eq!(answer.stop, Stop::Calls);
        let calls = answer.calls.iter();
        calls
            .map(|call| {
                (
                    call.id.clone(),
                    call.tool.clone(),
                    call.arguments.to_string(),
                )
            })
            .collect()
    };
    let call = |id: &str, tool: &str, arguments: &str| (id.into(), tool.into(), arguments.into());
    // Without numbers.
    let answer = openai_calls(&[
        named("a", "one", "{\"n\":"),
        go_on("1}"),
        named("b", "two", ""),
    ]);
    assert_eq!(
        shape(&answer),
        [call("a", "one", r#"{"n":1}"#), call("b", "two", "{}")]
    );
    // All numbered 0.
    let answer = openai_calls(&[
        numbered(0, named("a", "one", "{}")),
        numbered(0, named("b", "one", "{}")),
    ]);
    assert_eq!(
        shape(&answer),
        [call("a", "one", "{}"), call("b", "one", "{}")]
    );
    // Without ids: made up, and different from each other.
    let answer = openai_calls(&[
        numbered(0, named("", "one", "{}")),
        numbered(1, named("", "one", "{}")),
    ]);
    assert_eq!(
        shape(&answer),
        [
            call("call_made_up_1_0", "one", "{}"),
            call("call_made_up_1_1", "one", "{}")
        ]
    );
    // The id with every piece, the name only with the second.
    let answer = openai_calls(&[
        numbered(0, json!({"id": "a", "function": {"arguments": ""}})),
        numbered(0, named("a", "one", "{}")),
    ]);
    assert_eq!(shape(&answer), [call("a", "one", "{}")]);
    // No JSON: then it is that text.
    let answer = openai_calls(&[numbered(0, named("a", "one", "{\"n\": oops"))]);
    assert_eq!(answer.calls[0].arguments, json!("{\"n\": oops"));
}

#[test]
fn why_a_model_stopped_is_told() {
    use Provider::*;
    let chat = |delta: &str, reason: &str| {
        let chunk = format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":"{reason}"}}]}}"#);
        events(&[&chunk, "[DONE]"])
    };
    let response = |reason: &str| {
        events(&[&format!(
            r#"{{"type":"response.incomplete","response":{{"incomplete_details":{{"reason":"{reason}"}}}}}}"#
        )])
    };
    let message = |reason: &str| {
        events(&[
            &format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#),
            r#"{"type":"message_stop"}"#,
        ])
    };
    let candidate = |reason: &str| {
        events(&[&format!(
            r#"{{"candidates":[{{"finishReason":"{reason}"}}]}}"#
        )])
    };
    for (provider, stream, stop) in [
        (Openai, chat("{}", "length"), Stop::Length),
        (Openai, chat("{}", "content_filter"), Stop::Refused),
        (Openai, chat(r#"{"refusal":"No."}"#, "stop"), Stop::Refused),
        (Openai, chat("{}", "tool_calls"), Stop::Done),
        (OpenaiResponses, response("max_output_tokens"), Stop::Length),
        (OpenaiResponses, response("content_filter"), Stop::Refused),
        (
            OpenaiResponses,
            events(&[
                r#"{"type":"response.refusal.delta","delta":"No."}"#,
                r#"{"type":"response.completed","response":{}}"#,
            ]),
            Stop::Refused,
        ),
        (Anthropic, message("max_tokens"), Stop::Length),
        (Anthropic, message("refusal"), Stop::Refused),
        (Anthropic, message("stop_sequence"), Stop::Done),
        (Gemini, candidate("MAX_TOKENS"), Stop::Length),
        (Gemini, candidate("SAFETY"), Stop::Refused),
        (
            Gemini,
            events(&[r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#]),
            Stop::Refused,
        ),
        (
            Ollama,
            r#"{"done":true,"done_reason":"length"}"#.into(),
            Stop::Length,
        ),
    ] {
        let answer = whole(provider, &stream).unwrap();
        assert_eq!(answer.stop, stop, "{provider} {stream}");
    }
    let error = whole(Gemini, &candidate("MALFORMED_FUNCTION_CALL")).unwrap_err();
    assert_eq!(error.fault, Fault::Broken);
}

// Whoever waits no longer drops the future; the provider hears that from the connection.
#[tokio::test]
async fn dropping_the_future_gives_up() {
    for provider in SPOKEN {
        let text = String::from_utf8(recorded(provider, "text")).unwrap();
        let begun = text.find("Grüezi").unwrap();
        let begun = begun + text[begun..].find("\n").unwrap() + 2;
        let server = serve(Reply::Stuck(text.as_bytes()[..begun].to_vec())).await;
        let model = model_at(provider, &server.url);
        let heard = Notify::new();
        let mut listener = |_: Delta<'_>| heard.notify_one();
        let ask = hello();
        tokio::select! {
            answer = model.ask(&ask, &mut listener) => panic!("{provider}: {answer:?}"),
            () = heard.notified() => {}
        }
        let gone = tokio::time::timeout(PATIENCE, server.gone.notified());
        gone.await
            .unwrap_or_else(|_| panic!("{provider} is still being asked"));
    }
}
