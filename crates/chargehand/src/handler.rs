//! What a user writes: a function from a task's context to how it ended.

use crate::context::Context;
use async_trait::async_trait;
use domain::json::Json;
use domain::task::Failure;
use std::future::Future;
use std::time::Duration;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Done(Json),
    /// Without one.
    Failed(Failure),
    /// Handed back at a safe point, to go on from here later.
    Yielded(Option<Json>),
    /// Handed back, because it cannot go on before this much time has passed; its worker is free for
    /// other work meanwhile.
    Later {
        /// How long.
        after: Duration,
        /// Why, for whoever looks.
        reason: String,
    },
}

impl Ended {
    /// With this result.
    pub fn done(output: impl Into<Json>) -> Self {
        Self::Done(output.into())
    }

    /// With a failure that another attempt may mend.
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(code, message))
    }
}

/// Runs tasks of one type. Any `async fn(Context) -> Ended` is one.
///
/// When the attempt is over for the engine (cancelled, timed out, given to another worker) the
/// future is dropped at its next await point; [`Context::stopped`] tells code that must know.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt.
    async fn run(&self, task: Context) -> Ended;
}

#[async_trait]
impl<F, Fut> Handler for F
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Ended> + Send,
{
    async fn run(&self, task: Context) -> Ended {
        self(task).await
    }
}
