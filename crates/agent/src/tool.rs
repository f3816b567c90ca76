//! Tools: what agents may do beside talking.
//!
//! A model writes what it wants called, and models write anything. So nothing of a call is taken on
//! trust: the [`Toolbox`] refuses a tool that the agent was not granted, checks the arguments against
//! the tool's schema before and the result after the call, bounds its time and its size, and comes
//! back whatever the tool does. What a tool is and what doing it twice would mean is on its
//! [`ToolCard`].
//!
//! Deliberately absent: trying again, receipts and approvals. Who keeps the receipts knows whether a
//! call was made before; [`ToolCard::leaves_in_doubt`] tells it when one may have been made.
//!
//! ```
//! use agent::tool::{Fetch, Tool, Toolbox};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let tools = Toolbox::new([Arc::new(Fetch::public()) as Arc<dyn Tool>]).unwrap();
//! let (granted, arguments) = (["http.fetch".to_owned()].into(), serde_json::json!({"link": 1}));
//! let refused = tools.call(&granted, "http.fetch", &arguments, "key").await.unwrap_err();
//! assert_eq!(refused.code, "tool.arguments");
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod command;
mod fetch;
mod files;
mod http;
pub(crate) mod openapi;
mod shell;
mod skill;

pub use command::Program;
pub use fetch::Fetch;
pub use files::{
    ENTRIES_MAX, FILE_BYTES_MAX, FILES_MAX, FOLDER_DEPTH_MAX, FileTool, MATCHES_MAX, TEXT_BYTES_MAX,
};
pub use http::{HttpTool, LEFT_ALONE_MAX, RETRIES};
pub use openapi::{
    DOCUMENT_BYTES_MAX, DOCUMENT_NODES_MAX, Form, KeyPlace, OPERATIONS_MAX, Operation,
    PARAMETERS_MAX, Parameter, ParameterPlace, SCHEMA_DEPTH_MAX, SCHEMAS_MAX,
};
pub use shell::{
    BELIEVED, COMMAND_CHARS_MAX, LOOK, SCRATCH_BYTES_MAX, SHELL_FILE_BYTES_MAX, SHELL_FLOOD_BYTES,
    SHELL_OUTPUT_BYTES_MAX, ShellTool,
};
pub use skill::{SkillTool, TEXT_CHARS_MAX};

use crate::crew::{Crew, Shell};
use crate::mcp;
use crate::model::ToolSpec;
use async_trait::async_trait;
use domain::name::{Name, nearest};
use domain::record::EffectClass;
use domain::task::Failure;
use jsonschema::{ValidationError, Validator};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The names of the built-in tools: those that [`Toolbox::of_crew`] has without being told.
pub const BUILT_IN: &[&str] = &[
    "files.list",
    "files.read",
    "files.search",
    "http.fetch",
    "shell",
    "text.digest",
    "text.extract",
    "text.keywords",
    "text.language",
    "text.sentiment",
    "text.stats",
    "text.summary",
];
/// Bytes of a call's arguments at most, as JSON.
pub const ARGUMENTS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a call's result at most, as JSON.
pub const RESULT_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a tool's name for models: what every provider takes.
pub const MODEL_NAME_CHARS_MAX: usize = 64;
/// Longest wait for a tool that was stopped to be gone.
pub const STOP_TIME_MAX: Duration = Duration::from_millis(1_000);

/// Shortest time between two words of a call on how far it is; of what it says meanwhile, the last
/// counts.
pub const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// How often a call is made again, at most.
pub const RETRIES_MAX: u32 = 10;
/// The pause before the first repetition; each next one is twice as long.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Complaints about arguments or a result that are told.
const COMPLAINTS_MAX: usize = 5;
/// Characters of one complaint.
const COMPLAINT_CHARS_MAX: usize = 200;

/// What there is to know about a tool before it is called.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolCard {
    /// Its name, such as `shop.lookup`.
    pub name: Name,
    /// What it does and when to use it: models read this.
    pub description: String,
    /// The JSON Schema of its arguments: an object.
    pub input: Value,
    /// The JSON Schema of its result, if it says one.
    pub output: Option<Value>,
    /// What doing it twice would mean.
    pub effect: EffectClass,
    /// How long a call may take.
    pub timeout: Duration,
    /// A word to group tools by.
    pub category: String,
    /// Arguments that text from outside must not fill without a person's yes.
    pub sensitive: Vec<String>,
    /// What it gives was written by somebody else.
    pub untrusted_output: bool,
}

impl ToolCard {
    /// Whether a call that failed in this way may have had its effect, so that only somebody who finds
    /// out can go on.
    #[must_use]
    pub fn leaves_in_doubt(&self, failure: &Failure) -> bool {
        let unclear = [
            "mcp.broken",
            "mcp.protocol",
            "tool.timed_out",
            "tool.output",
            "tool.broken",
        ];
        !self.effect.is_repeatable() && unclear.contains(&failure.code.as_str())
    }
}

/// Something that can be done.
#[async_trait]
pub trait Tool: Send + Sync {
    /// What it is; the same as long as it lives.
    fn card(&self) -> &ToolCard;

    /// How often a call that failed may be made again, at most [`RETRIES_MAX`]: only where it is known
    /// that nothing was done, or doing it again does no harm.
    fn retries(&self) -> u32 {
        0
    }

    /// Whether it could be called now.
    ///
    /// # Errors
    /// Why not, for people.
    async fn available(&self) -> Result<(), String>;

    /// Whether it could be called now, as far as can be found out by asking whoever does it. That may
    /// take as long as a call; before a call only [`available`](Self::available) is asked.
    ///
    /// # Errors
    /// Why not, for people.
    async fn reachable(&self) -> Result<(), String> {
        self.available().await
    }

    /// What models are told of it now: what its card says, unless it learns that elsewhere.
    async fn told(&self) -> Told {
        let card = self.card();
        Told {
            description: card.description.clone(),
            input: card.input.clone(),
        }
    }

    /// Calls it. The arguments satisfy its schema. `key` is the same whenever this call is made again,
    /// so that the other side can tell. Dropping the future stops what runs.
    ///
    /// # Errors
    /// What it says itself: that it did not do what it was asked (`tool.failed`), is not to be had
    /// (`tool.unavailable`), or broke off (`tool.timed_out`, `tool.output`, `tool.broken`).
    async fn call(&self, arguments: &Value, key: &str) -> Result<Value, Failure>;

    /// As [`call`](Self::call), telling how far it is while it goes on, where it knows.
    ///
    /// # Errors
    /// The same.
    async fn call_telling(
        &self,
        arguments: &Value,
        key: &str,
        _tell: &Tell,
    ) -> Result<Value, Failure> {
        self.call(arguments, key).await
    }
}

/// Is told in a line how far a call is, at most every [`PROGRESS_PAUSE`].
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// Who does not want to know.
pub(crate) fn nobody() -> Tell {
    Arc::new(|_| {})
}

/// What models are told of a tool, beside its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments: an object.
    pub input: Value,
}

/// Tools by name. Who calls says what was granted; nothing is by default.
///
/// Tools may be added at any time, and are there from then on for whoever was granted their names,
/// also for agents that work already:
///
/// ```
/// use agent::tool::{Fetch, Tool, Toolbox};
/// use std::sync::Arc;
///
/// let tools = Toolbox::new([]).unwrap();
/// tools.register(Arc::new(Fetch::public())).unwrap();
/// assert_eq!(tools.cards()[0].name.as_str(), "http.fetch");
/// let again = tools.register(Arc::new(Fetch::public())).unwrap_err();
/// assert_eq!(again.code, "tool.duplicate");
/// ```
pub struct Toolbox {
    tools: RwLock<BTreeMap<Name, Arc<Held>>>,
}

struct Held {
    tool: Arc<dyn Tool>,
    card: Arc<ToolCard>,
    input: Validator,
    output: Option<Validator>,
    model_name: String,
}

impl Held {
    fn of(tool: Arc<dyn Tool>) -> Result<Self, Failure> {
        let card = tool.card();
        let schema = |schema: &Value| {
            compiled(schema).map_err(|fault| {
                let (name, fault) = (&card.name, cut(&fault.to_string()));
                let text = format!("a schema of “{name}” is none: {fault}");
                Failure::permanent("tool.schema", text)
            })
        };
        Ok(Self {
            input: schema(&card.input)?,
            output: card.output.as_ref().map(schema).transpose()?,
            model_name: String::new(),
            card: Arc::new(card.clone()),
            tool,
        })
    }
}

impl Toolbox {
    /// With these tools.
    ///
    /// # Errors
    /// `tool.schema` when a tool's schema is none, `tool.duplicate` when two have one name.
    pub fn new(tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Result<Self, Failure> {
        let mut tools: Vec<_> = tools.into_iter().collect();
        // Names for models go by this order, not by the one they came in.
        tools.sort_by(|one, other| one.card().name.cmp(&other.card().name));
        let toolbox = Self {
            tools: RwLock::default(),
        };
        for tool in tools {
            toolbox.register(tool)?;
        }
        Ok(toolbox)
    }

    /// Adds a tool. It has no grants by that: whoever was granted its name can call it from now on, and
    /// whoever plans knows of it.
    ///
    /// # Errors
    /// As [`Toolbox::new`]; what was there stays.
    pub fn register(&self, tool: Arc<dyn Tool>) -> Result<(), Failure> {
        let mut new = Held::of(tool)?;
        let name = new.card.name.clone();
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        if tools.contains_key(&name) {
            let text = format!("two tools have the name “{name}”");
            return Err(Failure::permanent("tool.duplicate", text));
        }
        let taken = tools.values().map(|held| held.model_name.as_str());
        new.model_name = model_name(&name, &taken.collect());
        tools.insert(name, Arc::new(new));
        Ok(())
    }

    fn held(&self, name: &str) -> Option<Arc<Held>> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        tools.get(name).map(Arc::clone)
    }

    fn all(&self) -> Vec<Arc<Held>> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        tools.values().map(Arc::clone).collect()
    }

    /// With the built-in tools that need no folder.
    ///
    /// # Errors
    /// As [`Toolbox::new`].
    pub fn built_in() -> Result<Self, Failure> {
        let shell = ShellTool::new(Shell::default());
        let mut tools: Vec<Arc<dyn Tool>> = vec![Arc::new(Fetch::public()), Arc::new(shell)];
        tools.extend(SkillTool::all().map(|tool| Arc::new(tool) as Arc<dyn Tool>));
        Self::new(tools)
    }

    /// With the built-in tools, the crew's own, those of its MCP servers that are granted to anybody,
    /// and these.
    ///
    /// # Errors
    /// As [`Toolbox::new`].
    pub fn of_crew(
        crew: &Crew,
        more: impl IntoIterator<Item = Arc<dyn Tool>>,
    ) -> Result<Self, Failure> {
        let shell = crew.shell.clone().unwrap_or_default();
        let mut tools: Vec<Arc<dyn Tool>> =
            vec![Arc::new(Fetch::public()), Arc::new(ShellTool::new(shell))];
        tools.extend(SkillTool::all().map(|tool| Arc::new(tool) as Arc<dyn Tool>));
        if let Some(files) = &crew.files {
            for tool in FileTool::all(&files.path) {
                tools.push(Arc::new(tool));
            }
        }
        for (name, tool) in &crew.tools {
            let name = Name::new(name.as_str());
            let name = name.map_err(|error| Failure::permanent("tool.unknown", error.message))?;
            tools.push(Arc::new(Program::new(name, tool.clone(), &crew.folder)));
        }
        tools.extend(mcp::tools(crew));
        for (name, api) in &crew.apis {
            for tool in HttpTool::all(name, api)? {
                tools.push(Arc::new(tool));
            }
        }
        Self::new(tools.into_iter().chain(more))
    }

    /// What there is, by name.
    #[must_use]
    pub fn cards(&self) -> Vec<Arc<ToolCard>> {
        let card = |held: Arc<Held>| Arc::clone(&held.card);
        self.all().into_iter().map(card).collect()
    }

    /// Those of a category, whatever its letters' case.
    #[must_use]
    pub fn cards_of(&self, category: &str) -> Vec<Arc<ToolCard>> {
        let mut cards = self.cards();
        cards.retain(|card| card.category.eq_ignore_ascii_case(category));
        cards
    }

    /// The card of this name.
    #[must_use]
    pub fn card(&self, name: &str) -> Option<Arc<ToolCard>> {
        self.held(name).map(|held| Arc::clone(&held.card))
    }

    /// How often a call of it that failed is made again, at most; none when there is no such tool.
    #[must_use]
    pub fn retries(&self, name: &str) -> Option<u32> {
        let held = self.held(name)?;
        Some(held.tool.retries().min(RETRIES_MAX))
    }

    /// What was granted, as models are told of it.
    pub async fn specs(&self, granted: &BTreeSet<String>) -> Vec<ToolSpec> {
        let mut specs = Vec::new();
        for held in self.all() {
            if !granted.contains(held.card.name.as_str()) {
                continue;
            }
            let told = held.tool.told().await;
            specs.push(ToolSpec {
                name: held.model_name.clone(),
                description: told.description,
                input: told.input,
            });
        }
        specs
    }

    /// The name of the tool that models call by this name.
    #[must_use]
    pub fn name_of(&self, model_name: &str) -> Option<Name> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        let mut held = tools.iter();
        held.find_map(|(name, held)| (held.model_name == model_name).then(|| name.clone()))
    }

    /// Whether a tool could be called now.
    ///
    /// # Errors
    /// `tool.unknown`, or `tool.unavailable` with the reason; a tool that does not say within its time
    /// limit is not.
    pub async fn available(&self, name: &str) -> Result<(), Failure> {
        let Some(held) = self.held(name) else {
            let cards = self.cards();
            return Err(unknown(name, cards.iter().map(|card| card.name.as_str())));
        };
        let tool = Arc::clone(&held.tool);
        let asked = limited(&held.card, async move {
            let said = tool.reachable().await;
            said.map_err(|why| unavailable(&tool.card().name, &why))
        });
        match asked.await {
            Err(silent) if silent.code != "tool.unavailable" => {
                Err(Failure::new("tool.unavailable", silent.message))
            }
            said => said,
        }
    }

    /// Calls a tool, if it was granted. It comes back within the tool's time limit and
    /// [`STOP_TIME_MAX`], whatever the tool does, and what ran is stopped when this is dropped. Where the
    /// tool says so ([`Tool::retries`]) a call that failed is made again, with the same key and the same
    /// time limit; what may have been done, and must not be done twice, never is.
    ///
    /// # Errors
    /// | code | when | may be made again |
    /// |---|---|---|
    /// | `tool.unknown` | there is no such tool | no |
    /// | `tool.not_granted` | there is, but not for this agent | no |
    /// | `tool.arguments` | they do not satisfy its schema, or are too large | no |
    /// | `tool.unavailable` | it cannot be called now; it was not | yes |
    /// | `tool.failed` | it says that it did not do it | as it says |
    /// | `tool.timed_out` | it took too long and was stopped | if its effect may be repeated |
    /// | `tool.output` | what it gave is too large, no JSON, or not what its schema says | no |
    /// | `tool.broken` | it broke off | if its effect may be repeated |
    pub async fn call(
        &self,
        granted: &BTreeSet<String>,
        name: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        let called = self.call_telling(granted, name, arguments, key, nobody());
        called.await
    }

    /// As [`call`](Self::call), telling how far it is while it goes on, where the tool does.
    ///
    /// # Errors
    /// The same.
    pub async fn call_telling(
        &self,
        granted: &BTreeSet<String>,
        name: &str,
        arguments: &Value,
        key: &str,
        tell: Tell,
    ) -> Result<Value, Failure> {
        let Some(held) = self.held(name) else {
            return Err(unknown(name, granted.iter().map(String::as_str)));
        };
        if !granted.contains(name) {
            let text = format!("the tool “{name}” was not granted");
            return Err(Failure::permanent("tool.not_granted", text));
        }
        let card = &held.card;
        if let Err(complaint) = fits(arguments, ARGUMENTS_BYTES_MAX, Some(&held.input)) {
            let text = format!("“{name}” cannot be called so: {complaint}");
            return Err(Failure::permanent("tool.arguments", text));
        }
        let retries = held.tool.retries().min(RETRIES_MAX);
        let mut pause = RETRY_PAUSE;
        let mut made = 0;
        let result = loop {
            let (tool, tell) = (Arc::clone(&held.tool), Arc::clone(&tell));
            let (arguments, key) = (arguments.clone(), key.to_owned());
            let called = limited(card, async move {
                available(&*tool).await?;
                tool.call_telling(&arguments, &key, &tell).await
            });
            let failure = match called.await {
                Ok(result) => break result,
                Err(failure) => failure,
            };
            if made == retries || !failure.retryable || card.leaves_in_doubt(&failure) {
                return Err(failure);
            }
            made += 1;
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        };
        if let Err(complaint) = fits(&result, RESULT_BYTES_MAX, held.output.as_ref()) {
            let text = format!("what “{name}” gave is not what it promises: {complaint}");
            return Err(Failure::permanent("tool.output", text));
        }
        Ok(result)
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let meant = match nearest(name, known) {
        Some(meant) => format!("; did you mean “{meant}”?"),
        None => String::new(),
    };
    let text = format!("there is no tool “{}”{meant}", cut(name));
    Failure::permanent("tool.unknown", text)
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cards = self.cards();
        let names = cards.iter().map(|card| card.name.as_str());
        f.debug_set().entries(names).finish()
    }
}

async fn available(tool: &dyn Tool) -> Result<(), Failure> {
    let said = tool.available().await;
    said.map_err(|why| unavailable(&tool.card().name, &why))
}

fn unavailable(name: &Name, why: &str) -> Failure {
    let text = format!("“{name}” cannot be called now: {why}");
    Failure::new("tool.unavailable", text)
}

/// Lets a tool run for as long as its card says. It runs as a task of its own, because one that
/// computes without pause, or panics, must not take its caller with it.
async fn limited<T: Send + 'static>(
    card: &ToolCard,
    run: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut running = tokio::spawn(run);
    let _stop = Stop(running.abort_handle());
    let repeatable = card.effect.is_repeatable();
    let ended = match tokio::time::timeout(card.timeout, &mut running).await {
        Ok(ended) => ended,
        Err(_) => {
            running.abort();
            // So that what it started is gone, if it lets go at all.
            let _ = tokio::time::timeout(STOP_TIME_MAX, &mut running).await;
            let ms = card.timeout.as_millis();
            let text = format!(
                "Tool execution timed out: “{}” took longer than {ms} ms and was stopped",
                card.name
            );
            let failure = Failure::permanent("tool.timed_out", text);
            return Err(Failure {
                retryable: repeatable,
                ..failure
            });
        }
    };
    match ended {
        Ok(said) => said,
        Err(_) => Err(Failure {
            retryable: repeatable,
            ..Failure::permanent("tool.broken", format!("“{}” broke off", card.name))
        }),
    }
}

/// Stops a task when nobody waits for it any more.
struct Stop(AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a value is small enough and satisfies a schema; if not, the schema's own complaints.
pub(crate) fn fits(
    value: &Value,
    bytes_max: usize,
    schema: Option<&Validator>,
) -> Result<(), String> {
    let bytes = value.to_string().len();
    if bytes > bytes_max {
        return Err(format!("{bytes} bytes, where {bytes_max} are the most"));
    }
    let Some(schema) = schema else {
        return Ok(());
    };
    let complaint = |error: ValidationError<'_>| match error.instance_path().as_str() {
        "" => cut(&error.to_string()),
        path => format!("at {}, {}", cut(path), cut(&error.to_string())),
    };
    let complaints = schema
        .iter_errors(value)
        .take(COMPLAINTS_MAX)
        .map(complaint);
    let complaints: Vec<String> = complaints.collect();
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(complaints.join("; ")),
    }
}

/// As much of a text as a complaint shows.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(COMPLAINT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A name that every provider takes and no other tool has.
fn model_name(name: &str, taken: &BTreeSet<&str>) -> String {
    let whole = letters(name);
    let mut found = whole.clone();
    let mut number = 2;
    while taken.contains(found.as_str()) {
        let ending = format!("_{number}");
        let kept = whole.len().min(MODEL_NAME_CHARS_MAX - ending.len());
        found = format!("{}{ending}", &whole[..kept]);
        number += 1;
    }
    found
}

/// A name in letters that every provider takes.
pub(crate) fn letters(name: &str) -> String {
    let letter = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
        _ => '_',
    };
    let chars = name.chars().take(MODEL_NAME_CHARS_MAX);
    chars.map(letter).collect()
}

/// A schema, ready to check values. It refers to nothing outside of itself, and its patterns take
/// linear time.
pub(crate) fn compiled(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
}
