//! `chargehand chat`: a conversation with an agent of a crew, which may have the whole crew work.
//!
//! Each message is a run, kept like any other: killed in the middle of an answer, `--continue` goes on
//! with it, and nothing is bought twice. Answers go to standard output, everything else to standard
//! error; on a terminal an answer shows while it is written.

use crate::approvals;
use crate::crew::{self, CrewPlan, PinnedCrew};
use crate::crew_file;
use crate::error::CliError;
use crate::interrupt::{Interrupt, Wish};
use crate::output::{Output, counted, cut, instant, print, print_json, say, table};
use crate::reach::patiently;
use crate::run::{SUPERVISOR, introduce};
use crate::speech::{deed, hear, plain};
use crate::target::{Site, Target};
use agent::assistant::{self, ASSISTANT, DELEGATED_BY, Exchange, MESSAGE_BYTES_MAX, Message};
use agent::mind::Completeness;
use agent::model::Provider;
use agent::planning::WORK_KIND;
use agent::supervisor::{Supervisor, WORKERS_DEFAULT};
use chargehand::Running;
use domain::command::RunStart;
use domain::error::{Code, Error};
use domain::id::{RunId, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::run::{Crew, RunStatus};
use domain::time::Time;
use protocol::api::RunQuery;
use protocol::speech::{Heard, Piece, Said};
use protocol::v1::{RunView, TaskView};
use protocol::{Api, ApiRead};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::mpsc;

/// Where a run keeps which conversation it belongs to.
const METADATA: &str = "chat";
/// Runs that are looked at for conversations, the newest first.
const RUNS_MAX: usize = 20_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand chat --crew crew.yaml
  echo 'Which tickets are open?' | chargehand chat --crew crew.yaml --agent support
  chargehand chat --list
  chargehand chat --continue
  chargehand chat --continue run_01k5z3v9wfe4rvq0t2m6n8p7xy

Each line is a message, or the answer where a call waits for a yes. Ctrl-C stops an answer, Ctrl-D ends the conversation; it is kept.")]
pub(crate) struct Args {
    /// The crew file.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["go_on", "list"])]
    crew: Option<PathBuf>,
    /// With whom. Default: the crew's only agent, or an assistant with the supervisor's model and every
    /// tool that the crew has.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Go on with this conversation, or with the last one.
    #[arg(long = "continue", value_name = "ID", num_args = 0..=1)]
    go_on: Option<Option<String>>,
    /// List conversations, the last one first.
    #[arg(long, conflicts_with_all = ["crew", "agent", "go_on"])]
    list: bool,
    /// How many workers the crew has, when work is delegated to it.
    #[arg(long, short, default_value_t = WORKERS_DEFAULT as u32, value_parser = crate::output::whole, allow_negative_numbers = true, value_name = "N")]
    workers: u32,
}

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The conversation, by its first run; none in that.
    conversation: Option<RunId>,
    /// Which message of it, from 1.
    number: u64,
}

impl Place {
    fn of(run: &RunView) -> Option<Self> {
        let kept = run.metadata.get(METADATA)?;
        serde_json::from_value(kept.value()).ok()
    }
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    if args.list {
        return list(target, output).await;
    }
    crew::check_workers(args.workers)?;
    let (site, last) = match &args.go_on {
        None => (None, None),
        Some(id) => {
            let site = target.open_existing()?;
            let last = last_of(&site, id.as_deref()).await?;
            (Some(site), Some(last))
        }
    };
    let kept = last.as_ref().map(CrewPlan::of).transpose()?;
    let pinned = kept.as_ref().and_then(|plan| plan.crew_file.as_ref());
    let file = match (&args.crew, pinned) {
        (Some(file), _) => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        (None, Some(pinned)) => pinned.path.clone(),
        (None, None) => {
            let hint = "Name the crew file with `--crew`.";
            let text = "the conversation does not say which crew it is with";
            return Err(CliError::caller("run.no_crew", text, hint));
        }
    };
    let crew = match agent::crew::Crew::load(&file) {
        Ok(crew) => crew,
        Err(mistakes) => {
            crew_file::complain(&mistakes, output);
            return Ok(ExitCode::from(2));
        }
    };
    // What can be refused is refused before anything is stored.
    crew::minds(&crew)?;
    let before = last.as_ref().and_then(Exchange::of);
    let agent = choose(&args, &crew, before.as_ref())?;
    let is_open = last.as_ref().is_some_and(|run| run.ended_at.is_none());
    let plan = match kept {
        // It goes on with the crew it was said to, or not at all.
        Some(kept) if is_open => kept,
        kept => CrewPlan {
            kind: Name::literal(WORK_KIND),
            because: format!("a conversation with the crew “{}”", crew.name),
            workers: args.workers,
            worker_command: None,
            crew_file: Some(PinnedCrew::of(file, &crew)),
            tag: match kept.and_then(|kept| kept.tag) {
                Some(tag) => Some(tag),
                None => target.is_shared().then(crew::fresh_tag),
            },
            assistant: true,
        },
    };
    let site = match site {
        Some(site) => site,
        None => target.open()?,
    };
    let place = last.as_ref().and_then(Place::of);
    let conversation = place.and_then(|place| place.conversation);
    let goal = last
        .as_ref()
        .map_or_else(String::new, |run| run.goal.clone());
    let mut session = Session {
        api: site.api(),
        site: &site,
        workers: Vec::new(),
        target,
        output,
        is_scripted: is_scripted(&crew),
        budget: crew.budget.of_run(),
        conversation: conversation.or_else(|| last.as_ref().map(|run| run.run_id)),
        previous: last.as_ref().map(|run| run.run_id),
        number: place.map_or(0, |place| place.number),
        agent,
        plan,
        failed: false,
    };
    if output == Output::Text {
        introduce(&crew);
        match session.conversation {
            Some(id) => say(&format!(
                "chat  {id} {target} — {} so far",
                counted(session.number as usize, "message")
            )),
            None => say(&format!("chat  with {} {target}", session.agent)),
        }
    }
    let mut interrupt = Interrupt::listen();
    session.workers = crew::start(&site, &[(goal, session.plan.clone())]).await?;
    let talked = session.talk(last.filter(|_| is_open), &mut interrupt).await;
    let workers = std::mem::take(&mut session.workers);
    crew::stop(&site, workers).await?;
    talked
}

/// Who answers.
fn choose(
    args: &Args,
    crew: &agent::crew::Crew,
    before: Option<&Exchange>,
) -> Result<String, CliError> {
    let named = args.agent.as_deref();
    let named = named.or_else(|| before.map(|before| before.message.agent.as_str()));
    let mut agents = crew.agents.keys();
    match (named, agents.next(), agents.next()) {
        (Some(name), ..) if name == ASSISTANT || crew.agents.contains_key(name) => Ok(name.into()),
        (Some(name), ..) => {
            let agents: Vec<_> = crew.agents.keys().map(String::as_str).collect();
            Err(CliError::caller(
                "agent.unknown",
                format!("there is no agent “{name}” in the crew “{}”", crew.name),
                format!("Use one of: {}; or {ASSISTANT}.", agents.join(", ")),
            ))
        }
        (None, Some(only), None) => Ok(only.clone()),
        (None, ..) => Ok(ASSISTANT.into()),
    }
}

/// Every run that is a message, the newest first, until `take` has enough.
async fn messages(
    api: &dyn ApiRead,
    mut take: impl FnMut(RunView, Place, Exchange) -> bool,
) -> Result<(), Error> {
    let (mut after, mut seen) = (None, 0);
    while seen < RUNS_MAX {
        let query = RunQuery {
            status: None,
            after,
            limit: 500,
        };
        let page = api.run_list(query).await?;
        seen += page.items.len();
        let next = page.next;
        for run in page.items {
            if let (Some(place), Some(exchange)) = (Place::of(&run), Exchange::of(&run))
                && take(run, place, exchange)
            {
                return Ok(());
            }
        }
        let Some(next) = next else { break };
        after = Some(next.parse()?);
    }
    Ok(())
}

/// The last message of this conversation, or of any.
async fn last_of(site: &Site, id: Option<&str>) -> Result<RunView, CliError> {
    let wanted: Option<RunId> = id.map(str::parse).transpose()?;
    let mut found = None;
    messages(&**site, |run, place, _| {
        let own = place.conversation.unwrap_or(run.run_id);
        // Any message of a conversation names it.
        if wanted.is_none_or(|wanted| wanted == own || wanted == run.run_id) {
            found = Some(run);
        }
        found.is_some()
    })
    .await?;
    found.ok_or_else(|| {
        let text = match id {
            Some(id) => format!("there is no conversation {id}"),
            None => "there is no conversation yet".into(),
        };
        let hint = "List them with `chargehand chat --list`; begin one with `chargehand chat --crew FILE`.";
        CliError::caller("run.unknown", text, hint)
    })
}

/// A conversation in the list.
#[derive(Debug, Serialize)]
struct Listed {
    conversation: RunId,
    messages: u64,
    agent: String,
    last_at: Time,
    last: String,
    status: RunStatus,
}

async fn list(target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let site = target.open_to_read()?;
    let mut all: BTreeMap<RunId, Listed> = BTreeMap::new();
    let mut order = Vec::new();
    messages(&*site, |run, place, exchange| {
        let conversation = place.conversation.unwrap_or(run.run_id);
        all.entry(conversation).or_insert_with(|| {
            order.push(conversation);
            Listed {
                conversation,
                messages: place.number,
                agent: exchange.message.agent,
                last_at: run.created_at,
                last: exchange.message.text,
                status: run.status,
            }
        });
        false
    })
    .await?;
    let items: Vec<Listed> = order.iter().filter_map(|id| all.remove(id)).collect();
    match output {
        Output::Json => print_json(&json!({"items": items})),
        Output::Text if items.is_empty() => print("No conversations."),
        Output::Text => {
            let row = |listed: &Listed| {
                vec![
                    listed.conversation.to_string(),
                    listed.messages.to_string(),
                    listed.agent.clone(),
                    instant(listed.last_at),
                    plain(&cut(&listed.last, 50)),
                ]
            };
            let heading = ["conversation", "messages", "with", "last", "message"];
            print(&table(&heading, items.iter().map(row).collect()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_scripted(crew: &agent::crew::Crew) -> bool {
    let mut models = crew.models.values();
    models.any(|model| model.model.provider == Provider::Scripted)
}

struct Session<'a> {
    api: std::sync::Arc<dyn Api>,
    site: &'a Site,
    /// Who answers, and who works for whoever answers.
    workers: Vec<Running>,
    target: &'a Target,
    output: Output,
    is_scripted: bool,
    budget: domain::budget::Budget,
    conversation: Option<RunId>,
    previous: Option<RunId>,
    /// Messages so far.
    number: u64,
    agent: String,
    plan: CrewPlan,
    /// A message has no answer.
    failed: bool,
}

/// How an answer came to its end.
enum Over {
    Ended(Box<RunView>),
    /// Somebody wants this program to end; the run goes on with the next.
    Left,
}

impl Session<'_> {
    /// Answers until nothing more is said.
    async fn talk(
        &mut self,
        open: Option<RunView>,
        interrupt: &mut Interrupt,
    ) -> Result<ExitCode, CliError> {
        let asks = std::io::stdin().is_terminal() && self.output == Output::Text;
        let mut lines = lines();
        if let Some(run) = open {
            say(&format!(
                "      going on with: {}",
                plain(&cut(&run.goal, 60))
            ));
            let number = self.number;
            if !self
                .answer(run.run_id, number, interrupt, &mut lines)
                .await?
            {
                return Ok(self.left());
            }
        }
        loop {
            if asks {
                let mut err = std::io::stderr().lock();
                let _ = err.write_all(b"> ").and_then(|()| err.flush());
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = interrupt.wish() => return Ok(self.left()),
            };
            let Some(line) = line else { break };
            let text = line?;
            if text.trim().is_empty() {
                continue;
            }
            self.renew().await?;
            let (run, number) = match self.begin(text).await {
                Ok(begun) => begun,
                // What is wrong with one message is no reason to end the conversation.
                Err(error) if asks => {
                    say(&format!("error[{}]: {}", error.code, error.message));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if !self.answer(run, number, interrupt, &mut lines).await? {
                return Ok(self.left());
            }
        }
        if asks {
            say("");
        }
        self.bye();
        Ok(ExitCode::from(u8::from(self.failed)))
    }

    fn bye(&self) {
        if self.output == Output::Text
            && let Some(id) = self.conversation
        {
            let there = self.target.flags();
            say(&format!("next  chargehand{there} chat --continue {id}"));
        }
    }

    fn left(&self) -> ExitCode {
        self.bye();
        ExitCode::from(130)
    }

    /// Takes the crew as its file says it now: agents, prompts and tools may have come since the last
    /// message. A file that cannot be used changes nothing, and is told of with each message.
    async fn renew(&mut self) -> Result<(), CliError> {
        let Some(pinned) = &self.plan.crew_file else {
            return Ok(());
        };
        let path = pinned.path.clone();
        let read = agent::crew::Crew::load(&path);
        let usable = match read {
            Ok(crew) if crew.digest == pinned.digest => return Ok(()),
            Ok(crew) => match crew::minds(&crew) {
                Ok(_) if self.agent != ASSISTANT && !crew.agents.contains_key(&self.agent) => {
                    Err(format!("there is no agent “{}” any more", self.agent))
                }
                Ok(_) => Ok(crew),
                Err(error) => Err(error.message),
            },
            Err(mistakes) => Err(match mistakes.first() {
                Some(first) => format!("{first} ({})", counted(mistakes.len(), "mistake")),
                None => "it cannot be read".into(),
            }),
        };
        let crew = match usable {
            Ok(crew) => crew,
            Err(why) => {
                say(&format!(
                    "The crew file has changed and cannot be used: {why}; going on with the crew as it was"
                ));
                return Ok(());
            }
        };
        crew::dismiss(std::mem::take(&mut self.workers)).await;
        self.plan.crew_file = Some(PinnedCrew::of(path, &crew));
        (self.is_scripted, self.budget) = (is_scripted(&crew), crew.budget.of_run());
        if self.output == Output::Text {
            say("The crew file has changed; from here on it is:");
            introduce(&crew);
        }
        let plan = self.plan.clone();
        self.workers = crew::start(self.site, &[(String::new(), plan)]).await?;
        Ok(())
    }

    /// Stores what was said: from here on it will be answered.
    async fn begin(&mut self, text: String) -> Result<(RunId, u64), Error> {
        let message = Message {
            agent: self.agent.clone(),
            text,
            previous: self.previous,
        };
        let queue = self.plan.tag.as_deref().map(crew::queue).transpose()?;
        let number = self.number + 1;
        let place = Place {
            conversation: self.conversation,
            number,
        };
        let mut metadata: BTreeMap<Name, Json> = self.plan.metadata().into();
        metadata.insert(Name::literal(METADATA), Json::from_value(&json!(place)));
        let start = RunStart {
            goal: assistant::goal(&message),
            supervisor: Name::literal(SUPERVISOR),
            graph: assistant::graph(&message, queue)?,
            crew: Crew::default(),
            metadata,
            key: None,
            trace: None,
            budget: Some(self.budget),
        };
        let run = self.api.run_start(start).await?;
        (self.previous, self.number) = (Some(run), number);
        self.conversation = self.conversation.or(Some(run));
        Ok((run, number))
    }

    /// Waits for an answer and shows it. Whether the conversation goes on.
    async fn answer(
        &mut self,
        run: RunId,
        number: u64,
        interrupt: &mut Interrupt,
        lines: &mut Lines,
    ) -> Result<bool, CliError> {
        let mut screen = Screen::new(&self.agent, self.output);
        let over = self.hear_out(run, &mut screen, interrupt, lines).await?;
        let Over::Ended(view) = over else {
            screen.end_line();
            say(
                "Interrupted. What is done is kept: `chargehand chat --continue` goes on from there.",
            );
            return Ok(false);
        };
        self.failed |= view.status != RunStatus::Completed;
        match self.output {
            Output::Text => screen.conclude(&view),
            Output::Json => print(&self.document(&view, number).to_string()),
        }
        Ok(true)
    }

    async fn hear_out(
        &self,
        run: RunId,
        screen: &mut Screen,
        interrupt: &mut Interrupt,
        lines: &mut Lines,
    ) -> Result<Over, CliError> {
        let api = &*self.api;
        let supervisor = Supervisor::new(self.api.clone(), Name::literal(SUPERVISOR));
        let ended = async {
            // Whoever cannot be heard can be waited for.
            let _ = hear(api, run, |heard| screen.take(&heard)).await;
            patiently(api, async || supervisor.supervise(run).await).await
        };
        tokio::pin!(ended);
        let mut known = BTreeSet::new();
        let mut asked: Option<TaskView> = None;
        loop {
            tokio::select! {
                view = &mut ended => return Ok(Over::Ended(Box::new(view?))),
                wish = interrupt.wish() => match wish {
                    Wish::End => return Ok(Over::Left),
                    Wish::Stop => self.stop(run).await?,
                },
                task = approvals::next(api, run, &mut known), if asked.is_none() => {
                    let task = task?;
                    let why = approvals::asks(&task).map_or("", |(_, why)| why);
                    say(&format!("  {}: yes, or why not?", plain(&cut(why, 400))));
                    asked = Some(task);
                }
                line = lines.recv(), if asked.is_some() => {
                    let Some(line) = line else {
                        // Nobody is there to say it; it can be said later.
                        return Ok(Over::Left);
                    };
                    let line = line?;
                    let refused = match line.trim().to_lowercase().as_str() {
                        "y" | "yes" => None,
                        "" | "n" | "no" => Some("without a reason"),
                        _ => Some(line.trim()),
                    };
                    if let Some(task) = asked.take() {
                        approvals::answer(&*self.api, &task, refused).await?;
                    }
                }
            }
        }
    }

    /// Stops an answer, and what was delegated for it.
    async fn stop(&self, run: RunId) -> Result<(), CliError> {
        const REASON: &str = "stopped by the user";
        match self.api.run_cancel(run, REASON.into()).await {
            // It was just about to end.
            Err(error) if error.code == Code::RunState => return Ok(()),
            other => other?,
        }
        let by = json!(run);
        let query = RunQuery {
            status: Some(RunStatus::Running),
            after: None,
            limit: 1_000,
        };
        for other in self.api.run_list(query).await?.items {
            let of = other.metadata.get(DELEGATED_BY).map(Json::value);
            if of.as_ref() == Some(&by) {
                // It may have ended by itself in between.
                let _ = self.api.run_cancel(other.run_id, REASON.into()).await;
            }
        }
        Ok(())
    }

    /// An answer as one line of JSON.
    fn document(&self, view: &RunView, number: u64) -> serde_json::Value {
        let exchange = Exchange::of(view);
        let reply = exchange
            .as_ref()
            .and_then(|exchange| exchange.reply.as_ref());
        json!({
            "conversation": self.conversation,
            "number": number,
            "run_id": view.run_id,
            "agent": exchange.as_ref().map(|exchange| &exchange.message.agent),
            "message": exchange.as_ref().map(|exchange| &exchange.message.text),
            "status": view.status,
            "answer": exchange.as_ref().and_then(Exchange::words),
            "reply": reply,
            "failure": view.failure,
            "cancelled": view.cancelled,
            "scripted": self.is_scripted,
        })
    }
}

/// What is said, line by line.
type Lines = mpsc::Receiver<Result<String, CliError>>;

/// What is said on standard input.
fn lines() -> Lines {
    let (sender, receiver) = mpsc::channel(1);
    // A read of a terminal cannot be given up: it is a thread's, and ends with the program.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let most = MESSAGE_BYTES_MAX as u64 + 1;
            let read = input.by_ref().take(most).read_until(b'\n', &mut line);
            let line = match read {
                Ok(0) => return,
                Ok(bytes) if bytes as u64 == most => {
                    Err(Error::limit("bytes in a message", bytes, MESSAGE_BYTES_MAX).into())
                }
                Ok(_) => Ok(String::from_utf8_lossy(&line).trim().to_owned()),
                Err(fault) => Err(CliError::world(
                    "input.unreadable",
                    format!("standard input: {fault}"),
                    "Check where it comes from.",
                )),
            };
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// An answer on its way to a person.
pub(crate) struct Screen {
    agent: String,
    /// Words are shown as they come.
    is_live: bool,
    is_told: bool,
    /// The cursor is behind words.
    in_line: bool,
    /// Words of turns that go on, and whose they are.
    open: HashMap<(TaskId, u32, u32), String>,
    /// What the agent said last, whole.
    last: Option<String>,
}

impl Screen {
    /// For what this agent says; what others say stands beside it.
    pub(crate) fn new(agent: &str, output: Output) -> Self {
        let is_told = output == Output::Text;
        Self {
            agent: agent.to_owned(),
            is_live: is_told && std::io::stdout().is_terminal(),
            is_told,
            in_line: false,
            open: HashMap::new(),
            last: None,
        }
    }

    /// Shows what was heard.
    pub(crate) fn take(&mut self, heard: &Heard) {
        if !self.is_told {
            return;
        }
        if heard.anew {
            self.open.clear();
        }
        for piece in &heard.pieces {
            self.piece(piece);
        }
    }

    fn piece(&mut self, piece: &Piece) {
        let own = piece.agent.as_str() == self.agent;
        let at = |turn: u32| (piece.task_id, piece.attempt, turn);
        match &piece.said {
            Said::TurnBegan { turn } => drop(self.open.insert(at(*turn), String::new())),
            Said::Text { turn, text } => {
                self.open.entry(at(*turn)).or_default().push_str(text);
                if own && self.is_live {
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(plain(text).as_bytes());
                    let _ = out.flush();
                    self.in_line = true;
                }
            }
            Said::TurnEnded { turn, whole } => {
                let words = self.open.remove(&at(*turn)).unwrap_or_default();
                match (own, whole) {
                    (true, true) => self.last = Some(words),
                    (true, false) => {
                        if self.in_line {
                            self.note("it broke off and is asked again");
                        }
                    }
                    (false, true) if !words.trim().is_empty() => {
                        self.note(&format!("{}: {words}", piece.agent));
                    }
                    (false, _) => {}
                }
            }
            said => {
                if let Some(deed) = deed(said) {
                    self.note(&format!("{}: {deed}", piece.agent));
                }
            }
        }
    }

    /// A line beside the answer.
    fn note(&mut self, text: &str) {
        if text.contains("waits for a person's yes") {
            // It is asked for in full, right here.
            return;
        }
        self.end_line();
        say(&format!("  · {}", plain(&cut(text, 100))));
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.in_line) {
            print("");
        }
    }

    /// The end: the answer, as far as it was not shown yet.
    fn conclude(&mut self, view: &RunView) {
        let exchange = Exchange::of(view);
        let words = exchange.as_ref().and_then(Exchange::words);
        let was_shown = self.is_live && self.last.is_some() && self.last == words;
        self.end_line();
        if let Some(words) = words.filter(|_| !was_shown) {
            match self.is_live {
                true => print(&plain(&words)),
                false => print(&words),
            }
        }
        let reply = exchange.and_then(|exchange| exchange.reply);
        if let Some(reply) = reply.filter(|reply| reply.status == Completeness::Partial) {
            let reason = reply.reason.unwrap_or_default();
            say(&format!("  partial: {}", plain(&cut(&reason, 200))));
        }
        if let Some(failure) = &view.failure {
            let message = plain(&cut(&failure.message, 400));
            say(&format!("error[{}]: {message}", failure.code));
            say(&format!(
                "  help: See `chargehand runs show {}`; say it again to try again.",
                view.run_id
            ));
        }
        if view.cancelled.is_some() {
            say("  stopped");
        }
    }
}
