//! A crew file as it is written: the one place that says which keys there are.
//!
//! From these types come the reader, the published JSON Schema ([`schema`]) and, through it, the
//! checks of shape: bounds and patterns stand here as attributes. What is written may be left out, so
//! everything is an `Option`; the rules and the defaults are the resolver's.

use super::{
    AGENTS_MAX, API_PATTERN, APIS_MAX, APPROVALS_MAX, DESCRIPTION_CHARS_MAX, ENV_MAX, GRANTS_MAX,
    INSTRUCTIONS_CHARS_MAX, MODELS_MAX, NAME_PATTERN, SERVER_PATTERN, SERVER_TOOL_PATTERN,
    SERVERS_MAX, TOOL_PATTERN, TOOLS_MAX,
};
use crate::planning::spawn::SPAWNED_MAX;
use crate::planning::split::DEPTH_MAX;
use crate::tool::OPERATIONS_MAX;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
const DURATION_PATTERN: &str = "^[1-9][0-9]{0,8}(ms|s|m|h|d)$";
/// Bytes: a whole number and `kb`, `mb` or `gb`.
const SIZE_PATTERN: &str = "^[1-9][0-9]{0,8}(kb|mb|gb)$";
/// A word to group tools by.
const CATEGORY_PATTERN: &str = "^[A-Za-z][A-Za-z0-9_-]{0,63}$";
/// `provider/model`.
const MODEL_PATTERN: &str = "^[a-z_]+/[^\\s/][^\\s]{0,199}$";
/// A secret's handle.
const SECRET_PATTERN: &str = "^secret://[A-Z][A-Z0-9_]{0,63}$";
/// A variable of the environment.
const VARIABLE_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]{0,127}$";

/// A crew of agents: who they are, which models they ask, which tools they may use, and what all of it
/// may cost. `chargehand crew check` checks such a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Chargehand crew file", inline)]
pub(super) struct CrewFile {
    /// The version of this format: 1.
    #[schemars(required, range(min = 1, max = 1))]
    #[allow(dead_code, reason = "the schema allows one value only")]
    pub(super) version: Option<u32>,
    /// The crew's name: small letters, digits, `_` and `-`, beginning with a letter, at most 64.
    #[schemars(required, regex(pattern = NAME_PATTERN))]
    pub(super) name: Option<String>,
    /// What the crew is for, in a sentence or two.
    #[schemars(length(max = DESCRIPTION_CHARS_MAX))]
    pub(super) description: Option<String>,
    /// The models, by the names that are used below. A plain text is short for `{model: …}`.
    #[schemars(required, extend("propertyNames" = json!({"pattern": NAME_PATTERN}), "minProperties" = 1, "maxProperties" = MODELS_MAX))]
    pub(super) models: Option<BTreeMap<String, ModelFile>>,
    /// What a run may spend. Each has a default, which `chargehand crew check` shows.
    pub(super) budget: Option<BudgetFile>,
    /// Who plans, delegates, watches and puts the results together.
    pub(super) supervisor: Option<SupervisorFile>,
    /// The agents, by name.
    #[schemars(required, extend("propertyNames" = json!({"pattern": NAME_PATTERN}), "minProperties" = 1, "maxProperties" = AGENTS_MAX))]
    pub(super) agents: Option<BTreeMap<String, AgentFile>>,
    /// Tools that are programs of yours, by name, and settings of the built-in ones.
    pub(super) tools: Option<ToolsFile>,
    /// MCP servers, by name. Agents are granted their tools as `SERVER.TOOL`.
    #[schemars(extend("propertyNames" = json!({"pattern": SERVER_PATTERN}), "maxProperties" = SERVERS_MAX))]
    pub(super) mcp: Option<BTreeMap<String, ServerFile>>,
    /// APIs that an OpenAPI document describes, by name. Agents are granted their operations as
    /// `API.OPERATION`.
    #[schemars(extend("propertyNames" = json!({"pattern": API_PATTERN}), "maxProperties" = APIS_MAX))]
    pub(super) apis: Option<BTreeMap<String, ApiFile>>,
    /// What needs more than a grant.
    pub(super) policies: Option<PoliciesFile>,
}

/// A model: its full name, such as `anthropic/claude-haiku-4-5`, or a map with more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ModelFile {
    /// PROVIDER/MODEL, such as `anthropic/claude-haiku-4-5`.
    Short(#[schemars(regex(pattern = MODEL_PATTERN))] String),
    /// With settings.
    Full(ModelSettings),
}

/// A model with settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelSettings {
    /// PROVIDER/MODEL, such as `openai/qwen3`.
    #[schemars(required, regex(pattern = MODEL_PATTERN))]
    pub(super) model: Option<String>,
    /// Where the provider is, if not where it always is: an http or https address without a user's
    /// name.
    #[schemars(length(max = 2_000))]
    pub(super) base_url: Option<String>,
    /// Its key, as a handle: `secret://NAME` is the environment variable `CHARGEHAND_SECRET_NAME`.
    #[schemars(regex(pattern = SECRET_PATTERN))]
    pub(super) key: Option<String>,
    /// The name of another model of this file, asked when this one does not answer.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub(super) fallback: Option<String>,
    /// What it costs, in US dollars for a million tokens. Without it, the price that is known of the
    /// provider's model; at a `base_url`, nothing.
    pub(super) price: Option<PriceFile>,
    /// Tokens of one answer, at most: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) tokens_max: Option<u32>,
    /// How freely it chooses its words: 0 to 2.
    #[schemars(range(min = 0, max = 2))]
    pub(super) temperature: Option<f32>,
}

/// What a model costs, in US dollars for a million tokens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceFile {
    /// Of tokens read: 0 to 10000.
    #[schemars(required, range(min = 0, max = 10_000))]
    pub(super) input: Option<f64>,
    /// Of tokens read from the provider's cache: 0 to 10000; as `input` when nothing is said.
    #[schemars(range(min = 0, max = 10_000))]
    pub(super) cached: Option<f64>,
    /// Of tokens written: 0 to 10000.
    #[schemars(required, range(min = 0, max = 10_000))]
    pub(super) output: Option<f64>,
}

/// What a run may spend; the agents share it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetFile {
    /// Tokens, read and written: 1 to 1000000000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) tokens: Option<u64>,
    /// US dollars: 0.0001 to 100000.
    #[schemars(range(min = 0.0001, max = 100_000))]
    pub(super) usd: Option<f64>,
    /// Calls of models and tools: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) calls: Option<u32>,
    /// Time on the clock, such as `10m`: 1 second to 30 days.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) wall: Option<String>,
    /// How deep plans of plans may go: 1 to 5. With 1 no brief is planned by itself.
    #[schemars(range(min = 1, max = DEPTH_MAX))]
    pub(super) depth: Option<u32>,
    /// Tasks of one plan: 1 to 1000.
    #[schemars(range(min = 1, max = 1_000))]
    pub(super) fan_out: Option<u32>,
}

/// What one task of an agent may spend; what is not said is bounded by the crew's budget, as all of it
/// is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentBudgetFile {
    /// Tokens, read and written: 1 to 1000000000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(super) tokens: Option<u64>,
    /// US dollars: 0.0001 to 100000.
    #[schemars(range(min = 0.0001, max = 100_000))]
    pub(super) usd: Option<f64>,
    /// Calls of tools: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) calls: Option<u32>,
}

/// Who plans, delegates, watches and puts the results together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SupervisorFile {
    /// The name of one of the models; may be left out when there is only one.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub(super) model: Option<String>,
    /// What it has to know beside its trade, in words.
    #[schemars(length(max = INSTRUCTIONS_CHARS_MAX))]
    pub(super) instructions: Option<String>,
    /// A file with the instructions, in the crew file's folder or below.
    #[schemars(length(min = 1, max = 1_000))]
    pub(super) instructions_file: Option<String>,
    /// How often it may change its plan: 0 to 20.
    #[schemars(range(min = 0, max = 20))]
    pub(super) replans: Option<u32>,
    /// Its model's turns in one run: 1 to 200.
    #[schemars(range(min = 1, max = 200))]
    pub(super) rounds: Option<u32>,
    /// Agents that its plans may make up for their run; without this, none.
    pub(super) spawn: Option<SpawnFile>,
}

/// What agents the plans of a run may make up.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpawnFile {
    /// How many in one run: 1 to 50.
    #[schemars(required, range(min = 1, max = SPAWNED_MAX))]
    pub(super) agents: Option<u32>,
    /// The tools that they may be granted, by name, and no others.
    #[schemars(length(max = GRANTS_MAX), inner(regex(pattern = TOOL_PATTERN)))]
    pub(super) tools: Option<Vec<String>>,
    /// The name of one of the models; the supervisor's when nothing is said.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub(super) model: Option<String>,
}

/// An agent: a role, a model, and the tools it may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    /// The agent's version, from 1; count it up when the agent changes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) version: Option<u32>,
    /// When to give it work: the supervisor reads this.
    #[schemars(required, length(min = 1, max = DESCRIPTION_CHARS_MAX))]
    pub(super) description: Option<String>,
    /// The name of one of the models; may be left out when there is only one.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub(super) model: Option<String>,
    /// Who it is and how it works, in words. This or `instructions_file`.
    #[schemars(length(max = INSTRUCTIONS_CHARS_MAX))]
    pub(super) instructions: Option<String>,
    /// A file with the instructions, in the crew file's folder or below.
    #[schemars(length(min = 1, max = 1_000))]
    pub(super) instructions_file: Option<String>,
    /// The tools it may use, by name, and no others.
    #[schemars(length(max = GRANTS_MAX), inner(regex(pattern = TOOL_PATTERN)))]
    pub(super) tools: Option<Vec<String>>,
    /// Its model's turns in one task: 1 to 2000.
    #[schemars(range(min = 1, max = 2_000))]
    pub(super) rounds: Option<u32>,
    /// What one task of it may spend, where that is less than what its run may.
    pub(super) budget: Option<AgentBudgetFile>,
    /// A JSON Schema of what comes of its briefs; without it, text. An answer that does not satisfy it
    /// is sent back.
    pub(super) output: Option<Map<String, Value>>,
}

/// Tools that are programs of yours, by name, and settings of the built-in ones.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(extend("propertyNames" = json!({"pattern": TOOL_PATTERN}), "maxProperties" = TOOLS_MAX))]
pub(super) struct ToolsFile {
    /// Settings of the built-in tools `files.read`, `files.list` and `files.search`.
    pub(super) files: Option<FilesFile>,
    /// Bounds of the built-in tool `shell`.
    pub(super) shell: Option<ShellFile>,
    #[serde(flatten)]
    pub(super) commands: BTreeMap<String, CommandFile>,
}

/// Settings of the built-in tools for files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesFile {
    /// The folder they see, and nothing outside of it; from the crew file's folder on.
    #[schemars(required, length(min = 1, max = 1_000))]
    pub(super) root: Option<String>,
}

/// Bounds of the built-in tool `shell`, which runs command lines in a sandbox.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShellFile {
    /// The folder that commands see as `/work`; from the crew file's folder on. Without it, an empty
    /// one.
    #[schemars(length(min = 1, max = 1_000))]
    pub(super) root: Option<String>,
    /// Whether commands may write below `root`. The default is false.
    pub(super) write: Option<bool>,
    /// Whether commands may use the network: all that this machine reaches. The default is false.
    pub(super) network: Option<bool>,
    /// Memory of all processes of a command, such as `512mb`: 16mb to 64gb.
    #[schemars(regex(pattern = SIZE_PATTERN))]
    pub(super) memory: Option<String>,
    /// Processor time of a command, such as `10s`: 1 second to 1 hour.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) cpu: Option<String>,
    /// How long a command may take, such as `30s`: 1 second to 1 hour.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) timeout: Option<String>,
    /// Processes of a command at the same time: 4 to 256.
    #[schemars(range(min = 4, max = 256))]
    pub(super) processes: Option<u32>,
}

/// A tool that is a program: arguments as JSON on its standard input, the result as JSON on its
/// standard output.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandFile {
    /// The command line, run by `sh` in the crew file's folder.
    #[schemars(required, length(min = 1, max = 4_000))]
    pub(super) command: Option<String>,
    /// What it does and when to use it: models read this.
    #[schemars(required, length(min = 1, max = DESCRIPTION_CHARS_MAX))]
    pub(super) description: Option<String>,
    /// A JSON Schema of its arguments: `type: object`.
    #[schemars(required)]
    pub(super) input: Option<Map<String, Value>>,
    /// A JSON Schema of its result; without it, any JSON will do.
    pub(super) output: Option<Map<String, Value>>,
    /// How long a call may take, such as `10s`: 10 ms to 1 hour.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) timeout: Option<String>,
    /// What doing it twice would mean.
    pub(super) effect: Option<EffectFile>,
    /// Arguments that text from outside must not fill without a person's yes.
    #[schemars(length(max = 100))]
    pub(super) sensitive: Option<Vec<String>>,
    /// How often a call that failed is made again, where that does no harm: 0 to 10.
    #[schemars(range(min = 0, max = 10))]
    pub(super) retry: Option<u32>,
    /// A word to group tools by, in letters of either case.
    #[schemars(regex(pattern = CATEGORY_PATTERN))]
    pub(super) category: Option<String>,
    /// Variables for the program, which otherwise gets `PATH`, `HOME` and `LANG` only. A value is a
    /// text, or a secret's handle: `secret://NAME` is the environment variable
    /// `CHARGEHAND_SECRET_NAME`.
    #[schemars(extend("propertyNames" = json!({"pattern": VARIABLE_PATTERN}), "maxProperties" = ENV_MAX))]
    pub(super) env: Option<BTreeMap<String, String>>,
}

/// An MCP server: a program (`command`), or an address (`url`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerFile {
    /// The command line of a server that is spoken to over its standard input and output, run by `sh`
    /// in the crew file's folder when one of its tools is first needed. This or `url`.
    #[schemars(length(min = 1, max = 4_000))]
    pub(super) command: Option<String>,
    /// The address of a server that is spoken to over streamable HTTP: http or https, without a user's
    /// name. This or `command`.
    #[schemars(length(min = 1, max = 2_000))]
    pub(super) url: Option<String>,
    /// The key for the address, sent as a bearer token, as a handle: `secret://NAME` is the environment
    /// variable `CHARGEHAND_SECRET_NAME`.
    #[schemars(regex(pattern = SECRET_PATTERN))]
    pub(super) key: Option<String>,
    /// Variables for the program, which otherwise gets `PATH`, `HOME` and `LANG` only. A value is a
    /// text, or a secret's handle: `secret://NAME` is the environment variable
    /// `CHARGEHAND_SECRET_NAME`.
    #[schemars(extend("propertyNames" = json!({"pattern": VARIABLE_PATTERN}), "maxProperties" = ENV_MAX))]
    pub(super) env: Option<BTreeMap<String, String>>,
    /// How long a call may take, such as `10s`: 10 ms to 1 hour.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) timeout: Option<String>,
    /// What making a call twice would mean. What the server says of that itself is not trusted.
    pub(super) effect: Option<EffectFile>,
    /// Single tools, by the second part of their names here. When any is listed, only those that are
    /// can be granted.
    #[schemars(extend("propertyNames" = json!({"pattern": SERVER_TOOL_PATTERN}), "maxProperties" = TOOLS_MAX))]
    pub(super) tools: Option<BTreeMap<String, ServerToolFile>>,
}

/// What is said of one tool of an MCP server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerToolFile {
    /// Its name in the server's own words, if that is another.
    #[schemars(length(min = 1, max = 128))]
    pub(super) name: Option<String>,
    /// What making a call twice would mean, if not what its server's `effect` says.
    pub(super) effect: Option<EffectFile>,
    /// Arguments that text from outside must not fill without a person's yes.
    #[schemars(length(max = 100))]
    pub(super) sensitive: Option<Vec<String>>,
}

/// An API that an OpenAPI document describes: each of its operations is a tool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiFile {
    /// The document's file (OpenAPI 3.0 or 3.1, JSON or YAML), in the crew file's folder or below.
    #[schemars(required, length(min = 1, max = 1_000))]
    pub(super) openapi: Option<String>,
    /// Where the API is, if not where its document says: an http or https address without a user's
    /// name. An address that stands here may be a private one.
    #[schemars(length(max = 2_000))]
    pub(super) base_url: Option<String>,
    /// Its key, as a handle: `secret://NAME` is the environment variable `CHARGEHAND_SECRET_NAME`. It
    /// goes where the document says, or is a bearer's.
    #[schemars(regex(pattern = SECRET_PATTERN))]
    pub(super) key: Option<String>,
    /// The operations that may be granted, by the document's names or their tools'; all when nothing
    /// is said.
    #[schemars(length(max = OPERATIONS_MAX))]
    pub(super) operations: Option<Vec<String>>,
    /// What doing it twice would mean, by operation. Without a word here it is `pure` for GET, `keyed`
    /// for PUT and DELETE, and `at_most_once` for the others.
    #[schemars(extend("maxProperties" = OPERATIONS_MAX))]
    pub(super) effects: Option<BTreeMap<String, EffectFile>>,
    /// How long a call may take, such as `10s`: 10 ms to 1 hour.
    #[schemars(regex(pattern = DURATION_PATTERN))]
    pub(super) timeout: Option<String>,
    /// How often a call that failed is made again, where that does no harm: 0 to 10.
    #[schemars(range(min = 0, max = 10))]
    pub(super) retry: Option<u32>,
    /// A word to group tools by, in letters of either case.
    #[schemars(regex(pattern = CATEGORY_PATTERN))]
    pub(super) category: Option<String>,
}

/// What doing it twice would mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EffectFile {
    /// Nothing but cost: it changes nothing outside.
    Pure,
    /// Nothing: the program knows the call by its key and does it once.
    Keyed,
    /// A second effect; but whether the first happened can be found out.
    VerifyFirst,
    /// A second effect, and only a person can find out whether the first happened. The default.
    AtMostOnce,
}

/// What needs more than a grant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoliciesFile {
    /// Tools whose every call waits for a person's yes.
    #[schemars(length(max = APPROVALS_MAX), inner(regex(pattern = TOOL_PATTERN)))]
    pub(super) approve: Option<Vec<String>>,
}

/// The JSON Schema (2020-12) of a crew file.
///
/// ```
/// let schema = agent::crew::schema();
/// assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
/// ```
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(CrewFile).to_value()
}
