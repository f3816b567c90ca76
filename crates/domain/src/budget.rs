//! The budget: what a run may spend, and the account of what it has spent.
//!
//! What a step will cost is reserved when it is intended and settled when its outcome is noted, in
//! the very event that notes it. A run's account and its tasks' accounts fold the same [`Dues`] of
//! the same event, so the sum of the children is the parent's at every position of the log; a crash
//! falls between two events, never between two accounts.
//!
//! What was reserved by a step of which nobody heard again counts as spent: it may have been
//! bought. A keyed step holds what it held: whoever is asked for it again under its key sells it once.
//! Deliberately absent: prices, and what a token is. Who works knows them, and tells.

use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The part of a cap that only last words may use: a tenth, so that what was found can be told.
const LAST_SHARE: u64 = 10;
/// Hundredths of a cap that are spent when its owner is warned.
pub const WARNED_PERCENT: u64 = 80;

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Amount {
    /// Tokens, read and written.
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// Millionths of a US dollar.
    #[serde(skip_serializing_if = "is_zero")]
    pub usd_micros: u64,
    /// Requests to models, and calls of tools.
    #[serde(skip_serializing_if = "is_zero")]
    pub calls: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Amount {
    /// One call, which costs nothing else.
    pub const CALL: Self = Self {
        tokens: 0,
        usd_micros: 0,
        calls: 1,
    };

    /// Nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            usd_micros: self.usd_micros.saturating_add(other.usd_micros),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            usd_micros: self.usd_micros.saturating_sub(other.usd_micros),
            calls: self.calls.saturating_sub(other.calls),
        }
    }
}

/// What a run may spend; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Tokens, read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Requests to models, and calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Milliseconds on the clock, from the start on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

/// What a step announces beside its intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// With an intent, the most it is going to be; with an outcome, what it was.
    #[serde(flatten)]
    pub amount: Amount,
    /// These are last words, for which a part of every cap is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// How an event moves the accounts it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Dues {
    /// Newly held.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub held: Amount,
    /// Held no longer.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub released: Amount,
    /// Spent.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub spent: Amount,
}

impl Dues {
    /// These, unless nothing moves.
    pub(crate) fn some(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// What was spent, and what is held for steps under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ledger {
    /// Spent.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub spent: Amount,
    /// Reserved: spent already, perhaps, by a step of which nobody has heard again.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub held: Amount,
}

impl Ledger {
    /// Nothing has moved yet.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both.
    pub fn used(&self) -> Amount {
        self.spent.plus(self.held)
    }

    pub(crate) fn fold(&mut self, dues: &Dues) {
        self.held = self.held.plus(dues.held).minus(dues.released);
        self.spent = self.spent.plus(dues.spent);
    }
}

/// A run's account: its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Account {
    /// What may be spent.
    pub budget: Budget,
    /// What was.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// When it was opened; the clock of `wall_ms` runs from here.
    pub since: Time,
    /// Its owner was told that it comes to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warned: bool,
}

/// A dimension of an account, for rules that hold for each.
struct Side {
    cap: Option<u64>,
    used: u64,
    spent: u64,
    wanted: u64,
    unit: &'static str,
}

impl Account {
    /// When no step may begin any more, if there is such a time.
    pub fn until(&self) -> Option<Time> {
        Some(self.since.plus_ms(self.budget.wall_ms?))
    }

    /// What may still be reserved, for last words or for others; `None` is no bound.
    pub fn left(&self, last: bool) -> Budget {
        let left = |side: &Side| {
            side.cap
                .map(|cap| open(cap, last).saturating_sub(side.used))
        };
        let [tokens, usd, calls] = self.sides(Amount::default());
        Budget {
            tokens: left(&tokens),
            usd_micros: left(&usd),
            calls: left(&calls),
            wall_ms: None,
        }
    }

    fn sides(&self, wanted: Amount) -> [Side; 3] {
        let (budget, used, spent) = (&self.budget, self.ledger.used(), self.ledger.spent);
        let side = |cap, used, spent, wanted, unit| Side {
            cap,
            used,
            spent,
            wanted,
            unit,
        };
        [
            side(
                budget.tokens,
                used.tokens,
                spent.tokens,
                wanted.tokens,
                "tokens",
            ),
            side(
                budget.usd_micros,
                used.usd_micros,
                spent.usd_micros,
                wanted.usd_micros,
                "millionths of a US dollar",
            ),
            side(budget.calls, used.calls, spent.calls, wanted.calls, "calls"),
        ]
    }

    /// Whether a step may begin that costs at most this much.
    ///
    /// # Errors
    /// [`Code::BudgetExhausted`], with what is spent, held and wanted.
    pub fn admit(&self, cost: &Cost, now: Time) -> Result<(), Error> {
        for side in self.sides(cost.amount) {
            let Some(cap) = side.cap.filter(|_| side.wanted > 0) else {
                continue;
            };
            if side.used.saturating_add(side.wanted) > open(cap, cost.last) {
                let held = side.used - side.spent;
                return Err(Error::new(
                    Code::BudgetExhausted,
                    format!(
                        "of {cap} {unit}, {} are spent and {held} reserved; {} more were wanted",
                        side.spent,
                        side.wanted,
                        unit = side.unit
                    ),
                ));
            }
        }
        match self.budget.wall_ms {
            Some(wall) if now >= self.since.plus_ms(open(wall, cost.last)) => Err(Error::new(
                Code::BudgetExhausted,
                format!("the {} s on the clock are over", wall / 1_000),
            )),
            _ => Ok(()),
        }
    }

    /// As these dues leave it, but for what they hold anew.
    pub(crate) fn before_holding(&self, dues: Dues) -> Self {
        let mut ledger = self.ledger;
        ledger.fold(&Dues {
            held: Amount::default(),
            ..dues
        });
        Self { ledger, ..*self }
    }

    /// Whether spending this much is when its owner is to be told.
    pub(crate) fn warns(&self, spent: Amount) -> bool {
        let after = Self {
            ledger: Ledger {
                spent: self.ledger.spent.plus(spent),
                ..self.ledger
            },
            ..*self
        };
        let near = |side: &Side| {
            side.cap.is_some_and(|cap| {
                side.spent.saturating_mul(100) >= cap.saturating_mul(WARNED_PERCENT)
            })
        };
        !self.warned && !spent.is_zero() && after.sides(Amount::default()).iter().any(near)
    }

    /// Of the caps, the one that is used up furthest, in hundredths.
    pub fn used_percent(&self) -> u64 {
        let of = |side: Side| Some(side.used.saturating_mul(100) / side.cap?.max(1));
        let sides = self.sides(Amount::default());
        sides.into_iter().filter_map(of).max().unwrap_or(0)
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::RunStarted { budget, .. } => {
                self.since = recorded.at;
                self.budget = budget.unwrap_or_default();
            }
            Event::BudgetWarned { .. } => self.warned = true,
            Event::RecordNoted { dues, .. } | Event::RecordResolved { dues, .. } => {
                self.ledger.fold(&dues.unwrap_or_default());
            }
            other => debug_assert!(false, "{} does not fold on an account", other.name()),
        }
    }
}

/// As much of a cap as last words, or others, may use.
fn open(cap: u64, last: bool) -> u64 {
    if last { cap } else { cap - cap / LAST_SHARE }
}

impl fmt::Display for Budget {
    /// `200000 tokens, $1.00, 200 calls, 600 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.tokens.map(|tokens| format!("{tokens} tokens")),
            self.usd_micros.map(usd),
            self.calls.map(|calls| format!("{calls} calls")),
            self.wall_ms.map(|wall| format!("{} s", wall / 1_000)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => f.write_str("no bound"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// Millionths of a US dollar, as people write them: two digits after the point, or as many as it
/// takes to show that it is not nothing.
///
/// ```
/// use domain::budget::usd;
/// assert_eq!(usd(1_500_000), "$1.50");
/// assert_eq!(usd(420), "$0.00042");
/// assert_eq!(usd(0), "$0.00");
/// ```
pub fn usd(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    let digits = format!("{part:06}");
    let significant = digits.trim_end_matches('0').len();
    let shown = if micros >= 10_000 {
        2
    } else {
        significant.max(2)
    };
    format!("${whole}.{}", &digits[..shown])
}
