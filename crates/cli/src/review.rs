//! Plans before their work: what is shown of one, and how a person says yes, changes it, or says no.

use crate::error::CliError;
use crate::output::{counted, cut, say, table, wrapped};
use crate::resume::spent;
use crate::target::Target;
use agent::planning::{Minds, Plan, Round};
use domain::json::Json;
use domain::run::RunStatus;
use protocol::v1::RunView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

/// Characters of a made agent's prompt that are shown.
const PROMPT_CHARS: usize = 800;

/// What a run planned, if it did nothing else.
pub(crate) fn round(view: &RunView) -> Option<Round> {
    let result = view.final_result.as_ref().map(Json::value)?;
    let round: Round = serde_json::from_value(result).ok()?;
    (view.status == RunStatus::Completed && round.estimate.is_some()).then_some(round)
}

/// The plan of a round.
pub(crate) fn plan(round: &Round) -> Plan {
    let briefs = round.ledger.entries.iter().map(|entry| entry.brief.clone());
    Plan {
        effort: None,
        briefs: briefs.collect(),
    }
}

/// A plan for a person to read, with what it will cost.
pub(crate) fn planned(view: &RunView) -> Option<String> {
    round(view).map(|round| {
        shown(
            &plan(&round),
            round.estimate.as_ref().map(|e| spent(&e.amount)),
        )
    })
}

fn shown(plan: &Plan, cost: Option<String>) -> String {
    let rows = plan.briefs.iter().map(|brief| {
        let inputs = brief.inputs.iter().map(ToString::to_string);
        let inputs: Vec<String> = inputs.collect();
        vec![
            brief.id.clone(),
            match &brief.spawn {
                Some(_) => format!("{} (made)", brief.agent),
                None => brief.agent.clone(),
            },
            cut(&brief.objective, 70),
            inputs.join(" "),
            brief.needs.join(" "),
            brief.evidence.join(" "),
            brief.acceptance.len().to_string(),
        ]
    });
    let heading = [
        "brief",
        "agent",
        "objective",
        "inputs",
        "needs",
        "rests on",
        "checks",
    ];
    let mut text = table(&heading, rows.collect());
    // Who is made is approved with the plan: what it is told and what it may use, once.
    let mut made = BTreeMap::new();
    for brief in &plan.briefs {
        made.extend(brief.spawn.as_ref().map(|spawned| (&brief.agent, spawned)));
    }
    for (name, spawned) in made {
        let tools: Vec<&str> = spawned.tools.iter().map(String::as_str).collect();
        let tools = match tools.is_empty() {
            true => "no tools".to_owned(),
            false => format!("tools {}", tools.join(" ")),
        };
        text += &format!("\n\nmade  {name}, {tools}");
        text += &format!("\n{}", wrapped(&cut(&spawned.prompt, PROMPT_CHARS), 6));
    }
    if let Some(cost) = cost {
        text += &format!("\n\n{}, about {cost}", counted(plan.briefs.len(), "brief"));
    }
    text
}

/// What a person said of a plan.
pub(crate) enum Verdict {
    /// It shall be done, as it was or as it was changed.
    Yes(Plan),
    /// It shall not.
    No,
}

/// Shows a plan and asks, until it is one that can be done or is not wanted.
pub(crate) fn ask(
    round: &Round,
    minds: &Minds,
    inputs: &[serde_json::Value],
) -> Result<Verdict, CliError> {
    let mut current = plan(round);
    loop {
        let cost = spent(&minds.estimate(&current, inputs).amount);
        say(&shown(&current, Some(cost)));
        say("\nDo it? yes, edit, or no:");
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if read.map_err(|fault| unreadable("standard input", &fault))? == 0 {
            return Ok(Verdict::No);
        }
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(Verdict::Yes(current)),
            "n" | "no" => return Ok(Verdict::No),
            "e" | "edit" => match edited(&current, minds, inputs.len())? {
                Ok(changed) => current = changed,
                Err(complaint) => say(&format!("not as it is now: {complaint}")),
            },
            _ => {}
        }
    }
}

/// The plan as a person left it in an editor, or what is wrong with it.
fn edited(plan: &Plan, minds: &Minds, inputs: usize) -> Result<Result<Plan, String>, CliError> {
    let folder =
        tempfile::tempdir().map_err(|fault| unreadable("the folder for a copy", &fault))?;
    let file = folder.path().join("plan.json");
    let text = serde_json::to_string_pretty(plan).unwrap_or_default();
    std::fs::write(&file, text).map_err(|fault| unreadable("the copy", &fault))?;
    let set = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    let editor = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".into());
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(&file)
        .status();
    match status {
        Ok(status) if status.success() => {}
        _ => {
            return Ok(Err(format!(
                "the editor `{editor}` did not end well; set EDITOR"
            )));
        }
    }
    Ok(read(&file).and_then(|plan| minds.lint(&json!(plan), inputs)))
}

/// A plan in a file: by itself, or in what a run that only planned printed.
fn read(file: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file).map_err(|fault| fault.to_string())?;
    let mut document: Value = serde_json::from_str(&text).map_err(|fault| fault.to_string())?;
    if document.get("run_id").is_none() {
        return serde_json::from_str(&text).map_err(|fault| fault.to_string());
    }
    let round = serde_json::from_value::<Round>(document["final_result"].take());
    match round {
        Ok(made) if made.estimate.is_some() => Ok(plan(&made)),
        _ => Err("it is what a run printed that did not only plan".to_owned()),
    }
}

/// A plan that was made before: by a run that only planned, or in a file.
pub(crate) async fn given(named: &str, target: &Target) -> Result<Plan, CliError> {
    if let Ok(run) = named.parse() {
        let view = target.open_to_read()?.run_get(run).await?;
        let round = round(&view).ok_or_else(|| {
            CliError::caller(
                "plan.invalid",
                format!("{run} is not a run that only planned"),
                "Make a plan with `--dry-run` or `--review`, and name its run, or name a file.",
            )
        })?;
        return Ok(plan(&round));
    }
    read(Path::new(named)).map_err(|fault| {
        let hint = "A plan is the id of a run that only planned, or a JSON file as `--dry-run --output json` gives it.";
        CliError::caller("plan.invalid", format!("the plan {named}: {fault}"), hint)
    })
}

fn unreadable(what: &str, fault: &std::io::Error) -> CliError {
    let hint = "Free some space, or check the permissions.";
    CliError::caller(
        "plan.invalid",
        format!("{what} cannot be used: {fault}"),
        hint,
    )
}
