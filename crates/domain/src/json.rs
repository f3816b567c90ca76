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
        RawValue::from_string(text)
            .map(|raw| Self(raw.into()))
            .map_err(|fault| Error::new(Code::JsonMalformed, format!("not JSON: {fault}")))
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
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_and_kept_to_the_byte() {
        let json = Json::from_text("{\"b\": 1.50, \"a\":[]}".into()).unwrap();
        assert_eq!(json.text(), "{\"b\": 1.50, \"a\":[]}");
        assert_eq!(serde_json::to_string(&json).unwrap(), json.text());
        assert_eq!(
            Json::from_text("{".into()).unwrap_err().code,
            Code::JsonMalformed
        );
    }
}
