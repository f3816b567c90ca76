//! Skills for models: what reads a text without a model ([`crate::skill`]), as a tool of that name.
//! What a skill computes is the same each time, so an agent that may use one need not guess.

use super::{Tool, ToolCard};
use crate::input::{Item, Source};
use crate::skill::{self, Skill};
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::time::Duration;

/// Characters of a text, at most: the largest takes some seconds.
pub const TEXT_CHARS_MAX: usize = 200_000;
/// How long a reading may take.
const TIME_MAX: Duration = Duration::from_secs(30);
/// How the names of skills begin that read a text.
const OF_TEXTS: &str = "text.";

/// One skill.
pub struct SkillTool {
    card: ToolCard,
    skill: &'static dyn Skill,
}

impl SkillTool {
    /// All skills that read a text.
    pub fn all() -> impl Iterator<Item = Self> {
        let skills = skill::all().iter().copied();
        let of_texts = skills.filter(|skill| skill.name().starts_with(OF_TEXTS));
        of_texts.map(|skill| Self {
            card: ToolCard {
                name: Name::literal(skill.name()),
                description: format!("{} Computed, not guessed.", skill.summary()),
                input: json!({
                    "type": "object",
                    "properties": {
                        "text": {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX},
                        "options": {"type": "object"},
                    },
                    "required": ["text"],
                    "additionalProperties": false
                }),
                output: None,
                effect: EffectClass::Pure,
                timeout: TIME_MAX,
                category: "text".into(),
                sensitive: Vec::new(),
                untrusted_output: true,
            },
            skill,
        })
    }
}

#[async_trait]
impl Tool for SkillTool {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    async fn available(&self) -> Result<(), String> {
        Ok(())
    }

    async fn call(&self, arguments: &Value, _key: &str) -> Result<Value, Failure> {
        let item = Item {
            source: Source {
                file: String::new(),
                line: None,
                row: None,
            },
            text: arguments["text"].as_str().map(str::to_owned),
            record: None,
        };
        let read = crate::worker::one_item(self.skill, item, arguments["options"].clone());
        read.await.map_err(|error| Failure {
            retryable: error.retryable,
            ..Failure::new(
                "tool.failed",
                format!("{}. {} ({})", error.message, error.hint, error.code),
            )
        })
    }
}
