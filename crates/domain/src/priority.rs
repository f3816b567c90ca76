//! What comes first: a number with names for its usual bands.

use crate::error::{Code, Error};
use serde::{Deserialize, Serialize};

/// What comes first: higher. Five bands have names; any number between them is allowed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Priority(pub i32);

impl Priority {
    /// When there is nothing else to do.
    pub const BATCH: Self = Self(-20);
    /// May wait.
    pub const LOW: Self = Self(-10);
    /// What you get when you say nothing.
    pub const NORMAL: Self = Self(0);
    /// Before the rest.
    pub const HIGH: Self = Self(10);
    /// May ask running work of lower bands to yield.
    pub const CRITICAL: Self = Self(20);

    const BANDS: [(&'static str, Self); 5] = [
        ("batch", Self::BATCH),
        ("low", Self::LOW),
        ("normal", Self::NORMAL),
        ("high", Self::HIGH),
        ("critical", Self::CRITICAL),
    ];

    /// The band it lies in: the highest whose number it reaches.
    pub fn band(self) -> &'static str {
        Self::BANDS
            .iter()
            .rev()
            .find(|(_, floor)| self >= *floor)
            .map_or("batch", |(name, _)| name)
    }

    pub(crate) fn is_normal(&self) -> bool {
        *self == Self::NORMAL
    }
}

impl std::str::FromStr for Priority {
    type Err = Error;
    /// A band's name or a number.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((_, priority)) = Self::BANDS.iter().find(|(name, _)| *name == text) {
            return Ok(*priority);
        }
        text.parse().map(Self).map_err(|_| {
            Error::new(Code::OutOfRange, format!("“{text}” is not a priority"))
                .hint("Use batch, low, normal, high, critical, or a whole number.")
        })
    }
}
