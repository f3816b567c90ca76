//! What tokens cost: a table with a version, which whoever pays can correct.
//!
//! Prices are whole millionths of a US dollar for a million tokens, so no sum is ever rounded
//! before its end. A model that is not in the table has no price: its cost is not known, which is
//! not the same as nothing, and a budget must treat it so. Deliberately absent: prices of batches,
//! of other regions and of faster tiers, which nothing here asks for.
//!
//! ```
//! use agent::model::Usage;
//! use agent::model::price::Prices;
//!
//! let prices = Prices::builtin().with(
//!     r#"{"version": "ours", "models": {"ollama/qwen3": {"input": 0, "cached": 0, "output": 0}}}"#,
//! )?;
//! let usage = Usage { input_tokens: 1_000, cached_tokens: 0, output_tokens: 100 };
//! assert_eq!(prices.cost_microdollars(&"ollama/qwen3".parse()?, &usage), Some(0));
//! assert_eq!(prices.cost_microdollars(&"openai/nobody".parse()?, &usage), None);
//! # Ok::<(), agent::model::ModelError>(())
//! ```

use super::{Fault, ModelError, ModelName, Provider, Usage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A million, twice: tokens of a price, and parts of a dollar.
const MILLION: u128 = 1_000_000;

/// A table of prices.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Which table this is; of a corrected one, all that it came from.
    pub version: String,
    /// Where the prices were read.
    #[serde(default)]
    pub source: String,
    /// When they were read.
    #[serde(default)]
    pub date: String,
    models: BTreeMap<String, Price>,
}

/// The prices of a model, in millionths of a US dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of tokens read.
    pub input: u64,
    /// Of tokens read from the provider's cache.
    pub cached: u64,
    /// Of tokens written.
    pub output: u64,
    /// What a request costs whose input is long, with all of its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<Long>,
}

/// The prices of long requests, in millionths of a US dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Long {
    /// With more input tokens than this.
    pub above: u64,
    /// Of tokens read.
    pub input: u64,
    /// Of tokens read from the provider's cache.
    pub cached: u64,
    /// Of tokens written.
    pub output: u64,
}

impl Price {
    /// What this usage of one request costs, in millionths of a US dollar, rounded up.
    pub fn cost_microdollars(&self, usage: &Usage) -> u64 {
        let long = self.long.filter(|long| usage.input_tokens > long.above);
        let (input, cached, output) = match long {
            Some(long) => (long.input, long.cached, long.output),
            None => (self.input, self.cached, self.output),
        };
        let from_cache = usage.cached_tokens.min(usage.input_tokens);
        let parts = [
            (usage.input_tokens - from_cache, input),
            (from_cache, cached),
            (usage.output_tokens, output),
        ];
        let sum: u128 = parts
            .iter()
            .map(|(tokens, price)| u128::from(*tokens) * u128::from(*price))
            .fold(0, u128::saturating_add);
        u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX)
    }
}

static BUILTIN: LazyLock<Prices> = LazyLock::new(|| {
    serde_json::from_str(include_str!("prices.json")).expect("the embedded prices are well-formed")
});

impl Prices {
    /// The table that comes with this program.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// This table with the prices of another document put over it, of the same form.
    ///
    /// # Errors
    /// [`Fault::Refused`], when the document is not of that form; the message says where.
    pub fn with(&self, document: &str) -> Result<Self, ModelError> {
        let refused = |text: String| ModelError::new(Fault::Refused, format!("the prices: {text}"));
        let over: Self =
            serde_json::from_str(document).map_err(|fault| refused(fault.to_string()))?;
        for name in over.models.keys() {
            name.parse::<ModelName>()
                .map_err(|error| refused(error.message))?;
        }
        let mut merged = self.clone();
        merged.version = format!("{}+{}", self.version, over.version);
        merged.models.extend(over.models);
        Ok(merged)
    }

    /// The models that have a price, by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Price)> {
        self.models
            .iter()
            .map(|(name, price)| (name.as_str(), price))
    }

    /// The price of a model. A dated name, such as `claude-haiku-4-5-20251001`, has that of the
    /// undated one unless it has its own; both dialects of `OpenAI` have the same.
    pub fn price(&self, name: &ModelName) -> Option<&Price> {
        let own = name.provider;
        let shared = match own {
            Provider::OpenaiResponses => Provider::Openai,
            other => other,
        };
        let of = |provider: Provider, model: &str| self.models.get(&format!("{provider}/{model}"));
        let exact = |model: &str| of(own, model).or_else(|| of(shared, model));
        exact(&name.model).or_else(|| exact(undated(&name.model)?))
    }

    /// What this usage costs, in millionths of a US dollar, rounded up; none if nobody knows. The
    /// usage must be one request's: whether it was a long one depends on its input alone.
    pub fn cost_microdollars(&self, name: &ModelName, usage: &Usage) -> Option<u64> {
        Some(self.price(name)?.cost_microdollars(usage))
    }
}

/// What a usage costs by the table that comes with this program, in millionths of a US dollar.
///
/// ```
/// use agent::model::{Usage, price::cost_microdollars};
///
/// let usage = Usage { input_tokens: 1_000_000, cached_tokens: 0, output_tokens: 0 };
/// assert_eq!(cost_microdollars(&"openai/gpt-5-mini".parse()?, &usage), Some(250_000));
/// # Ok::<(), agent::model::ModelError>(())
/// ```
pub fn cost_microdollars(name: &ModelName, usage: &Usage) -> Option<u64> {
    Prices::builtin().cost_microdollars(name, usage)
}

/// A name without the date at its end, `-20251001` or `-2025-10-01`.
fn undated(model: &str) -> Option<&str> {
    ["-dddddddd", "-dddd-dd-dd"].into_iter().find_map(|form| {
        let (head, tail) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        let fits = |(is, form): (u8, u8)| match form {
            b'd' => is.is_ascii_digit(),
            other => is == other,
        };
        (!head.is_empty() && tail.bytes().zip(form.bytes()).all(fits)).then_some(head)
    })
}
