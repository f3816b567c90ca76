//! Chat Completions, of `OpenAI` and of everything that speaks like it: vLLM, llama.cpp,
//! LM Studio, `OpenRouter` and more, through a base address.
//!
//! Two fields bound an answer's tokens. `OpenAI` wants `max_completion_tokens` and its reasoning
//! models refuse `max_tokens`; the others have all known `max_tokens` from the beginning, and some
//! refuse the new name as a field they do not know. So the host decides: `api.openai.com` and
//! Azure's get the new one, every other the old one.
//!
//! An output schema is sent as `strict` only when it is one that strict mode takes (every object
//! closed, every property required): otherwise the provider would refuse the request, where all
//! that is wanted is its best effort.
//!
//! Deliberately absent: a model's thoughts (`reasoning_content`), logprobs, several choices.

use super::draft::Draft;
use super::refusal::refused;
use super::wire::{
    Dialect, Framing, Reader, arguments_object, count_at, parsed, result_text, set, temperature,
    text_at, tokens_max,
};
use super::{Ask, Listener, ModelError, Provider, Stop, Turn, Usage};
use serde_json::{Value, json};

pub(super) const DIALECT: Dialect = Dialect {
    provider: Provider::Openai,
    base: "https://api.openai.com/v1",
    path: "/v1",
    segments: |_| vec!["chat".into(), "completions".into()],
    query: None,
    key: ("authorization", "Bearer "),
    headers: &[],
    body,
    framing: Framing::Events,
    marks_end: true,
    reader: || Box::new(Chunks),
};

fn body(ask: &Ask, host: &str) -> Value {
    let mut messages = Vec::new();
    if !ask.system.is_empty() {
        messages.push(json!({"role": "system", "content": ask.system}));
    }
    for turn in &ask.turns {
        match turn {
            Turn::User { text } => messages.push(json!({"role": "user", "content": text})),
            Turn::Model { text, calls } if calls.is_empty() => {
                messages.push(json!({"role": "assistant", "content": text}));
            }
            Turn::Model { text, calls } => {
                let calls = calls.iter().map(|call| {
                    let arguments = arguments_object(&call.arguments).to_string();
                    let function = json!({"name": call.tool, "arguments": arguments});
                    json!({"id": call.id, "type": "function", "function": function})
                });
                let content = Some(text).filter(|text| !text.is_empty());
                let calls: Vec<Value> = calls.collect();
                messages.push(
                    json!({"role": "assistant", "content": content, "tool_calls": calls}),
                );
            }
            Turn::Tools { results } => messages.extend(results.iter().map(|result| {
                json!({"role": "tool", "tool_call_id": result.id, "content": result_text(result)})
            })),
        }
    }
    let mut body = json!({
        "model": ask.model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let is_new = host == "api.openai.com" || host.ends_with(".openai.azure.com");
    let bound = match is_new {
        true => "max_completion_tokens",
        false => "max_tokens",
    };
    set(&mut body, bound, Some(tokens_max(ask).into()));
    set(&mut body, "temperature", temperature(ask));
    set(&mut body, "tools", functions(ask));
    let format = ask.output.as_ref().map(|schema| {
        let schema = json!({"name": "answer", "schema": schema, "strict": is_strict(schema)});
        json!({"type": "json_schema", "json_schema": schema})
    });
    set(&mut body, "response_format", format);
    body
}

/// The tools, as Chat Completions and those that copied it are told of them.
pub(super) fn functions(ask: &Ask) -> Option<Value> {
    let functions = ask.tools.iter().map(|tool| {
        let function = json!({
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input,
        });
        json!({"type": "function", "function": function})
    });
    (!ask.tools.is_empty()).then(|| functions.collect())
}

/// Whether strict mode takes this schema.
pub(super) fn is_strict(schema: &Value) -> bool {
    let closed = match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = |name: &String| {
                required.is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)))
            };
            schema.get("additionalProperties") == Some(&Value::Bool(false))
                && properties.keys().all(is_required)
        }
        None => schema.get("type") != Some(&json!("object")),
    };
    let unknown = ["allOf", "oneOf", "not", "if", "patternProperties"];
    closed
        && unknown.iter().all(|keyword| schema.get(keyword).is_none())
        && subschemas(schema).all(is_strict)
}

/// The schemas directly within a schema.
fn subschemas(schema: &Value) -> impl Iterator<Item = &Value> {
    let named = ["properties", "$defs", "definitions"].map(|keyword| schema.get(keyword));
    let named = named.into_iter().flatten().filter_map(Value::as_object);
    let listed = ["anyOf", "prefixItems"].map(|keyword| schema.get(keyword));
    let listed = listed.into_iter().flatten().filter_map(Value::as_array);
    let items = schema.get("items").into_iter();
    named
        .flat_map(|map| map.values())
        .chain(listed.flatten())
        .chain(items)
}

/// Reads `chat.completion.chunk`s.
struct Chunks;

impl Reader for Chunks {
    fn message(
        &mut self,
        _event: &str,
        data: &str,
        draft: &mut Draft,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        if data.trim() == "[DONE]" {
            // Every one of them says so after a complete answer; before it, it is none.
            draft.ended = draft.stop.is_some();
            return Ok(());
        }
        let chunk = parsed(data)?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(refused(None, &chunk));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            draft.usage = Usage {
                input_tokens: count_at(usage, "/prompt_tokens"),
                cached_tokens: count_at(usage, "/prompt_tokens_details/cached_tokens"),
                output_tokens: count_at(usage, "/completion_tokens"),
            };
        }
        let Some(choice) = chunk.pointer("/choices/0") else {
            return Ok(());
        };
        draft.say(text_at(choice, "/delta/content"), listener)?;
        let refusal = text_at(choice, "/delta/refusal");
        if !refusal.is_empty() {
            draft.say(refusal, listener)?;
            draft.stop = Some(Stop::Refused);
        }
        let calls = choice
            .pointer("/delta/tool_calls")
            .and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            call_delta(call, draft, listener)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            let stop = match reason {
                "length" => Stop::Length,
                "content_filter" => Stop::Refused,
                "tool_calls" | "function_call" => Stop::Calls,
                _ => Stop::Done,
            };
            draft.stop = draft
                .stop
                .filter(|stop| *stop == Stop::Refused)
                .or(Some(stop));
        }
        Ok(())
    }
}

/// A piece of a call. Its place is its index; servers that number nothing give an id with each
/// call's first piece, and some number every call 0 but give each another id.
fn call_delta(
    call: &Value,
    draft: &mut Draft,
    listener: &mut Listener<'_>,
) -> Result<(), ModelError> {
    let id = text_at(call, "/id");
    let tool = text_at(call, "/function/name");
    let next = draft.places();
    let place = match call.get("index").and_then(Value::as_u64) {
        Some(index) => index,
        None if !id.is_empty() || !tool.is_empty() => next,
        None => next.saturating_sub(1),
    };
    match draft.id_at(place) {
        Some(known) if id.is_empty() || id == known => draft.name(place, tool, listener)?,
        _ => draft.call(place, id, tool, listener)?,
    }
    draft.arguments(place, text_at(call, "/function/arguments"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_decides_how_tokens_are_bounded() {
        for (host, bound, other) in [
            ("api.openai.com", "max_completion_tokens", "max_tokens"),
            ("me.openai.azure.com", "max_completion_tokens", "max_tokens"),
            ("openrouter.ai", "max_tokens", "max_completion_tokens"),
            ("127.0.0.1", "max_tokens", "max_completion_tokens"),
        ] {
            let body = body(&Ask::default(), host);
            assert_eq!(body[bound], 4_096, "{host}");
            assert!(body.get(other).is_none(), "{host}");
        }
    }
}
