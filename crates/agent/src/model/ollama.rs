//! `/api/chat`, of Ollama, which runs models on this machine or on one nearby.
//!
//! How much of a conversation a model reads is set where the model is (`num_ctx`): what is beyond
//! it is dropped there in silence, and no adapter can see it.
//!
//! Deliberately absent: thoughts, images, keeping models loaded. A prompt that Ollama has in its
//! cache it does not count, so input tokens can be fewer than were read.

use super::draft::Draft;
use super::openai::functions;
use super::refusal::refused;
use super::wire::{
    Dialect, Framing, Reader, arguments_object, count_at, parsed, result_text, set, temperature,
    text_at, tokens_max,
};
use super::{Ask, Listener, ModelError, Provider, Stop, Turn, Usage};
use serde_json::{Value, json};

pub(super) const DIALECT: Dialect = Dialect {
    provider: Provider::Ollama,
    base: "http://127.0.0.1:11434",
    path: "",
    segments: |_| vec!["api".into(), "chat".into()],
    query: None,
    key: ("authorization", "Bearer "),
    headers: &[],
    body,
    framing: Framing::Lines,
    marks_end: true,
    reader: || Box::new(Lines),
};

fn body(ask: &Ask, _host: &str) -> Value {
    let mut messages = Vec::new();
    if !ask.system.is_empty() {
        messages.push(json!({"role": "system", "content": ask.system}));
    }
    for turn in &ask.turns {
        match turn {
            Turn::User { text } => messages.push(json!({"role": "user", "content": text})),
            Turn::Model { text, calls } => {
                let mut message = json!({"role": "assistant", "content": text});
                let made = calls.iter().map(|call| {
                    let arguments = arguments_object(&call.arguments);
                    json!({"function": {"name": call.tool, "arguments": arguments}})
                });
                let made = (!calls.is_empty()).then(|| made.collect());
                set(&mut message, "tool_calls", made);
                messages.push(message);
            }
            Turn::Tools { results } => messages.extend(results.iter().map(|result| {
                json!({
                    "role": "tool",
                    "tool_name": result.tool,
                    "content": result_text(result),
                })
            })),
        }
    }
    let mut options = json!({"num_predict": tokens_max(ask)});
    set(&mut options, "temperature", temperature(ask));
    let mut body = json!({
        "model": ask.model,
        "messages": messages,
        "stream": true,
        "options": options,
    });
    set(&mut body, "tools", functions(ask));
    set(&mut body, "format", ask.output.clone());
    body
}

/// Reads the lines of a chat.
struct Lines;

impl Reader for Lines {
    fn message(
        &mut self,
        _event: &str,
        data: &str,
        draft: &mut Draft,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        let line = parsed(data)?;
        if line.get("error").is_some() {
            return Err(refused(None, &line));
        }
        draft.say(text_at(&line, "/message/content"), listener)?;
        let calls = line
            .pointer("/message/tool_calls")
            .and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            let place = draft.places();
            let tool = text_at(call, "/function/name");
            draft.call(place, text_at(call, "/id"), tool, listener)?;
            match call.pointer("/function/arguments") {
                Some(Value::String(text)) => draft.arguments(place, text)?,
                Some(Value::Null) | None => {}
                Some(arguments) => draft.arguments(place, &arguments.to_string())?,
            }
        }
        if line.get("done") == Some(&Value::Bool(true)) {
            draft.stop = Some(match text_at(&line, "/done_reason") {
                "length" => Stop::Length,
                _ => Stop::Done,
            });
            draft.usage = Usage {
                input_tokens: count_at(&line, "/prompt_eval_count"),
                cached_tokens: 0,
                output_tokens: count_at(&line, "/eval_count"),
            };
            draft.ended = true;
        }
        Ok(())
    }
}
