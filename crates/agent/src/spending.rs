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
use domain::budget::Amount;
use domain::error::Error;
use domain::id::{RunId, TaskId};
use domain::limits::PAGE_MAX;
use domain::record::{Record, RecordState};
use protocol::ApiRead;
use protocol::api::TaskQuery;
use protocol::v1::TaskView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Calls that have ended.
    pub calls: u64,
    /// Of those, the ones that failed.
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
        let mut after = None;
        loop {
            let query = TaskQuery {
                run: Some(run),
                after,
                limit: PAGE_MAX,
                ..TaskQuery::default()
            };
            let page = api.task_list(query).await?;
            for task in &page.items {
                spending.add(task);
                spending.called(api, task.task_id).await?;
            }
            after = page.items.last().map(|task| task.task_id);
            if page.next.is_none() || after.is_none() {
                return Ok(spending);
            }
        }
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

    async fn called(&mut self, api: &dyn ApiRead, task: TaskId) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = api.record_list(task, after, PAGE_MAX).await?;
            page.items.iter().for_each(|record| self.count(record));
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn count(&mut self, record: &Record) {
        let RecordState::Done { output } = &record.state else {
            return;
        };
        // Steps of other kinds are no receipts of calls; those of older versions name no tool.
        let Ok(receipt) = serde_json::from_value::<Receipt>(output.value()) else {
            return;
        };
        let Some(tool) = receipt.tool else {
            return;
        };
        let calls = self.tools.entry(tool).or_default();
        calls.calls += 1;
        if let Called::Failed(why) = &receipt.called {
            calls.failed += 1;
            calls.timed_out += u64::from(why.starts_with("tool.timed_out:"));
        }
    }
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
