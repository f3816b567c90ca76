//! `streamGenerateContent`, of Google. The key is in a header and never in the address, where
//! every proxy on the way would log it.
//!
//! From the third generation on, Gemini refuses a conversation whose calls come back without the
//! signature it gave them. The port has no place for what only one provider has, so a signature
//! travels in the call's id, behind a `~`, and is taken off again before the provider sees the id.
//! Calls that have none, because another model made them, get the mark that the documentation
//! names for that case.
//!
//! Deliberately absent: thoughts, safety settings, grounding, cached contents. Second-generation
//! models refuse tools together with an output schema; that refusal is shown as it is.

use super::draft::{Draft, MADE_UP};
use super::refusal::refused;
use super::wire::{
    Dialect, Framing, Reader, arguments_object, count_at, is_empty, labelled, parsed, set,
    temperature, text_at, tokens_max,
};
use super::{Ask, Call, Fault, Listener, ModelError, Provider, Stop, Turn, Usage};
use serde_json::{Value, json};

pub(super) const DIALECT: Dialect = Dialect {
    provider: Provider::Gemini,
    base: "https://generativelanguage.googleapis.com/v1beta",
    path: "/v1beta",
    segments: |ask| {
        let model = ask.model.strip_prefix("models/").unwrap_or(&ask.model);
        vec!["models".into(), format!("{model}:streamGenerateContent")]
    },
    query: Some("alt=sse"),
    key: ("x-goog-api-key", ""),
    headers: &[],
    body,
    framing: Framing::Events,
    marks_end: false,
    reader: || Box::new(Chunks),
};

/// Between a call's id and its signature, which is base64 and has no such character.
const SIGNED: char = '~';
/// The documented mark for a call that another model made.
const UNSIGNED: &str = "skip_thought_signature_validator";

fn body(ask: &Ask, _host: &str) -> Value {
    let model = ask.model.strip_prefix("models/").unwrap_or(&ask.model);
    let wants_signatures = !model.starts_with("gemini-1") && !model.starts_with("gemini-2");
    let contents = ask.turns.iter().filter(|turn| !is_empty(turn));
    let contents = contents.map(|turn| match turn {
        Turn::User { text } => json!({"role": "user", "parts": [{"text": text}]}),
        Turn::Model { text, calls } => {
            let mut parts = Vec::new();
            if !text.is_empty() {
                parts.push(json!({"text": text}));
            }
            for (n, call) in calls.iter().enumerate() {
                // Of parallel calls only the first has one.
                let otherwise = (n == 0 && wants_signatures).then_some(UNSIGNED);
                parts.push(call_part(call, otherwise));
            }
            json!({"role": "model", "parts": parts})
        }
        Turn::Tools { results } => {
            let parts = results.iter().map(|result| {
                let key = if result.failed { "error" } else { "output" };
                let response = json!({ key: labelled(result) });
                let mut part = json!({"name": result.tool, "response": response});
                set(&mut part, "id", given_id(&result.id));
                json!({ "functionResponse": part })
            });
            json!({"role": "user", "parts": parts.collect::<Vec<_>>()})
        }
    });
    let mut config = json!({"maxOutputTokens": tokens_max(ask)});
    set(&mut config, "temperature", temperature(ask));
    if let Some(schema) = &ask.output {
        set(
            &mut config,
            "responseMimeType",
            Some("application/json".into()),
        );
        set(&mut config, "responseJsonSchema", Some(schema.clone()));
    }
    let contents: Vec<Value> = contents.collect();
    let mut body = json!({"contents": contents, "generationConfig": config});
    let system = || json!({"parts": [{"text": ask.system}]});
    let system = (!ask.system.is_empty()).then(system);
    set(&mut body, "systemInstruction", system);
    let tools = ask.tools.iter().map(|tool| {
        json!({
            "name": tool.name,
            "description": tool.description,
            "parametersJsonSchema": tool.input,
        })
    });
    let tools: Vec<Value> = tools.collect();
    let tools = (!tools.is_empty()).then(|| json!([{ "functionDeclarations": tools }]));
    set(&mut body, "tools", tools);
    body
}

fn call_part(call: &Call, otherwise: Option<&str>) -> Value {
    let arguments = arguments_object(&call.arguments);
    let mut function = json!({"name": call.tool, "args": arguments});
    set(&mut function, "id", given_id(&call.id));
    let signature = call.id.split_once(SIGNED).map(|(_, signature)| signature);
    let mut part = json!({ "functionCall": function });
    let signature = signature.or(otherwise).map(Value::from);
    set(&mut part, "thoughtSignature", signature);
    part
}

/// The id that the provider gave, if it gave one.
fn given_id(id: &str) -> Option<Value> {
    let id = id.split_once(SIGNED).map_or(id, |(id, _)| id);
    (!id.is_empty() && !id.starts_with(MADE_UP)).then(|| id.into())
}

/// Reads `GenerateContentResponse`s.
struct Chunks;

impl Reader for Chunks {
    fn message(
        &mut self,
        _event: &str,
        data: &str,
        draft: &mut Draft,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        let chunk = parsed(data)?;
        if chunk.get("error").is_some() {
            return Err(refused(None, &chunk));
        }
        if let Some(usage) = chunk.get("usageMetadata") {
            let count = |name: &str| count_at(usage, name);
            draft.usage = Usage {
                input_tokens: count("/promptTokenCount") + count("/toolUsePromptTokenCount"),
                cached_tokens: count("/cachedContentTokenCount"),
                output_tokens: count("/candidatesTokenCount") + count("/thoughtsTokenCount"),
            };
        }
        if !text_at(&chunk, "/promptFeedback/blockReason").is_empty() {
            draft.stop = Some(Stop::Refused);
            draft.ended = true;
        }
        let Some(candidate) = chunk.pointer("/candidates/0") else {
            return Ok(());
        };
        let parts = candidate
            .pointer("/content/parts")
            .and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            if part.get("thought") == Some(&Value::Bool(true)) {
                continue;
            }
            draft.say(text_at(part, "/text"), listener)?;
            if let Some(function) = part.get("functionCall") {
                call(part, function, draft, listener)?;
            }
        }
        let reason = text_at(candidate, "/finishReason");
        draft.stop = match reason {
            "" => return Ok(()),
            "STOP" => Some(Stop::Done),
            "MAX_TOKENS" => Some(Stop::Length),
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "MISSING_THOUGHT_SIGNATURE"
            | "MALFORMED_RESPONSE"
            | "OTHER" => {
                let text = format!("broke off its answer: {reason}");
                return Err(ModelError::new(Fault::Broken, text));
            }
            _ => Some(Stop::Refused),
        };
        draft.ended = true;
        Ok(())
    }
}

/// A call comes whole.
fn call(
    part: &Value,
    function: &Value,
    draft: &mut Draft,
    listener: &mut Listener<'_>,
) -> Result<(), ModelError> {
    let place = draft.places();
    let (id, signature) = (text_at(function, "/id"), text_at(part, "/thoughtSignature"));
    let id = match (id, signature) {
        (id, "") => id.to_owned(),
        ("", signature) => format!("{}{SIGNED}{signature}", draft.made_up()),
        (id, signature) => format!("{id}{SIGNED}{signature}"),
    };
    draft.call(place, &id, text_at(function, "/name"), listener)?;
    match function.get("args") {
        Some(arguments) if !arguments.is_null() => draft.arguments(place, &arguments.to_string()),
        _ => Ok(()),
    }
}
