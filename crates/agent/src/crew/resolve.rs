//! What the schema cannot say: references, files, secrets, and the defaults.

use super::file::{
    AgentBudgetFile, AgentFile, ApiFile, BudgetFile, CommandFile, CrewFile, EffectFile, ModelFile,
    ModelSettings, PriceFile, ServerFile, ShellFile, SpawnFile, SupervisorFile,
};
use super::shape::{self, Mistake, shown};
use super::tree::{Kind, Node, Place, escaped, parse, parse_bounded};
use super::*;
use crate::assistant::DELEGATE;
use crate::board;
use crate::command;
use crate::model::Provider;
use crate::model::price::Price;
use crate::model::scripted::Script;
use crate::tool::openapi;
use crate::tool::{BUILT_IN, DOCUMENT_BYTES_MAX, DOCUMENT_NODES_MAX, OPERATIONS_MAX};
use domain::name::nearest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;

/// Bytes of a program's file that go into its digest at most; a larger one counts by its size.
const PROGRAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Keys of `tools` that are settings of built-in tools, and no tools.
const SETTINGS: &[&str] = &["files", "shell"];
/// Characters of a line that an error shows.
const EXCERPT_CHARS_MAX: usize = 160;

pub(super) fn load(path: &Path) -> Result<Crew, Vec<CrewError>> {
    let unplaced = |code, message: String, hint: &str| {
        vec![CrewError {
            code,
            file: path.to_owned(),
            place: None,
            excerpt: String::new(),
            message,
            hint: hint.to_owned(),
        }]
    };
    let bytes = match bytes_of(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(Unread::TooLarge) => {
            let message = format!("has more than {FILE_BYTES_MAX} bytes, the most for a crew file");
            let hint = "Move instructions into files of their own, or split the crew.";
            return Err(unplaced("crew.too_large", message, hint));
        }
        Err(Unread::NoFile) => {
            let hint = "Name the file itself.";
            return Err(unplaced("crew.unreadable", "is not a file".into(), hint));
        }
        Err(Unread::Fault(fault)) => {
            let hint = "Check the path; `chargehand init` writes a crew file to begin with.";
            return Err(unplaced(
                "crew.unreadable",
                format!("cannot be read: {fault}"),
                hint,
            ));
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(fault) => {
            let good = fault.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&fault.as_bytes()[..good]).into_owned();
            let at = Place {
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
            };
            let mistake = Mistake {
                at,
                code: "crew.syntax",
                message: "this is not UTF-8".into(),
                hint: "Save the file as UTF-8.".into(),
            };
            return Err(placed(path, &before, vec![mistake]));
        }
    };
    let tree = match parse(&text) {
        Ok(tree) => tree,
        Err((at, said)) => {
            let mistake = Mistake {
                at: at.unwrap_or(Place { line: 1, column: 1 }),
                code: "crew.syntax",
                message: format!("this is not YAML: {said}"),
                hint: "Look at the indentation, and at brackets and quotes left open; a text with `: ` or ` #` in it stands in quotes.".into(),
            };
            return Err(placed(path, &text, vec![mistake]));
        }
    };
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = match parent.unwrap_or(Path::new(".")).canonicalize() {
        Ok(folder) => folder,
        Err(fault) => {
            let message = format!("is in a folder that cannot be read: {fault}");
            return Err(unplaced(
                "crew.unreadable",
                message,
                "Check its permissions.",
            ));
        }
    };
    let mut mistakes = Vec::new();
    let written = shape::read(&tree, &mut mistakes);
    let mut resolver = Resolver {
        tree: &tree,
        folder,
        mistakes,
        operations: Vec::new(),
    };
    resolver.literals();
    let crew = resolver.crew(written);
    match crew {
        Some(crew) if resolver.mistakes.is_empty() => Ok(crew),
        _ => Err(placed(path, &text, resolver.mistakes)),
    }
}

/// The mistakes as people see them, in the order of the file.
fn placed(path: &Path, text: &str, mut mistakes: Vec<Mistake>) -> Vec<CrewError> {
    mistakes.sort_by_key(|mistake| (mistake.at, mistake.code));
    mistakes.dedup_by_key(|mistake| (mistake.at, mistake.code));
    let lines: Vec<&str> = text.lines().collect();
    let excerpt = |mistake: &Mistake| {
        let line = lines.get(mistake.at.line - 1).copied().unwrap_or("");
        // What is no handle of a secret may be the secret.
        let here = mistakes
            .iter()
            .filter(|other| other.at.line == mistake.at.line);
        let secrets = here.filter(|other| other.code == "crew.secret");
        let kept = secrets.map(|other| other.at.column - 1).min();
        let kept = kept.unwrap_or(EXCERPT_CHARS_MAX).min(EXCERPT_CHARS_MAX);
        let mut shown: String = line.chars().take(kept).collect();
        if line.chars().nth(kept).is_some() {
            shown.push('…');
        }
        let shown = secret::masked(&shown);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        shown.chars().map(printable).collect()
    };
    let errors = mistakes.iter().take(MISTAKES_MAX).map(|mistake| CrewError {
        code: mistake.code,
        file: path.to_owned(),
        place: Some(mistake.at),
        excerpt: excerpt(mistake),
        message: mistake.message.clone(),
        hint: mistake.hint.clone(),
    });
    errors.collect()
}

enum Unread {
    /// A folder, a device, a pipe: reading may never end.
    NoFile,
    TooLarge,
    Fault(std::io::Error),
}

fn bytes_of(path: &Path, most: usize) -> Result<Vec<u8>, Unread> {
    // Asked before it is opened: opening a pipe waits for its writer.
    if !path.metadata().map_err(Unread::Fault)?.is_file() {
        return Err(Unread::NoFile);
    }
    let file = File::open(path).map_err(Unread::Fault)?;
    let mut bytes = Vec::new();
    let taken = file.take(most as u64 + 1).read_to_end(&mut bytes);
    taken.map_err(Unread::Fault)?;
    if bytes.len() > most {
        return Err(Unread::TooLarge);
    }
    Ok(bytes)
}

struct Resolver<'a> {
    tree: &'a Node,
    folder: PathBuf,
    mistakes: Vec<Mistake>,
    /// The tools of the APIs, once they are read.
    operations: Vec<String>,
}

impl Resolver<'_> {
    fn wrong(
        &mut self,
        pointer: &str,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let at = self.tree.find(pointer).at;
        self.wrong_at(at, code, message, hint);
    }

    fn wrong_at(
        &mut self,
        at: Place,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            at,
            code,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// Keys written where anybody can read them.
    fn literals(&mut self) {
        let tree = self.tree;
        tree.walk(&mut |node| {
            if matches!(&node.kind, Kind::Text(text) if secret::has_literal(text)) {
                self.wrong_at(
                    node.at,
                    "crew.secret",
                    "this looks like a key",
                    "Take it out, and make a new one if the file was ever shared. Write `secret://NAME` and set the environment variable CHARGEHAND_SECRET_NAME.",
                );
            }
        });
    }

    fn crew(&mut self, written: CrewFile) -> Option<Crew> {
        let models = self.models(written.models.unwrap_or_default());
        let budget = self.budget(&written.budget.unwrap_or_default());
        let mut supervisor = written.supervisor.unwrap_or_default();
        let spawn = supervisor.spawn.take();
        let supervisor = self.supervisor(supervisor);
        let tools = written.tools.unwrap_or_default();
        let files = tools.files.and_then(|files| {
            let (root, path) = self.folder("/tools/files/root", files.root?)?;
            Some(Files { root, path })
        });
        let shell = tools.shell.map(|shell| self.shell(shell));
        let commands = tools.commands.into_iter();
        let commands = commands.filter_map(|(name, tool)| {
            let tool = self.command(&name, tool)?;
            Some((name, tool))
        });
        let commands: BTreeMap<_, _> = commands.collect();
        let servers = written.mcp.unwrap_or_default().into_iter();
        let servers = servers.filter_map(|(name, server)| {
            let server = self.server(&name, server)?;
            Some((name, server))
        });
        let servers: BTreeMap<_, _> = servers.collect();
        let apis = written.apis.unwrap_or_default().into_iter();
        let apis = apis.filter_map(|(name, api)| {
            let api = self.api(&name, api)?;
            Some((name, api))
        });
        let apis: BTreeMap<_, _> = apis.collect();
        let operations = apis.iter().flat_map(|(api, of)| {
            let names = of.operations.keys();
            names.map(move |name| format!("{api}.{name}"))
        });
        self.operations = operations.collect();
        let agents = written.agents.unwrap_or_default().into_iter();
        let agents = agents.filter_map(|(name, agent)| {
            let agent = self.agent(&name, agent)?;
            Some((name, agent))
        });
        let agents = agents.collect();
        let supervisor = supervisor.map(|supervisor| Supervisor {
            spawn: spawn.and_then(|spawn| self.spawn(spawn, &supervisor.model)),
            ..supervisor
        });
        let approve = written.policies.and_then(|policies| policies.approve);
        let approve = self.granted("/policies/approve", approve.unwrap_or_default());
        let mut crew = Crew {
            name: written.name?,
            description: written.description.unwrap_or_default(),
            models,
            budget,
            supervisor: supervisor?,
            agents,
            tools: commands,
            mcp: servers,
            apis,
            files,
            shell,
            approve,
            folder: self.folder.clone(),
            digest: String::new(),
        };
        let bytes = serde_json::to_vec(&crew).ok()?;
        crew.digest = hex(&Sha256::digest(bytes));
        Some(crew)
    }

    fn models(&mut self, written: BTreeMap<String, ModelFile>) -> BTreeMap<String, CrewModel> {
        let mut models = BTreeMap::new();
        for (name, model) in written {
            let below = format!("/models/{}", escaped(&name));
            let (at, settings) = match model {
                ModelFile::Short(model) => {
                    let settings = ModelSettings {
                        model: Some(model),
                        ..ModelSettings::default()
                    };
                    (below.clone(), settings)
                }
                ModelFile::Full(settings) => (format!("{below}/model"), settings),
            };
            if let Some(url) = &settings.base_url {
                self.base_url(&format!("{below}/base_url"), url);
            }
            if let Some(fallback) = &settings.fallback {
                self.model_known(&format!("{below}/fallback"), fallback);
            }
            let model = settings.model.as_deref().unwrap_or_default();
            let Ok(model) = model.parse::<ModelName>() else {
                if !model.is_empty() {
                    self.provider_unknown(&at, model);
                }
                continue;
            };
            if model.provider == Provider::Scripted {
                self.transcript(&at, &model.model);
            }
            let model = CrewModel {
                model,
                base_url: settings.base_url,
                key: settings.key.as_deref().and_then(Secret::parse),
                fallback: settings.fallback,
                tokens_max: settings.tokens_max,
                temperature: settings.temperature,
                price: settings.price.map(|price| price_of(&price)),
            };
            models.insert(name, model);
        }
        self.fallback_cycles(&models);
        models
    }

    /// A transcript that cannot be used is a mistake of the file that names it.
    fn transcript(&mut self, pointer: &str, file: &str) {
        let path = self.folder.join(file);
        let Err(error) = Script::read(&path) else {
            return;
        };
        let hint = match path.is_file() {
            true => "Correct the transcript; docs/agents.md says what is in one.",
            false => {
                "`scripted/FILE` names a transcript by its path from this file's folder: correct it, or write the transcript."
            }
        };
        let whole = format!("the transcript {}", path.display());
        let message = error
            .message
            .replacen(&whole, &format!("the transcript {file}"), 1);
        self.wrong(pointer, error.code, message, hint);
    }

    fn provider_unknown(&mut self, pointer: &str, model: &str) {
        let known = Provider::ALL.map(Provider::as_str);
        let provider = model.split('/').next().unwrap_or_default();
        let hint = match nearest(provider, known.into_iter()) {
            Some(meant) => format!("Did you mean `{meant}`?"),
            None => format!(
                "Use one of {}; what speaks like OpenAI is `openai` with a `base_url`.",
                known.join(", ")
            ),
        };
        let message = format!("there is no provider `{}`", shown(provider));
        self.wrong(pointer, "crew.reference", message, hint);
    }

    fn base_url(&mut self, pointer: &str, url: &str) {
        let parsed = reqwest::Url::parse(url).ok();
        let good = parsed.is_some_and(|url| {
            let web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
            web && url.username().is_empty() && url.password().is_none()
        });
        if good {
            return;
        }
        let hint = "Write it in full, such as `http://127.0.0.1:8000/v1`, without a user's name; a key belongs to `key`.";
        if url.contains('@') {
            // Not shown: it may have a password in it.
            self.wrong(pointer, "crew.secret", "this is no such address", hint);
        } else {
            let message = format!("`{}` is no http or https address", shown(url));
            self.wrong(pointer, "crew.value", message, hint);
        }
    }

    fn fallback_cycles(&mut self, models: &BTreeMap<String, CrewModel>) {
        for start in models.keys() {
            let mut way = vec![start];
            while let Some(next) = models
                .get(way[way.len() - 1])
                .and_then(|m| m.fallback.as_ref())
            {
                if next == start {
                    // A cycle is told once, at the first of its names.
                    if way.iter().all(|name| *name >= start) {
                        way.push(start);
                        let way: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
                        self.wrong(
                            &format!("/models/{}/fallback", escaped(start)),
                            "crew.cycle",
                            format!("these models fall back on each other: {}", way.join(" → ")),
                            "Leave out the `fallback` of one of them.",
                        );
                    }
                    break;
                }
                if way.contains(&next) {
                    break;
                }
                way.push(next);
            }
        }
    }

    /// The names below a key as they were written, right or wrong.
    fn names(&self, pointer: &str) -> Vec<String> {
        let node = match pointer.is_empty() {
            true => Some(self.tree),
            false => self.tree.entry(pointer).map(|entry| &entry.value),
        };
        node.map_or_else(Vec::new, |node| node.keys().map(str::to_owned).collect())
    }

    fn model_known(&mut self, pointer: &str, name: &str) {
        let known = self.names("models");
        if known.iter().any(|known| known == name) {
            return;
        }
        let meant = nearest(name, known.iter().map(String::as_str));
        let hint = match meant {
            Some(meant) => format!("Did you mean `{meant}`?"),
            None => format!("The models are: {}.", listed(&known)),
        };
        let message = format!("there is no model `{}` under `models`", shown(name));
        self.wrong(pointer, "crew.reference", message, hint);
    }

    /// The model that is named, or the only one there is.
    fn model_of(&mut self, owner: &str, named: Option<String>) -> Option<String> {
        let pointer = format!("{owner}/model");
        if let Some(name) = named {
            self.model_known(&pointer, &name);
            return Some(name);
        }
        // What was written in a wrong way has been told.
        if self
            .tree
            .find(owner)
            .entry("model")
            .is_some_and(|entry| !matches!(entry.value.kind, Kind::Null))
        {
            return None;
        }
        let mut known = self.names("models");
        known.dedup();
        if known.len() > 1 {
            let who = owner.trim_start_matches('/').replace('/', ".");
            let at = self.tree.key_place(owner);
            let message = format!("`{who}` must say its model, as there are several");
            let hint = format!("Add `model:` with one of: {}.", listed(&known));
            self.wrong_at(at, "crew.missing_key", message, hint);
        }
        known.pop()
    }

    fn budget(&mut self, written: &BudgetFile) -> Budget {
        let usual = Budget::default();
        let wall = written.wall.as_deref();
        let wall = wall.and_then(|text| self.duration("/budget/wall", text, WALL_TIME));
        Budget {
            tokens: written.tokens.unwrap_or(usual.tokens),
            usd_micros: written.usd.map_or(usual.usd_micros, micros),
            calls: written.calls.unwrap_or(usual.calls),
            wall_ms: wall.map_or(usual.wall_ms, |wall| wall.as_millis() as u64),
            depth: written.depth.unwrap_or(usual.depth),
            fan_out: written.fan_out.unwrap_or(usual.fan_out),
        }
    }

    fn duration(
        &mut self,
        pointer: &str,
        text: &str,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let ms: u64 = match &text[digits.len()..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let duration = Duration::from_millis(digits.parse::<u64>().ok()?.saturating_mul(ms));
        if duration < least || duration > most {
            let message = format!("{text} is out of bounds");
            let hint = format!("Use {} to {}.", spoken(least), spoken(most));
            self.wrong(pointer, "crew.value", message, hint);
            return None;
        }
        Some(duration)
    }

    fn supervisor(&mut self, written: SupervisorFile) -> Option<Supervisor> {
        let instructions = self.instructions(
            "/supervisor",
            written.instructions,
            written.instructions_file,
        );
        let model = if self.tree.entry("supervisor").is_some() {
            self.model_of("/supervisor", written.model)
        } else {
            let mut known = self.names("models");
            known.dedup();
            if known.len() > 1 {
                let message = "nothing says which model supervises, and there are several";
                let hint = format!(
                    "Add `supervisor: {{model: …}}` with one of: {}.",
                    listed(&known)
                );
                self.wrong_at(
                    self.tree.key_place("/models"),
                    "crew.missing_key",
                    message,
                    hint,
                );
            }
            known.pop()
        };
        Some(Supervisor {
            model: model?,
            instructions: instructions.unwrap_or_default(),
            replans: written.replans.unwrap_or(3),
            rounds: written.rounds.unwrap_or(20),
            spawn: None,
        })
    }

    fn spawn(&mut self, written: SpawnFile, supervisor: &str) -> Option<Spawn> {
        const AT: &str = "/supervisor/spawn";
        let model = match written.model {
            Some(model) => self.model_of(AT, Some(model)),
            None => Some(supervisor.to_owned()),
        };
        let tools = self.granted(&format!("{AT}/tools"), written.tools.unwrap_or_default());
        Some(Spawn {
            agents: written.agents?,
            tools,
            model: model?,
        })
    }

    fn agent(&mut self, name: &str, written: AgentFile) -> Option<Agent> {
        let owner = format!("/agents/{}", escaped(name));
        let told = {
            let node = self.tree.find(&owner);
            node.entry("instructions").is_some() || node.entry("instructions_file").is_some()
        };
        let instructions =
            self.instructions(&owner, written.instructions, written.instructions_file);
        if !told {
            let at = self.tree.key_place(&owner);
            let message = format!("`agents.{}` has no instructions", shown(name));
            let hint = "Add `instructions:` with who it is and how it works, or `instructions_file:` with the name of a file.";
            self.wrong_at(at, "crew.missing_key", message, hint);
        } else if instructions
            .as_ref()
            .is_some_and(|text| text.trim().is_empty())
        {
            let at = self.tree.key_place(&owner);
            let message = format!("`agents.{}` has instructions without a word", shown(name));
            self.wrong_at(at, "crew.value", message, "Say who it is and how it works.");
        }
        let model = self.model_of(&owner, written.model);
        let tools = self.granted(&format!("{owner}/tools"), written.tools.unwrap_or_default());
        let output = written.output.map(Value::Object);
        if let Some(output) = &output {
            self.schema(&format!("{owner}/output"), output);
        }
        Some(Agent {
            version: written.version.unwrap_or(1),
            description: written.description?,
            model: model?,
            instructions: instructions?,
            tools,
            rounds: written.rounds.unwrap_or(12),
            budget: agent_budget(&written.budget.unwrap_or_default()),
            output,
        })
    }

    /// Tools by name, each of which must exist, once.
    fn granted(&mut self, pointer: &str, names: Vec<String>) -> BTreeSet<String> {
        let (listed, open) = self.remote();
        let operations = self.operations.clone();
        // What an API has that could not be read is not known; that it could not be has been told.
        let mut unread = self.names("apis");
        unread.retain(|api| {
            !operations
                .iter()
                .any(|name| name.starts_with(&format!("{api}.")))
        });
        let excused = |name: &str| {
            let api = name.split_once('.').map(|(api, _)| api);
            api.is_some_and(|api| unread.iter().any(|unread| unread == api))
        };
        let own = self.names("tools");
        let own: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .filter(|name| !SETTINGS.contains(name))
            .collect();
        let known: Vec<&str> = own
            .iter()
            .copied()
            .chain(BUILT_IN.iter().copied())
            .chain(board::NAMES)
            .chain(listed.iter().map(String::as_str))
            .chain(operations.iter().map(String::as_str))
            .collect();
        let remote = |name: &str| {
            let parts = name.split_once('.');
            parts.is_some_and(|(server, tool)| {
                open.iter().any(|o| o == server) && !tool.contains('.')
            })
        };
        let rooted = self.tree.find("/tools/files").entry("root").is_some();
        let mut granted = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            let at = format!("{pointer}/{index}");
            if name.is_empty() {
                // It was no name, which has been told.
                continue;
            }
            if excused(&name) {
                continue;
            }
            if !known.contains(&name.as_str()) && !remote(&name) {
                let hint = match nearest(&name, known.iter().copied()) {
                    Some(meant) => format!("Did you mean `{meant}`?"),
                    None => format!(
                        "There are: {}. A program of yours is described under `tools`.",
                        known.join(", ")
                    ),
                };
                let message = format!("there is no tool `{}`", shown(&name));
                self.wrong(&at, "crew.reference", message, hint);
            } else if name.starts_with("files.") && !own.contains(&name.as_str()) && !rooted {
                let message = format!("`{name}` needs a folder that it sees");
                let hint = "Add `tools: {files: {root: ./data}}`.";
                self.wrong(&at, "crew.reference", message, hint);
            } else if granted.contains(&name) {
                let message = format!("`{name}` is here twice");
                self.wrong(&at, "crew.duplicate", message, "Keep one of them.");
            }
            granted.insert(name);
        }
        granted
    }

    fn instructions(
        &mut self,
        owner: &str,
        here: Option<String>,
        file: Option<String>,
    ) -> Option<String> {
        let pointer = format!("{owner}/instructions_file");
        match (here, file) {
            (Some(_), Some(_)) => {
                let at = self.tree.key_place(&pointer);
                let message = "there are `instructions` and `instructions_file`";
                self.wrong_at(at, "crew.value", message, "Keep one of them.");
                None
            }
            (Some(text), None) => Some(text),
            (None, Some(file)) => self.instructions_file(&pointer, &file),
            (None, None) => None,
        }
    }

    fn instructions_file(&mut self, pointer: &str, file: &str) -> Option<String> {
        let path = self.folder.join(file).canonicalize();
        let path = match path {
            Ok(path) if path.starts_with(&self.folder) => path,
            Ok(_) => {
                let message = format!("`{}` is outside of the crew file's folder", shown(file));
                let hint = "Copy it there: what a crew says shall be in one place. A link that leads out of the folder does not help.";
                self.wrong(pointer, "crew.path", message, hint);
                return None;
            }
            Err(fault) => {
                let message = format!("`{}` cannot be read: {fault}", shown(file));
                let hint = "The path is from the crew file's folder on.";
                self.wrong(pointer, "crew.path", message, hint);
                return None;
            }
        };
        let (code, message, hint) =
            match bytes_of(&path, 4 * INSTRUCTIONS_CHARS_MAX).map(String::from_utf8) {
                Ok(Ok(text)) if text.chars().count() > INSTRUCTIONS_CHARS_MAX => too_long(file),
                Ok(Ok(text)) if secret::has_literal(&text) => (
                    "crew.secret",
                    format!("`{}` holds something that looks like a key", shown(file)),
                    "Take it out of the file, and make a new one if the file was ever shared.",
                ),
                Ok(Ok(text)) => return Some(text),
                Ok(Err(_)) => (
                    "crew.path",
                    format!("`{}` is not UTF-8", shown(file)),
                    "Save the file as UTF-8.",
                ),
                Err(Unread::TooLarge) => too_long(file),
                Err(Unread::NoFile) => (
                    "crew.path",
                    format!("`{}` is not a file", shown(file)),
                    "Name a file with text.",
                ),
                Err(Unread::Fault(fault)) => (
                    "crew.path",
                    format!("`{}` cannot be read: {fault}", shown(file)),
                    "Check its permissions.",
                ),
            };
        self.wrong(pointer, code, message, hint);
        None
    }

    /// A folder that must be there: as it was written, and where it is.
    fn folder(&mut self, pointer: &str, root: String) -> Option<(String, PathBuf)> {
        let path = self.folder.join(&root).canonicalize();
        let message = match path {
            Ok(path) if path.is_dir() => return Some((root, path)),
            Ok(_) => format!("`{}` is not a folder", shown(&root)),
            Err(fault) => format!("the folder `{}` cannot be read: {fault}", shown(&root)),
        };
        let hint = "The path is from the crew file's folder on; make the folder first.";
        self.wrong(pointer, "crew.path", message, hint);
        None
    }

    fn shell(&mut self, written: ShellFile) -> Shell {
        let usual = Shell::default();
        let mut time = |key: &str, text: Option<String>| {
            self.duration(&format!("/tools/shell/{key}"), &text?, SHELL_TIME)
        };
        let cpu = time("cpu", written.cpu);
        let timeout = time("timeout", written.timeout);
        let memory = written.memory.and_then(|text| self.memory(&text));
        if written.write == Some(true) && written.root.is_none() {
            let message = "there is nothing to write to without a `root`";
            let hint = "Add `root:` with the folder that commands may write to.";
            self.wrong("/tools/shell/write", "crew.value", message, hint);
        }
        let root = written.root;
        let found = root.and_then(|root| self.folder("/tools/shell/root", root));
        let (root, folder) = found.unzip();
        Shell {
            root,
            folder,
            write: written.write.unwrap_or(usual.write),
            network: written.network.unwrap_or(usual.network),
            memory_bytes: memory.unwrap_or(usual.memory_bytes),
            cpu: cpu.unwrap_or(usual.cpu),
            timeout: timeout.unwrap_or(usual.timeout),
            processes: written.processes.unwrap_or(usual.processes),
        }
    }

    fn memory(&mut self, text: &str) -> Option<u64> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "kb" => 1 << 10,
            "mb" => 1 << 20,
            "gb" => 1 << 30,
            _ => return None,
        };
        let bytes = digits.parse::<u64>().ok()?.saturating_mul(unit);
        let (least, most) = SHELL_MEMORY_BYTES;
        if bytes < least || bytes > most {
            let message = format!("{text} is out of bounds");
            let hint = format!("Use {}mb to {}gb.", least >> 20, most >> 30);
            self.wrong("/tools/shell/memory", "crew.value", message, hint);
            return None;
        }
        Some(bytes)
    }

    fn command(&mut self, name: &str, written: CommandFile) -> Option<CommandTool> {
        let owner = format!("/tools/{}", escaped(name));
        if BUILT_IN.contains(&name) || board::NAMES.contains(&name) || name == DELEGATE {
            let at = self.tree.key_place(&owner);
            let message = format!("`{name}` is the name of a built-in tool");
            self.wrong_at(at, "crew.name", message, "Give yours another name.");
        }
        let program = written.command.as_deref();
        let program = program.and_then(|line| self.program(&format!("{owner}/command"), line));
        let input = written.input.map(Value::Object);
        let output = written.output.map(Value::Object);
        let sensitive = written.sensitive.unwrap_or_default();
        if let Some(input) = &input {
            self.schema(&format!("{owner}/input"), input);
            if input["type"] != "object" {
                let message =
                    "the arguments of a tool are an object, which this schema does not say";
                let hint = "Add `type: object` and `properties:` with the arguments.";
                self.wrong(&format!("{owner}/input"), "crew.schema", message, hint);
            }
            let known = input["properties"].as_object();
            let known: Vec<&str> = known
                .map(|map| map.keys().map(String::as_str).collect())
                .unwrap_or_default();
            for (index, argument) in sensitive.iter().enumerate() {
                if known.contains(&argument.as_str()) || argument.is_empty() {
                    continue;
                }
                let hint = match nearest(argument, known.iter().copied()) {
                    Some(meant) => format!("Did you mean `{meant}`?"),
                    None => format!("The arguments are: {}.", known.join(", ")),
                };
                let message = format!("there is no argument `{}` in `input`", shown(argument));
                self.wrong(
                    &format!("{owner}/sensitive/{index}"),
                    "crew.reference",
                    message,
                    hint,
                );
            }
        }
        if let Some(output) = &output {
            self.schema(&format!("{owner}/output"), output);
        }
        let timeout = written.timeout.as_deref();
        let timeout =
            timeout.and_then(|text| self.duration(&format!("{owner}/timeout"), text, TOOL_TIME));
        let env = self.variables(&owner, written.env.unwrap_or_default());
        Some(CommandTool {
            command: written.command?,
            description: written.description?,
            input: input?,
            output,
            timeout: timeout.unwrap_or(Duration::from_secs(30)),
            effect: effect(written.effect.unwrap_or(EffectFile::AtMostOnce)),
            retry: written.retry.unwrap_or(0),
            sensitive: sensitive
                .into_iter()
                .filter(|name| !name.is_empty())
                .collect(),
            category: written.category.unwrap_or_else(|| "command".into()),
            env,
            program,
        })
    }

    /// The variables of a program.
    fn variables(
        &mut self,
        owner: &str,
        written: BTreeMap<String, String>,
    ) -> BTreeMap<String, EnvValue> {
        let mut env = BTreeMap::new();
        for (variable, value) in written {
            let at = format!("{owner}/env/{}", escaped(&variable));
            let value = match Secret::parse(&value) {
                Some(secret) => EnvValue::Secret(secret),
                None if value.starts_with("secret:") => {
                    let hint = "Write `secret://NAME` with capital letters, digits and underscores; it is the environment variable CHARGEHAND_SECRET_NAME.";
                    self.wrong(&at, "crew.secret", "this is no handle of a secret", hint);
                    continue;
                }
                None if command::is_secret(&variable, &value) && !value.is_empty() => {
                    let message = format!(
                        "`{}` is set to a secret itself, as its name says",
                        shown(&variable)
                    );
                    let hint = "Write `secret://NAME` and set the environment variable CHARGEHAND_SECRET_NAME.";
                    self.wrong(&at, "crew.secret", message, hint);
                    continue;
                }
                None => EnvValue::Text(value),
            };
            env.insert(variable, value);
        }
        env
    }

    /// An MCP server. It is not asked anything: whether it has a tool shows when the tool is needed.
    fn server(&mut self, name: &str, written: ServerFile) -> Option<McpServer> {
        let owner = format!("/mcp/{}", escaped(name));
        let begins = |tool: &str| tool.split_once('.').is_some_and(|(first, _)| first == name);
        let own = self.names("tools");
        let mut taken = own.iter().map(String::as_str);
        if let Some(tool) = taken.find(|tool| begins(tool)) {
            let at = self.tree.key_place(&owner);
            let message = format!("`{}` is a tool of yours already", shown(tool));
            self.wrong_at(at, "crew.name", message, "Give the server another name.");
        } else if BUILT_IN.iter().copied().chain(board::NAMES).any(begins) {
            let at = self.tree.key_place(&owner);
            let message = format!("`{name}` is how names of built-in tools begin");
            self.wrong_at(at, "crew.name", message, "Give the server another name.");
        }
        let timeout = written.timeout.as_deref();
        let timeout =
            timeout.and_then(|text| self.duration(&format!("{owner}/timeout"), text, TOOL_TIME));
        let default = written.effect.unwrap_or(EffectFile::AtMostOnce);
        let tools = written.tools.unwrap_or_default().into_iter();
        let tools = tools.map(|(tool, said)| {
            let known = McpTool {
                name: said.name.unwrap_or_else(|| tool.clone()),
                effect: effect(said.effect.unwrap_or(default)),
                sensitive: said.sensitive.into_iter().flatten().collect(),
            };
            (tool, known)
        });
        let tools = tools.collect();
        let wants = |what: &str, other: &str| {
            (
                format!("`{what}` goes with `{other}`"),
                format!("Take it out, or say `{other}`."),
            )
        };
        let way = match (written.command, written.url) {
            (Some(command), None) => {
                if written.key.is_some() {
                    let at = self.tree.key_place(&format!("{owner}/key"));
                    let (message, hint) = wants("key", "url");
                    self.wrong_at(at, "crew.value", message, hint);
                }
                McpWay::Program {
                    program: self.program(&format!("{owner}/command"), &command),
                    command,
                    env: self.variables(&owner, written.env.unwrap_or_default()),
                }
            }
            (None, Some(url)) => {
                if written.env.is_some() {
                    let at = self.tree.key_place(&format!("{owner}/env"));
                    let (message, hint) = wants("env", "command");
                    self.wrong_at(at, "crew.value", message, hint);
                }
                self.base_url(&format!("{owner}/url"), &url);
                McpWay::Address {
                    url,
                    key: written.key.as_deref().and_then(Secret::parse),
                }
            }
            (Some(_), Some(_)) => {
                let at = self.tree.key_place(&format!("{owner}/url"));
                let message = "there are `command` and `url`";
                self.wrong_at(at, "crew.value", message, "Keep one of them.");
                return None;
            }
            (None, None) => {
                let node = self.tree.find(&owner);
                // What was written in a wrong way has been told.
                if node.entry("command").is_none() && node.entry("url").is_none() {
                    let at = self.tree.key_place(&owner);
                    let message = format!("`mcp.{name}` does not say how it is reached");
                    let hint = "Add `command:` with the server's command line, or `url:` with its address.";
                    self.wrong_at(at, "crew.missing_key", message, hint);
                }
                return None;
            }
        };
        Some(McpServer {
            way,
            timeout: timeout.unwrap_or(Duration::from_secs(30)),
            effect: effect(default),
            tools,
        })
    }

    /// The names that tools of MCP servers have, and the servers whose tools are not listed: of those
    /// any name will do.
    fn remote(&self) -> (Vec<String>, Vec<String>) {
        let (mut listed, mut open) = (Vec::new(), Vec::new());
        for server in self.names("mcp") {
            let tools = self.tree.find("/mcp").entry(&server);
            let tools = tools.and_then(|entry| entry.value.entry("tools"));
            let tools: Vec<String> = tools.map_or_else(Vec::new, |entry| {
                let names = entry.value.keys();
                names.map(|tool| format!("{server}.{tool}")).collect()
            });
            match tools.is_empty() {
                true => open.push(server),
                false => listed.extend(tools),
            }
        }
        (listed, open)
    }

    /// An API, with the operations that may be granted.
    fn api(&mut self, name: &str, written: ApiFile) -> Option<Api> {
        let owner = format!("/apis/{}", escaped(name));
        let begins = |tool: &str| tool.split_once('.').is_some_and(|(first, _)| first == name);
        let own = self.names("tools");
        if own.iter().any(|tool| begins(tool)) || self.names("mcp").iter().any(|mcp| mcp == name) {
            let at = self.tree.key_place(&owner);
            let message = format!("names of other tools of this crew begin with `{name}`, too");
            self.wrong_at(at, "crew.name", message, "Give the API another name.");
        } else if BUILT_IN.iter().copied().chain(board::NAMES).any(begins) {
            let at = self.tree.key_place(&owner);
            let message = format!("`{name}` is how names of built-in tools begin");
            self.wrong_at(at, "crew.name", message, "Give the API another name.");
        }
        let file = written.openapi?;
        let document = self.document(&format!("{owner}/openapi"), &file)?;
        let timeout = written.timeout.as_deref();
        let timeout =
            timeout.and_then(|text| self.duration(&format!("{owner}/timeout"), text, TOOL_TIME));
        let key = written.key.as_deref().and_then(Secret::parse);
        let private = written.base_url.is_some();
        if let Some(url) = &written.base_url {
            self.base_url(&format!("{owner}/base_url"), url);
        }
        let Some(base_url) = written.base_url.or(document.server) else {
            let at = self.tree.key_place(&owner);
            let message = format!("neither `apis.{name}` nor its document says where it is");
            let hint = "Add `base_url:` with its address, such as `https://api.example.org/v1`.";
            self.wrong_at(at, "crew.missing_key", message, hint);
            return None;
        };
        let queried = base_url.contains(['?', '#']);
        if queried || (!private && key.is_some() && base_url.starts_with("http://")) {
            let at = self.tree.key_place(&owner);
            let message = match queried {
                true => "an address with a query or a fragment cannot be gone on from",
                false => "its document has an address without encryption, to which no key is sent",
            };
            let hint = "Add `base_url:` with the address that you mean.";
            self.wrong_at(at, "crew.value", message, hint);
        }
        let (all, unfit) = (document.operations, document.unfit);
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let mut named = |at: String, wanted: &str| -> Option<String> {
            let found = all.iter().find(|(name, operation)| {
                name.as_str() == wanted || (operation.id == wanted && !wanted.is_empty())
            });
            if let Some((name, _)) = found {
                return Some(name.clone());
            }
            let (message, hint) = match unfit.get(wanted) {
                Some(why) => (
                    format!("`{}` cannot be a tool: {why}", shown(wanted)),
                    "Take it out, or mend the document.".to_owned(),
                ),
                None => (
                    format!("the document has no operation `{}`", shown(wanted)),
                    match nearest(wanted, known.iter().copied()) {
                        Some(meant) => format!("Did you mean `{meant}`?"),
                        None => {
                            let some: Vec<&str> = known.iter().copied().take(20).collect();
                            format!("There are: {}.", some.join(", "))
                        }
                    },
                ),
            };
            self.wrong(&at, "crew.reference", message, hint);
            None
        };
        let mut effects = BTreeMap::new();
        for (operation, written) in written.effects.unwrap_or_default() {
            let at = format!("{owner}/effects/{}", escaped(&operation));
            if let Some(name) = named(at, &operation) {
                effects.insert(name, effect(written));
            }
        }
        let chosen: BTreeSet<String> = match written.operations {
            None => all.keys().cloned().collect(),
            Some(wanted) => {
                let wanted = wanted.iter().enumerate();
                let wanted = wanted.filter(|(_, name)| !name.is_empty());
                let found = wanted
                    .filter_map(|(index, name)| named(format!("{owner}/operations/{index}"), name));
                found.collect()
            }
        };
        if chosen.len() > OPERATIONS_MAX {
            let message = format!(
                "the document has {} operations, and {OPERATIONS_MAX} are the most",
                chosen.len()
            );
            let hint = "Add `operations:` with those that you need.";
            self.wrong(&format!("{owner}/openapi"), "crew.too_large", message, hint);
            return None;
        }
        let mut operations = all;
        operations.retain(|name, _| chosen.contains(name));
        for (name, operation) in &mut operations {
            if let Some(effect) = effects.get(name) {
                operation.effect = *effect;
            }
        }
        Some(Api {
            openapi: file,
            base_url,
            private,
            key,
            timeout: timeout.unwrap_or(Duration::from_secs(30)),
            retry: written.retry,
            category: written.category.unwrap_or_else(|| "http".into()),
            operations,
        })
    }

    fn document(&mut self, pointer: &str, file: &str) -> Option<openapi::Document> {
        let path = self.folder.join(file).canonicalize();
        let read = match path {
            Ok(path) if path.starts_with(&self.folder) => bytes_of(&path, DOCUMENT_BYTES_MAX),
            Ok(_) => {
                let message = format!("`{}` is outside of the crew file's folder", shown(file));
                let hint = "Copy it there: what a crew says shall be in one place.";
                self.wrong(pointer, "crew.path", message, hint);
                return None;
            }
            Err(fault) => Err(Unread::Fault(fault)),
        };
        let (code, why) = match read.map(String::from_utf8) {
            Ok(Ok(text)) => {
                // JSON is YAML, but its own reader is faster and stricter.
                let value = match text.trim_start().starts_with('{') {
                    true => serde_json::from_str(&text).map_err(|fault| fault.to_string()),
                    false => parse_bounded(&text, DOCUMENT_NODES_MAX)
                        .map(|node| node.value())
                        .map_err(|(at, said)| match at {
                            Some(at) => format!("line {}: {said}", at.line),
                            None => said,
                        }),
                };
                match value.and_then(|value: Value| openapi::read(&value)) {
                    Ok(document) => return Some(document),
                    Err(why) => ("crew.schema", format!("is no OpenAPI document: {why}")),
                }
            }
            Ok(Err(_)) => ("crew.path", "is not UTF-8".into()),
            Err(Unread::TooLarge) => (
                "crew.too_large",
                format!("has more than {DOCUMENT_BYTES_MAX} bytes"),
            ),
            Err(Unread::NoFile) => ("crew.path", "is not a file".into()),
            Err(Unread::Fault(fault)) => ("crew.path", format!("cannot be read: {fault}")),
        };
        let hint = "Save the API's OpenAPI document, 3.0 or 3.1, in the crew file's folder.";
        let message = format!("`{}` {why}", shown(file));
        self.wrong(pointer, code, message, hint);
        None
    }

    /// The digest of the program's file, if the command line names one by its path. A program on the
    /// PATH may come and go: whether it is there is asked when it is needed.
    fn program(&mut self, pointer: &str, line: &str) -> Option<String> {
        if line.trim().is_empty() {
            self.wrong(
                pointer,
                "crew.value",
                "there is no program",
                "Name a program to run.",
            );
            return None;
        }
        let program = command::program_of(line).filter(|program| program.contains('/'))?;
        let path = self.folder.join(&program);
        match command::check_file(&path, &program) {
            Ok(()) => digest_of(&path).ok(),
            Err(error) => {
                let hint = match error.code {
                    "command.not_found" => "The path is from the crew file's folder on.".to_owned(),
                    _ => error.hint,
                };
                self.wrong(pointer, "crew.path", error.message, hint);
                None
            }
        }
    }

    fn schema(&mut self, pointer: &str, schema: &Value) {
        if let Err(fault) = crate::tool::compiled(schema) {
            let at = format!("{pointer}{}", fault.instance_path().as_str());
            let message = match fault.kind() {
                jsonschema::error::ValidationErrorKind::Referencing(why) => {
                    format!("this schema refers to what cannot be had: {why}")
                }
                _ => format!(
                    "{} cannot stand here in a JSON Schema",
                    shape::quoted(fault.instance())
                ),
            };
            let hint = "Schemas are of draft 2020-12, and refer to nothing outside of themselves.";
            self.wrong(&at, "crew.schema", message, hint);
        }
    }
}

fn agent_budget(written: &AgentBudgetFile) -> AgentBudget {
    AgentBudget {
        tokens: written.tokens,
        usd_micros: written.usd.map(micros),
        calls: written.calls,
    }
}

/// Millionths of a dollar: at most a hundred thousand million, which is exact.
fn micros(usd: f64) -> u64 {
    (usd * 1_000_000.0).round() as u64
}

fn effect(written: EffectFile) -> EffectClass {
    match written {
        EffectFile::Pure => EffectClass::Pure,
        EffectFile::Keyed => EffectClass::Keyed,
        EffectFile::VerifyFirst => EffectClass::VerifyFirst,
        EffectFile::AtMostOnce => EffectClass::AtMostOnce,
    }
}

fn too_long(file: &str) -> (&'static str, String, &'static str) {
    let message = format!(
        "`{}` has more than {INSTRUCTIONS_CHARS_MAX} characters",
        shown(file)
    );
    let hint =
        "Keep instructions short; give material as input or as files below `tools.files.root`.";
    ("crew.too_large", message, hint)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names
            .iter()
            .map(|name| shown(name))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn spoken(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..3_600_000 => format!("{} s", ms / 1_000),
        ms @ 3_600_000..86_400_000 => format!("{} h", ms / 3_600_000),
        ms => format!("{} days", ms / 86_400_000),
    }
}

fn digest_of(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut rest = file.take(PROGRAM_BYTES_MAX);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match rest.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&chunk[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Dollars for a million tokens, in millionths.
fn price_of(written: &PriceFile) -> Price {
    let micros = |usd: Option<f64>| (usd.unwrap_or(0.0) * 1e6).round() as u64;
    Price {
        input: micros(written.input),
        cached: micros(written.cached.or(written.input)),
        output: micros(written.output),
        long: None,
    }
}
