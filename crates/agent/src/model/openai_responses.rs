//! Responses, of `OpenAI`.
//!
//! Nothing is kept at the provider (`store` is false), so a resumed process depends on nobody's
//! memory but the store's. Tools are sent as not strict: strict is this API's default, and it
//! refuses schemas that Chat Completions takes.
//!
//! Deliberately absent: a model's reasoning items, built-in tools, `previous_response_id`.

use super::draft::Draft;
use super::openai::is_strict;
use super::refusal::refused;
use super::wire::{
    Dialect, Framing, Reader, arguments_object, count_at, parsed, result_text, set, temperature,
    text_at, tokens_max,
};
use super::{Ask, Listener, ModelError, Provider, Stop, Turn, Usage};
use serde_json::{Value, json};

pub(super) const DIALECT: Dialect = Dialect {
    provider: Provider::OpenaiResponses,
    base: "https://api.openai.com/v1",
    path: "/v1",
    segments: |_| vec!["responses".into()],
    query: None,
    key: ("authorization", "Bearer "),
    headers: &[],
    body,
    framing: Framing::Events,
    marks_end: true,
    reader: || Box::new(Events),
};

fn body(ask: &Ask, _host: &str) -> Value {
    let mut input = Vec::new();
    for turn in &ask.turns {
        match turn {
            Turn::User { text } => input.push(json!({"role": "user", "content": text})),
            Turn::Model { text, calls } => {
                if !text.is_empty() {
                    input.push(json!({"role": "assistant", "content": text}));
                }
                input.extend(calls.iter().map(|call| {
                    json!({
                        "type": "function_call",
                        "call_id": call.id,
                        "name": call.tool,
                        "arguments": arguments_object(&call.arguments).to_string(),
                    })
                }));
            }
            Turn::Tools { results } => input.extend(results.iter().map(|result| {
                json!({
                    "type": "function_call_output",
                    "call_id": result.id,
                    "output": result_text(result),
                })
            })),
        }
    }
    let mut body = json!({
        "model": ask.model,
        "input": input,
        "stream": true,
        "store": false,
        "max_output_tokens": tokens_max(ask),
    });
    let system = (!ask.system.is_empty()).then(|| ask.system.clone().into());
    set(&mut body, "instructions", system);
    set(&mut body, "temperature", temperature(ask));
    let tools = ask.tools.iter().map(|tool| {
        json!({
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input,
            "strict": false,
        })
    });
    let tools = (!ask.tools.is_empty()).then(|| tools.collect());
    set(&mut body, "tools", tools);
    let text = ask.output.as_ref().map(|schema| {
        json!({"format": {
            "type": "json_schema",
            "name": "answer",
            "schema": schema,
            "strict": is_strict(schema),
        }})
    });
    set(&mut body, "text", text);
    body
}

/// Reads the events of a response.
struct Events;

impl Reader for Events {
    fn message(
        &mut self,
        event: &str,
        data: &str,
        draft: &mut Draft,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        if data.trim() == "[DONE]" {
            return Ok(());
        }
        let data = parsed(data)?;
        let kind = match text_at(&data, "/type") {
            "" => event,
            kind => kind,
        };
        let place = count_at(&data, "/output_index");
        match kind {
            "response.output_text.delta" => draft.say(text_at(&data, "/delta"), listener)?,
            "response.refusal.delta" => {
                draft.stop = Some(Stop::Refused);
                draft.say(text_at(&data, "/delta"), listener)?;
            }
            "response.output_item.added" | "response.output_item.done"
                if text_at(&data, "/item/type") == "function_call" =>
            {
                if draft.id_at(place).is_none() {
                    let id = text_at(&data, "/item/call_id");
                    draft.call(place, id, text_at(&data, "/item/name"), listener)?;
                }
                let arguments = text_at(&data, "/item/arguments");
                if !arguments.is_empty() {
                    draft.arguments_whole(place, arguments)?;
                }
            }
            "response.function_call_arguments.delta" => {
                draft.arguments(place, text_at(&data, "/delta"))?;
            }
            "response.function_call_arguments.done" => {
                draft.arguments_whole(place, text_at(&data, "/arguments"))?;
            }
            "response.completed" | "response.incomplete" => {
                let response = &data["response"];
                draft.usage = Usage {
                    input_tokens: count_at(response, "/usage/input_tokens"),
                    cached_tokens: count_at(response, "/usage/input_tokens_details/cached_tokens"),
                    output_tokens: count_at(response, "/usage/output_tokens"),
                };
                match text_at(response, "/incomplete_details/reason") {
                    "" if kind == "response.completed" => {}
                    "content_filter" => draft.stop = Some(Stop::Refused),
                    _ => draft.stop = Some(Stop::Length),
                }
                draft.ended = true;
            }
            "response.failed" => return Err(refused(None, &data["response"])),
            "error" => return Err(refused(None, &data)),
            // The beginning, the end or the repetition of a part, and events of tomorrow.
            _ => {}
        }
        Ok(())
    }
}
