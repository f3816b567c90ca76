//! `chargehand resume`: goes on with what was interrupted. And the part of every command that works
//! on runs until they end.

use crate::agents;
use crate::crew::{self, CrewPlan};
use crate::error::{CliError, Reason};
use crate::interrupt::Interrupt;
use crate::output::{Output, counted, cut, duration, print, print_json, say};
use crate::progress::{self, Before};
use crate::reach::patiently;
use crate::review::planned;
use crate::run::SUPERVISOR;
use crate::target::{Site, Target};
use agent::command::check_program;
use agent::input::Source;
use agent::supervisor::{Aggregated, OneResult, Supervisor};
use chargehand::Running;
use domain::budget::{Amount, usd};
use domain::id::RunId;
use domain::name::Name;
use domain::run::RunStatus;
use protocol::ApiRead;
use protocol::api::RunQuery;
use protocol::v1::{RunView, Statistics};
use serde_json::{Value, json};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand resume
  chargehand resume run_01k5z3v9wfe4rvq0t2m6n8p7xy --output json")]
pub(crate) struct Args {
    /// Only this run.
    run: Option<String>,
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let engine = target.open_existing()?;
    let runs = match args.run {
        Some(run) => vec![engine.run_get(run.parse()?).await?],
        None => open_runs(&engine).await?,
    };
    go_on(&engine, runs, target, output).await
}

async fn open_runs(engine: &Site) -> Result<Vec<RunView>, CliError> {
    let mut runs: Vec<RunView> = Vec::new();
    loop {
        let after = runs.last().map(|run| run.run_id);
        let query = RunQuery {
            status: Some(RunStatus::Running),
            after,
            limit: 1_000,
        };
        let page = engine.run_list(query).await?;
        runs.extend(page.items);
        if page.next.is_none() {
            return Ok(runs);
        }
    }
}

/// Brings up the crews of these runs and works until the runs have ended.
pub(crate) async fn go_on(
    engine: &Site,
    runs: Vec<RunView>,
    target: &Target,
    output: Output,
) -> Result<ExitCode, CliError> {
    if runs.is_empty() {
        crew::stop(engine, Vec::new()).await?;
        match output {
            Output::Text => print("Nothing to resume: every run has ended."),
            Output::Json => print_json(&json!({"items": []})),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut crews = Vec::new();
    for run in runs.iter().filter(|run| run.ended_at.is_none()) {
        crews.push((run.goal.clone(), CrewPlan::of(run)?));
    }
    let commands: std::collections::BTreeSet<_> = crews
        .iter()
        .filter_map(|(_, crew)| crew.worker_command.as_ref())
        .collect();
    if commands.len() > 1 {
        return Err(CliError::caller(
            "resume.several_programs",
            format!(
                "{} runs with different worker programs are open",
                commands.len()
            ),
            "Resume them one at a time: `chargehand resume RUN`; see `chargehand runs list`.",
        ));
    }
    let files: std::collections::BTreeSet<_> = crews
        .iter()
        .filter_map(|(_, crew)| crew.crew_file.as_ref())
        .collect();
    if files.len() > 1 {
        return Err(CliError::caller(
            "resume.several_crews",
            format!("{} runs with different crew files are open", files.len()),
            "Resume them one at a time: `chargehand resume RUN`; see `chargehand runs list`.",
        ));
    }
    // A program that is gone, or is named from another folder, fails nothing: it is asked for first.
    commands
        .iter()
        .try_for_each(|command| check_program(command))?;
    let interrupt = Interrupt::listen();
    let position = engine.event_wait(0, Duration::ZERO).await?;
    let workers = crew::start(engine, &crews).await?;
    let api = engine.api();
    let supervisor = Supervisor::new(api, Name::literal(SUPERVISOR));
    let sum = |count: fn(&RunView) -> u32| runs.iter().map(|run| u64::from(count(run))).sum();
    let before = Before {
        submitted: sum(|run| run.tasks.total),
        completed: sum(|run| run.tasks.completed),
    };
    if output == Output::Text {
        for run in &runs {
            let (done, total) = (run.tasks.completed, run.tasks.total);
            say(&format!(
                "run   {} — {done} of {total} tasks are done: {}",
                run.run_id,
                cut(&run.goal, 60)
            ));
        }
    }
    let ids: Vec<RunId> = runs.iter().map(|run| run.run_id).collect();
    let told = Told {
        position,
        total: before.submitted,
        before,
        target,
        output,
        interrupt,
    };
    work(engine, workers, &supervisor, &ids, told).await
}

/// What the user is told while work goes on, and how.
pub(crate) struct Told<'a> {
    /// The log's position before.
    pub(crate) position: u64,
    /// Tasks in all, as far as is known.
    pub(crate) total: u64,
    /// Of those, what was there already.
    pub(crate) before: Before,
    /// Where it is kept.
    pub(crate) target: &'a Target,
    /// How to print.
    pub(crate) output: Output,
    /// Made before anything was started.
    pub(crate) interrupt: Interrupt,
}

/// Works until these runs have ended, or until the user interrupts; then prints.
pub(crate) async fn work(
    engine: &Site,
    workers: Vec<Running>,
    supervisor: &Supervisor,
    runs: &[RunId],
    mut told: Told<'_>,
) -> Result<ExitCode, CliError> {
    let api: Arc<dyn ApiRead> = engine.api();
    let Some(views) = to_the_end(engine, supervisor, runs, &mut told).await? else {
        return interrupted(engine, workers).await;
    };
    let mut reports = Vec::new();
    let mut briefs = Vec::new();
    for view in views {
        let id = view.run_id;
        let aggregated = patiently(&*api, async || supervisor.aggregate_results(id).await);
        let aggregated = aggregated.await?;
        let wanted = told.output == Output::Text && has_no_answer(&view);
        briefs.push(match wanted {
            true => patiently(&*api, async || agents::briefs(&*api, id).await).await?,
            false => None,
        });
        reports.push((view, aggregated));
    }
    let statistics = patiently(&*api, async || api.statistics().await).await?;
    crew::stop(engine, workers).await?;
    let failed = reports
        .iter()
        .any(|(view, _)| view.status != RunStatus::Completed || agents::is_partial(view));
    match told.output {
        Output::Text => {
            for ((view, aggregated), briefs) in reports.iter().zip(&briefs) {
                print_text(view, aggregated, briefs.as_deref(), told.target);
            }
        }
        Output::Json => match reports.as_slice() {
            [(view, aggregated)] => print_json(&document(view, aggregated, &statistics)),
            several => {
                let items: Vec<Value> = several
                    .iter()
                    .map(|(view, made)| document(view, made, &statistics))
                    .collect();
                print_json(&json!({"items": items}));
            }
        },
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Hands back what is under way, and says how to go on.
pub(crate) async fn interrupted(
    engine: &Site,
    workers: Vec<Running>,
) -> Result<ExitCode, CliError> {
    crew::stop(engine, workers).await?;
    say("Interrupted. What is done is kept: `chargehand resume` goes on from there.");
    Ok(ExitCode::from(130))
}

/// How long the display may take to show the end of what has ended.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Shows what happens until these runs have ended; nothing when the user interrupts.
pub(crate) async fn to_the_end(
    engine: &Site,
    supervisor: &Supervisor,
    runs: &[RunId],
    told: &mut Told<'_>,
) -> Result<Option<Vec<RunView>>, CliError> {
    let api: Arc<dyn ApiRead> = engine.api();
    let progress = progress::follow(
        Arc::clone(&api),
        runs.to_vec(),
        told.position,
        told.total,
        told.before,
        told.output,
    );
    let all_ended = async {
        let mut views = Vec::new();
        for run in runs {
            let supervised = patiently(&*api, async || supervisor.supervise(*run).await);
            views.push(supervised.await?);
        }
        Ok::<_, CliError>(views)
    };
    let (mut progress, mut all_ended) = (pin!(progress), pin!(all_ended));
    let mut shown = false;
    loop {
        tokio::select! {
            ended = &mut all_ended => {
                if !shown {
                    // What has happened is shown to its end, unless nobody can look any more.
                    let _ = tokio::time::timeout(LAST_LOOK, &mut progress).await;
                }
                return ended.map(Some);
            }
            // It has shown all there is, or nobody looks: work goes on without it.
            () = &mut progress, if !shown => shown = true,
            () = told.interrupt.heard() => return Ok(None),
        }
    }
}

/// The run as one JSON document.
fn document(view: &RunView, made: &Aggregated, statistics: &Statistics) -> Value {
    let tasks: Vec<Value> = made
        .task_results
        .iter()
        .map(|task| {
            let mut value = json!({
                "task_id": task.task_id, "status": task.status,
                "worker": task.worker, "attempts": task.attempts,
            });
            if let Some(error) = &task.error {
                value["error"] = json!(error);
            }
            value
        })
        .collect();
    let mut document = json!({
        "run_id": view.run_id,
        "status": view.status,
        "plan": {
            "goal": view.goal, "crew": view.crew, "steps": plan_steps(view), "metadata": view.metadata,
        },
        "tasks": tasks,
        "results": made.results,
        "final_result": view.final_result,
        "statistics": statistics,
    });
    if let Some(account) = &view.account {
        document["account"] = json!(account);
    }
    if let Some(failure) = &view.failure {
        document["partial"] = json!(view.partial);
        document["failure"] = json!(failure);
    }
    document
}

fn plan_steps(view: &RunView) -> Value {
    let steps = view.plan.steps.iter().zip(&view.steps);
    json!(
        steps
            .map(
                |(step, state)| json!({"step": step, "status": state.status, "tasks": state.tasks})
            )
            .collect::<Vec<_>>()
    )
}

/// Results that are listed; `tasks list` has the rest.
const LISTED_MAX: usize = 50;

/// It is a run of agents that came to no answer and to no plan to look at.
pub(crate) fn has_no_answer(view: &RunView) -> bool {
    let by_agents = CrewPlan::of(view).is_ok_and(|crew| crew.crew_file.is_some());
    by_agents && agents::answer(view).is_none() && planned(view).is_none()
}

fn print_text(view: &RunView, made: &Aggregated, briefs: Option<&str>, target: &Target) {
    let mut text = String::new();
    // What agents did is told as they tell it: what their tasks hold is for programs.
    let answer = agents::answer(view).or_else(|| briefs.map(str::to_owned));
    // What a program printed is listed in the result itself.
    let by_program = CrewPlan::of(view).is_ok_and(|crew| crew.worker_command.is_some());
    if made.results.len() > 1 && !by_program && answer.is_none() && planned(view).is_none() {
        for result in made.results.iter().take(LISTED_MAX) {
            text += &format!("  {}\n", one_line(result));
        }
        if made.results.len() > LISTED_MAX {
            text += &format!("  … and {} more\n", made.results.len() - LISTED_MAX);
        }
        text += "\n";
    }
    text += &answer
        .or_else(|| planned(view))
        .unwrap_or_else(|| made.final_result.clone());
    let took = view.ended_at.map_or(0, |at| at.since_ms(view.created_at));
    text += &format!(
        "\n\n{} {} in {}",
        view.run_id,
        match agents::is_partial(view) {
            true => "completed in part",
            false => view.status.as_str(),
        },
        duration(took)
    );
    if let Some(failure) = &view.failure {
        text += &format!(": {}", cut(&failure.message, 400));
    }
    let why = Reason::of(view).filter(|_| view.failure.is_some());
    if let Some(Reason { code, remedy }) = &why {
        text += &format!("\ncode  {code}\nhelp  {remedy}");
    }
    if let Some(reason) = &view.cancelled {
        text += &format!(": {reason}");
    }
    if let Some(account) = &view.account {
        text += &format!("\nspent {}", spent(&account.ledger.spent));
    }
    let there = target.flags();
    text += &format!("\nnext  chargehand{there} runs show {}\n", view.run_id);
    if planned(view).is_some() {
        let run = view.run_id;
        text += &format!("      chargehand{there} run … --plan {run}\n");
    }
    if view.status == RunStatus::Failed && why.is_none_or(|why| why.lets_retry()) {
        text += &format!("      chargehand{there} runs retry {}\n", view.run_id);
    }
    text += &format!("      chargehand{there} tasks list --run {}", view.run_id);
    print(&text);
}

/// `1,234 tokens, $0.02, 14 calls`.
pub(crate) fn spent(amount: &Amount) -> String {
    let (tokens, calls) = (amount.tokens as usize, amount.calls as usize);
    let usd = usd(amount.usd_micros);
    format!(
        "{}, {usd}, {}",
        counted(tokens, "token"),
        counted(calls, "call")
    )
}

fn one_line(result: &OneResult) -> String {
    let source = serde_json::from_value::<Source>(result.source.clone());
    let source = source.map_or_else(|_| result.task_id.to_string(), |source| source.to_string());
    let output = &result.output;
    let what = match &output["error"]["message"] {
        Value::String(error) => format!("error: {}", cut(error, 80)),
        _ => in_words(output).unwrap_or_else(|| "nothing".into()),
    };
    cut_line(&format!("{what}  {source}"), &source)
}

/// A result as a person would say it: what has a name by its name, lists in a row, nothing empty.
fn in_words(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) | Value::Number(_) => Some(value.to_string()),
        Value::String(text) => (!text.is_empty()).then(|| cut(text, 80)),
        Value::Array(items) => {
            let words: Vec<String> = items.iter().filter_map(in_words).collect();
            (!words.is_empty()).then(|| words.join(", "))
        }
        Value::Object(fields) => {
            if let (Some(label), Some(score)) = (value["label"].as_str(), value["score"].as_f64()) {
                return Some(format!("{label:<8} {score:+.2}"));
            }
            let named = ["text", "keyword", "name", "value"];
            if let Some(name) = named.iter().find_map(|field| value[*field].as_str()) {
                return Some(cut(name, 80));
            }
            let said =
                |(key, value): (&String, &Value)| Some(format!("{key}: {}", in_words(value)?));
            let words: Vec<String> = fields.iter().filter_map(said).collect();
            (!words.is_empty()).then(|| words.join(" · "))
        }
    }
}

/// Keeps the source in sight, whatever has to be cut.
fn cut_line(line: &str, source: &str) -> String {
    if line.chars().count() <= 110 {
        return line.to_owned();
    }
    let room = 108usize.saturating_sub(source.chars().count()).max(20);
    let what: String = line.chars().take(room).collect();
    format!("{what}…  {source}")
}
