//! `chargehand run`: a goal and real input in, one result out.

use crate::crew::{self, CrewPlan, PinnedCrew};
use crate::crew_file;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output::{Output, counted, limits, say, whole};
use crate::progress::Before;
use crate::resume::{self, Told};
use crate::review::{self, Verdict};
use crate::target::Target;
use agent::input::{Item, read_inputs};
use agent::model::Provider;
use agent::planning::{self, Goal, WORK_KIND};
use agent::supervisor::{Plan, Supervisor, WORKERS_DEFAULT};
use agent::worker::COMMAND_KIND;
use agent::{command, plan, skill};
use domain::command::RunStart;
use domain::error::{Code, Error};
use domain::limits::ATTEMPTS_MAX;
use domain::name::Name;
use domain::pool::{Member, Strategy};
use domain::retry::RetryPolicy;
use domain::run::Crew;
use domain::task::Priority;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The supervisor of runs started here.
pub(crate) const SUPERVISOR: &str = "supervisor_1";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand run \"Analyze the sentiment of these customer reviews\" --input reviews/*.txt
  chargehand run \"Summarize the reports\" --input reports/ --workers 4
  chargehand run \"Find links and dates\" --skill text.extract --input notes.md
  chargehand run \"Answer the open tickets\" --crew crew.yaml --input tickets.jsonl
  chargehand run \"Answer the open tickets\" --crew crew.yaml --input tickets.jsonl --review
  cat tickets.jsonl | chargehand run \"What language are these in?\" --input -
  chargehand run \"Check each row\" --input rows.csv --worker-command './check.py' --output json

A program given by --worker-command gets its brief as JSON on standard input and prints its result as JSON on standard output. It may run again after a crash; $CHARGEHAND_IDEMPOTENCY_KEY names the task.")]
pub(crate) struct Args {
    /// What the crew shall do, in a sentence.
    goal: String,
    /// Files, folders, globs, or `-` for standard input: text, Markdown, JSON Lines, CSV.
    #[arg(long, short, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// How many workers.
    #[arg(long, short, default_value_t = WORKERS_DEFAULT as u32, value_parser = whole, allow_negative_numbers = true, value_name = "N")]
    workers: u32,
    /// In how many tasks; the items are split evenly. Default: one per item.
    #[arg(long, short, value_parser = whole, allow_negative_numbers = true, value_name = "N")]
    tasks: Option<u32>,
    /// Use this skill, whatever the goal says; see `chargehand skills`.
    #[arg(long, value_name = "NAME", conflicts_with = "worker_command")]
    skill: Option<String>,
    /// Options of the skill, as JSON.
    #[arg(long, value_name = "JSON")]
    options: Option<String>,
    /// Run this program for each task, instead of a skill.
    #[arg(long, value_name = "COMMAND")]
    worker_command: Option<String>,
    /// Let the agents of this crew file do it: their supervisor plans, they work, it answers.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["skill", "options", "worker_command", "tasks"])]
    crew: Option<PathBuf>,
    /// Only plan: show the briefs and what they will cost, and begin none.
    #[arg(long, requires = "crew", conflicts_with_all = ["review", "plan"])]
    dry_run: bool,
    /// Plan, show it, and begin when somebody says yes; it can be edited before.
    #[arg(long, requires = "crew", conflicts_with = "plan")]
    review: bool,
    /// Do this plan: of a run that only planned, or in a file.
    #[arg(long, requires = "crew", value_name = "RUN|FILE")]
    plan: Option<String>,
    /// How tasks are shared out: least-loaded, round-robin, weighted, capability, affinity.
    #[arg(long, default_value = "least-loaded", value_name = "NAME")]
    strategy: String,
    /// Seconds a task may take; then it is stopped, and tried again.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Attempts of a task, the first included.
    #[arg(long, default_value_t = 3, value_parser = whole, allow_negative_numbers = true, value_name = "N")]
    attempts: u32,
    /// What comes first: batch, low, normal, high, critical, or a number.
    #[arg(long, default_value = "normal", value_name = "BAND")]
    priority: String,
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    if let Some(file) = &args.crew {
        let crew = match agent::crew::Crew::load(file) {
            Ok(crew) => crew,
            Err(mistakes) => {
                crew_file::complain(&mistakes, output);
                return Ok(ExitCode::from(2));
            }
        };
        return run_crew(&args, file, &crew, target, output).await;
    }
    let (plan, crew) = prepare(&args, target)?;
    let engine = target.open()?;
    let api = engine.api();
    let supervisor = Supervisor::new(api.clone(), Name::literal(SUPERVISOR));
    let interrupt = Interrupt::listen();
    let workers = crew::start(&engine, &[(plan.goal.clone(), crew.clone())]).await?;
    let position = api.event_wait(0, std::time::Duration::ZERO).await?;
    let run = match supervisor.start(&plan).await {
        Ok(run) => run,
        Err(error) => {
            crew::stop(&engine, workers).await?;
            return Err(error.into());
        }
    };
    let tasks = plan.task_count();
    if output == Output::Text {
        let (items, n) = (plan.items.len(), crew.workers);
        say(&format!("plan  {} — {}", crew.kind, crew.because));
        let on = match items {
            0 => String::new(),
            items => format!("{} in ", counted(items, "item")),
        };
        let (tasks, crew) = (counted(tasks, "task"), counted(n as usize, "worker"));
        say(&format!("      {on}{tasks} for {crew} ({})", args.strategy));
        say(&format!("run   {run} {target}"));
    }
    let told = Told {
        position,
        total: tasks as u64,
        before: Before::default(),
        target,
        output,
        interrupt,
    };
    resume::work(&engine, workers, &supervisor, &[run], told).await
}

/// A goal for the agents of a crew file.
async fn run_crew(
    args: &Args,
    file: &Path,
    crew: &agent::crew::Crew,
    target: &Target,
    output: Output,
) -> Result<ExitCode, CliError> {
    plan::check_goal(&args.goal)?;
    crew::check_workers(args.workers)?;
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let workers = CrewPlan {
        kind: Name::literal(WORK_KIND),
        because: format!("the crew “{}”", crew.name),
        workers: args.workers,
        worker_command: None,
        crew_file: Some(PinnedCrew::of(path, crew)),
        tag: target.is_shared().then(crew::fresh_tag),
        assistant: false,
    };
    // What can be refused is refused before anything is stored.
    let minds = crew::minds(crew)?;
    let inputs = match args.input.as_slice() {
        [] => Vec::new(),
        named => read_inputs(named, &mut std::io::stdin().lock())?,
    };
    let inputs: Vec<Value> = inputs.iter().map(|item| serde_json::json!(item)).collect();
    let plan = match &args.plan {
        Some(named) => Some(review::given(named, target).await?),
        None => None,
    };
    if let Some(plan) = &plan {
        let linted = minds.lint(&serde_json::json!(plan), inputs.len());
        linted.map_err(|complaint| {
            let hint = "Correct the plan, or plan anew with `--dry-run`.";
            CliError::caller("plan.invalid", format!("the plan: {complaint}"), hint)
        })?;
    }
    let goal = Goal {
        goal: args.goal.clone(),
        inputs,
        queue: workers.tag.as_deref().map(crew::queue).transpose()?,
        plan,
        only_plan: args.dry_run || args.review,
    };
    let members = crew::names(args.workers, workers.tag.as_deref());
    let start = RunStart {
        goal: args.goal.clone(),
        supervisor: Name::literal(SUPERVISOR),
        graph: planning::graph(&goal)?,
        crew: Crew {
            strategy: args.strategy.parse()?,
            members: members.into_iter().map(Member::new).collect(),
        },
        metadata: workers.metadata().into(),
        key: None,
        trace: None,
        budget: Some(crew.budget.of_run()),
    };
    let engine = target.open()?;
    let api = engine.api();
    let supervisor = Supervisor::new(api.clone(), Name::literal(SUPERVISOR));
    let mut told = Told {
        position: api.event_wait(0, std::time::Duration::ZERO).await?,
        total: 1,
        before: Before::default(),
        target,
        output,
        interrupt: Interrupt::listen(),
    };
    let running = crew::start(&engine, &[(args.goal.clone(), workers)]).await?;
    if output == Output::Text {
        introduce(crew);
    }
    let mut run = match api.run_start(start.clone()).await {
        Ok(run) => run,
        Err(error) => {
            crew::stop(&engine, running).await?;
            return Err(error.into());
        }
    };
    if output == Output::Text {
        say(&format!("run   {run} {target}"));
    }
    if args.review {
        let ended = resume::to_the_end(&engine, &supervisor, &[run], &mut told).await?;
        let Some(view) = ended.and_then(|views| views.into_iter().next()) else {
            return resume::interrupted(&engine, running).await;
        };
        // Where there is no plan, why not is what there is to print.
        if let Some(round) = review::round(&view) {
            let Verdict::Yes(plan) = review::ask(&round, &minds, &goal.inputs)? else {
                crew::stop(&engine, running).await?;
                say(&format!("Not begun. `--plan {run}` does this plan later."));
                return Ok(ExitCode::from(1));
            };
            let approved = Goal {
                plan: Some(plan),
                only_plan: false,
                ..goal
            };
            told.position = api.event_wait(0, std::time::Duration::ZERO).await?;
            let graph = planning::graph(&approved)?;
            run = api.run_start(RunStart { graph, ..start }).await?;
            if output == Output::Text {
                say(&format!("run   {run} {target}"));
            }
        }
    }
    resume::work(&engine, running, &supervisor, &[run], told).await
}

/// Which of the models that the crew asks are transcripts, if any is.
fn scripted(crew: &agent::crew::Crew) -> Option<String> {
    let spawn = crew.supervisor.spawn.iter().map(|spawn| &spawn.model);
    let agents = crew.agents.values().map(|agent| &agent.model);
    let mut used = BTreeSet::new();
    for first in agents.chain(spawn).chain([&crew.supervisor.model]) {
        let mut next = Some(first);
        // What was seen has been followed to its end.
        while let Some(name) = next.filter(|name| used.insert(*name)) {
            let model = crew.models.get(name);
            next = model.and_then(|model| model.fallback.as_ref());
        }
    }
    let is_scripted = |name: &&String| {
        let model = crew.models.get(*name);
        model.is_some_and(|model| model.model.provider == Provider::Scripted)
    };
    let scripted: Vec<&str> = used
        .iter()
        .copied()
        .filter(is_scripted)
        .map(String::as_str)
        .collect();
    if scripted.is_empty() {
        None
    } else if scripted.len() == used.len() {
        Some("scripted: answers come from a transcript, no model is asked".into())
    } else {
        let names = scripted.join(", ");
        Some(format!(
            "scripted: the answers of {names} come from a transcript, those of the others from models"
        ))
    }
}

/// Says which crew it is, and what it may spend.
pub(crate) fn introduce(crew: &agent::crew::Crew) {
    let models = crew.models.values().map(|model| model.model.to_string());
    let models = models
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>();
    let agents = counted(crew.agents.len(), "agent");
    say(&format!(
        "crew  {} — {agents}, {}",
        crew.name,
        models.join(", ")
    ));
    if let Some(said) = scripted(crew) {
        say(&format!("      {said}"));
    }
    let (budget, briefs) = (crew.budget.of_run(), crew.budget.fan_out);
    say(&format!(
        "      at most {}, {briefs} briefs",
        limits(&budget)
    ));
    for name in crew.unpriced() {
        say(&format!(
            "      no price is known of {name}: its money is not counted; say `price` in the crew file"
        ));
    }
}

/// Everything that can be refused before anything is stored.
fn prepare(args: &Args, target: &Target) -> Result<(Plan, CrewPlan), CliError> {
    plan::check_goal(&args.goal)?;
    crew::check_workers(args.workers)?;
    let strategy: Strategy = args.strategy.parse()?;
    let priority: Priority = args.priority.parse()?;
    let retry = RetryPolicy {
        attempts: args.attempts,
        ..RetryPolicy::default()
    };
    check_attempts(args.attempts)?;
    let timeout_ms = args.timeout.map(milliseconds).transpose()?;
    if let Some(command) = &args.worker_command {
        command::check_program(command)?;
    }
    let items = read_inputs(&args.input, &mut std::io::stdin().lock())?;
    let (kind, because, options) = choose(args, &items)?;
    let workers = args.workers;
    let crew = CrewPlan {
        kind: kind.clone(),
        because,
        workers,
        worker_command: args.worker_command.clone(),
        crew_file: None,
        tag: target.is_shared().then(crew::fresh_tag),
        assistant: false,
    };
    let members = crew::names(workers, crew.tag.as_deref())
        .into_iter()
        .map(Member::new)
        .collect();
    let mut plan = Plan::new(args.goal.clone(), kind, items);
    plan.options = options;
    plan.tasks = args.tasks.map(|tasks| tasks as usize);
    plan.crew = Crew { strategy, members };
    plan.timeout_ms = timeout_ms;
    plan.retry = retry;
    plan.priority = priority;
    plan.queue = crew.tag.as_deref().map(crew::queue).transpose()?;
    plan.metadata = crew.metadata().into();
    // Refused here, so that a wrong `--tasks` makes no store.
    plan.graph()?.check()?;
    Ok((plan, crew))
}

fn check_attempts(attempts: u32) -> Result<(), CliError> {
    if (1..=ATTEMPTS_MAX).contains(&attempts) {
        return Ok(());
    }
    let error = Error::new(Code::OutOfRange, counted(attempts as usize, "attempt"));
    Err(error
        .hint(format!(
            "Use 1 to {ATTEMPTS_MAX} attempts; 3 is the default."
        ))
        .into())
}

fn milliseconds(seconds: f64) -> Result<u64, CliError> {
    if seconds.is_finite() && (0.001..=604_800.0).contains(&seconds) {
        return Ok((seconds * 1_000.0) as u64);
    }
    Err(CliError::caller(
        "value.out_of_range",
        format!("a timeout of {seconds} seconds"),
        "Use 0.001 to 604800 seconds (seven days).",
    ))
}

/// The program, the skill that was named, or the one that the goal's words choose.
fn choose(args: &Args, items: &[Item]) -> Result<(Name, String, Value), CliError> {
    let given: Option<Value> = match &args.options {
        None => None,
        // A list would be read as the options in some order, which is never what was meant.
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Some(Value::Object(fields)),
            read => {
                let fault = read
                    .err()
                    .map_or("is not an object".into(), |e| format!("is not JSON: {e}"));
                let hint = "Options are a JSON object, such as '{\"limit\": 5}'.";
                return Err(CliError::caller(
                    "json.malformed",
                    format!("--options {fault}"),
                    hint,
                ));
            }
        },
    };
    if let Some(command) = &args.worker_command {
        let because = format!("each task runs `{command}`");
        return Ok((
            Name::literal(COMMAND_KIND),
            because,
            given.unwrap_or_default(),
        ));
    }
    if items.is_empty() {
        return Err(CliError::caller(
            "input.missing",
            "there is nothing to work on",
            "Name files, folders or globs with `--input`, or `--input -` for standard input.",
        ));
    }
    let (chosen, because, mut options) = match &args.skill {
        Some(name) => {
            let skill = skill::find(name).ok_or_else(|| {
                let hint = format!(
                    "A program of yours is given with --worker-command. The skills are:\n{}",
                    skill::list()
                );
                CliError::caller("skill.unknown", format!("there is no skill “{name}”"), hint)
            })?;
            (skill, "you asked for it".to_owned(), Value::Null)
        }
        None => {
            let choice = plan::choose(&args.goal, items)?;
            (choice.skill, choice.because, choice.options)
        }
    };
    if let Some(given) = given {
        options = given;
    }
    chosen.check(&options)?;
    let name = Name::new(chosen.name())?;
    Ok((name, because, options))
}
