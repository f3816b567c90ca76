//! Crews: who the agents are, which models they ask, what they may use and what it may cost.
//!
//! A crew is a file that people write, so this module is about their mistakes as much as about its
//! content: [`Crew::load`] tells every mistake of a file at once, each with its line, its column and
//! what to do, and what it gives when there is none is complete: defaults filled in, instructions
//! read, names resolved, and a digest of all of it, by which a run pins what it used.
//!
//! Deliberately absent: environment variables inside of values (a file says the same for everybody;
//! secrets are handles), including other crews, and templates.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("crew.yaml");
//! std::fs::write(&file, "
//! version: 1
//! name: desk
//! models: {fast: anthropic/claude-haiku-4-5}
//! agents:
//!   clerk: {description: Answers letters., instructions: Be brief., tool: [http.fetch]}
//! ")?;
//! let mistakes = agent::crew::Crew::load(&file).unwrap_err();
//! assert_eq!(mistakes[0].code, "crew.unknown_key");
//! assert_eq!(mistakes[0].hint, "Did you mean `tools`?");
//! # Ok::<(), std::io::Error>(())
//! ```

mod file;
mod resolve;
mod secret;
mod shape;
mod tree;

pub use file::schema;
pub use secret::{Secret, VARIABLE_PREFIX};
pub use tree::Place;

use crate::model::ModelName;
use crate::model::price::{Price, Prices};
use crate::tool::Operation;
use domain::record::EffectClass;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that is read when nobody names one.
pub const FILE_DEFAULT: &str = "crew.yaml";
/// Bytes of a crew file at most.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Agents of one crew at most.
pub const AGENTS_MAX: usize = 100;
/// Models of one crew at most.
pub const MODELS_MAX: usize = 50;
/// Tools of a crew's own at most.
pub const TOOLS_MAX: usize = 200;
/// MCP servers of one crew at most.
pub const SERVERS_MAX: usize = 32;
/// APIs of one crew at most.
pub const APIS_MAX: usize = 32;
/// Tools that one agent may be granted at most.
pub const GRANTS_MAX: usize = 128;
/// Tools that may wait for a person's yes at most.
pub const APPROVALS_MAX: usize = 300;
/// Variables of one command tool at most.
pub const ENV_MAX: usize = 50;
/// Characters of a description at most.
pub const DESCRIPTION_CHARS_MAX: usize = 2_000;
/// Characters of instructions at most, wherever they are written.
pub const INSTRUCTIONS_CHARS_MAX: usize = 100_000;
/// Mistakes that are told of one file at most.
pub const MISTAKES_MAX: usize = 100;
/// Shortest and longest time that a call of a command tool may be allowed.
pub const TOOL_TIME: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3_600));
/// Shortest and longest time that a command of the `shell` may be allowed, also of the processor.
pub const SHELL_TIME: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// Fewest and most bytes of memory that a command of the `shell` may be allowed.
pub const SHELL_MEMORY_BYTES: (u64, u64) = (16 * 1024 * 1024, 64 * 1024 * 1024 * 1024);
/// Shortest and longest time that a run may be allowed.
pub const WALL_TIME: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30 * 86_400));

/// What names of crews, models and agents look like.
const NAME_PATTERN: &str = "^[a-z][a-z0-9_-]{0,63}$";
/// What names of tools look like: such names with dots between them.
const TOOL_PATTERN: &str = "^[a-z][a-z0-9_-]{0,31}(\\.[a-z0-9][a-z0-9_-]{0,31}){0,3}$";

/// What names of MCP servers look like: the first part of their tools' names.
const SERVER_PATTERN: &str = "^[a-z][a-z0-9_-]{0,31}$";
/// What the second part looks like.
const SERVER_TOOL_PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,31}$";
/// What names of APIs look like: the first part of their tools' names.
const API_PATTERN: &str = "^[a-z][a-z0-9_-]{0,31}$";

/// A crew that can be run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Crew {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// The models, by the names that the crew uses.
    pub models: BTreeMap<String, CrewModel>,
    /// What a run may spend.
    pub budget: Budget,
    /// Who plans, delegates, watches and puts the results together.
    pub supervisor: Supervisor,
    /// The agents, by name; at least one.
    pub agents: BTreeMap<String, Agent>,
    /// Tools of its own, by name.
    pub tools: BTreeMap<String, CommandTool>,
    /// MCP servers, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp: BTreeMap<String, McpServer>,
    /// APIs whose operations are tools, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub apis: BTreeMap<String, Api>,
    /// What the built-in tools for files see; `None` when no agent has them.
    pub files: Option<Files>,
    /// How the built-in tool `shell` is bounded; `None` for [`Shell::default`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Shell>,
    /// Tools whose every call waits for a person's yes.
    pub approve: BTreeSet<String>,
    /// The folder of its file, absolute: where its programs run.
    #[serde(skip)]
    pub folder: PathBuf,
    /// SHA-256, in hex, of all of the above and of its programs' files: equal for equal crews, wherever
    /// their folder is.
    #[serde(skip)]
    pub digest: String,
}

/// A model that a crew asks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrewModel {
    /// Which one.
    pub model: ModelName,
    /// Where it is, if not where its provider always is.
    pub base_url: Option<String>,
    /// Its key; `None` stands for the provider's own variable
    /// ([`crate::model::Provider::key_variable`]).
    pub key: Option<Secret>,
    /// The name of the model asked when this one does not answer. Following them comes to an end.
    pub fallback: Option<String>,
    /// Tokens of one answer at most; `None` for [`crate::model::TOKENS_DEFAULT`].
    pub tokens_max: Option<u32>,
    /// How freely it chooses its words; `None` is the provider's default.
    pub temperature: Option<f32>,
    /// What it costs, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

impl CrewModel {
    /// What its tokens cost: as the crew file says, or as is known of its provider's models. What answers
    /// at another address is not the provider's.
    #[must_use]
    pub fn known_price(&self) -> Option<Price> {
        let known = || Prices::builtin().price(&self.model).copied();
        self.price.or_else(|| self.base_url.is_none().then(known)?)
    }
}

/// What a run may spend; nothing is without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Tokens, read and written.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub usd_micros: u64,
    /// Calls of models and tools.
    pub calls: u32,
    /// Milliseconds on the clock.
    pub wall_ms: u64,
    /// How deep plans of plans may go: with 1 no brief is planned by itself.
    pub depth: u32,
    /// Tasks of one plan.
    pub fan_out: u32,
}

impl Budget {
    /// What the engine accounts for: the rest is the plan's.
    #[must_use]
    pub fn of_run(&self) -> domain::budget::Budget {
        domain::budget::Budget {
            tokens: Some(self.tokens),
            usd_micros: Some(self.usd_micros),
            calls: Some(self.calls.into()),
            wall_ms: Some(self.wall_ms),
        }
    }
}

impl Default for Budget {
    /// 200,000 tokens, 1 US dollar, 200 calls, 10 minutes, 1 level, 20 tasks.
    fn default() -> Self {
        Self {
            tokens: 200_000,
            usd_micros: 1_000_000,
            calls: 200,
            wall_ms: 600_000,
            depth: 1,
            fan_out: 20,
        }
    }
}

/// What one task of an agent may spend; what is not said is the crew's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct AgentBudget {
    /// Tokens, read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
}

impl AgentBudget {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// Who plans, delegates, watches and puts the results together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Supervisor {
    /// The name of its model.
    pub model: String,
    /// What it has to know beside its trade; may be empty.
    pub instructions: String,
    /// How often it may change its plan; 3 when nothing is said.
    pub replans: u32,
    /// Its model's turns in one run; 20 when nothing is said.
    pub rounds: u32,
    /// What agents its plans may make up; without it, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn: Option<Spawn>,
}

/// What agents the plans of a run may make up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spawn {
    /// How many.
    pub agents: u32,
    /// The tools that they may be granted.
    pub tools: BTreeSet<String>,
    /// The name of their model.
    pub model: String,
}

/// An agent: a role, a model, and the tools it may use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agent {
    /// Counted up by whoever changes it; 1 when nothing is said.
    pub version: u32,
    /// When to give it work.
    pub description: String,
    /// The name of its model.
    pub model: String,
    /// Who it is and how it works.
    pub instructions: String,
    /// What it may use, and nothing else.
    pub tools: BTreeSet<String>,
    /// Its model's turns in one task; 12 when nothing is said.
    pub rounds: u32,
    /// What one task of it may spend, where that is less than what its run may.
    #[serde(skip_serializing_if = "AgentBudget::is_open")]
    pub budget: AgentBudget,
    /// The JSON Schema of what comes of its briefs; text when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A tool that is a program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandTool {
    /// The command line, run by `sh` in the crew's folder.
    pub command: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments: an object.
    pub input: Value,
    /// The JSON Schema of its result, if it says one.
    pub output: Option<Value>,
    /// How long a call may take; 30 seconds when nothing is said.
    pub timeout: Duration,
    /// What doing it twice would mean; at most once when nothing is said.
    pub effect: EffectClass,
    /// Arguments that text from outside must not fill without a person's yes.
    pub sensitive: BTreeSet<String>,
    /// A word to group tools by; `command` when nothing is said.
    pub category: String,
    /// Variables for the program.
    pub env: BTreeMap<String, EnvValue>,
    /// How often a call that failed is made again, where that does no harm; never when nothing is said.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry: u32,
    /// SHA-256, in hex, of the program's file, when the command line begins with a path.
    pub program: Option<String>,
}

/// An MCP server, whose tools agents may be granted as `SERVER.TOOL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct McpServer {
    /// How it is reached.
    #[serde(flatten)]
    pub way: McpWay,
    /// How long a call may take; 30 seconds when nothing is said.
    pub timeout: Duration,
    /// What making a call twice would mean, of tools of which nothing else is said; at most once when
    /// nothing is said.
    pub effect: EffectClass,
    /// What is said of single tools. When anything is, these are all that may be granted.
    pub tools: BTreeMap<String, McpTool>,
}

/// How an MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum McpWay {
    /// A program, spoken to over its standard input and output.
    Program {
        /// The command line, run by `sh` in the crew's folder.
        command: String,
        /// Variables for the program.
        env: BTreeMap<String, EnvValue>,
        /// SHA-256, in hex, of the program's file, when the command line begins with a path.
        program: Option<String>,
    },
    /// An address, spoken to over streamable HTTP.
    Address {
        /// Its http or https address.
        url: String,
        /// Its key, sent as a bearer token.
        key: Option<Secret>,
    },
}

/// What a crew file says of one tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct McpTool {
    /// Its name in the server's own words.
    pub name: String,
    /// What making a call twice would mean.
    pub effect: EffectClass,
    /// Arguments that text from outside must not fill without a person's yes.
    pub sensitive: BTreeSet<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An API that an OpenAPI document describes; agents may be granted its operations as `API.OPERATION`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Api {
    /// The document's file as it was written.
    pub openapi: String,
    /// Where it is.
    pub base_url: String,
    /// The crew file names that address itself, and so means it: it may be a private one.
    pub private: bool,
    /// Its key.
    pub key: Option<Secret>,
    /// How long a call may take; 30 seconds when nothing is said.
    pub timeout: Duration,
    /// How often a call that failed is made again, where that does no harm; `None` for
    /// [`crate::tool::RETRIES`], and for never where a call must not be repeated.
    pub retry: Option<u32>,
    /// A word to group tools by; `http` when nothing is said.
    pub category: String,
    /// The operations that may be granted, by name.
    pub operations: BTreeMap<String, Operation>,
}

/// What a variable of a command tool is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// What a secret stands for, looked up when the tool is called.
    Secret(Secret),
    /// This.
    Text(String),
}

/// What the built-in tools for files see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Files {
    /// The folder as it was written.
    pub root: String,
    /// The folder, absolute and without symbolic links.
    #[serde(skip)]
    pub path: PathBuf,
}

/// How the built-in tool `shell` is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shell {
    /// The folder as it was written; `None` for an empty one.
    pub root: Option<String>,
    /// The folder that commands see as `/work`, absolute and without symbolic links.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    /// Commands may write there.
    pub write: bool,
    /// Commands may use this machine's network, and reach all that it reaches.
    pub network: bool,
    /// Bytes of memory of all processes of a command.
    pub memory_bytes: u64,
    /// Processor time of all processes of a command.
    pub cpu: Duration,
    /// How long a command may take.
    pub timeout: Duration,
    /// Processes at the same time.
    pub processes: u32,
}

impl Default for Shell {
    /// No folder, no network, 512 MiB, 10 seconds of processor time, 30 seconds, 64 processes.
    fn default() -> Self {
        Self {
            root: None,
            folder: None,
            write: false,
            network: false,
            memory_bytes: 512 * 1024 * 1024,
            cpu: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            processes: 64,
        }
    }
}

impl Crew {
    /// The tools that anybody has, or may be given by a plan.
    pub fn granted(&self) -> BTreeSet<&String> {
        let agents = self.agents.values().flat_map(|agent| &agent.tools);
        let spawn = self.supervisor.spawn.iter();
        agents.chain(spawn.flat_map(|spawn| &spawn.tools)).collect()
    }

    /// Reads a crew file and what it refers to.
    ///
    /// # Errors
    /// Every mistake of the file, in their order in it, at most [`MISTAKES_MAX`]; when it is no YAML,
    /// the first place where that shows. The codes are `crew.unreadable`, `crew.too_large`,
    /// `crew.syntax`, `crew.unknown_key`, `crew.missing_key`, `crew.duplicate`, `crew.type`,
    /// `crew.value`, `crew.name`, `crew.reference`, `crew.cycle`, `crew.path`, `crew.schema`,
    /// `crew.secret`.
    pub fn load(path: &Path) -> Result<Self, Vec<CrewError>> {
        resolve::load(path)
    }

    /// Models that cost money of which nobody knows how much: their full names.
    #[must_use]
    pub fn unpriced(&self) -> Vec<String> {
        use crate::model::Provider;
        let free = |model: &CrewModel| {
            let provider = model.model.provider;
            model.base_url.is_some() || matches!(provider, Provider::Ollama | Provider::Scripted)
        };
        let unknown = self.models.values();
        let unknown = unknown.filter(|model| !free(model) && model.known_price().is_none());
        let names: BTreeSet<_> = unknown.map(|model| model.model.to_string()).collect();
        names.into_iter().collect()
    }

    /// Models whose key is not there now: the model's name and the variable that should hold it.
    #[must_use]
    pub fn keys_missing(&self) -> Vec<(&str, String)> {
        let unset = |variable: &String| std::env::var_os(variable).is_none_or(|v| v.is_empty());
        let variable = |model: &CrewModel| match &model.key {
            Some(secret) => Some(secret.variable()),
            // What speaks like a provider but is elsewhere may need no key.
            None if model.base_url.is_some() => None,
            None => model.model.provider.key_variable().map(str::to_owned),
        };
        let models = self.models.iter();
        let variables = models.filter_map(|(name, model)| Some((name.as_str(), variable(model)?)));
        variables.filter(|(_, variable)| unset(variable)).collect()
    }
}

/// A mistake in a crew file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrewError {
    /// The stable code, such as `crew.unknown_key`.
    pub code: &'static str,
    /// The crew file, as it was named.
    pub file: PathBuf,
    /// Where in it; `None` when it could not be read.
    pub place: Option<Place>,
    /// The line at that place, without anything that looks like a key; may be empty.
    pub excerpt: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for CrewError {
    /// `crew.yaml:3:5: there is no key …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for CrewError {}
