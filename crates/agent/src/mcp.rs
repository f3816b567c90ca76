//! MCP servers as a source of tools: programs spoken to over standard input and output, and addresses
//! spoken to over streamable HTTP, in the protocol's revisions 2026-07-28 and 2025-11-25.
//!
//! A server is somebody else's program, so nothing it says is taken on trust. Its tools are there for
//! an agent only by the names that the crew file grants; what a repeated call would mean is what the
//! crew file says, whatever the server's annotations claim; arguments are checked here before it sees
//! them, and its result against the schema that it promised; and all that it sends has a bound in
//! bytes, entries and time. What it says of itself reaches models as a tool's description or a call's
//! result, and nowhere else. Secrets that it was given are taken out of all that it says where it is
//! heard, before anything is cut.
//!
//! A server is started, or connected to, when one of its tools is first needed, and is shared by all
//! agents of the crew. One that cannot be reached, or breaks off, is tried again at once, then after
//! pauses that double up to [`PAUSE_MAX`]; meanwhile calls fail without trying, and after a pause one
//! try finds out for all. A call that broke off is never made again here: whether it may be is for
//! whoever keeps the receipts, by the tool's effect class.
//!
//! Deliberately absent: what a server may ask of its client (sampling, elicitation, roots) is declined;
//! its prompts and resources are not read; OAuth; tasks that outlive a call; the transport of 2024
//! (HTTP with a stream of its own). Progress is for whoever watches, and buys no time.

mod connection;
mod content;
mod listed;
mod progress;

use crate::crew::{Crew, McpServer, McpTool, McpWay};
use crate::tool::command::{Revealed, variables};
use crate::tool::{ARGUMENTS_BYTES_MAX, Tell, Told, Tool, ToolCard, cut, fits, nobody};
use async_trait::async_trait;
use connection::{Broken, Connection};
use domain::name::{Name, nearest};
use domain::task::Failure;
use listed::{Listed, Offer};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longest time that a server may take to start, or to be connected to. A package that is fetched
/// before it starts needs some.
pub const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time that a server may take to list its tools, all pages together.
pub const LIST_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of one message of a server at most: a line, or an event of a stream. One that is longer ends
/// the connection. (A plain JSON answer over HTTP may have 16 MiB.)
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages of a tool list that are read at most.
pub const PAGES_MAX: usize = 50;
/// Tools of one server that are looked at, at most; the rest is as if it were not there.
pub const TOOLS_MAX: usize = 1_000;
/// Characters of a tool's description that models are told at most.
pub const DESCRIPTION_CHARS_MAX: usize = 2_000;
/// Bytes of a schema at most, as JSON; a tool with a larger one cannot be used.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// How long a tool list counts of which the server does not say how long.
pub const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// How long a tool list counts at most, whatever the server says.
pub const TTL_MAX: Duration = Duration::from_secs(3_600);
/// How long a tool list counts at least, unless the server says that it changed: one turn of a model
/// asks once.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Calls of one server under way at once at most; others wait.
pub const CALLS_AT_ONCE_MAX: usize = 16;
/// The first pause after a server could not be reached twice, and the longest.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// See [`PAUSE_FIRST`].
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// So long before a call's time is over it must have been sent, or it is not sent any more.
const REACH_MARGIN: Duration = Duration::from_millis(200);
/// Where in a call's `_meta` the key is that is the same whenever the call is made again.
pub const KEY_FIELD: &str = "chargehand/idempotencyKey";

/// The tools of a crew's MCP servers that any of its agents may use.
pub(crate) fn tools(crew: &Crew) -> Vec<Arc<dyn Tool>> {
    let servers = servers(crew).into_iter();
    let tools = servers.flat_map(|(_, server)| server.tools());
    let tools = tools.map(|tool| Arc::new(tool) as Arc<dyn Tool>);
    tools.collect()
}

/// How the MCP servers of a crew do, by name. Those that are not needed by anybody are asked as well.
pub async fn health(crew: &Crew) -> BTreeMap<String, Health> {
    let mut asked = JoinSet::new();
    for (name, server) in servers(crew) {
        asked.spawn(async move { (name, server.health().await) });
    }
    asked.join_all().await.into_iter().collect()
}

/// The servers of a crew, each with the tools that were granted to anybody.
fn servers(crew: &Crew) -> Vec<(String, Arc<Server>)> {
    let granted = crew.granted();
    let server = |(name, settings): (&String, &McpServer)| {
        let of_server = granted.iter().filter_map(|granted| {
            let (server, tool) = granted.split_once('.')?;
            (server == name).then_some(tool)
        });
        let server = Server::new(name, settings, &crew.folder, of_server);
        (name.clone(), server)
    };
    crew.mcp.iter().map(server).collect()
}

/// An MCP server of a crew. Nothing is started or sent before one of its tools is needed; what was
/// started is stopped when this and its tools are dropped.
pub struct Server {
    name: String,
    settings: McpServer,
    folder: PathBuf,
    /// What was granted to anybody, by the second part of the name.
    granted: BTreeMap<String, McpTool>,
    line: Mutex<Line>,
    calls: Semaphore,
}

/// The way to a server.
#[derive(Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    /// Tries in a row after which no call was answered.
    tries: u32,
    not_before: Option<Instant>,
    /// Why the last try was in vain.
    why: String,
}

/// How a server does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// It answers.
    Available {
        /// The protocol's revision that is spoken with it.
        protocol: String,
        /// The tools it has, by the names that it gives them; without control characters.
        tools: BTreeSet<String>,
        /// Tools that were granted and cannot be used, each with the reason.
        unusable: BTreeMap<String, Unusable>,
    },
    /// It does not.
    Unavailable {
        /// Why.
        why: String,
    },
}

/// Why a tool that was granted cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unusable {
    /// `mcp.no_tool` or `mcp.schema`.
    pub code: String,
    /// For people.
    pub why: String,
}

impl Server {
    /// As a crew file says, of which these tools were granted.
    pub fn new<'a>(
        name: &str,
        settings: &McpServer,
        folder: &Path,
        granted: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Self> {
        let known = |tool: &str| {
            let said = settings.tools.get(tool).cloned();
            said.unwrap_or_else(|| McpTool {
                name: tool.to_owned(),
                effect: settings.effect,
                sensitive: BTreeSet::new(),
            })
        };
        let granted = granted.into_iter();
        Arc::new(Self {
            name: name.to_owned(),
            settings: settings.clone(),
            folder: folder.to_owned(),
            granted: granted.map(|tool| (tool.to_owned(), known(tool))).collect(),
            line: Mutex::default(),
            calls: Semaphore::new(CALLS_AT_ONCE_MAX),
        })
    }

    /// Its tools that were granted.
    #[must_use]
    pub fn tools(self: &Arc<Self>) -> Vec<RemoteTool> {
        let tool = |(tool, known): (&String, &McpTool)| {
            let card = ToolCard {
                name: Name::new(format!("{}.{tool}", self.name)).ok()?,
                description: format!("A tool of the MCP server “{}”.", self.name),
                // Its own schema is not known before it is asked.
                input: json!({"type": "object"}),
                output: None,
                effect: known.effect,
                timeout: self.settings.timeout,
                category: "mcp".into(),
                sensitive: known.sensitive.iter().cloned().collect(),
                untrusted_output: true,
            };
            let (server, tool) = (Arc::clone(self), known.name.clone());
            Some(RemoteTool { card, server, tool })
        };
        self.granted.iter().filter_map(tool).collect()
    }

    /// Asks it for its tools, unless it just has been, and says how it does.
    pub async fn health(&self) -> Health {
        let asked = async {
            let connection = self.connection().await?;
            let listed = self.listed(&connection, true).await?;
            Ok::<_, Failure>((connection.protocol(), listed))
        };
        match asked.await {
            Ok((protocol, listed)) => {
                let granted = self.granted.iter();
                let unusable = granted.filter_map(|(tool, known)| {
                    let failure = self.offered(&listed, &known.name).err()?;
                    let (code, why) = (failure.code, failure.message);
                    Some((format!("{}.{tool}", self.name), Unusable { code, why }))
                });
                Health::Available {
                    protocol,
                    tools: listed.names().map(printable).collect(),
                    unusable: unusable.collect(),
                }
            }
            Err(failure) => Health::Unavailable {
                why: failure.message,
            },
        }
    }

    /// Whether what it needs from here is here.
    fn equipped(&self) -> Result<(), String> {
        match &self.settings.way {
            McpWay::Program { env, .. } => variables(env).map(drop),
            McpWay::Address { key, .. } => key
                .as_ref()
                .map_or(Ok(()), |key| Revealed::of(key).map(drop)),
        }
    }

    /// The connection there is, or a new one.
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            if connection.is_open() {
                return Ok(Arc::clone(connection));
            }
            line.connection = None;
        }
        let now = Instant::now();
        if let Some(later) = line.not_before.filter(|later| *later > now) {
            let s = later.duration_since(now).as_secs() + 1;
            let text = format!("{}; it is tried again in {s} s", line.why);
            return Err(self.unreachable(text));
        }
        // Counted before it is made: a try that is broken off was one.
        line.tries += 1;
        line.not_before = pause(line.tries).map(|pause| now + pause);
        line.why = "the last try to reach it was broken off".into();
        let connected = timeout(START_TIME_MAX, self.connect());
        let connected = connected.await.unwrap_or_else(|_| {
            let s = START_TIME_MAX.as_secs();
            Err(format!("it did not answer within {s} s"))
        });
        match connected {
            Ok(connection) => {
                let connection = Arc::new(connection);
                line.connection = Some(Arc::clone(&connection));
                line.why = "it broke off".into();
                Ok(connection)
            }
            Err(why) => {
                line.not_before = pause(line.tries).map(|pause| Instant::now() + pause);
                line.why.clone_from(&why);
                Err(self.unreachable(why))
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        match &self.settings.way {
            McpWay::Program { command, env, .. } => {
                let (variables, revealed) = variables(env)?;
                Connection::to_program(&self.folder, command, &variables, revealed).await
            }
            McpWay::Address { url, key } => {
                let key = key.as_ref().map(Revealed::of).transpose()?;
                Connection::to_address(url, key).await
            }
        }
    }

    /// Its tools, as they were listed, or as they are now: when the list has had its time, when it
    /// says that it changed, when it is not known whether it still answers, or when asked to; then all
    /// of them, otherwise as far as it takes to find those that were granted.
    async fn listed(
        &self,
        connection: &Arc<Connection>,
        anew: bool,
    ) -> Result<Arc<Listed>, Failure> {
        let mut held = connection.listed.lock().await;
        let said = connection.changes();
        if let Some(listed) = &*held
            && !anew
            && !connection.is_doubtful()
            && listed.counts(said)
        {
            return Ok(Arc::clone(listed));
        }
        let wanted = self.granted.values().map(|tool| tool.name.as_str());
        let wanted: BTreeSet<&str> = wanted.collect();
        let asked = timeout(LIST_TIME_MAX, Listed::of(connection, &wanted, anew, said));
        let asked = asked.await.unwrap_or_else(|_| {
            let s = LIST_TIME_MAX.as_secs();
            Err(Broken::off(format!(
                "it did not list its tools within {s} s"
            )))
        });
        match asked {
            Ok(listed) => {
                connection.is_well();
                let listed = Arc::new(listed);
                *held = Some(Arc::clone(&listed));
                Ok(listed)
            }
            Err(broken) => {
                drop(held);
                let why = self.put_away(connection, &broken).await;
                Err(self.unreachable(why))
            }
        }
    }

    fn offered<'a>(&self, listed: &'a Listed, tool: &str) -> Result<&'a Offer, Failure> {
        match listed.offer(tool) {
            Some(Ok(offer)) => Ok(offer),
            Some(Err(why)) => {
                let text = format!("“{tool}” of “{}” cannot be used: {why}", self.name);
                Err(Failure::permanent("mcp.schema", text))
            }
            None => {
                let meant = match nearest(tool, listed.names()) {
                    Some(meant) => format!("; did you mean “{}”?", cut(meant)),
                    None => String::new(),
                };
                let text = format!("“{}” has no tool “{tool}” (any more){meant}", self.name);
                Err(Failure::permanent("mcp.no_tool", text))
            }
        }
    }

    /// A tool of it, as it is now.
    async fn offer(&self, connection: &Arc<Connection>, tool: &str) -> Result<Offer, Failure> {
        let listed = self.listed(connection, false).await?;
        match self.offered(&listed, tool) {
            Ok(offer) => Ok(offer.clone()),
            // It may be new.
            Err(_) if !listed.is_new() => {
                let listed = self.listed(connection, true).await?;
                self.offered(&listed, tool).cloned()
            }
            Err(failure) => Err(failure),
        }
    }

    async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        key: &str,
        tell: &Tell,
    ) -> Result<Value, Failure> {
        let reached = async {
            let turn = self.calls.acquire().await;
            let turn = turn.map_err(|_| self.unreachable("it is stopped".into()))?;
            let connection = self.connection().await?;
            let offer = self.offer(&connection, tool).await?;
            Ok::<_, Failure>((turn, connection, offer))
        };
        // Whoever takes the time for a call's whole cannot tell whether it was sent. So what comes
        // before has a limit of its own, a little earlier: then nothing is in doubt.
        let limit = self.settings.timeout;
        let reached = timeout(limit - REACH_MARGIN.min(limit / 4), reached);
        let (_turn, connection, offer) = reached.await.unwrap_or_else(|_| {
            let ms = limit.as_millis();
            Err(self.unreachable(format!("it was not reached within the {ms} ms of a call")))
        })?;
        if let Err(complaint) = fits(arguments, ARGUMENTS_BYTES_MAX, Some(&offer.accepts)) {
            let text = format!(
                "“{tool}” of “{}” cannot be called so: {complaint}",
                self.name
            );
            return Err(Failure::permanent("tool.arguments", text));
        }
        let result = match connection.call(tool, arguments, key, tell).await {
            Ok(result) => result,
            Err(broken) => return Err(self.ended(&connection, broken).await),
        };
        self.answered(&connection).await;
        if result.is_error {
            let text = match &result.value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let text = format!(
                "“{tool}” of “{}” says: {}",
                self.name,
                content::short(&text)
            );
            return Err(Failure::permanent("tool.failed", text));
        }
        if let Some(promise) = &offer.promises {
            let promised = match result.structured {
                true => fits(&result.value, usize::MAX, Some(promise)),
                false => Err("no structured content".to_owned()),
            };
            if let Err(complaint) = promised {
                let text = format!(
                    "what “{tool}” of “{}” gave is not what it promises: {complaint}",
                    self.name
                );
                return Err(Failure::permanent("tool.output", text));
            }
        }
        Ok(result.value)
    }

    /// It answered a call: whatever was before, it is well.
    async fn answered(&self, connection: &Arc<Connection>) {
        connection.is_well();
        let mut line = self.line.lock().await;
        (line.tries, line.not_before) = (0, None);
    }

    /// What a call that broke comes to.
    async fn ended(&self, connection: &Arc<Connection>, broken: Broken) -> Failure {
        let why = self.put_away(connection, &broken).await;
        let text = format!("the MCP server “{}”: {why}", self.name);
        Failure {
            retryable: broken.retryable,
            ..Failure::new(broken.code, text)
        }
    }

    /// Why something broke. A connection that is over is not used again.
    async fn put_away(&self, connection: &Arc<Connection>, broken: &Broken) -> String {
        let story = connection.story().await;
        let why = format!("{}{story}", broken.why);
        if broken.over {
            let mut line = self.line.lock().await;
            let held = line.connection.as_ref();
            if held.is_some_and(|held| Arc::ptr_eq(held, connection)) {
                line.connection = None;
                line.why.clone_from(&why);
            }
        }
        why
    }

    fn unreachable(&self, why: String) -> Failure {
        let name = &self.name;
        let text = format!("the MCP server “{name}” cannot be used now: {why}");
        Failure::new("mcp.unreachable", text)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// How long to wait after this many tries in a row that led to nothing. The first may be followed at
/// once.
fn pause(tries: u32) -> Option<Duration> {
    let doublings = tries.checked_sub(2)?;
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    Some(PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX))
}

/// A tool of an MCP server, under the name that a crew gives it.
#[derive(Debug)]
pub struct RemoteTool {
    card: ToolCard,
    server: Arc<Server>,
    /// Its name in the server's words.
    tool: String,
}

#[async_trait]
impl Tool for RemoteTool {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    /// Whether what the server needs from here is here. Whether it can be reached and has the tool is
    /// found out by calling: what cannot be called is not.
    async fn available(&self) -> Result<(), String> {
        self.server.equipped()
    }

    /// Whether the server can be reached and has the tool: it is asked.
    async fn reachable(&self) -> Result<(), String> {
        self.available().await?;
        let asked = async {
            let connection = self.server.connection().await?;
            self.server.offer(&connection, &self.tool).await
        };
        asked
            .await
            .map(drop)
            .map_err(|failure: Failure| failure.message)
    }

    async fn told(&self) -> Told {
        let asked = async {
            let connection = self.server.connection().await?;
            let offer = self.server.offer(&connection, &self.tool).await?;
            Ok::<_, Failure>((offer.description, offer.input))
        };
        let server = &self.server.name;
        match asked.await {
            Ok((said, input)) => Told {
                description: format!("[MCP server “{server}”] {said}"),
                input,
            },
            // Always in the same words: a question that is asked again shall be the same.
            Err(failure) => Told {
                description: format!(
                    "[MCP server “{server}”] This tool cannot be used now ({}).",
                    failure.code
                ),
                input: self.card.input.clone(),
            },
        }
    }

    async fn call(&self, arguments: &Value, key: &str) -> Result<Value, Failure> {
        self.call_telling(arguments, key, &nobody()).await
    }

    async fn call_telling(
        &self,
        arguments: &Value,
        key: &str,
        tell: &Tell,
    ) -> Result<Value, Failure> {
        let called = self.server.call(&self.tool, arguments, key, tell).await;
        called.map_err(|failure| match failure.code.as_str() {
            "mcp.broken" | "mcp.protocol" => Failure {
                retryable: self.card.effect.is_repeatable(),
                ..failure
            },
            _ => failure,
        })
    }
}
