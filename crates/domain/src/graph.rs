//! The graph: what a supervisor plans for one run and what a person saves as a workflow, one type.
//!
//! This version has three kinds of steps: `task` (one task), `each` (a task per item) and `gate`
//! (a join and a reduction). A graph is data: it is checked before it runs, pinned when it starts,
//! and interpreted by [`run`](crate::run), which knows no other form of plan.

use crate::error::{Code, Error};
use crate::expr::Expr;
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
use crate::retry::RetryPolicy;
use crate::task::{Priority, SlotUse, TaskSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Steps, in an order in which each comes after what it needs.
///
/// ```
/// let graph: domain::graph::Graph = serde_json::from_str(r#"{"steps": [
///     {"id": "extract", "each": {"items": [1, 2, 3], "task": {"kind": "text.stats"}}},
///     {"id": "all", "needs": ["extract"], "gate": {"join": "all", "reduce": "collect"}}
/// ]}"#)?;
/// graph.check().unwrap();
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// All steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Step {
    /// Its name, unique in the graph; its output is addressed by it.
    pub id: Name,
    /// Steps that must have ended first. A gate watches them from their start on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Name>,
    /// What it does.
    #[serde(flatten)]
    pub kind: StepKind,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// One task.
    Task(Template),
    /// A task per item.
    Each(Each),
    /// Opens on a condition over the tasks of the steps it needs, and reduces their outputs.
    Gate(Gate),
}

/// A task per item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// The items, when the plan knows them. Once the run has started they are in its tasks, and
    /// here no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Value>,
    /// The step whose output has the items: a list, or an object whose `items` are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Name>,
    /// What each task is.
    pub task: Template,
    /// How many run at once, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// What the tasks of a step have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Their type.
    pub kind: Name,
    /// Their input, when it is not the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Or an expression for it, over `goal`, `steps` (outputs by step) and, in `each`, `item` and
    /// `index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_from: Option<String>,
    /// What a worker must be able to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<Name>,
    /// What comes first.
    #[serde(default)]
    pub priority: Priority,
    /// Milliseconds an attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When a failed attempt is followed by another.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// The queue.
    #[serde(default = "crate::task::default_queue")]
    pub queue: Name,
    /// Tasks whose value here is the same go to the same worker, under
    /// [`Strategy::Affinity`](crate::pool::Strategy::Affinity). An expression like `input_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_from: Option<String>,
}

impl Template {
    /// Tasks of this type with every default.
    pub fn new(kind: Name) -> Self {
        Self {
            kind,
            input: None,
            input_from: None,
            capability: None,
            priority: Priority::NORMAL,
            timeout_ms: None,
            retry: RetryPolicy::default(),
            queue: crate::task::default_queue(),
            affinity_from: None,
        }
    }

    /// The specification of one task.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`] when the input's expression has no value.
    pub(crate) fn spec(&self, scope: &BTreeMap<String, Value>) -> Result<TaskSpec, Error> {
        let input = match (&self.input_from, &self.input, scope.get("item")) {
            (Some(source), _, _) => Expr::compile(source)?.eval(scope)?,
            (None, Some(input), _) => input.clone(),
            (None, None, Some(item)) => item.clone(),
            (None, None, None) => Value::Null,
        };
        let mut spec = TaskSpec::new(self.kind.clone(), Json::from_value(&input));
        spec.capability.clone_from(&self.capability);
        spec.priority = self.priority;
        spec.retry = self.retry;
        spec.queue = self.queue.clone();
        if let Some(ms) = self.timeout_ms {
            spec.timeout_ms = ms;
        }
        Ok(spec)
    }

    pub(crate) fn affinity(
        &self,
        scope: &BTreeMap<String, Value>,
    ) -> Result<Option<String>, Error> {
        self.affinity_from
            .as_ref()
            .map(|source| Ok(Expr::compile(source)?.eval(scope)?.to_string()))
            .transpose()
    }

    fn check(&self, step: &Name) -> Result<(), Error> {
        let at = |error: Error| Error {
            message: format!("step “{step}”: {}", error.message),
            ..error
        };
        for source in self.input_from.iter().chain(&self.affinity_from) {
            Expr::compile(source).map_err(at)?;
        }
        if self.input.is_some() && self.input_from.is_some() {
            return Err(invalid(step, "has both `input` and `input_from`"));
        }
        let mut probe = TaskSpec::new(self.kind.clone(), Json::default());
        probe.priority = self.priority;
        probe.retry = self.retry;
        probe.timeout_ms = self.timeout_ms.unwrap_or(probe.timeout_ms);
        probe.check().map_err(at)
    }
}

/// When a gate opens, and what it makes of what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// When.
    pub join: Join,
    /// What.
    #[serde(default)]
    pub reduce: Reduce,
}

/// When a gate opens, counted over the tasks of the steps it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// All completed.
    All,
    /// One completed; the rest is cancelled.
    Any,
    /// So many completed, the rest may be wrong; the rest is cancelled.
    Quorum(u32),
    /// The first so many to complete, in that order; the rest is cancelled.
    FirstK(u32),
    /// All ended, whether well or not, and at least so many completed; 0 will do.
    Ended(u32),
    /// All ended, or so many milliseconds have passed since it began to watch, and at least one
    /// completed; the rest is cancelled.
    Deadline(u64),
}

/// What a gate makes of the outputs of completed tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// A list, in the order of steps and items (under `first_k`: of completion).
    #[default]
    Collect,
    /// Lists joined into one list, or texts into one text with line ends between.
    Concat,
    /// Objects laid over each other; the later key wins.
    Merge,
    /// What became of each task, in the order of steps and items: `task`, and either `output` or
    /// `failure`.
    Outcomes,
    /// The value that most outputs have, the first of equals, with the count of each.
    Vote,
    /// The value of an expression over `outputs`, `goal` and `steps`.
    Expression(String),
    /// The run's supervisor reads the results and answers.
    Supervisor,
}

impl Step {
    /// Its template, when it makes tasks.
    pub fn template(&self) -> Option<&Template> {
        match &self.kind {
            StepKind::Task(template) => Some(template),
            StepKind::Each(each) => Some(&each.task),
            StepKind::Gate(_) => None,
        }
    }

    /// Its gate, when it is one.
    pub fn gate(&self) -> Option<&Gate> {
        match &self.kind {
            StepKind::Gate(gate) => Some(gate),
            StepKind::Task(_) | StepKind::Each(_) => None,
        }
    }
}

impl Graph {
    /// Checks names, needs, order, bounds and expressions.
    ///
    /// # Errors
    /// [`Code::GraphInvalid`] naming the step and what is wrong (a cycle is named step by step),
    /// [`Code::ExpressionInvalid`], [`Code::LimitExceeded`].
    pub fn check(&self) -> Result<(), Error> {
        if self.steps.is_empty() {
            return Err(Error::new(Code::GraphInvalid, "the graph has no steps"));
        }
        if self.steps.len() > GRAPH_STEPS_MAX {
            return Err(Error::limit("steps", self.steps.len(), GRAPH_STEPS_MAX));
        }
        let all: BTreeSet<&Name> = self.steps.iter().map(|step| &step.id).collect();
        if all.len() < self.steps.len() {
            let mut seen = BTreeSet::new();
            let twice = self.steps.iter().find(|step| !seen.insert(&step.id));
            let twice = twice.map_or("?", |step| step.id.as_str());
            return Err(Error::new(
                Code::GraphInvalid,
                format!("two steps are named “{twice}”"),
            ));
        }
        for step in &self.steps {
            for need in step.needs.iter().chain(over(step)) {
                if !all.contains(need) {
                    return Err(invalid(
                        &step.id,
                        &format!("needs “{need}”, which does not exist"),
                    ));
                }
            }
            self.check_kind(step)?;
        }
        self.check_order()
    }

    fn check_kind(&self, step: &Step) -> Result<(), Error> {
        match &step.kind {
            StepKind::Task(template) => template.check(&step.id),
            StepKind::Each(each) => {
                if each.items.is_empty() == each.over.is_none() {
                    return Err(invalid(&step.id, "needs either `items` or `over`"));
                }
                if let Some(over) = &each.over
                    && !step.needs.contains(over)
                {
                    return Err(invalid(
                        &step.id,
                        &format!("goes over “{over}” but does not need it"),
                    ));
                }
                if each.concurrency == Some(0) {
                    return Err(invalid(
                        &step.id,
                        "has a concurrency of 0, which runs nothing",
                    ));
                }
                each.task.check(&step.id)
            }
            StepKind::Gate(gate) => {
                if step.needs.is_empty() {
                    return Err(invalid(&step.id, "is a gate and needs no step"));
                }
                if let Some(need) = step.needs.iter().find(|need| {
                    self.steps
                        .iter()
                        .any(|other| other.id == **need && other.gate().is_some())
                }) {
                    return Err(invalid(
                        &step.id,
                        &format!("is a gate over the gate “{need}”"),
                    ));
                }
                match gate.join {
                    Join::Quorum(0) | Join::FirstK(0) => {
                        return Err(invalid(&step.id, "waits for 0 tasks"));
                    }
                    Join::Deadline(ms) if !(1..=TIMEOUT_MS_MAX).contains(&ms) => {
                        let text = format!("has a deadline outside 1 to {TIMEOUT_MS_MAX} ms");
                        return Err(invalid(&step.id, &text));
                    }
                    _ => {}
                }
                match &gate.reduce {
                    Reduce::Expression(source) => Expr::compile(source).map(|_| ()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Steps may be written in any order; a cycle has none.
    fn check_order(&self) -> Result<(), Error> {
        let mut done: BTreeSet<&Name> = BTreeSet::new();
        loop {
            let before = done.len();
            for step in &self.steps {
                if step.needs.iter().all(|need| done.contains(need)) {
                    done.insert(&step.id);
                }
            }
            if done.len() == self.steps.len() {
                return Ok(());
            }
            if done.len() == before {
                return Err(Error::new(
                    Code::GraphInvalid,
                    format!("the steps wait for each other: {}", self.cycle(&done)),
                ));
            }
        }
    }

    /// A cycle among the steps that are not done, as `a → b → a`.
    fn cycle(&self, done: &BTreeSet<&Name>) -> String {
        let open = |id: &Name| {
            self.steps
                .iter()
                .find(|s| s.id == *id && !done.contains(&s.id))
        };
        let mut path: Vec<&Name> = Vec::new();
        let mut at = self.steps.iter().find(|step| !done.contains(&step.id));
        while let Some(step) = at {
            if let Some(start) = path.iter().position(|id| **id == step.id) {
                let mut names: Vec<&str> = path[start..].iter().map(|id| id.as_str()).collect();
                names.push(&step.id);
                return names.join(" → ");
            }
            path.push(&step.id);
            at = step.needs.iter().find_map(open);
        }
        String::new()
    }

    /// The step of this name.
    pub fn step(&self, id: &Name) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }
}

fn over(step: &Step) -> Option<&Name> {
    match &step.kind {
        StepKind::Each(each) => each.over.as_ref(),
        StepKind::Task(_) | StepKind::Gate(_) => None,
    }
}

fn invalid(step: &Name, what: &str) -> Error {
    Error::new(Code::GraphInvalid, format!("step “{step}” {what}"))
}

/// The concurrency key of an `each` step's tasks.
pub(crate) fn each_slot(run: crate::id::RunId, step: &Name, max: u32) -> Option<SlotUse> {
    let text = format!("{run}/{step}");
    // A step's name may be as long as a name can be; then its digest stands for it.
    let text = match text.len() <= NAME_BYTES_MAX {
        true => text,
        false => format!("{run}/{:016x}", crate::command::fnv(&[step.as_bytes()])),
    };
    Name::new(text).ok().map(|key| SlotUse { key, max })
}

impl Reduce {
    /// Makes one value of the outputs.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`], or [`Code::GraphInvalid`] when the outputs do not have the form
    /// that the reduction needs.
    pub(crate) fn apply(
        &self,
        outputs: Vec<Value>,
        scope: &mut BTreeMap<String, Value>,
    ) -> Result<Value, Error> {
        match self {
            Self::Collect | Self::Outcomes | Self::Supervisor => Ok(Value::Array(outputs)),
            Self::Concat => concat(outputs),
            Self::Merge => {
                let mut merged = serde_json::Map::new();
                for output in outputs {
                    let Value::Object(fields) = output else {
                        return Err(shape("merge", "objects", &output));
                    };
                    merged.extend(fields);
                }
                Ok(Value::Object(merged))
            }
            Self::Vote => Ok(vote(&outputs)),
            Self::Expression(source) => {
                scope.insert("outputs".into(), Value::Array(outputs));
                Expr::compile(source)?.eval(scope)
            }
        }
    }
}

fn shape(reduce: &str, wanted: &str, found: &Value) -> Error {
    let shown: String = found.to_string().chars().take(80).collect();
    Error::new(
        Code::GraphInvalid,
        format!("`{reduce}` needs {wanted}, but an output is {shown}"),
    )
}

fn concat(outputs: Vec<Value>) -> Result<Value, Error> {
    if outputs.iter().all(Value::is_string) {
        let texts: Vec<&str> = outputs.iter().filter_map(Value::as_str).collect();
        return Ok(Value::String(texts.join("\n")));
    }
    let mut list = Vec::new();
    for output in outputs {
        match output {
            Value::Array(items) => list.extend(items),
            other => return Err(shape("concat", "texts or lists", &other)),
        }
    }
    Ok(Value::Array(list))
}

fn vote(outputs: &[Value]) -> Value {
    let mut votes: Vec<(&Value, u32)> = Vec::new();
    for output in outputs {
        match votes.iter_mut().find(|(value, _)| *value == output) {
            Some((_, count)) => *count += 1,
            None => votes.push((output, 1)),
        }
    }
    // The first of equals: a stable sort by falling count keeps the order of appearance.
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<Value> = votes
        .iter()
        .map(|(value, count)| serde_json::json!({"value": value, "votes": count}))
        .collect();
    let winner = votes
        .first()
        .map_or(Value::Null, |(value, _)| (*value).clone());
    serde_json::json!({"winner": winner, "votes": counts})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph(steps: Value) -> Result<Graph, String> {
        let graph: Graph =
            serde_json::from_value(json!({"steps": steps})).map_err(|e| e.to_string())?;
        graph
            .check()
            .map_err(|error| format!("{}: {}", error.code, error.message))?;
        Ok(graph)
    }

    // S4-42: a cycle is refused and named. S4-17, S4-57: an invalid graph is refused.
    #[test]
    fn a_graph_that_cannot_run_is_refused_with_the_step_named() {
        let task = json!({"kind": "t"});
        let cases = [
            (json!([]), "graph.invalid: the graph has no steps"),
            (
                json!([{"id": "a", "task": task}, {"id": "a", "task": task}]),
                "graph.invalid: two steps are named “a”",
            ),
            (
                json!([{"id": "a", "needs": ["b"], "task": task}]),
                "graph.invalid: step “a” needs “b”, which does not exist",
            ),
            (
                json!([{"id": "a", "needs": ["b"], "task": task},
                       {"id": "b", "needs": ["c"], "task": task},
                       {"id": "c", "needs": ["b"], "task": task}]),
                "graph.invalid: the steps wait for each other: b → c → b",
            ),
            (
                json!([{"id": "a", "each": {"task": task}}]),
                "graph.invalid: step “a” needs either `items` or `over`",
            ),
            (
                json!([{"id": "g", "gate": {"join": "all"}}]),
                "graph.invalid: step “g” is a gate and needs no step",
            ),
            (
                json!([{"id": "a", "task": task}, {"id": "g", "needs": ["a"], "gate": {"join": {"quorum": 0}}}]),
                "graph.invalid: step “g” waits for 0 tasks",
            ),
        ];
        for (steps, expected) in cases {
            assert_eq!(graph(steps).unwrap_err(), expected);
        }
        let error =
            graph(json!([{"id": "a", "task": {"kind": "t", "input_from": "1 +"}}])).unwrap_err();
        assert!(error.starts_with("expression.invalid: step “a”"), "{error}");
    }

    #[test]
    fn reductions_do_what_their_names_say() {
        let reduce = |reduce: Reduce, outputs: Value| {
            let Value::Array(outputs) = outputs else {
                panic!()
            };
            reduce
                .apply(outputs, &mut BTreeMap::new())
                .map_err(|e| e.message)
        };
        assert_eq!(
            reduce(Reduce::Collect, json!([2, 1])).unwrap(),
            json!([2, 1])
        );
        assert_eq!(
            reduce(Reduce::Concat, json!([[1], [], [2, 3]])).unwrap(),
            json!([1, 2, 3])
        );
        assert_eq!(
            reduce(Reduce::Concat, json!(["a", "b"])).unwrap(),
            json!("a\nb")
        );
        assert_eq!(
            reduce(Reduce::Merge, json!([{"a": 1, "b": 1}, {"b": 2}])).unwrap(),
            json!({"a": 1, "b": 2})
        );
        // S1-94: a vote among workers, first of equals.
        assert_eq!(
            reduce(Reduce::Vote, json!(["no", "yes", "yes", "no", "?"])).unwrap(),
            json!({"winner": "no", "votes": [
                {"value": "no", "votes": 2}, {"value": "yes", "votes": 2}, {"value": "?", "votes": 1}]})
        );
        let sum = Reduce::Expression("outputs.map(o, o * 2)".into());
        assert_eq!(reduce(sum, json!([1, 2])).unwrap(), json!([2, 4]));
        assert!(
            reduce(Reduce::Merge, json!([1]))
                .unwrap_err()
                .contains("needs objects")
        );
    }
}
