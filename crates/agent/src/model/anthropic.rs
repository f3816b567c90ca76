//! Messages, of Anthropic.
//!
//! Structured output is asked for with `output_config.format`, the documented way of every model
//! since Claude 4.5. It is never made up from a tool that the model is forced to call: current
//! models refuse forced calls, and a forced call would be a different answer than the one that was
//! asked for. An older model refuses the field, which is a refusal to show, not to hide.
//! The schema is narrowed to what the field takes: objects that leave open what else they may have
//! are closed, and bounds it cannot keep (lengths, ranges) move into the description, where the
//! model still reads them. Whoever asked checks the answer against the schema as it was.
//!
//! Deliberately absent: thinking blocks (models that think anyway do so unseen), prompt caching
//! marks, and everything in beta.

use super::draft::Draft;
use super::refusal::refused;
use super::wire::{
    Dialect, Framing, Reader, arguments_object, count_at, is_empty, labelled, parsed, set,
    temperature, text_at, tokens_max,
};
use super::{Ask, Listener, ModelError, Provider, Stop, Turn};
use serde_json::{Map, Value, json};

pub(super) const DIALECT: Dialect = Dialect {
    provider: Provider::Anthropic,
    base: "https://api.anthropic.com/v1",
    path: "/v1",
    segments: |_| vec!["messages".into()],
    query: None,
    key: ("x-api-key", ""),
    headers: &[("anthropic-version", "2023-06-01")],
    body,
    framing: Framing::Events,
    marks_end: true,
    reader: || Box::new(Events),
};

fn body(ask: &Ask, _host: &str) -> Value {
    let messages = ask.turns.iter().filter(|turn| !is_empty(turn));
    let messages = messages.map(|turn| match turn {
        Turn::User { text } => json!({"role": "user", "content": text}),
        Turn::Model { text, calls } => {
            let mut content = Vec::new();
            if !text.is_empty() {
                content.push(json!({"type": "text", "text": text}));
            }
            content.extend(calls.iter().map(|call| {
                json!({
                    "type": "tool_use",
                    "id": call.id,
                    "name": call.tool,
                    "input": arguments_object(&call.arguments),
                })
            }));
            json!({"role": "assistant", "content": content})
        }
        Turn::Tools { results } => {
            let content = results.iter().map(|result| {
                let mut block = json!({
                    "type": "tool_result",
                    "tool_use_id": result.id,
                    "content": labelled(result),
                });
                set(&mut block, "is_error", result.failed.then_some(true.into()));
                block
            });
            json!({"role": "user", "content": content.collect::<Vec<_>>()})
        }
    });
    let mut body = json!({
        "model": ask.model,
        "max_tokens": tokens_max(ask),
        "messages": messages.collect::<Vec<_>>(),
        "stream": true,
    });
    let system = (!ask.system.is_empty()).then(|| ask.system.clone().into());
    set(&mut body, "system", system);
    set(&mut body, "temperature", temperature(ask));
    let tools = ask.tools.iter().map(|tool| {
        json!({
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool.input,
        })
    });
    let tools = (!ask.tools.is_empty()).then(|| tools.collect());
    set(&mut body, "tools", tools);
    let output = ask
        .output
        .as_ref()
        .map(|schema| json!({"format": {"type": "json_schema", "schema": narrowed(schema)}}));
    set(&mut body, "output_config", output);
    body
}

/// What `output_config.format` cannot keep.
const UNKEPT: [&str; 11] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

/// A schema that `output_config.format` takes, no wider than this one in what it can express.
fn narrowed(schema: &Value) -> Value {
    let Some(given) = schema.as_object() else {
        return schema.clone();
    };
    let mut kept = Map::new();
    let mut told = Vec::new();
    for (keyword, value) in given {
        let is_more_than_one = value.as_u64().is_some_and(|n| n > 1);
        if UNKEPT.contains(&keyword.as_str()) || (keyword == "minItems" && is_more_than_one) {
            told.push(format!("{keyword}: {value}"));
            continue;
        }
        let value = match (keyword.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => named
                .iter()
                .map(|(name, schema)| (name.clone(), narrowed(schema)))
                .collect::<Map<_, _>>()
                .into(),
            ("anyOf" | "allOf" | "oneOf", Value::Array(schemas)) => {
                schemas.iter().map(narrowed).collect::<Vec<_>>().into()
            }
            ("items", schema) => narrowed(schema),
            _ => value.clone(),
        };
        kept.insert(keyword.clone(), value);
    }
    let is_object = kept.get("type") == Some(&json!("object")) || kept.contains_key("properties");
    if is_object && !kept.contains_key("additionalProperties") {
        kept.insert("additionalProperties".to_owned(), false.into());
    }
    if !told.is_empty() {
        let before = kept.get("description").and_then(Value::as_str);
        let before = before.map(|text| format!("{text} ")).unwrap_or_default();
        let text = format!("{before}({})", told.join(", "));
        kept.insert("description".to_owned(), text.into());
    }
    kept.into()
}

/// Reads the events of a message.
struct Events;

impl Reader for Events {
    fn message(
        &mut self,
        event: &str,
        data: &str,
        draft: &mut Draft,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        let data = parsed(data)?;
        let kind = match text_at(&data, "/type") {
            "" => event,
            kind => kind,
        };
        let place = count_at(&data, "/index");
        match kind {
            "message_start" => usage(&data["message"]["usage"], draft),
            "content_block_start" => match text_at(&data, "/content_block/type") {
                "text" => draft.say(text_at(&data, "/content_block/text"), listener)?,
                "tool_use" => {
                    let id = text_at(&data, "/content_block/id");
                    draft.call(place, id, text_at(&data, "/content_block/name"), listener)?;
                }
                _ => {}
            },
            "content_block_delta" => match text_at(&data, "/delta/type") {
                "text_delta" => draft.say(text_at(&data, "/delta/text"), listener)?,
                // Of other blocks than calls, such as the provider's own tools, nothing is kept.
                "input_json_delta" if draft.id_at(place).is_some() => {
                    draft.arguments(place, text_at(&data, "/delta/partial_json"))?;
                }
                _ => {}
            },
            "message_delta" => {
                usage(&data["usage"], draft);
                draft.stop = match text_at(&data, "/delta/stop_reason") {
                    "" => draft.stop,
                    "tool_use" => Some(Stop::Calls),
                    "max_tokens" | "model_context_window_exceeded" => Some(Stop::Length),
                    "refusal" => Some(Stop::Refused),
                    _ => Some(Stop::Done),
                };
            }
            "message_stop" => draft.ended = true,
            "error" => return Err(refused(None, &data)),
            // `ping`, the end of a block, and events of tomorrow.
            _ => {}
        }
        Ok(())
    }
}

/// Counts are totals, each event's replacing those before. What was read from the cache, or
/// written to it, is not among the input tokens here; with us it is.
fn usage(said: &Value, draft: &mut Draft) {
    let counted = said.get("input_tokens").is_some_and(Value::is_u64);
    if counted {
        let read = count_at(said, "/cache_read_input_tokens");
        let written = count_at(said, "/cache_creation_input_tokens");
        draft.usage.input_tokens = count_at(said, "/input_tokens") + read + written;
        draft.usage.cached_tokens = read;
    }
    if let Some(tokens) = said.get("output_tokens").and_then(Value::as_u64) {
        draft.usage.output_tokens = tokens;
    }
}
