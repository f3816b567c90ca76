//! What a call gave, as data that models can read.
//!
//! Text stays text and structured content stays JSON. Bytes are of no use to a model here, so images
//! and the like become a word about what they were.

use crate::tool::command::{Revealed, redact, redacted};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::{Value, json};

/// Characters of an address, a name or a type that are kept.
const WORD_CHARS_MAX: usize = 500;
/// Characters of a refusal that are told.
const REFUSAL_CHARS_MAX: usize = 2_000;

/// What a call gave.
pub(super) struct Gave {
    pub(super) value: Value,
    /// It is structured content.
    pub(super) structured: bool,
    /// It says that it did not do what it was asked.
    pub(super) is_error: bool,
}

/// What a call gave, without these secrets.
pub(super) fn gave(result: CallToolResult, hidden: &[Revealed]) -> Gave {
    let is_error = result.is_error.unwrap_or(false);
    if let Some(mut value) = result.structured_content.filter(|_| !is_error) {
        redact(&mut value, hidden);
        return Gave {
            value,
            structured: true,
            is_error,
        };
    }
    let blocks = result.content.into_iter();
    let mut blocks: Vec<Value> = blocks.map(|block| told(block, hidden)).collect();
    let value = match blocks.len() {
        0 => Value::Null,
        1 => blocks.remove(0),
        _ => Value::Array(blocks),
    };
    Gave {
        value,
        structured: false,
        is_error,
    }
}

fn told(block: ContentBlock, hidden: &[Revealed]) -> Value {
    let word = |text: &str| word(text, hidden);
    let bytes = |kind: &str, mime_type: &str, data: &str| bytes(kind, &word(mime_type), data);
    match block {
        ContentBlock::Text(text) => Value::String(redacted(&text.text, hidden)),
        ContentBlock::Image(image) => bytes("image", &image.mime_type, &image.data),
        ContentBlock::Audio(audio) => bytes("audio", &audio.mime_type, &audio.data),
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents {
                uri,
                mime_type,
                text,
                ..
            } => json!({
                "kind": "resource", "uri": word(&uri),
                "mime_type": mime_type.as_deref().map(word),
                "text": redacted(&text, hidden),
            }),
            ResourceContents::BlobResourceContents {
                uri,
                mime_type,
                blob,
                ..
            } => {
                let mut told = bytes("resource", &mime_type.unwrap_or_default(), &blob);
                told["uri"] = json!(word(&uri));
                told
            }
            _ => json!({"kind": "resource", "left_out": true}),
        },
        ContentBlock::ResourceLink(link) => json!({
            "kind": "resource_link", "uri": word(&link.uri), "name": word(&link.name),
            "description": link.description.as_deref().map(word),
        }),
        _ => json!({"kind": "unknown", "left_out": true}),
    }
}

/// What was left out. Three bytes are four letters of base 64.
fn bytes(kind: &str, mime_type: &str, data: &str) -> Value {
    let bytes = data.trim_end_matches('=').len() * 3 / 4;
    json!({"kind": kind, "mime_type": mime_type, "bytes": bytes, "left_out": true})
}

fn word(text: &str, hidden: &[Revealed]) -> String {
    redacted(text, hidden)
        .chars()
        .take(WORD_CHARS_MAX)
        .collect()
}

/// As much of a refusal as is told.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(REFUSAL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
