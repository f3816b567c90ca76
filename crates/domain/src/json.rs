//! JSON carried, not understood: inputs and outputs pass through the engine as checked text, parsed
//! once at the edge and never again unless a rule asks. Cloning shares the text.

use crate::error::{Code, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::{fmt, sync::Arc};

/// Valid JSON text.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Keeps a value as text.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self::from_text(value.to_string()).unwrap_or_default()
    }

    /// Checks that `text` is JSON and keeps it as it is.
    ///
    /// # Errors
    /// [`Code::JsonMalformed`] with the place of the fault.
    pub fn from_text(text: String) -> Result<Self, Error> {
        let malformed = |fault| Error::new(Code::JsonMalformed, format!("not JSON: {fault}"));
        let raw = RawValue::from_string(text).map_err(malformed)?;
        check_escapes(&raw).map_err(malformed)?;
        Ok(Self(raw.into()))
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Bytes of text: what payload limits count.
    pub fn bytes(&self) -> usize {
        self.text().len()
    }

    /// The value. Costs a parse.
    pub fn value(&self) -> serde_json::Value {
        // Checked when it was made; nesting beyond the parser's depth limit reads as null.
        serde_json::from_str(self.text()).unwrap_or_default()
    }
}

impl Default for Json {
    /// `null`.
    fn default() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }
}
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}
impl Eq for Json {}
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self::from_value(&value)
    }
}
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        check_escapes(&raw).map_err(serde::de::Error::custom)?;
        Ok(Self(raw.into()))
    }
}

/// Refuses half of a surrogate pair written as an escape, which is no character: raw text is not
/// looked into, and whoever reads it later would find nothing.
fn check_escapes(raw: &RawValue) -> serde_json::Result<()> {
    if raw.get().contains("\\ud") || raw.get().contains("\\uD") {
        serde_json::from_str::<serde_json::Value>(raw.get())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_and_kept_to_the_byte() {
        let json = Json::from_text("{\"b\": 1.50, \"a\":[]}".into()).unwrap();
        assert_eq!(json.text(), "{\"b\": 1.50, \"a\":[]}");
        assert_eq!(serde_json::to_string(&json).unwrap(), json.text());
        for bad in ["{", r#""\ud83d""#, r#"{"a": "\uDE00 \ud83d"}"#] {
            let error = Json::from_text(bad.into()).unwrap_err();
            assert_eq!(error.code, Code::JsonMalformed, "{bad}");
            assert!(serde_json::from_str::<Json>(bad).is_err(), "{bad}");
        }
        let pair = Json::from_text(r#""\ud83d\ude00 und""#.into()).unwrap();
        assert_eq!(pair.value(), "😀 und");
    }
}
