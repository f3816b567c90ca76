//! Secrets in a crew file: handles, never the secrets themselves.
//!
//! `secret://NAME` stands for the environment variable `CHARGEHAND_SECRET_NAME`, and for no other: a
//! crew file from somebody else must not be able to name any variable of this machine and send it
//! away. Whoever runs the crew says by the prefix what it may have. Variables with that prefix are
//! withheld from workers' programs ([`crate::command::is_secret`]).

use regex::Regex;
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::LazyLock;

/// Before the name, in a file.
const SCHEME: &str = "secret://";
/// Before the name, in the environment.
pub const VARIABLE_PREFIX: &str = "CHARGEHAND_SECRET_";

/// A handle of a secret. It shows its name, never what it stands for.
///
/// ```
/// use agent::crew::Secret;
/// let secret = Secret::parse("secret://VLLM_KEY").unwrap();
/// assert_eq!(secret.variable(), "CHARGEHAND_SECRET_VLLM_KEY");
/// assert!(Secret::parse("sk-123").is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

impl Secret {
    /// Reads a handle: `secret://`, then a capital letter, then up to 63 capital letters, digits and
    /// underscores.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(SCHEME)?;
        let good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let fits = name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_uppercase());
        (fits && name.chars().all(good)).then(|| Self(name.to_owned()))
    }

    /// The environment variable that holds it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.0)
    }

    /// What it stands for, from this process's environment; `None` when it is not set, empty, or not
    /// UTF-8.
    #[must_use]
    pub fn reveal(&self) -> Option<String> {
        std::env::var(self.variable())
            .ok()
            .filter(|text| !text.is_empty())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What keys look like, by the marks their makers gave them.
static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        \b sk-[A-Za-z0-9_-]{16,}                   # OpenAI, Anthropic and many after them
        | \b AIza[A-Za-z0-9_-]{30,}                # Google
        | \b (?:ghp|gho|ghs|ghu)_[A-Za-z0-9]{30,}  # GitHub
        | \b github_pat_[A-Za-z0-9_]{30,}
        | \b glpat-[A-Za-z0-9_-]{16,}              # GitLab
        | \b xox[abeoprs]-[A-Za-z0-9-]{10,}        # Slack
        | \b (?:AKIA|ASIA)[A-Z0-9]{16} \b          # Amazon
        | \b hf_[A-Za-z0-9]{30,}                   # Hugging Face
        | \b [rs]k_live_[A-Za-z0-9]{16,}           # Stripe
        | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY",
    )
    .expect("a literal pattern compiles")
});

/// Does this text hold something that looks like a key?
pub(super) fn has_literal(text: &str) -> bool {
    LITERAL.is_match(text)
}

/// The text with everything that looks like a key left out.
pub(super) fn masked(text: &str) -> String {
    LITERAL.replace_all(text, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_names_of_variables_only() {
        for good in ["secret://A", "secret://SHOP_KEY_2"] {
            assert_eq!(Secret::parse(good).unwrap().to_string(), good);
        }
        let long = format!("secret://{}", "A".repeat(65));
        for bad in [
            "secret://",
            "secret://a",
            "secret://2A",
            "secret://A-B",
            "A",
            &long,
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        let variable = Secret::parse("secret://X").unwrap().variable();
        assert!(crate::command::is_secret(&variable, ""));
    }

    #[test]
    fn keys_are_known_by_their_marks() {
        for key in [
            concat!("sk-", "proj-abcdefghijklmnop1234"),
            concat!("AI", "zaSyA1234567890abcdefghijklmnopqrstuv"),
            concat!("AK", "IAABCDEFGHIJKLMNOP"),
            concat!("-----BEGIN RSA ", "PRIVATE KEY-----"),
        ] {
            let text = format!("use {key} please");
            assert!(has_literal(&text), "{key}");
            assert!(!masked(&text).contains(key));
        }
        for fine in [
            "task-force",
            "sk-short",
            "ask-about-the-weather-in-the-north",
            "secret://SK",
        ] {
            assert!(!has_literal(fine), "{fine}");
        }
    }
}
