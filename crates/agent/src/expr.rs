//! One expression language for conditions and shapes: CEL.
//!
//! CEL is small, typed and always ends, so an expression from a workflow or a
//! model is safe to run. Its parser and evaluator recurse, though, and take up
//! to 64 KiB of stack per level. So source length, nesting and the number of
//! operators are bounded before the parser sees them, and parsing, like the
//! evaluation of anything but a shallow expression, happens on a thread with a
//! stack made for it.
//!
//! Deliberately absent: functions of our own, and any type of the `cel` crate
//! in a signature; JSON goes in and JSON comes out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cel::objects::Key;
use cel::{Context, Program};
use serde_json::Value;

/// Most bytes of source in one expression.
pub const EXPR_BYTES_MAX: usize = 4 * 1024;
/// Deepest nesting of brackets in one expression.
pub const EXPR_NESTING_MAX: usize = 64;
/// Most operator characters outside strings in one expression; a chain of
/// operators nests as deeply as brackets do, only less visibly.
pub const EXPR_OPERATORS_MAX: usize = 256;
/// Compiled expressions kept in memory; when full, all are forgotten.
pub const EXPR_CACHE_MAX: usize = 1_000;

/// Stack of the threads that parse and that evaluate deep expressions.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// Levels (brackets and operators) evaluated on the caller's own stack: at
/// 64 KiB each, well within the 2 MiB a runtime's worker thread has.
const SHALLOW_LEVELS_MAX: usize = 12;

static CACHE: LazyLock<Mutex<HashMap<String, Expr>>> = LazyLock::new(Mutex::default);

/// A compiled expression; cheap to clone.
#[derive(Clone, Debug)]
pub struct Expr {
    program: Arc<Program>,
    is_shallow: bool,
}

/// Why an expression was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// `expr.too_large`, `expr.too_deep`, `expr.invalid` or `expr.failed`.
    pub code: &'static str,
    /// What is wrong, for the person who wrote the expression.
    pub message: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExprError {}

impl Expr {
    /// Compiles CEL source, or finds it compiled already.
    ///
    /// # Errors
    ///
    /// `expr.too_large` above [`EXPR_BYTES_MAX`], `expr.too_deep` above
    /// [`EXPR_NESTING_MAX`] or [`EXPR_OPERATORS_MAX`], `expr.invalid` when it
    /// is not CEL.
    pub fn compile(source: &str) -> Result<Expr, ExprError> {
        let levels = check_bounds(source)?;
        let cached = CACHE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(source)
            .cloned();
        if let Some(expr) = cached {
            return Ok(expr);
        }
        let expr = Expr {
            program: Arc::new(parse(source)?),
            is_shallow: levels <= SHALLOW_LEVELS_MAX,
        };
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= EXPR_CACHE_MAX {
            cache.clear();
        }
        cache.insert(source.to_owned(), expr.clone());
        Ok(expr)
    }

    /// Evaluates with the given variables.
    ///
    /// Whole JSON numbers are CEL `int`, all others `double`; CEL does not mix
    /// them in arithmetic, so write `double(price) * 2.0`.
    ///
    /// # Errors
    ///
    /// `expr.failed` for an unknown name, a missing field or mismatched types.
    pub fn eval(&self, variables: &BTreeMap<String, Value>) -> Result<Value, ExprError> {
        let result = if self.is_shallow {
            execute(&self.program, variables)
        } else {
            on_large_stack(|| execute(&self.program, variables)).and_then(|result| result)
        };
        result.map_err(|message| ExprError {
            code: "expr.failed",
            message,
        })
    }
}

fn execute(program: &Program, variables: &BTreeMap<String, Value>) -> Result<Value, String> {
    let mut context = Context::default();
    for (name, value) in variables {
        context.add_variable_from_value(name.as_str(), to_cel(value));
    }
    let value = program
        .execute(&context)
        .map_err(|error| error.to_string())?;
    value.json().map_err(|error| error.to_string())
}

fn parse(source: &str) -> Result<Program, ExprError> {
    on_large_stack(|| Program::compile(source).map_err(|errors| errors.to_string()))
        .and_then(|result| result)
        .map_err(|message| ExprError {
            code: "expr.invalid",
            message,
        })
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("expr".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("there is no thread to work on: {error}"))?
            .join()
            .map_err(|_| "the expression engine gave up on it".to_owned())
    })
}

/// Refuses source the recursive parser or evaluator should never see; gives
/// how many levels it may at most nest.
fn check_bounds(source: &str) -> Result<usize, ExprError> {
    if source.len() > EXPR_BYTES_MAX {
        return Err(ExprError {
            code: "expr.too_large",
            message: format!(
                "the expression has {} bytes; the most is {EXPR_BYTES_MAX}",
                source.len()
            ),
        });
    }
    let (mut depth, mut deepest, mut operators) = (0usize, 0usize, 0usize);
    let mut quote = None;
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (
                None,
                '+' | '-' | '*' | '/' | '%' | '!' | '?' | ':' | '.' | '&' | '|' | '<' | '>' | '=',
            ) => {
                operators += 1;
            }
            (None, _) => {}
        }
    }
    if deepest > EXPR_NESTING_MAX || operators > EXPR_OPERATORS_MAX {
        return Err(ExprError {
            code: "expr.too_deep",
            message: format!(
                "the expression nests {deepest} deep with {operators} operators; the most is {EXPR_NESTING_MAX} and {EXPR_OPERATORS_MAX}"
            ),
        });
    }
    Ok(deepest + operators)
}

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(elements) => cel::Value::List(Arc::new(elements.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (Key::from(name.as_str()), to_cel(value)));
            cel::Value::Map(fields.collect::<HashMap<Key, cel::Value>>().into())
        }
    }
}
