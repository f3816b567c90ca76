//! Hands: what a mind may do besides thinking.
//!
//! A mind sees tools through its grants only: what was not granted is not there for it.

use crate::model::ToolSpec;
use async_trait::async_trait;
use chargehand::EffectClass;
use domain::task::Failure;
use serde_json::Value;
use std::fmt;

/// What a mind may do besides thinking: the tools that were granted to it, and no others.
#[async_trait]
pub trait Hands: Send + Sync + fmt::Debug {
    /// What can be done now, as the model is told of it.
    async fn specs(&self) -> Vec<ToolSpec>;

    /// The tool's own name, for whom models know by another, and what doing it twice would mean; none
    /// when there is no such tool, or it is not granted.
    fn known(&self, tool: &str) -> Option<(String, EffectClass)>;

    /// Does it. `key` is the same however often this very call is tried.
    ///
    /// # Errors
    /// Why it was not done; [`Failure::in_doubt`] when it may have been.
    async fn call(&self, tool: &str, arguments: &Value, key: &str) -> Result<Value, Failure>;
}

/// A mind without hands.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHands;

#[async_trait]
impl Hands for NoHands {
    async fn specs(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
    fn known(&self, _: &str) -> Option<(String, EffectClass)> {
        None
    }
    async fn call(&self, tool: &str, _: &Value, _: &str) -> Result<Value, Failure> {
        let text = format!("there is no tool “{tool}”");
        Err(Failure::permanent("tool.unknown", text))
    }
}
