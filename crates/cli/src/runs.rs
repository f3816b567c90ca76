//! `chargehand runs`: list, show, spending, watch, cancel, retry.

use crate::agents;
use crate::chat::Screen;
use crate::error::CliError;
use crate::output::{Output, cut, duration, instant, limits, print, print_json, say, table};
use crate::resume;
use crate::review::planned;
use crate::speech::hear;
use crate::target::Target;
use crate::tasks::waits;
use agent::spending::{Calls, Spending};
use domain::budget::{Amount, usd};
use domain::run::{RunStatus, StepStatus};
use domain::task::TaskStatus;
use protocol::ApiRead;
use protocol::api::{RunQuery, TaskQuery};
use protocol::v1::{RunView, TaskView};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// How long the last words of a run that has ended may take to arrive.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List runs, newest first.
    #[command(after_help = "Example:\n  chargehand runs list --status failed --output json")]
    List {
        /// Only these: running, completed, failed, cancelled.
        #[arg(long)]
        status: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = crate::output::limit, value_name = "N")]
        limit: usize,
        /// After this one: `next` of the page before.
        #[arg(long)]
        after: Option<String>,
    },
    /// Show one run: its plan, its steps, its result.
    #[command(after_help = "Example:\n  chargehand runs show run_01k5z3v9wfe4rvq0t2m6n8p7xy")]
    Show {
        /// Which.
        run: String,
    },
    /// Show what a run spent until now: by agent, by type of task, and how the tools did that it called.
    #[command(after_help = "Example:\n  chargehand runs spending run_01k5z3v9wfe4rvq0t2m6n8p7xy")]
    Spending {
        /// Which.
        run: String,
    },
    /// Show a run again whenever it changes, until it ends; of a server's, what its agents say, too.
    #[command(after_help = "Example:\n  chargehand runs watch run_01k5z3v9wfe4rvq0t2m6n8p7xy")]
    Watch {
        /// Which.
        run: String,
    },
    /// Stop a run; its open tasks are cancelled, its results are kept.
    #[command(
        after_help = "Example:\n  chargehand runs cancel run_01k5z3v9wfe4rvq0t2m6n8p7xy --reason \"wrong input\""
    )]
    Cancel {
        /// Which.
        run: String,
        /// Why.
        #[arg(long, default_value = "cancelled by the user")]
        reason: String,
    },
    /// Go on with a failed or cancelled run: only what failed is done again.
    #[command(after_help = "Example:\n  chargehand runs retry run_01k5z3v9wfe4rvq0t2m6n8p7xy")]
    Retry {
        /// Which.
        run: String,
    },
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::List {
            status,
            limit,
            after,
        } => {
            let status = status.as_deref().map(parse_status).transpose()?;
            let after = after.map(|run| run.parse()).transpose()?;
            let engine = target.open_to_read()?;
            let page = engine
                .run_list(RunQuery {
                    status,
                    after,
                    limit,
                })
                .await?;
            match output {
                Output::Json => print_json(&page),
                Output::Text => print(&list(&page.items)),
            }
        }
        Args::Show { run } => {
            let engine = target.open_to_read()?;
            let view = engine.run_get(run.parse()?).await?;
            let stuck = stuck(&*engine.api(), &view).await?;
            let briefs = briefs(&*engine.api(), &view, output).await?;
            show_with(&view, &stuck, briefs.as_deref(), output);
        }
        Args::Spending { run } => {
            let (engine, run) = (target.open_to_read()?, run.parse()?);
            let account = engine.run_get(run).await?.account;
            let spending = Spending::of(&*engine.api(), run).await?;
            match output {
                Output::Json => print_json(&json!({
                    "run_id": run, "spent": account.map(|account| account.ledger.spent),
                    "agents": spending.agents, "types": spending.types, "tools": spending.tools,
                })),
                Output::Text => print(&spent(&spending)),
            }
        }
        Args::Watch { run } => watch(&run, target, output).await?,
        Args::Cancel { run, reason } => {
            let run = run.parse()?;
            let engine = target.open_existing()?;
            engine.run_cancel(run, reason).await?;
            let view = engine.run_get(run).await?;
            let briefs = briefs(&*engine.api(), &view, output).await?;
            show_with(&view, &[], briefs.as_deref(), output);
        }
        Args::Retry { run } => {
            let run = run.parse()?;
            let engine = target.open_existing()?;
            engine.run_retry(run).await?;
            let view = engine.run_get(run).await?;
            return resume::go_on(&engine, vec![view], target, output).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_status(text: &str) -> Result<RunStatus, CliError> {
    serde_json::from_value(json!(text)).map_err(|_| {
        let hint = "Use running, completed, failed or cancelled.";
        CliError::caller(
            "value.out_of_range",
            format!("“{text}” is not a run's status"),
            hint,
        )
    })
}

fn list(runs: &[RunView]) -> String {
    if runs.is_empty() {
        return "No runs.".into();
    }
    let row = |run: &RunView| {
        vec![
            run.run_id.to_string(),
            run.status.as_str().to_owned(),
            format!("{}/{}", run.tasks.completed, run.tasks.total),
            instant(run.created_at),
            cut(&run.goal, 50),
        ]
    };
    table(
        &["run", "status", "done", "started", "goal"],
        runs.iter().map(row).collect(),
    )
}

fn spent(spending: &Spending) -> String {
    let amounts = |what: &str, sums: &BTreeMap<String, Amount>| {
        let row = |(name, amount): (&String, &Amount)| {
            let (tokens, calls) = (amount.tokens.to_string(), amount.calls.to_string());
            vec![name.clone(), tokens, usd(amount.usd_micros), calls]
        };
        let heading = [what, "tokens", "cost", "calls"];
        table(&heading, sums.iter().map(row).collect())
    };
    if spending.agents.is_empty() {
        return "Nothing was spent.".into();
    }
    let agents = amounts("agent", &spending.agents);
    let mut text = format!("{agents}\n\n{}", amounts("type", &spending.types));
    if !spending.tools.is_empty() {
        let row = |(name, calls): (&String, &Calls)| {
            let counts = [calls.calls, calls.failed, calls.timed_out];
            let counts = counts.map(|count| count.to_string());
            [&[name.clone()][..], &counts[..]].concat()
        };
        let heading = ["tool", "calls", "failed", "timed out"];
        let tools = table(&heading, spending.tools.iter().map(row).collect());
        text += &format!("\n\n{tools}");
    }
    text
}

/// Tasks of an open run that nobody works on, of which the reasons are told.
const STUCK_TASKS_MAX: usize = 100;
/// Reasons that are told in words.
const STUCK_LINES_MAX: usize = 5;

/// Those tasks of a run that wait: what for is in each of them.
async fn stuck(api: &dyn ApiRead, run: &RunView) -> Result<Vec<TaskView>, CliError> {
    if run.ended_at.is_some() {
        return Ok(Vec::new());
    }
    let query = TaskQuery {
        run: Some(run.run_id),
        status: Some(TaskStatus::Pending),
        limit: STUCK_TASKS_MAX,
        ..TaskQuery::default()
    };
    Ok(api.task_list(query).await?.items)
}

/// Why they wait, each reason once, with how many of which step it holds up.
fn why(stuck: &[TaskView]) -> Vec<String> {
    let mut reasons: Vec<(String, String, usize)> = Vec::new();
    for task in stuck {
        let step = task.step.as_ref().unwrap_or(&task.kind).to_string();
        let why = task.waits_for.as_ref().map(waits).unwrap_or_default();
        let same = |one: &&mut (String, String, usize)| one.0 == step && one.1 == why;
        match reasons.iter_mut().find(same) {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((step, why, 1)),
        }
    }
    let line = |(step, why, count): &(String, String, usize)| {
        format!("{count} of {step}: {}", cut(why, 160))
    };
    let mut lines: Vec<String> = reasons.iter().take(STUCK_LINES_MAX).map(line).collect();
    if reasons.len() > STUCK_LINES_MAX {
        lines.push("and others; `chargehand tasks list` has all".into());
    }
    lines
}

/// What the briefs came to of a run of agents that ended without an answer.
async fn briefs(
    api: &dyn ApiRead,
    run: &RunView,
    output: Output,
) -> Result<Option<String>, CliError> {
    let wanted = output == Output::Text && run.ended_at.is_some() && resume::has_no_answer(run);
    match wanted {
        true => Ok(agents::briefs(api, run.run_id).await?),
        false => Ok(None),
    }
}

/// What a step of a run is called: in one that is over, nothing runs or waits any more.
fn standing(run: &RunView, status: StepStatus) -> String {
    use StepStatus as S;
    match (run.ended_at, status) {
        (Some(_), S::Waiting | S::Skipped) => "not begun".into(),
        (Some(_), S::Running | S::AwaitingSupervisor | S::AwaitingPartial) => "cancelled".into(),
        _ => {
            let name = serde_json::to_value(status).unwrap_or_default();
            name.as_str().unwrap_or_default().replace('_', " ")
        }
    }
}

/// With the tasks that wait, and what briefs came to.
fn show_with(run: &RunView, stuck: &[TaskView], briefs: Option<&str>, output: Output) {
    if output == Output::Json {
        let mut document = json!(run);
        if !stuck.is_empty() {
            let told = stuck.iter().map(|task| {
                json!({"task_id": task.task_id, "step": task.step, "type": task.kind, "waits_for": task.waits_for})
            });
            document["waiting"] = told.collect();
        }
        return print_json(&document);
    }
    let mut text = format!(
        "{}  {}\n  goal      {}\n",
        run.run_id,
        run.status.as_str(),
        cut(&run.goal, 400)
    );
    text += &format!("  started   {}\n", instant(run.created_at));
    if let Some(ended) = run.ended_at {
        let took = duration(ended.since_ms(run.created_at));
        text += &format!("  ended     {} after {took}\n", instant(ended));
    }
    if let Some(account) = &run.account {
        text += &format!("  spent     {}", resume::spent(&account.ledger.spent));
        if !account.ledger.held.is_zero() {
            text += &format!(", and {} reserved", resume::spent(&account.ledger.held));
        }
        text += &format!(
            "\n  budget    {}, {} % used\n",
            limits(&account.budget),
            account.used_percent()
        );
    }
    if let Some(waits) = &run.waits_for {
        text += &format!("  waits     {}: {}\n", waits.who, waits.what);
    }
    for reason in why(stuck) {
        text += &format!("  why       {reason}\n");
    }
    if let Some(failure) = &run.failure {
        text += &format!(
            "  failure   {}: {}\n",
            failure.code,
            cut(&failure.message, 400)
        );
    }
    if let Some(reason) = &run.cancelled {
        text += &format!("  cancelled {reason}\n");
    }
    let step = |step: &protocol::v1::StepView| {
        let n = |count: u32| {
            if step.tasks.total == 0 {
                String::new()
            } else {
                count.to_string()
            }
        };
        vec![
            step.step.to_string(),
            standing(run, step.status),
            n(step.tasks.completed),
            n(step.tasks.running),
            n(step.tasks.pending),
            n(step.tasks.failed),
            n(step.tasks.cancelled),
        ]
    };
    let heading = [
        "step",
        "status",
        "completed",
        "running",
        "pending",
        "failed",
        "cancelled",
    ];
    text += &format!(
        "\n{}\n",
        table(&heading, run.steps.iter().map(step).collect())
    );
    if let Some(told) = agents::answer(run).or_else(|| planned(run)) {
        text += &format!("\n{told}");
    } else if let Some(briefs) = briefs {
        text += &format!("\n{briefs}");
    } else if let Some(result) = &run.final_result {
        let value = result.value();
        let shown = value["text"]
            .as_str()
            .map_or_else(|| result.text().to_owned(), str::to_owned);
        text += &format!(
            "\n{}{shown}",
            if run.partial { "partial result\n" } else { "" }
        );
    }
    print(text.trim_end());
}

/// Looks again and again; each look opens the store anew, to read only, so that whoever works on
/// the run is not disturbed.
async fn watch(run: &str, target: &Target, output: Output) -> Result<(), CliError> {
    let id = run.parse()?;
    let mut shown = None;
    let mut listening = tokio::task::JoinSet::new();
    if output == Output::Text && target.is_shared() {
        // What is said is in the memory of whoever works: only a server lets it be heard.
        let api = target.open_to_read()?.api();
        listening.spawn(async move {
            let mut screen = Screen::new("", output);
            // A server without streams shows the run all the same.
            let _ = hear(&*api, id, |heard| screen.take(&heard)).await;
        });
    }
    loop {
        let (view, briefs, worked_on) = {
            let engine = target.open_to_read()?;
            let view = engine.run_get(id).await?;
            let briefs = briefs(&*engine.api(), &view, output).await?;
            (view, briefs, target.is_worked_on())
        };
        if view.ended_at.is_some() {
            // What was said last is said before the result.
            let _ = tokio::time::timeout(LAST_WORDS, listening.join_next()).await;
        }
        if shown.as_ref() != Some(&view) {
            show_with(&view, &[], briefs.as_deref(), output);
            shown = Some(view.clone());
        }
        if view.ended_at.is_some() {
            return Ok(());
        }
        if !worked_on {
            say(&format!(
                "Nobody works on it now: `chargehand resume {id}` goes on."
            ));
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
