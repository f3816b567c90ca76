//! From a model's name to somebody who answers: where it is, and with which key.
//!
//! Deliberately absent: reading the environment or a store of secrets. Whoever runs the crew says
//! what the key is; this only sees to it that nobody reads it afterwards.

use super::wire::{Dialect, Http};
use super::{
    Fault, Model, ModelError, ModelName, Provider, anthropic, gemini, ollama, openai,
    openai_responses, scripted,
};
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A provider's key. No text that this type makes has it in it.
///
/// ```
/// let key = agent::model::Key::new(" sk-hush \n")?;
/// assert_eq!(format!("{key:?}"), "Key(…)");
/// # Ok::<(), agent::model::ModelError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key, without the space around it.
    ///
    /// # Errors
    /// [`Fault::Key`], when it is empty or cannot be in a header.
    pub fn new(text: &str) -> Result<Self, ModelError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ModelError::new(Fault::Key, "the key is empty"));
        }
        let key = Self(text.to_owned());
        key.header("")?;
        Ok(key)
    }

    pub(super) fn header(&self, before: &str) -> Result<HeaderValue, ModelError> {
        let text = format!("{before}{}", self.0);
        let mut header = HeaderValue::try_from(text)
            .map_err(|_| ModelError::new(Fault::Key, "the key has characters that no key has"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    pub(super) fn struck_out(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

/// How a provider is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where, instead of at the provider itself: `https://…`, or `http://…` where the author of
    /// the crew says so. Slashes at its end do not matter. Without a path it gets the provider's
    /// (`/v1`, `/v1beta` for Gemini, none for Ollama); a path is taken as it is, except that
    /// Anthropic's gets `/v1` behind it unless it ends so, as that provider's own clients do.
    pub base_url: Option<String>,
    /// With which key. The provider itself wants one; another address may not.
    pub key: Option<Key>,
    /// The environment variable that the key comes from, for whoever has to mend it.
    pub key_variable: Option<String>,
    /// How long nothing may come before it counts as silence.
    pub timeout: Duration,
}

impl Default for Settings {
    /// The provider itself, without a key, 120 s.
    fn default() -> Self {
        Self {
            base_url: None,
            key: None,
            key_variable: None,
            timeout: Duration::from_secs(120),
        }
    }
}

/// Gets ready to ask a model. Nothing is sent yet; of `scripted` the transcript is read.
///
/// # Errors
/// [`Fault::Key`] when the provider wants a key and there is none, [`Fault::Refused`] when the
/// address is none, `model.script` when a transcript cannot be used.
///
/// ```
/// use agent::model::{Settings, connect};
///
/// let error = connect(&"openai/gpt-5-mini".parse()?, &Settings::default()).unwrap_err();
/// assert_eq!(error.code, "model.key");
/// assert!(error.message.contains("OPENAI_API_KEY"));
/// # Ok::<(), agent::model::ModelError>(())
/// ```
pub fn connect(name: &ModelName, settings: &Settings) -> Result<Arc<dyn Model>, ModelError> {
    let Some(dialect) = dialect(name.provider) else {
        return Ok(Arc::new(scripted::Script::read(name.model.as_ref())?));
    };
    let provider = name.provider;
    if let (None, None, Some(variable)) =
        (&settings.base_url, &settings.key, provider.key_variable())
    {
        let text = format!("there is no key for {provider}: set {variable}");
        return Err(ModelError::new(Fault::Key, text));
    }
    let base = base(dialect, settings.base_url.as_deref())?;
    let key = settings.key.clone();
    let mut http = Http::new(dialect, base, key, &name.model, settings.timeout)?;
    http.key_variable.clone_from(&settings.key_variable);
    Ok(Arc::new(http))
}

/// How a provider speaks, if it speaks at all.
pub(super) fn dialect(provider: Provider) -> Option<&'static Dialect> {
    match provider {
        Provider::Openai => Some(&openai::DIALECT),
        Provider::OpenaiResponses => Some(&openai_responses::DIALECT),
        Provider::Anthropic => Some(&anthropic::DIALECT),
        Provider::Gemini => Some(&gemini::DIALECT),
        Provider::Ollama => Some(&ollama::DIALECT),
        Provider::Scripted => None,
    }
}

/// Where requests go. The text is never shown: by mistake it may have a secret in it.
fn base(dialect: &Dialect, given: Option<&str>) -> Result<Url, ModelError> {
    let refused = |fault: &str| {
        let text = format!("the base_url {fault}: write it as https://host/path");
        ModelError::new(Fault::Refused, text)
    };
    let mut url = Url::parse(given.unwrap_or(dialect.base).trim())
        .map_err(|fault| refused(&format!("is no address ({fault})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("begins with neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            "has a user or password in it; the key is given by itself",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("has a query or a fragment"));
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    if path.is_empty() || (dialect.provider == Provider::Anthropic && !path.ends_with("/v1")) {
        path.push_str(dialect.path);
    }
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        let written = |provider, text: &str| {
            base(dialect(provider).unwrap(), Some(text))
                .unwrap()
                .to_string()
        };
        for (provider, text, url) in [
            (Provider::Openai, "https://host", "https://host/v1"),
            (Provider::Openai, "https://host/v1//", "https://host/v1"),
            (
                Provider::Openai,
                "https://host/api/v1",
                "https://host/api/v1",
            ),
            (
                Provider::Openai,
                " http://127.0.0.1:8000/ ",
                "http://127.0.0.1:8000/v1",
            ),
            (Provider::OpenaiResponses, "https://host", "https://host/v1"),
            (Provider::Anthropic, "https://host", "https://host/v1"),
            (Provider::Anthropic, "https://host/a/", "https://host/a/v1"),
            (
                Provider::Anthropic,
                "https://host/a/v1",
                "https://host/a/v1",
            ),
            (Provider::Gemini, "https://host", "https://host/v1beta"),
            (Provider::Ollama, "http://box:11434/", "http://box:11434/"),
        ] {
            assert_eq!(written(provider, text), url, "{provider} {text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_it() {
        for bad in [
            "",
            "host:1",
            "ftp://hush",
            "https://me:hush@host",
            "https://host?key=hush",
            "https://host/#hush",
        ] {
            let error = base(&openai::DIALECT, Some(bad)).unwrap_err();
            assert_eq!(error.code, "model.refused", "{bad}");
            assert!(!error.message.contains("hush"), "{error}");
        }
    }
}
