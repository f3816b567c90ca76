//! What a server lists: only what was granted is kept, the rest by its name. Secrets that it was given
//! are taken out before anything is cut or compiled.

use super::connection::{Broken, Connection};
use super::{
    DESCRIPTION_CHARS_MAX, PAGES_MAX, SCHEMA_BYTES_MAX, TOOLS_MAX, TTL_DEFAULT, TTL_MAX, TTL_MIN,
};
use crate::tool::command::{Revealed, redact, redacted};
use crate::tool::{compiled, cut};
use jsonschema::Validator;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Characters of a tool's name at most; a longer one is none.
const NAME_CHARS_MAX: usize = 128;

/// The tools of a server, as it listed them.
pub(super) struct Listed {
    offers: BTreeMap<String, Result<Offer, String>>,
    names: BTreeSet<String>,
    at: Instant,
    until: Instant,
    /// How often it had said that its list changed, before it was asked.
    changes: u64,
}

/// A tool that a server offers.
#[derive(Clone)]
pub(super) struct Offer {
    /// What the server says of it.
    pub(super) description: String,
    /// The JSON Schema of its arguments.
    pub(super) input: Value,
    pub(super) accepts: Arc<Validator>,
    /// What its result satisfies, if it says so.
    pub(super) promises: Option<Arc<Validator>>,
}

impl Listed {
    /// Reads the list, page by page, until a bound is reached, or all that is wanted was found, unless
    /// the whole is asked for.
    pub(super) async fn of(
        connection: &Connection,
        wanted: &BTreeSet<&str>,
        whole: bool,
        changes: u64,
    ) -> Result<Self, Broken> {
        let hidden = &connection.revealed;
        let (mut offers, mut names) = (BTreeMap::new(), BTreeSet::new());
        let (mut ttl, mut page) = (TTL_MAX, None);
        for _ in 0..PAGES_MAX {
            let listed = connection.list(page).await?;
            let said = listed.ttl_ms.map_or(TTL_DEFAULT, Duration::from_millis);
            ttl = ttl.min(said);
            for tool in listed.tools {
                let name = tool.name.into_owned();
                if names.len() >= TOOLS_MAX || name.chars().nth(NAME_CHARS_MAX).is_some() {
                    continue;
                }
                // The first of its name counts, so that no later page can take its place.
                if wanted.contains(name.as_str()) && !offers.contains_key(&name) {
                    let output = tool.output_schema.map(Arc::unwrap_or_clone);
                    let input = Arc::unwrap_or_clone(tool.input_schema);
                    let said = tool.description.unwrap_or_default();
                    offers.insert(name.clone(), Offer::of(&said, input, output, hidden));
                }
                names.insert(redacted(&name, hidden));
            }
            page = listed.next_cursor;
            let all = !whole && offers.len() == wanted.len();
            if page.is_none() || all || names.len() >= TOOLS_MAX {
                break;
            }
        }
        let at = Instant::now();
        Ok(Self {
            offers,
            names,
            at,
            until: at + ttl.max(TTL_MIN),
            changes,
        })
    }

    /// Whether it still counts, when the server said this often that it changed.
    pub(super) fn counts(&self, changes: u64) -> bool {
        self.changes == changes && Instant::now() < self.until
    }

    /// Whether it is what the server would say now.
    pub(super) fn is_new(&self) -> bool {
        self.at.elapsed() < TTL_MIN
    }

    /// A tool that was wanted, or why it cannot be used; none when it is not listed.
    pub(super) fn offer(&self, tool: &str) -> Option<Result<&Offer, &String>> {
        self.offers.get(tool).map(Result::as_ref)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl Offer {
    fn of(
        said: &str,
        mut input: Map<String, Value>,
        output: Option<Map<String, Value>>,
        hidden: &[Revealed],
    ) -> Result<Self, String> {
        let kind = input.entry("type").or_insert_with(|| "object".into());
        if kind != "object" {
            return Err("its schema is not one of an object of arguments".into());
        }
        let (input, accepts) = schema(input, hidden)?;
        let promises = output.map(|output| schema(output, hidden)).transpose()?;
        // Without what a terminal or a log would act on.
        let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
        let said = redacted(said, hidden);
        let mut description: String = said.chars().filter(|c| plain(*c)).collect();
        if let Some((end, _)) = description.char_indices().nth(DESCRIPTION_CHARS_MAX) {
            description.truncate(end);
            description.push('…');
        }
        Ok(Self {
            description,
            input,
            accepts,
            promises: promises.map(|(_, promises)| promises),
        })
    }
}

fn schema(
    said: Map<String, Value>,
    hidden: &[Revealed],
) -> Result<(Value, Arc<Validator>), String> {
    let mut schema = Value::Object(said);
    redact(&mut schema, hidden);
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(format!(
            "its schema has {bytes} bytes, where {SCHEMA_BYTES_MAX} are the most"
        ));
    }
    let compiled = compiled(&schema);
    let compiled =
        compiled.map_err(|fault| format!("its schema is none: {}", cut(&fault.to_string())))?;
    Ok((schema, Arc::new(compiled)))
}
