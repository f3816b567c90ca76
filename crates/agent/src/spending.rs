//! What a run spent: by whom, on tasks of which type, and how the tools did that it called. All of it
//! is read from the accounts and the receipts of the run's tasks, so it holds while the run goes on, after
//! a crash, and for runs of long ago; the sum of the agents, and that of the types, is what the run's own
//! account says.
//!
//! Deliberately absent: a bound on any of it. Budgets are the run's and its agents', and each brief has
//! its share.

use crate::assistant::CHAT_KIND;
use crate::mind::{Called, Receipt};
use crate::planning::{ANSWER_KIND, LOOK_KIND, PLAN_KIND, SUPERVISOR, WORK_KIND};
use crate::supervisor;
use crate::tool;
use domain::budget::Amount;
use domain::error::Error;
use domain::id::{RunId, TaskId};
use domain::limits::PAGE_MAX;
use domain::record::{Record, RecordState};
use protocol::ApiRead;
use protocol::v1::TaskView;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a run spent until now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spending {
    /// By whom: the agent of each brief (what checking its result cost is its, too), `supervisor` for
    /// plans, looks and answers, and the worker where a task is no agent's.
    pub agents: BTreeMap<String, Amount>,
    /// On tasks of which type.
    pub types: BTreeMap<String, Amount>,
    /// The tools that were called, by name.
    pub tools: BTreeMap<String, Calls>,
}

/// How calls of a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Calls {
    /// Calls that were made, those included of which nobody knows whether they did anything.
    pub calls: u64,
    /// Of those, the ones that failed, or are in doubt.
    pub failed: u64,
    /// Of those, the ones that took longer than the tool's time limit.
    pub timed_out: u64,
}

impl Spending {
    /// Of this run.
    ///
    /// # Errors
    /// The contract's own.
    pub async fn of(api: &dyn ApiRead, run: RunId) -> Result<Self, Error> {
        let mut spending = Self::default();
        for task in supervisor::tasks(api, run, None).await? {
            spending.add(&task);
            spending.called(api, &task).await?;
        }
        Ok(spending)
    }

    fn add(&mut self, task: &TaskView) {
        let spent = task.account.spent;
        if spent.is_zero() {
            return;
        }
        let add = |sums: &mut BTreeMap<String, Amount>, name: String| {
            let sum = sums.entry(name).or_default();
            *sum = sum.plus(spent);
        };
        add(&mut self.agents, agent(task));
        add(&mut self.types, task.kind.to_string());
    }

    async fn called(&mut self, api: &dyn ApiRead, task: &TaskView) -> Result<(), Error> {
        let mut nameless = Vec::new();
        let mut after = None;
        loop {
            let page = api.record_list(task.task_id, after, PAGE_MAX).await?;
            for record in &page.items {
                if !self.count(record) && record.key.as_str().starts_with(CALL) {
                    nameless.push(record.clone());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if nameless.is_empty() {
            return Ok(());
        }
        let asked = asked(api, task.task_id).await?;
        let mut told = told(task);
        for record in nameless {
            let digest = record.key.as_str().rsplit('_').next().unwrap_or_default();
            let Some(tool) = asked.get(digest) else {
                continue;
            };
            let name = self.own_name(tool, task, &told);
            let late = told.iter().position(|text| is_late(text, &name));
            let calls = self.tools.entry(name).or_default();
            calls.calls += 1;
            if matches!(record.state, RecordState::Done { .. }) {
                // A person has found out that it happened, and said so in their own form.
                continue;
            }
            calls.failed += 1;
            if let Some(at) = late {
                told.remove(at);
                calls.timed_out += 1;
            }
        }
        Ok(())
    }

    /// Whether a record is one that says by itself which tool was called.
    fn count(&mut self, record: &Record) -> bool {
        let RecordState::Done { output } = &record.state else {
            return false;
        };
        // Steps of other kinds are no receipts of calls; those of older versions name no tool.
        let Ok(receipt) = serde_json::from_value::<Receipt>(output.value()) else {
            return false;
        };
        let Some(tool) = receipt.tool else {
            return false;
        };
        let calls = self.tools.entry(tool).or_default();
        calls.calls += 1;
        if let Called::Failed(why) = &receipt.called {
            calls.failed += 1;
            calls.timed_out += u64::from(why.starts_with("tool.timed_out:"));
        }
        true
    }

    /// The own name of a tool that models know by this one: one that was called before, that its brief
    /// names, or that a failure tells of; or what the model calls it.
    fn own_name(&self, model_name: &str, task: &TaskView, told: &[String]) -> String {
        let input = task.input.value();
        let granted = [&input["evidence"], &input["spawn"]["tools"]];
        let granted = granted.into_iter().filter_map(Value::as_array).flatten();
        let quoted = told.iter().flat_map(|text| {
            let quotes = text.split('“').skip(1);
            quotes.filter_map(|rest| Some(rest.split_once('”')?.0))
        });
        let known = self.tools.keys().map(String::as_str);
        let mut names = quoted.chain(granted.filter_map(Value::as_str)).chain(known);
        let found = names.find(|name| tool::letters(name) == model_name);
        found.unwrap_or(model_name).to_owned()
    }
}

/// How the keys of steps begin that are calls.
const CALL: &str = "call_";

/// The tools that the models of a task wanted called, by the digests in the keys of those calls. A call
/// without a receipt is named nowhere else.
async fn asked(api: &dyn ApiRead, task: TaskId) -> Result<BTreeMap<String, String>, Error> {
    let mut asked = BTreeMap::new();
    let mut after = None;
    loop {
        let page = api.record_list(task, after, PAGE_MAX).await?;
        for record in &page.items {
            let RecordState::Done { output } = &record.state else {
                continue;
            };
            let turn = output.value();
            let calls = turn["answer"]["calls"].as_array();
            for call in calls.into_iter().flatten() {
                if let Some(tool) = call["tool"].as_str() {
                    let digest = digest(tool, &call["arguments"]);
                    asked.insert(digest, tool.to_owned());
                }
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(asked);
        }
    }
}

/// As the key of a call has it.
fn digest(tool: &str, arguments: &Value) -> String {
    let asked = json!([tool, arguments]).to_string();
    let mut text = String::new();
    for byte in &Sha256::digest(asked)[..8] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Why attempts of a task ended.
fn told(task: &TaskView) -> Vec<String> {
    let ended = task.ended.iter();
    let failures = ended.filter_map(|ended| ended.failure.as_ref());
    let mut told: Vec<String> = failures.map(|failure| failure.message.clone()).collect();
    if let Some(failure) = &task.failure
        && told.is_empty()
    {
        told.push(failure.message.clone());
    }
    told
}

/// Whether a text says that a call of this tool took too long.
fn is_late(text: &str, tool: &str) -> bool {
    let late = ["timed out", "took longer than"];
    late.iter().any(|words| text.contains(words)) && text.contains(&format!("“{tool}”"))
}

/// Who did a task.
fn agent(task: &TaskView) -> String {
    let kind = task.kind.as_str();
    if [PLAN_KIND, LOOK_KIND, ANSWER_KIND].contains(&kind) {
        return SUPERVISOR.to_owned();
    }
    let named = [WORK_KIND, CHAT_KIND].contains(&kind);
    let input = named.then(|| task.input.value());
    let agent = input.as_ref().and_then(|input| input["agent"].as_str());
    let worker = || task.worker.as_ref().map(ToString::to_string);
    let agent = agent.map(str::to_owned).or_else(worker);
    agent.unwrap_or_else(|| "nobody".into())
}
