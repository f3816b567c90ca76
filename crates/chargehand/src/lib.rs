//! The library users depend on: handlers, their context, the worker that runs them, and the
//! [`Client`] that speaks to a server over HTTP.
//!
//! ```
//! use chargehand::{Context, Ended, Worker};
//! use engine::{Engine, Place};
//! use std::sync::Arc;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let engine = Arc::new(Engine::open(&Place::Memory)?);
//! let worker = Worker::new("worker_1")?
//!     .capacity(4)
//!     .handle("double", |task: Context| async move {
//!         let n = task.input()["n"].as_i64().unwrap_or(0);
//!         Ended::done(serde_json::json!(n * 2))
//!     })?
//!     .start(engine.clone())
//!     .await?;
//! # use chargehand::{Api, ApiRead, Submission, TaskSpec};
//! # let spec = TaskSpec::new("double".parse()?, serde_json::json!({"n": 21}).into());
//! # let task = engine.task_submit(vec![Submission::new(spec)]).await?.remove(0)?;
//! # let done = engine.task_wait(task, std::time::Duration::from_secs(5)).await?;
//! # assert_eq!(done.output.unwrap().text(), "42");
//! worker.stop().await?;
//! # Ok::<(), chargehand::Error>(())
//! # }).unwrap();
//! ```

mod client;
mod context;
mod handler;
mod speech;
mod worker;

pub use client::sse;
pub use client::{Client, ClientBuilder, EventFilter, Events};
pub use context::Context;
pub use domain::command::{Report, RunStart, Submission};
pub use domain::error::{Code, Error};
pub use domain::json::Json;
pub use domain::name::Name;
pub use domain::record::EffectClass;
pub use domain::task::{Failure, Priority, TaskSpec};
pub use handler::{Ended, Handler};
pub use protocol::speech::{Cursor, Heard, Piece, Said};
pub use protocol::{Api, ApiRead};
pub use worker::{Running, Worker};
