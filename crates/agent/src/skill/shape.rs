//! `json.shape` and `csv.shape`: select, filter and group records.
//!
//! Each item is shaped alone, so items spread over any number of workers; the
//! groups come together in the aggregate. Expressions are CEL over `item` and
//! over each field whose name is an identifier.
//!
//! The two differ in one thing. JSON has types; a CSV cell is text. So
//! `csv.shape` lets expressions see a cell that reads exactly as a number or
//! as `true`/`false` as that, while `007` stays text.
//!
//! Deliberately absent: joins between items, sorting, and other reductions
//! than counting and summing; those belong to a graph's gate.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Aggregate, ItemResult, Skill, SkillError, counted, listed, options};
use crate::input::Item;
use crate::text;
use domain::expr::Expr;

/// Most columns one `select` may name.
pub const SELECT_MAX: usize = 1_000;

/// `json.shape`.
pub(super) static JSON: Shape = Shape {
    name: "json.shape",
    typed_cells: false,
};
/// `csv.shape`.
pub(super) static CSV: Shape = Shape {
    name: "csv.shape",
    typed_cells: true,
};

/// One of the two.
pub(super) struct Shape {
    name: &'static str,
    typed_cells: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Fields to keep, or new fields by expression; everything when absent.
    select: Option<Select>,
    /// Keeps an item when true.
    filter: Option<String>,
    /// A field or an expression; items with equal values form a group.
    group: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Select {
    /// Names, or dotted paths into nested records.
    Fields(Vec<String>),
    /// New name to expression.
    Computed(BTreeMap<String, String>),
}

impl Select {
    fn len(&self) -> usize {
        match self {
            Select::Fields(fields) => fields.len(),
            Select::Computed(columns) => columns.len(),
        }
    }
}

#[async_trait]
impl Skill for Shape {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        if self.typed_cells {
            "select, filter and group CSV rows by expression (options `select`, `filter`, `group`)"
        } else {
            "select, filter and group JSON records by expression (options `select`, `filter`, `group`)"
        }
    }

    /// A `group` that is not an expression may still be a field's name, so it
    /// is judged only where the record is known.
    fn check(&self, given: &Value) -> Result<(), SkillError> {
        let options: Options = options(self.name, given)?;
        if let Some(filter) = &options.filter {
            Expr::compile(filter)?;
        }
        let Some(select) = &options.select else {
            return Ok(());
        };
        if select.len() > SELECT_MAX {
            return Err(SkillError::fatal(
                "option.invalid",
                format!(
                    "{}: `select` names {} fields; the most is {SELECT_MAX}",
                    self.name,
                    select.len()
                ),
                "Select fewer fields.",
            ));
        }
        match select {
            Select::Fields(_) => Ok(()),
            Select::Computed(columns) => columns
                .values()
                .try_for_each(|source| Ok(Expr::compile(source).map(drop)?)),
        }
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        let options: Options = options(self.name, given)?;
        let record = self.record(item)?;
        let variables = self.variables(&record);
        let located = |error: SkillError| SkillError {
            message: format!("{}: {}", item.source, error.message),
            ..error
        };
        shape(&options, &record, &variables).map_err(located)
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let kept: Vec<&ItemResult> = results
            .iter()
            .filter(|result| result.output["kept"] == true)
            .collect();
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for result in kept
            .iter()
            .filter(|result| result.output.get("group").is_some())
        {
            let key = &result.output["group"];
            groups
                .entry(key.to_string())
                .or_insert_with(|| Group::new(key))
                .add(&result.output["value"]);
        }
        let mut lines = vec![format!(
            "{}: {} kept, {} filtered out",
            counted(results.len(), "record"),
            kept.len(),
            results.len() - kept.len()
        )];
        if groups.is_empty() {
            lines.extend(listed(
                kept.iter()
                    .map(|result| format!("  {}", result.output["value"])),
            ));
        } else {
            lines.push(counted(groups.len(), "group"));
            lines.extend(listed(groups.values().map(Group::line)));
        }
        let mut value = json!({
            "count": results.len(),
            "kept": kept.len(),
            "filtered_out": results.len() - kept.len(),
            "records": kept.iter().map(|result| &result.output["value"]).collect::<Vec<_>>(),
        });
        if !groups.is_empty() {
            value["groups"] = groups.values().map(Group::value).collect();
        }
        Aggregate {
            value,
            text: lines.join("\n"),
        }
    }
}

impl Shape {
    /// The record, also out of a text that is JSON (as standard input may be).
    fn record(&self, item: &Item) -> Result<Value, SkillError> {
        let parsed = item
            .record
            .clone()
            .or_else(|| serde_json::from_str(item.text.as_deref()?).ok());
        match parsed {
            Some(Value::Object(fields)) if self.typed_cells => Ok(Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, typed(value)))
                    .collect(),
            )),
            Some(record) => Ok(record),
            None => Err(SkillError::fatal(
                "item.no_record",
                format!(
                    "{} is text, and {} works on records",
                    item.source, self.name
                ),
                "Give JSON, JSON Lines, CSV or TSV, or choose a text skill.",
            )),
        }
    }

    fn variables(&self, record: &Value) -> BTreeMap<String, Value> {
        let mut variables: BTreeMap<String, Value> = match record {
            Value::Object(fields) => {
                let named = fields.iter().filter(|(name, _)| is_identifier(name));
                named
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            }
            _ => BTreeMap::new(),
        };
        variables.insert("item".to_owned(), record.clone());
        variables
    }
}

/// `{"kept": false}`, or `{"kept": true, "value", "group"?}`.
fn shape(
    options: &Options,
    record: &Value,
    variables: &BTreeMap<String, Value>,
) -> Result<Value, SkillError> {
    if let Some(filter) = &options.filter {
        match Expr::compile(filter)?.eval(variables)? {
            Value::Bool(true) => {}
            Value::Bool(false) => return Ok(json!({"kept": false})),
            other => {
                return Err(SkillError::fatal(
                    "shape.filter_not_boolean",
                    format!("`filter` gave {other}, which is neither true nor false"),
                    "Compare something, such as `item.stars >= 4`.",
                ));
            }
        }
    }
    let mut output =
        json!({"kept": true, "value": selected(options.select.as_ref(), record, variables)?});
    if let Some(group) = &options.group {
        output["group"] = match record.get(group) {
            Some(field) => field.clone(),
            None => Expr::compile(group)?.eval(variables)?,
        };
    }
    Ok(output)
}

fn selected(
    select: Option<&Select>,
    record: &Value,
    variables: &BTreeMap<String, Value>,
) -> Result<Value, SkillError> {
    let fields: Map<String, Value> = match select {
        None => return Ok(record.clone()),
        Some(Select::Fields(fields)) => fields
            .iter()
            .map(|field| (field.clone(), at_path(record, field).clone()))
            .collect(),
        Some(Select::Computed(columns)) => {
            let compute = |(name, source): (&String, &String)| {
                Ok((name.clone(), Expr::compile(source)?.eval(variables)?))
            };
            columns
                .iter()
                .map(compute)
                .collect::<Result<_, SkillError>>()?
        }
    };
    Ok(Value::Object(fields))
}

/// A field by its whole name, else by dotted path; null where there is none.
fn at_path<'a>(record: &'a Value, path: &str) -> &'a Value {
    let whole = record.get(path);
    whole.unwrap_or_else(|| path.split('.').fold(record, |value, name| &value[name]))
}

/// A CSV cell as an expression sees it.
fn typed(cell: Value) -> Value {
    let Value::String(text) = &cell else {
        return cell;
    };
    match serde_json::from_str(text) {
        Ok(typed @ (Value::Number(_) | Value::Bool(_))) => typed,
        _ => cell,
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// One group: its key, how many, and the sum of every numeric field.
struct Group {
    key: Value,
    count: usize,
    sums: BTreeMap<String, f64>,
}

impl Group {
    fn new(key: &Value) -> Group {
        Group {
            key: key.clone(),
            count: 0,
            sums: BTreeMap::new(),
        }
    }

    fn add(&mut self, value: &Value) {
        self.count += 1;
        for (name, field) in value.as_object().into_iter().flatten() {
            if let Some(number) = field.as_f64() {
                *self.sums.entry(name.clone()).or_default() += number;
            }
        }
    }

    fn sums(&self) -> impl Iterator<Item = (&String, f64)> {
        self.sums
            .iter()
            .map(|(name, sum)| (name, text::round(*sum)))
    }

    fn value(&self) -> Value {
        let sums: Map<String, Value> = self
            .sums()
            .map(|(name, sum)| (name.clone(), sum.into()))
            .collect();
        json!({"group": self.key, "count": self.count, "sums": sums})
    }

    fn line(&self) -> String {
        let key = self
            .key
            .as_str()
            .map_or_else(|| self.key.to_string(), str::to_owned);
        let sums: String = self
            .sums()
            .map(|(name, sum)| format!(", {name} {sum}"))
            .collect();
        format!("  {key}: {}{sums}", counted(self.count, "record"))
    }
}
