//! Expressions: CEL (the Common Expression Language, <https://cel.dev>), for conditions, inputs,
//! shapes and reductions. Not Turing-complete, typed, and known to people and models alike.
//!
//! Its parser and evaluator recurse, and take up to 64 KiB of stack per level. So length, nesting
//! and the number of operators are bounded before the parser sees the source; and parsing, like the
//! evaluation of anything but a shallow expression, happens on a thread with a stack made for it,
//! which the caller waits for. That thread is the only one in this crate, and it is not
//! concurrency: the same source and values give the same answer, whoever asks.
//!
//! Deliberately absent: functions of our own, and any type of the `cel` crate in a signature; JSON
//! goes in and JSON comes out.

use crate::error::{Code, Error};
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_OPERATORS_MAX, EXPRESSIONS_KEPT,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Stack of the threads that parse, and that evaluate deep expressions.
const STACK_BYTES: usize = 16 << 20;
/// Levels (brackets and operators) evaluated on the caller's own stack: at 64 KiB each, well within
/// the 2 MiB that a runtime's thread has.
const SHALLOW_LEVELS_MAX: usize = 12;

/// Compiled before; the same source gives the same program, so that remembering is not seen.
static COMPILED: LazyLock<Mutex<HashMap<String, Expr>>> = LazyLock::new(Mutex::default);

/// A compiled expression; cheap to clone.
///
/// ```
/// use domain::expr::Expr;
/// use serde_json::json;
/// let expr = Expr::compile("item.price < 100 && item.tags.exists(t, t == 'new')").unwrap();
/// let scope = [("item".to_owned(), json!({"price": 80, "tags": ["new"]}))].into();
/// assert_eq!(expr.eval(&scope).unwrap(), json!(true));
/// ```
#[derive(Clone, Debug)]
pub struct Expr {
    program: Arc<cel::Program>,
    source: Arc<str>,
    is_shallow: bool,
}

impl Expr {
    /// Compiles, or finds it compiled already.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`] with the parser's words, or [`Code::LimitExceeded`].
    pub fn compile(source: &str) -> Result<Self, Error> {
        let levels = levels(source)?;
        if let Some(expr) = compiled().get(source) {
            return Ok(expr.clone());
        }
        let parsed = on_large_stack(|| cel::Program::compile(source).map_err(|e| e.to_string()))?;
        let expr = Self {
            program: Arc::new(parsed.map_err(|fault| invalid(source, &fault))?),
            source: source.into(),
            is_shallow: levels <= SHALLOW_LEVELS_MAX,
        };
        let mut compiled = compiled();
        if compiled.len() >= EXPRESSIONS_KEPT {
            compiled.clear();
        }
        compiled.insert(source.to_owned(), expr.clone());
        Ok(expr)
    }

    /// Evaluates with these variables.
    ///
    /// A whole JSON number is a CEL `int`, any other a `double`; CEL does not mix the two in
    /// arithmetic, so write `double(price) * 2.0`.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`]: an unknown name, a wrong type, a value that is not JSON.
    pub fn eval(&self, scope: &BTreeMap<String, Value>) -> Result<Value, Error> {
        let value = if self.is_shallow {
            self.execute(scope)
        } else {
            on_large_stack(|| self.execute(scope))?
        };
        value.map_err(|fault| invalid(&self.source, &fault))
    }

    fn execute(&self, scope: &BTreeMap<String, Value>) -> Result<Value, String> {
        let mut context = cel::Context::default();
        for (name, value) in scope {
            context.add_variable_from_value(name.as_str(), typed(value));
        }
        let value = self.program.execute(&context).map_err(|e| e.to_string())?;
        value.json().map_err(|e| e.to_string())
    }
}

fn compiled() -> MutexGuard<'static, HashMap<String, Expr>> {
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|fault| {
                let text = format!("there is no thread to work out an expression on: {fault}");
                Error::new(Code::Overloaded, text)
            })?;
        thread.join().map_err(|_| {
            let text = "the expression engine gave up on the expression";
            Error::new(Code::ExpressionInvalid, text)
        })
    })
}

/// A JSON value as CEL sees it: a whole number is an `int` wherever it fits, so that `n + 1` means
/// what it says (the crate's own conversion makes positive ones `uint`, which no literal is).
fn typed(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => cel::Value::Int(int),
            (None, Some(uint)) => cel::Value::UInt(uint),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(typed).collect())),
        Value::Object(fields) => {
            let typed = fields
                .iter()
                .map(|(key, value)| (key.clone().into(), typed(value)));
            let map: HashMap<cel::objects::Key, cel::Value> = typed.collect();
            cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
        }
    }
}

/// How many levels the source may at most nest.
///
/// # Errors
/// [`Code::LimitExceeded`] for source that the recursive parser or evaluator should never see.
fn levels(source: &str) -> Result<usize, Error> {
    if source.len() > EXPRESSION_BYTES_MAX {
        let bytes = source.len();
        return Err(Error::limit(
            "bytes of expression",
            bytes,
            EXPRESSION_BYTES_MAX,
        ));
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
            (None, c) if "+-*/%!?:.&|<>=".contains(c) => operators += 1,
            (None, _) => {}
        }
    }
    if deepest > EXPRESSION_DEPTH_MAX {
        return Err(Error::limit(
            "nested brackets in an expression",
            deepest,
            EXPRESSION_DEPTH_MAX,
        ));
    }
    if operators > EXPRESSION_OPERATORS_MAX {
        let most = EXPRESSION_OPERATORS_MAX;
        return Err(Error::limit("operators in an expression", operators, most));
    }
    Ok(deepest + operators)
}

fn invalid(source: &str, fault: &str) -> Error {
    let shown: String = source.chars().take(120).collect();
    let fault: String = fault
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect();
    Error::new(
        Code::ExpressionInvalid,
        format!("the expression `{shown}`: {fault}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn eval(source: &str, scope: Value) -> Result<Value, Code> {
        let scope = serde_json::from_value(scope).unwrap();
        Expr::compile(source)
            .and_then(|e| e.eval(&scope))
            .map_err(|e| e.code)
    }

    #[test]
    fn values_come_back_as_json() {
        assert_eq!(eval("a + 1", json!({"a": 2})), Ok(json!(3)));
        assert_eq!(
            eval("{'n': a.size()}", json!({"a": [1, 2]})),
            Ok(json!({"n": 2}))
        );
        assert_eq!(
            eval("s.startsWith('x')", json!({"s": "xy"})),
            Ok(json!(true))
        );
        let largest = json!({"n": u64::MAX, "i": i64::MIN, "f": 0.5});
        assert_eq!(
            eval("[n, i, f]", largest),
            Ok(json!([u64::MAX, i64::MIN, 0.5]))
        );
    }

    #[test]
    fn faults_have_a_code() {
        for source in ["", "1 +", "nobody", "1 + 'a'"] {
            assert_eq!(
                eval(source, json!({})),
                Err(Code::ExpressionInvalid),
                "{source}"
            );
            // A fault is not remembered as something else.
            assert_eq!(
                eval(source, json!({})),
                Err(Code::ExpressionInvalid),
                "{source}"
            );
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        for n in 0..EXPRESSIONS_KEPT + 10 {
            assert_eq!(eval(&format!("{n} + 0"), json!({})), Ok(json!(n)));
            assert!(compiled().len() <= EXPRESSIONS_KEPT);
        }
    }

    #[test]
    fn depth_and_length_are_bounded_before_it_is_parsed() {
        let code = |source: &str| Expr::compile(source).map(drop).map_err(|e| e.code);
        let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
        assert_eq!(code(&nested(EXPRESSION_DEPTH_MAX)), Ok(()));
        assert_eq!(
            code(&nested(EXPRESSION_DEPTH_MAX + 1)),
            Err(Code::LimitExceeded)
        );
        let string = format!("'{}'", "(".repeat(100));
        assert_eq!(code(&string), Ok(()), "brackets in a string do not nest");
        let long = |n: usize| format!("1{}", " ".repeat(n - 1));
        assert_eq!(code(&long(EXPRESSION_BYTES_MAX)), Ok(()));
        assert_eq!(
            code(&long(EXPRESSION_BYTES_MAX + 1)),
            Err(Code::LimitExceeded)
        );
        for many in ["!".repeat(257) + "true", format!("1{}", "+1".repeat(257))] {
            assert_eq!(code(&many), Err(Code::LimitExceeded));
        }
    }

    #[test]
    fn the_largest_expressions_evaluate_on_a_small_stack() {
        let (operators, nesting) = (EXPRESSION_OPERATORS_MAX, EXPRESSION_DEPTH_MAX);
        let worst = [
            format!("1{}", "+1".repeat(operators)),
            format!("{}true", "!".repeat(operators)),
            format!("true{}", " == true".repeat(operators / 2)),
            format!("{}1{}", "[".repeat(nesting), "]".repeat(nesting)),
            format!(
                "{}1{}{}",
                "(".repeat(nesting),
                "+1)".repeat(nesting),
                "+1".repeat(operators - nesting)
            ),
            format!(
                "{}1{}",
                "[1].map(x, ".repeat(nesting - 1),
                ")".repeat(nesting - 1)
            ),
            // Shallow enough for the caller's own stack.
            format!("1{}", "+1".repeat(12)),
            format!("{}1{}", "[".repeat(12), "]".repeat(12)),
        ];
        let work = move || {
            worst
                .iter()
                .for_each(|source| drop(eval(source, json!({})).unwrap()))
        };
        let small = std::thread::Builder::new().stack_size(1 << 20);
        small.spawn(work).unwrap().join().unwrap();
    }
}
