//! Expressions: CEL (the Common Expression Language, <https://cel.dev>), for conditions, inputs and
//! reductions. Not Turing-complete, typed, and known to people and models alike.
//!
//! The parser recurses with the depth of the source, so source is bounded in bytes and in nested
//! brackets. Within these bounds compiling needs less than 8 MiB of stack in a debug build; the
//! engine's writer thread has 16.

use crate::error::{Code, Error};
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A compiled expression.
///
/// ```
/// use domain::expr::Expr;
/// use serde_json::json;
/// let expr = Expr::compile("item.price < 100 && item.tags.exists(t, t == 'new')").unwrap();
/// let scope = [("item".to_owned(), json!({"price": 80, "tags": ["new"]}))].into();
/// assert_eq!(expr.eval(&scope).unwrap(), json!(true));
/// ```
pub struct Expr {
    program: cel::Program,
    source: String,
}

impl Expr {
    /// Compiles.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`] with the parser's words, or [`Code::LimitExceeded`].
    pub fn compile(source: &str) -> Result<Self, Error> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(Error::limit(
                "bytes of expression",
                source.len(),
                EXPRESSION_BYTES_MAX,
            ));
        }
        let depth = depth(source);
        if depth > EXPRESSION_DEPTH_MAX {
            return Err(Error::limit(
                "nested brackets or signs",
                depth,
                EXPRESSION_DEPTH_MAX,
            ));
        }
        let program =
            cel::Program::compile(source).map_err(|fault| invalid(source, &fault.to_string()))?;
        Ok(Self {
            program,
            source: source.to_owned(),
        })
    }

    /// Evaluates with these variables.
    ///
    /// # Errors
    /// [`Code::ExpressionInvalid`]: an unknown name, a wrong type, a value that is not JSON.
    pub fn eval(&self, scope: &BTreeMap<String, Value>) -> Result<Value, Error> {
        let mut context = cel::Context::default();
        for (name, value) in scope {
            context.add_variable_from_value(name.as_str(), typed(value));
        }
        let value = self
            .program
            .execute(&context)
            .map_err(|fault| invalid(&self.source, &fault.to_string()))?;
        value
            .json()
            .map_err(|fault| invalid(&self.source, &fault.to_string()))
    }
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

/// How deep the parser may have to recurse: open brackets, and the longest run of prefix signs.
fn depth(source: &str) -> usize {
    let (mut open, mut deepest, mut signs) = (0usize, 0usize, 0usize);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'!' | b'-' | b'?' => signs += 1,
            _ => {}
        }
        deepest = deepest.max(open + signs.saturating_sub(EXPRESSION_DEPTH_MAX / 2));
    }
    deepest
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
    }

    #[test]
    fn faults_have_a_code() {
        assert_eq!(eval("1 +", json!({})), Err(Code::ExpressionInvalid));
        assert_eq!(eval("nobody", json!({})), Err(Code::ExpressionInvalid));
        assert_eq!(eval("1 + 'a'", json!({})), Err(Code::ExpressionInvalid));
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let run = || {
            let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
            assert_eq!(eval(&nested(64), json!({})), Ok(json!(1)));
            assert_eq!(eval(&nested(65), json!({})), Err(Code::LimitExceeded));
            assert_eq!(
                eval(&format!("{}true", "!".repeat(500)), json!({})),
                Err(Code::LimitExceeded)
            );
            assert_eq!(eval(&" ".repeat(4097), json!({})), Err(Code::LimitExceeded));
        };
        std::thread::Builder::new()
            .stack_size(16 << 20)
            .spawn(run)
            .unwrap()
            .join()
            .unwrap();
    }
}
