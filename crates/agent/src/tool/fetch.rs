//! `http.fetch` for models: one page as text. The rules are the skill's ([`crate::skill::fetch`]).

use super::{Tool, ToolCard};
use crate::input::{Item, Source};
use crate::skill::{self, fetch::PAGE_TIME_MAX};
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::time::Duration;

/// Fetches one page.
#[derive(Debug)]
pub struct Fetch {
    card: ToolCard,
    private: bool,
}

impl Fetch {
    /// From public addresses only, wherever a page redirects to.
    #[must_use]
    pub fn public() -> Self {
        Self {
            card: ToolCard {
                name: Name::literal("http.fetch"),
                description: "Fetches a web page by its http or https address and gives its text."
                    .into(),
                input: json!({
                    "type": "object",
                    "properties": {"url": {
                        "type": "string", "minLength": 1, "maxLength": 2000,
                        "description": "The whole address, such as https://example.org/page."
                    }},
                    "required": ["url"],
                    "additionalProperties": false
                }),
                output: None,
                effect: EffectClass::Pure,
                // The skill's own limit comes first and says more.
                timeout: PAGE_TIME_MAX + Duration::from_secs(5),
                category: "http".into(),
                sensitive: Vec::new(),
                untrusted_output: true,
            },
            private: false,
        }
    }

    /// From private addresses too. For whoever runs the process to decide, never for a crew or a model.
    #[must_use]
    pub fn allowing_private() -> Self {
        Self {
            private: true,
            ..Self::public()
        }
    }
}

#[async_trait]
impl Tool for Fetch {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    async fn available(&self) -> Result<(), String> {
        Ok(())
    }

    async fn call(&self, arguments: &Value, _key: &str) -> Result<Value, Failure> {
        let options = json!({"url": arguments["url"], "allow_private": self.private});
        let nowhere = Item {
            source: Source {
                file: String::new(),
                line: None,
                row: None,
            },
            text: None,
            record: None,
        };
        let Some(skill) = skill::find("http.fetch") else {
            return Err(Failure::permanent(
                "tool.unavailable",
                "the skill is missing",
            ));
        };
        match skill.run(&nowhere, &options).await {
            Ok(mut pages) => Ok(pages["pages"][0].take()),
            Err(error) => Err(Failure {
                retryable: error.retryable,
                ..Failure::new("tool.failed", format!("{} ({})", error.message, error.code))
            }),
        }
    }
}
