//! Runs of agents, in words: what a task of theirs is called, what a run's answer rests on, and what
//! each brief came to where there is no answer.
//!
//! Deliberately absent: JSON. Programs read it with `--output json`; people read sentences.

use crate::output::{counted, cut};
use agent::input::Source;
use agent::mind::Completeness;
use agent::planning::ledger::Standing;
use agent::planning::{
    ANSWER_KIND, Answered, Delegation, Delivered, LOOK_KIND, Ledger, PLAN_KIND, WORK_KIND,
};
use agent::supervisor::tasks;
use domain::error::Error;
use domain::id::RunId;
use domain::json::Json;
use domain::task::{Failure, TaskStatus};
use protocol::ApiRead;
use protocol::v1::{RunView, TaskView};
use serde_json::Value;

/// Briefs that are listed; `tasks list` has the rest.
const BRIEFS_MAX: usize = 50;
/// Characters of a brief's objective, and of what came of it.
const OBJECTIVE_CHARS: usize = 100;
const RESULT_CHARS: usize = 400;

/// What a task is about, by its type and its input: `plan`, `b2 clerk: Draft the reply`, the file of an
/// item. Nothing where its input is in nobody's form.
pub(crate) fn about(kind: &str, input: &Value) -> Option<String> {
    match kind {
        PLAN_KIND => Some("plan".into()),
        LOOK_KIND => Some("look".into()),
        ANSWER_KIND => Some("answer".into()),
        WORK_KIND => {
            let (agent, objective) = (input["agent"].as_str()?, input["objective"].as_str()?);
            let brief = input["brief"].as_str().unwrap_or_default();
            Some(
                format!("{brief} {agent}: {}", objective.trim())
                    .trim()
                    .to_owned(),
            )
        }
        _ => {
            let items = input["items"].as_array()?;
            let source = &items.first()?["source"];
            let first: Source = serde_json::from_value(source.clone()).ok()?;
            Some(match items.len() {
                1 => first.to_string(),
                several => format!("{first} and {} more", several - 1),
            })
        }
    }
}

/// What a task is called while it is worked on.
pub(crate) fn label(kind: &str, input: &Value) -> Option<String> {
    match kind {
        PLAN_KIND => Some("the plan".into()),
        ANSWER_KIND => Some("the answer".into()),
        LOOK_KIND => Some("a look at how far it is".into()),
        WORK_KIND => {
            let (agent, objective) = (input["agent"].as_str()?, input["objective"].as_str()?);
            Some(format!("{agent}: {}", cut(objective, 60)))
        }
        _ => {
            let source = input["items"][0]["source"].clone();
            let source: Source = serde_json::from_value(source).ok()?;
            Some(source.to_string())
        }
    }
}

fn answered(view: &RunView) -> Option<Answered> {
    let result = view.final_result.as_ref().map(Json::value);
    serde_json::from_value(result?).ok()
}

/// Whether something is missing from the answer of a crew of agents.
pub(crate) fn is_partial(view: &RunView) -> bool {
    answered(view).is_some_and(|answered| answered.status == Completeness::Partial)
}

/// The answer of a crew of agents, and what it cites.
pub(crate) fn answer(view: &RunView) -> Option<String> {
    let answered = answered(view)?;
    let mut text = format!("{}\n\n", answered.text.trim());
    for revision in &answered.revisions {
        let change = |sign, names: &[String]| {
            let named: Vec<String> = names.iter().map(|name| format!("{sign}{name}")).collect();
            named.join(" ")
        };
        let (added, dropped) = (change('+', &revision.added), change('-', &revision.dropped));
        let what = match &revision.split {
            Some(_) => "split",
            None => "changed",
        };
        text += &format!(
            "plan {what} after round {}: {} {added} {dropped}\n",
            revision.round,
            cut(&revision.reason, 160)
        );
    }
    if let Some(reason) = &answered.ended {
        text += &format!("ended early: {reason}\n");
    }
    for missing in &answered.missing {
        let (objective, reason) = (cut(&missing.objective, 80), cut(&missing.reason, 160));
        text += &format!("missing {}: {objective}: {reason}\n", missing.brief);
    }
    for question in &answered.open {
        text += &format!("open: {}\n", cut(question, 160));
    }
    if answered.status == Completeness::Partial && answered.missing.is_empty() {
        text += "partial: a bound was reached before the end\n";
    }
    for source in &answered.sources {
        let receipts = match source.receipts.len() {
            0 => "no receipts".to_owned(),
            n => counted(n, "receipt"),
        };
        let sure = source.confidence.map_or_else(String::new, |confidence| {
            format!(", {:.0} % sure", confidence * 100.0)
        });
        let (number, agent) = (source.number, &source.agent);
        text += &format!(
            "  [{number}] {agent}: {} ({receipts}{sure})\n",
            cut(&source.objective, 80)
        );
    }
    Some(text.trim_end().to_owned())
}

/// A brief, and how far it came.
struct Brief {
    id: String,
    agent: String,
    objective: String,
    stands: String,
    result: Option<String>,
}

/// What each brief of a run of agents came to, from its tasks; nothing when this is no such run.
pub(crate) async fn briefs(api: &dyn ApiRead, run: RunId) -> Result<Option<String>, Error> {
    let mut ledger: Option<Ledger> = None;
    let mut briefs: Vec<Brief> = Vec::new();
    let mut is_crew = false;
    for task in tasks(api, run, None).await? {
        match task.kind.as_str() {
            PLAN_KIND | LOOK_KIND => {
                is_crew = true;
                let output = task.output.as_ref().map(Json::value).unwrap_or_default();
                ledger = serde_json::from_value(output["ledger"].clone())
                    .ok()
                    .or(ledger);
            }
            WORK_KIND => {
                let done = worked(&task);
                briefs.retain(|brief| brief.id.is_empty() || brief.id != done.id);
                briefs.push(done);
            }
            _ => {}
        }
    }
    Ok(is_crew.then(|| told(&in_order(ledger.unwrap_or_default(), briefs))))
}

/// What a task that does a brief came to.
fn worked(task: &TaskView) -> Brief {
    let given: Delegation = serde_json::from_value(task.input.value()).unwrap_or_default();
    let output = task.output.as_ref().map(Json::value).unwrap_or_default();
    let delivered: Option<Delivered> = serde_json::from_value(output).ok();
    let stands = match (task.status, &delivered) {
        (TaskStatus::Completed, Some(delivered)) => match delivered.envelope.status {
            Completeness::Done => "done".to_owned(),
            Completeness::Partial => because("partial", delivered.envelope.reason.as_deref()),
        },
        (TaskStatus::Failed, _) => {
            let failure = task.failure.as_ref();
            let why = failure.map(|Failure { code, message, .. }| format!("{code}: {message}"));
            because("failed", why.as_deref())
        }
        (TaskStatus::Cancelled, _) => because("cancelled", task.cancelled.as_deref()),
        (status, _) => status.to_string(),
    };
    Brief {
        id: given.brief,
        agent: given.agent,
        objective: given.objective,
        stands,
        result: delivered.and_then(|delivered| in_words(&delivered.envelope.result)),
    }
}

fn because(stands: &str, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("{stands}: {}", cut(why, RESULT_CHARS)),
        None => stands.to_owned(),
    }
}

/// In the plan's order; those that no task was made for as the plan has them.
fn in_order(ledger: Ledger, mut worked: Vec<Brief>) -> Vec<Brief> {
    let mut all = Vec::new();
    for entry in ledger.entries {
        let known = worked.iter().position(|brief| brief.id == entry.brief.id);
        let stands = match entry.standing {
            Standing::Dropped => because("dropped", entry.reason.as_deref()),
            Standing::Split => "planned by itself".to_owned(),
            Standing::Failed => because("failed", entry.reason.as_deref()),
            _ => "not begun".to_owned(),
        };
        all.push(match known {
            Some(at) => worked.remove(at),
            None => Brief {
                id: entry.brief.id,
                agent: entry.brief.agent,
                objective: entry.brief.objective,
                stands,
                result: None,
            },
        });
    }
    all.extend(worked);
    all
}

fn told(briefs: &[Brief]) -> String {
    if briefs.is_empty() {
        return "There is no answer, and no brief was given out.".into();
    }
    let mut lines = vec!["There is no answer. What each brief came to:".to_owned()];
    for brief in briefs.iter().take(BRIEFS_MAX) {
        let (id, agent) = (&brief.id, &brief.agent);
        let objective = cut(&brief.objective, OBJECTIVE_CHARS);
        lines.push(format!("  {id} {agent}: {objective}"));
        lines.push(format!("      {}", brief.stands));
        if let Some(result) = &brief.result {
            lines.push(format!("      {}", cut(result, RESULT_CHARS)));
        }
    }
    if briefs.len() > BRIEFS_MAX {
        lines.push(format!("  … and {} more", briefs.len() - BRIEFS_MAX));
    }
    lines.join("\n")
}

/// A result as a person would say it: what has a name by its name, lists in a row, nothing empty.
pub(crate) fn in_words(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) | Value::Number(_) => Some(value.to_string()),
        Value::String(text) => (!text.is_empty()).then(|| cut(text, RESULT_CHARS)),
        Value::Array(items) => {
            let words: Vec<String> = items.iter().filter_map(in_words).collect();
            (!words.is_empty()).then(|| words.join(", "))
        }
        Value::Object(fields) => {
            let said =
                |(key, value): (&String, &Value)| Some(format!("{key}: {}", in_words(value)?));
            let words: Vec<String> = fields.iter().filter_map(said).collect();
            (!words.is_empty()).then(|| words.join(" · "))
        }
    }
}
