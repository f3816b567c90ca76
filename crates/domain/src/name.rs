//! Names that people choose: workers, queues, capabilities, tags. Free text, but bounded and
//! printable, so that a name is safe in a log line, a path segment and a table cell.

use crate::error::{Code, Error};
use crate::limits::NAME_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize};
use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

/// 1 to 128 bytes of printable text without leading or trailing spaces. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// [`Code::NameMalformed`] when it is empty, longer than
    /// [`NAME_BYTES_MAX`], has control characters, or begins or ends with a space.
    ///
    /// ```
    /// use domain::name::Name;
    /// assert_eq!(Name::new("worker_1").unwrap().as_str(), "worker_1");
    /// assert!(Name::new("").is_err());
    /// ```
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, Error> {
        let text = text.into();
        let fault = if text.is_empty() {
            Some("is empty".to_owned())
        } else if text.len() > NAME_BYTES_MAX {
            Some(format!(
                "is {} bytes long; at most {NAME_BYTES_MAX} are allowed",
                text.len()
            ))
        } else if text.chars().any(char::is_control) {
            Some("has a control character".to_owned())
        } else if text.trim().len() != text.len() {
            Some("begins or ends with a space".to_owned())
        } else {
            None
        };
        match fault {
            None => Ok(Self(text)),
            Some(fault) => {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
                Err(Error::new(
                    Code::NameMalformed,
                    format!("the name “{shown}” {fault}"),
                ))
            }
        }
    }

    /// A name known to be good when the program is written.
    ///
    /// # Panics
    /// When it is not: only for literals.
    pub fn literal(text: &'static str) -> Self {
        match Self::new(text) {
            Ok(name) => name,
            Err(error) => panic!("{error}"),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(text.as_ref()).map_err(serde::de::Error::custom)
    }
}

/// What somebody meant who wrote a word that nobody knows: the known one that differs in a few letters
/// only, if there is one.
///
/// ```
/// use domain::name::nearest;
/// assert_eq!(nearest("suppervisor", ["agents", "supervisor"].into_iter()), Some("supervisor"));
/// assert_eq!(nearest("colour", ["agents", "supervisor"].into_iter()), None);
/// ```
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LETTERS_MAX: usize = 64;
    if word.chars().count() > LETTERS_MAX {
        return None;
    }
    let near = known.map(|known| (distance(word, known), known));
    let (distance, known) = near.min()?;
    (distance <= (known.len() / 3).clamp(1, 3)).then_some(known)
}

/// Letters to insert, remove, replace, or swap with their neighbour until one word is the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_printable() {
        for good in ["worker_1", "worker_0", "Ünïcode", "a b", &"x".repeat(128)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{7f}", &"x".repeat(129)] {
            assert_eq!(
                Name::new(bad).unwrap_err().code,
                Code::NameMalformed,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_stored_name_is_checked_again_when_read() {
        assert!(serde_json::from_str::<Name>("\"\"").is_err());
        assert_eq!(
            &*serde_json::from_str::<Name>("\"q\\u0041\"").unwrap(),
            "qA"
        );
    }
}
