//! The blackboard of a run, as tools: what one agent writes, the others of its run find.
//!
//! They are not in the [`Toolbox`](crate::tool::Toolbox), because they need to know who works on
//! which task.

use crate::model::ToolSpec;
use chargehand::{Context, EffectClass};
use domain::blackboard::{EntryFilter, NewEntry};
use domain::name::Name;
use domain::task::Failure;
use serde::Deserialize;
use serde_json::{Value, json};

/// Writes an entry.
pub const WRITE: &str = "board.write";
/// Finds entries.
pub const SEARCH: &str = "board.search";
/// Both.
pub const NAMES: [&str; 2] = [SEARCH, WRITE];
/// Entries of one search when nothing is said, and at most.
const FOUND: (usize, usize) = (20, 100);

/// The tool of this name, as models write it or as crews do, and what doing it twice would mean.
pub fn known(tool: &str) -> Option<(&'static str, EffectClass)> {
    match tool {
        // The same key is the same entry.
        "board.write" | "board_write" => Some((WRITE, EffectClass::Keyed)),
        "board.search" | "board_search" => Some((SEARCH, EffectClass::Pure)),
        _ => None,
    }
}

/// As models are told of them.
pub fn spec(tool: &str) -> Option<ToolSpec> {
    let (name, _) = known(tool)?;
    let tags = json!({"type": "array", "items": {"type": "string"}});
    let (description, input) = match name {
        WRITE => (
            "Writes on the board of this run, for the other agents. Tags are how it is found.",
            json!({
                "type": "object", "additionalProperties": false, "required": ["content", "tags"],
                "properties": {"content": {}, "tags": tags},
            }),
        ),
        _ => (
            "Finds what was written on the board of this run under at least one of these tags, or everything.",
            json!({
                "type": "object", "additionalProperties": false,
                "properties": {"tags": tags, "limit": {"type": "integer", "minimum": 1, "maximum": FOUND.1}},
            }),
        ),
    };
    Some(ToolSpec {
        name: name.replace('.', "_"),
        description: description.into(),
        input,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    content: Value,
    tags: Vec<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    #[serde(default)]
    tags: Vec<Name>,
    limit: Option<usize>,
}

/// Calls one of them, for this task.
///
/// # Errors
/// `tool.arguments`, and the board's own.
pub async fn call(
    task: &Context,
    tool: &str,
    arguments: &Value,
    key: &str,
) -> Result<Value, Failure> {
    if tool == WRITE {
        let write: Write = read(tool, arguments)?;
        let mut entry = NewEntry::new(task.worker().clone(), write.content.into());
        entry.tags = write.tags;
        entry.key = Some(key.parse()?);
        let entry = task.write(entry).await?;
        return Ok(json!({"written": entry}));
    }
    let search: Search = read(tool, arguments)?;
    let filter = EntryFilter {
        run: task.assignment().run_id,
        tags_any: search.tags,
        limit: Some(search.limit.unwrap_or(FOUND.0).clamp(1, FOUND.1)),
        ..EntryFilter::default()
    };
    let entries = task.api().entry_list(filter).await?;
    let found = entries.iter().map(|entry| {
        json!({"author": entry.author, "tags": entry.tags, "content": entry.content.value()})
    });
    Ok(json!({"found": found.collect::<Vec<_>>()}))
}

fn read<T: for<'a> Deserialize<'a>>(tool: &str, arguments: &Value) -> Result<T, Failure> {
    T::deserialize(arguments).map_err(|fault| {
        let text = format!("“{tool}” cannot be called so: {fault}");
        Failure::permanent("tool.arguments", text)
    })
}
