//! The crew of this process: the engine, its workers, and what a run keeps so that another process
//! can bring up the same crew.

use crate::error::CliError;
use crate::run::SUPERVISOR;
use crate::target::Site;
use agent::assistant::{CHAT_KIND, ChatHandler, CrewStart};
use agent::command::CommandLimits;
use agent::errors::remedy;
use agent::model::Fault;
use agent::muster::muster;
use agent::planning::{self, Minds};
use agent::worker::{COMMAND_KIND, CommandHandler, SkillHandler};
use chargehand::{Running, Worker};
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use domain::pool::Member;
use protocol::v1::RunView;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// The crew file, when agents work, and the digest of all that it said: a run goes on with the
    /// crew it was planned for, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crew_file: Option<PinnedCrew>,
    /// Tells this crew from others of the same server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// Somebody talks with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) assistant: bool,
}

/// A crew file, as a run was planned for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PinnedCrew {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it said, with every prompt, model, tool and program's file.
    pub(crate) digest: String,
    /// The agents' versions, for people; the digest is what counts.
    #[serde(default)]
    pub(crate) agents: BTreeMap<String, u32>,
    /// The models that it asks, for people.
    #[serde(default)]
    pub(crate) models: BTreeMap<String, String>,
}

impl PinnedCrew {
    /// This crew, from this file.
    pub(crate) fn of(path: PathBuf, crew: &agent::crew::Crew) -> Self {
        let agents = crew.agents.iter();
        let models = crew.models.iter();
        Self {
            path,
            digest: crew.digest.clone(),
            agents: agents
                .map(|(name, agent)| (name.clone(), agent.version))
                .collect(),
            models: models
                .map(|(name, model)| (name.clone(), model.model.to_string()))
                .collect(),
        }
    }

    /// The crew, if its file still says the same.
    pub(crate) fn load(&self) -> Result<agent::crew::Crew, CliError> {
        let path = self.path.display();
        let crew = agent::crew::Crew::load(&self.path).map_err(|mistakes| {
            let first = mistakes
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let hint = format!("See all of them with `chargehand crew check {path}`.");
            CliError::caller(
                "crew.invalid",
                format!("the run's crew file: {first}"),
                hint,
            )
        })?;
        if crew.digest != self.digest {
            return Err(CliError::caller(
                "crew.changed",
                format!("{path} is not the crew that the run was planned for"),
                "Put the file and what it refers to back as they were, or cancel the run and start anew.",
            ));
        }
        Ok(crew)
    }
}

/// The minds of a crew, ready to be asked.
pub(crate) fn minds(crew: &agent::crew::Crew) -> Result<Minds, CliError> {
    muster(crew).map_err(|error| {
        let hint = match error.fault {
            Fault::Key => {
                "Set the variable in the environment of this command; `chargehand crew check` lists what is missing."
            }
            _ => remedy(error.code).unwrap_or("Correct what the message names in the crew file."),
        };
        CliError::caller(error.code, error.message, hint)
    })
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

/// The ids of a crew of so many. On a server that others use too, the crew's tag tells its workers
/// from theirs.
pub(crate) fn names(workers: u32, tag: Option<&str>) -> Vec<Name> {
    let name = |n: u32| match tag {
        None => format!("worker_{n}"),
        Some(tag) => format!("worker_{n}@{tag}"),
    };
    (1..=workers)
        .filter_map(|n| Name::new(name(n)).ok())
        .collect()
}

/// Where a tagged crew's tasks wait: nobody else's workers shall run this crew's program, nor this
/// crew's workers theirs.
pub(crate) fn queue(tag: &str) -> Result<Name, Error> {
    Name::new(format!("crew-{tag}"))
}

/// A tag that no other crew has, most likely.
pub(crate) fn fresh_tag() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    // Each `RandomState` has keys of its own, from the operating system's randomness.
    let chance = RandomState::new().build_hasher().finish();
    format!("{:010x}", chance & 0xff_ffff_ffff)
}

/// Who talks with a person, apart from those who work for it: it waits for them.
fn assistant(
    minds: Arc<Minds>,
    crew: &agent::crew::Crew,
    plan: &CrewPlan,
) -> Result<Worker, CliError> {
    let tag = plan.tag.as_deref();
    let queue = tag.map(queue).transpose()?;
    let members = names(plan.workers, tag).into_iter().map(Member::new);
    let delegated = CrewPlan {
        assistant: false,
        ..plan.clone()
    };
    let start = CrewStart {
        supervisor: Name::literal(SUPERVISOR),
        crew: domain::run::Crew {
            members: members.collect(),
            ..domain::run::Crew::default()
        },
        queue: queue.clone(),
        metadata: delegated.metadata().into(),
        budget: Some(crew.budget.of_run()),
    };
    let name = match tag {
        None => "assistant_1".to_owned(),
        Some(tag) => format!("assistant_1@{tag}"),
    };
    let mut worker = Worker::new(&name)?.handle(CHAT_KIND, ChatHandler { minds, start })?;
    if let Some(queue) = queue {
        worker = worker.describe(|spec| spec.queues = vec![queue]);
    }
    Ok(worker)
}

/// Starts the workers of these crews; a worker of the same name serves them all.
pub(crate) async fn start(
    site: &Site,
    crews: &[(String, CrewPlan)],
) -> Result<Vec<Running>, CliError> {
    let mut running = Vec::new();
    let tags: BTreeSet<Option<&str>> = crews.iter().map(|(_, crew)| crew.tag.as_deref()).collect();
    for tag in tags {
        let own = crews.iter().filter(|(_, crew)| crew.tag.as_deref() == tag);
        let workers = own.clone().map(|(_, crew)| crew.workers).max().unwrap_or(0);
        let command = own
            .clone()
            .find_map(|(goal, crew)| Some((goal, crew.worker_command.as_ref()?)));
        let pinned = own.clone().find_map(|(_, crew)| crew.crew_file.as_ref());
        let crew = pinned.map(PinnedCrew::load).transpose()?;
        let minds = match &crew {
            Some(crew) => Some(Arc::new(minds(crew)?)),
            None => None,
        };
        for name in names(workers, tag) {
            let mut worker = Worker::new(&name)?;
            if let Some(tag) = tag {
                let queue = queue(tag)?;
                worker = worker.describe(|spec| spec.queues = vec![queue]);
            }
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
            if let Some(minds) = &minds {
                worker = planning::serve(worker, minds)?;
            }
            running.push(worker.start(site.api()).await?);
        }
        let talks = own.map(|(_, crew)| crew).find(|crew| crew.assistant);
        if let (Some(minds), Some(crew), Some(plan)) = (minds, crew, talks) {
            let worker = assistant(minds, &crew, plan)?;
            running.push(worker.start(site.api()).await?);
        }
    }
    Ok(running)
}

/// Lets the workers hand back what they have, then closes the store, if it is this command's own.
pub(crate) async fn stop(site: &Site, workers: Vec<Running>) -> Result<(), CliError> {
    dismiss(workers).await;
    site.close().await
}

/// Lets the workers hand back what they have.
pub(crate) async fn dismiss(workers: Vec<Running>) {
    let stops = workers
        .into_iter()
        .map(|worker| tokio::spawn(worker.stop()));
    for stopped in stops.collect::<Vec<_>>() {
        // A good-bye that could not be said costs nothing: the next start releases what is held.
        let _ = stopped.await;
    }
}
