//! The crew of this process: the engine, its workers, and what a run keeps so that another process
//! can bring up the same crew.

use crate::error::CliError;
use agent::command::CommandLimits;
use agent::worker::{COMMAND_KIND, CommandHandler, SkillHandler};
use chargehand::{Running, Worker};
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use engine::{Engine, Place};
use protocol::Api;
use protocol::v1::RunView;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use store::backend::sqlite::Sqlite;

/// Workers of one crew, at most: each may run a program of its own.
pub(crate) const WORKERS_MAX: u32 = 1_000;
/// Where a run keeps its crew.
const METADATA: &str = "crew";

/// What a run keeps of its crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrewPlan {
    /// The skill, or `command`.
    pub(crate) kind: Name,
    /// Why this one.
    pub(crate) because: String,
    /// How many workers.
    pub(crate) workers: u32,
    /// The program that the workers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_command: Option<String>,
}

impl CrewPlan {
    /// As metadata of the run.
    pub(crate) fn metadata(&self) -> [(Name, Json); 1] {
        let value = serde_json::to_value(self).unwrap_or_default();
        [(Name::literal(METADATA), Json::from_value(&value))]
    }

    /// Of a run that this command line started.
    pub(crate) fn of(run: &RunView) -> Result<Self, CliError> {
        let kept = run
            .metadata
            .get(METADATA)
            .map(Json::value)
            .unwrap_or_default();
        serde_json::from_value(kept).map_err(|_| {
            CliError::caller(
                "run.no_crew",
                format!("{} does not say which workers it needs", run.run_id),
                "It was not started by `chargehand run`; resume it with the program that started it.",
            )
        })
    }
}

/// Checks `--workers`.
pub(crate) fn check_workers(workers: u32) -> Result<(), CliError> {
    if (1..=WORKERS_MAX).contains(&workers) {
        return Ok(());
    }
    let error = Error::new(Code::OutOfRange, format!("{workers} workers"))
        .hint(format!("Use 1 to {WORKERS_MAX} workers; 2 is the default."));
    Err(error.into())
}

/// Opens the store, which is made if there is none.
pub(crate) fn open(store: &str) -> Result<Arc<Engine>, CliError> {
    Ok(Arc::new(Engine::open(&store.parse()?)?))
}

/// Opens a store that is there; looking at nothing must not make one.
pub(crate) fn open_existing(store: &str) -> Result<Arc<Engine>, CliError> {
    if let Place::Folder(folder) = store.parse()? {
        must_exist(&folder)?;
    }
    open(store)
}

/// Opens a store that is there to look only, also while another process works with it.
pub(crate) fn open_to_read(store: &str) -> Result<Arc<Engine>, CliError> {
    match store.parse()? {
        Place::Memory => open(store),
        Place::Folder(folder) => {
            must_exist(&folder)?;
            Ok(Arc::new(Engine::open_to_read(&folder)?))
        }
    }
}

/// Whether some process works with the store.
pub(crate) fn is_worked_on(store: &str) -> bool {
    matches!(store.parse(), Ok(Place::Folder(folder)) if Sqlite::is_owned(&folder))
}

pub(crate) fn must_exist(folder: &Path) -> Result<(), CliError> {
    if folder.is_file() {
        let text = format!("{} is a file; the store is a folder", folder.display());
        return Err(Error::new(Code::StorePath, text).into());
    }
    if folder.is_dir() && !folder.join(store::backend::sqlite::FILE).exists() || !folder.exists() {
        let text = format!("there is no store in {}", folder.display());
        return Err(Error::new(Code::StoreMissing, text).into());
    }
    Ok(())
}

/// The ids of a crew of so many.
pub(crate) fn names(workers: u32) -> Vec<Name> {
    (1..=workers)
        .filter_map(|n| Name::new(format!("worker_{n}")).ok())
        .collect()
}

/// Starts the workers of these crews; a worker of the same number serves them all.
pub(crate) async fn start(
    api: &Arc<Engine>,
    crews: &[(String, CrewPlan)],
) -> Result<Vec<Running>, CliError> {
    let workers = crews
        .iter()
        .map(|(_, crew)| crew.workers)
        .max()
        .unwrap_or(0);
    let command = crews
        .iter()
        .find_map(|(goal, crew)| Some((goal, crew.worker_command.as_ref()?)));
    let mut running = Vec::new();
    for name in names(workers) {
        let mut worker = Worker::new(&name)?;
        for skill in agent::skill::all() {
            worker = worker.handle(skill.name(), SkillHandler)?;
        }
        if let Some((goal, command)) = command {
            let (command, goal) = (command.clone(), goal.clone());
            let limits = CommandLimits::default();
            worker = worker.handle(
                COMMAND_KIND,
                CommandHandler {
                    command,
                    goal,
                    limits,
                },
            )?;
        }
        let api: Arc<dyn Api> = api.clone();
        running.push(worker.start(api).await?);
    }
    Ok(running)
}

/// Lets the workers hand back what they have, then stops the engine.
pub(crate) async fn stop(engine: &Arc<Engine>, workers: Vec<Running>) -> Result<(), CliError> {
    let stops = workers
        .into_iter()
        .map(|worker| tokio::spawn(worker.stop()));
    for stopped in stops.collect::<Vec<_>>() {
        // A good-bye that could not be said costs nothing: the next start releases what is held.
        let _ = stopped.await;
    }
    let engine = Arc::clone(engine);
    let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
    stopped.unwrap_or(Ok(())).map_err(CliError::from)
}
