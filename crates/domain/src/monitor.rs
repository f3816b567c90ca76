//! The monitor: what a crew's log shows about progress, conflicts and stuck work.
//!
//! It reads and computes; it has no way to write, by type. Nothing here is estimated and nobody has
//! to tag anything.

use crate::error::Error;
use crate::event::{AttemptRef, Event, Recorded};
use crate::id::TaskId;
use crate::name::Name;
use crate::task::{Task, TaskStatus};
use crate::time::Time;
use crate::worker::Worker;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Exact counts, folded from the log alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Workers that are there.
    pub active_workers: u64,
    /// Tasks that have not ended, with or without a worker.
    pub pending_tasks: u64,
    /// Of these, with a worker.
    pub running_tasks: u64,
    /// Tasks with an accepted result.
    pub completed_tasks: u64,
    /// Dead letters.
    pub failed_tasks: u64,
    /// Tasks that are not wanted any more.
    pub cancelled_tasks: u64,
}

/// A task that two workers had, or were given, at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "conflict")]
pub enum Conflict {
    /// Two leases of one task overlapped. This must never be seen.
    DoubleLease {
        /// The task.
        task: TaskId,
        /// Who had it, and who was given it.
        workers: [Name; 2],
    },
    /// Two open tasks of one run have the same type and input, and different workers: the work is
    /// assigned twice.
    DuplicateAssignment {
        /// The first, which keeps the work.
        task: TaskId,
        /// The later one.
        duplicate: TaskId,
    },
    /// A worker reported a result for a task that was no longer its own.
    LateResult {
        /// The attempt it claimed to be.
        lease: AttemptRef,
    },
}

/// Work that does not move, and why it is thought so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "concern")]
pub enum Concern {
    /// Held for much longer than tasks of its type take.
    Slow {
        /// The task.
        task: TaskId,
        /// Who has it.
        worker: Name,
        /// For so many milliseconds.
        ms: u64,
    },
    /// Its worker has said nothing about it for long.
    Silent {
        /// The task.
        task: TaskId,
        /// Who has it.
        worker: Name,
        /// For so many milliseconds.
        ms: u64,
    },
    /// It waits for a task that failed or was cancelled, and will wait for ever.
    BlockedForEver {
        /// The task.
        task: TaskId,
        /// What it waits for.
        by: TaskId,
    },
    /// Nobody who could take it is there.
    NobodyCan {
        /// The task.
        task: TaskId,
        /// What is missing.
        missing: String,
    },
}

/// A task is slow from ten times its type's mean on, and not before ten seconds.
const SLOW_FACTOR: u64 = 10;
const SLOW_MS_MIN: u64 = 10_000;
/// A task that reported progress before is silent after a minute without more.
const SILENT_MS: u64 = 60_000;

/// Folds the log; feed it every event once, in order.
#[derive(Debug, Default)]
pub struct Monitor {
    tasks: HashMap<TaskId, Seen>,
    workers: BTreeMap<Name, bool>,
    briefs: HashMap<(Name, u64), TaskId>,
    conflicts: Vec<Conflict>,
    kinds: HashMap<Name, (u64, u64)>,
    position: u64,
}

#[derive(Debug)]
struct Seen {
    status: TaskStatus,
    kind: Name,
    holder: Option<(Name, Time)>,
    heard: Option<Time>,
    waits_for: Vec<TaskId>,
    brief: Option<(Name, u64)>,
}

/// Conflicts kept; a crew with more has one problem, not a thousand.
const CONFLICTS_MAX: usize = 1_000;

impl Monitor {
    /// The position it has read up to.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads one event.
    ///
    /// # Errors
    /// When the log has a gap or repeats itself: the position is not the one after the last.
    pub fn read(&mut self, recorded: &Recorded) -> Result<(), Error> {
        if recorded.position != self.position + 1 {
            return Err(Error::new(
                crate::error::Code::StoreCorrupt,
                format!(
                    "event {} follows event {}",
                    recorded.position, self.position
                ),
            ));
        }
        self.position = recorded.position;
        match &recorded.event {
            Event::TaskSubmitted {
                task,
                spec,
                blocked_by,
                ..
            } => {
                let brief = spec.of.as_ref().map(|of| {
                    let input = spec.input.text().as_bytes();
                    let run = of.run.to_bytes();
                    (
                        spec.kind.clone(),
                        crate::command::fnv(&[&run, of.step.as_bytes(), &[0], input]),
                    )
                });
                if let Some(brief) = &brief {
                    self.note_brief(brief, *task);
                }
                let seen = Seen {
                    status: TaskStatus::Pending,
                    kind: spec.kind.clone(),
                    holder: None,
                    heard: None,
                    waits_for: blocked_by.clone(),
                    brief,
                };
                self.tasks.insert(*task, seen);
            }
            Event::TaskAssigned { lease, started, .. } => {
                let status = if *started {
                    TaskStatus::InProgress
                } else {
                    TaskStatus::Assigned
                };
                let before = self.set(
                    lease.task,
                    status,
                    Some((lease.worker.clone(), recorded.at)),
                );
                if let Some((holder, _)) = before {
                    let workers = [holder, lease.worker.clone()];
                    self.conflict(Conflict::DoubleLease {
                        task: lease.task,
                        workers,
                    });
                }
            }
            Event::TaskStarted { lease, .. } => {
                if let Some(seen) = self.tasks.get_mut(&lease.task) {
                    seen.status = TaskStatus::InProgress;
                }
            }
            Event::TaskProgressed { lease, .. } | Event::RecordNoted { lease, .. } => {
                if let Some(seen) = self.tasks.get_mut(&lease.task) {
                    seen.heard = Some(recorded.at);
                }
            }
            Event::TaskCompleted {
                lease,
                ties,
                ran_ms,
                ..
            } => {
                self.set(lease.task, TaskStatus::Completed, None);
                let (count, sum) = self.kinds.entry(ties.kind.clone()).or_default();
                *count += 1;
                *sum += ran_ms;
            }
            Event::AttemptEnded { lease, .. } => {
                self.set(lease.task, TaskStatus::Pending, None);
            }
            Event::TaskFailed { task, .. } => {
                self.set(*task, TaskStatus::Failed, None);
            }
            Event::TaskCancelled { task, .. } => {
                self.set(*task, TaskStatus::Cancelled, None);
            }
            Event::TaskRedriven {
                task, blocked_by, ..
            } => {
                self.set(*task, TaskStatus::Pending, None);
                if let Some(seen) = self.tasks.get_mut(task) {
                    seen.waits_for.clone_from(blocked_by);
                }
            }
            Event::TaskUnblocked { task, by } => {
                if let Some(seen) = self.tasks.get_mut(task) {
                    seen.waits_for.retain(|waits| waits != by);
                }
            }
            Event::ResultRefused { lease, .. } => {
                self.conflict(Conflict::LateResult {
                    lease: lease.clone(),
                });
            }
            Event::WorkerRegistered { spec, .. } => {
                self.workers.insert(spec.id.clone(), true);
            }
            Event::WorkerLost { worker, .. } => {
                self.workers.insert(worker.clone(), false);
            }
            _ => {}
        }
        Ok(())
    }

    fn note_brief(&mut self, brief: &(Name, u64), task: TaskId) {
        match self.briefs.get(brief) {
            Some(first) if self.is_open(*first) => {
                let conflict = Conflict::DuplicateAssignment {
                    task: *first,
                    duplicate: task,
                };
                self.conflict(conflict);
            }
            _ => {
                self.briefs.insert(brief.clone(), task);
            }
        }
    }

    fn conflict(&mut self, conflict: Conflict) {
        if self.conflicts.len() < CONFLICTS_MAX {
            self.conflicts.push(conflict);
        }
    }

    fn is_open(&self, task: TaskId) -> bool {
        self.tasks
            .get(&task)
            .is_some_and(|seen| !seen.status.is_terminal())
    }

    fn set(
        &mut self,
        task: TaskId,
        status: TaskStatus,
        holder: Option<(Name, Time)>,
    ) -> Option<(Name, Time)> {
        let seen = self.tasks.get_mut(&task)?;
        seen.status = status;
        seen.heard = None;
        if status.is_terminal()
            && let Some(brief) = seen.brief.take()
            && self.briefs.get(&brief) == Some(&task)
        {
            self.briefs.remove(&brief);
        }
        let seen = self.tasks.get_mut(&task)?;
        std::mem::replace(&mut seen.holder, holder)
    }

    /// The counts.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            active_workers: self.workers.values().filter(|here| **here).count() as u64,
            ..Progress::default()
        };
        for seen in self.tasks.values() {
            match seen.status {
                TaskStatus::Completed => progress.completed_tasks += 1,
                TaskStatus::Failed => progress.failed_tasks += 1,
                TaskStatus::Cancelled => progress.cancelled_tasks += 1,
                TaskStatus::Pending => progress.pending_tasks += 1,
                TaskStatus::Assigned | TaskStatus::InProgress => {
                    progress.pending_tasks += 1;
                    progress.running_tasks += 1;
                }
            }
        }
        progress
    }

    /// Conflicts that have not been resolved: of a duplicate assignment, both are still open.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let unresolved = |conflict: &&Conflict| match conflict {
            Conflict::DuplicateAssignment { task, duplicate } => {
                self.is_open(*task) && self.is_open(*duplicate)
            }
            Conflict::DoubleLease { .. } | Conflict::LateResult { .. } => true,
        };
        self.conflicts.iter().filter(unresolved).cloned().collect()
    }

    /// Work that does not move at `now`.
    pub fn concerns(&self, now: Time) -> Vec<Concern> {
        let mut concerns = Vec::new();
        for (task, seen) in &self.tasks {
            if let Some((worker, since)) = &seen.holder {
                let ms = now.since_ms(*since);
                let (count, sum) = self.kinds.get(&seen.kind).copied().unwrap_or_default();
                let usual = sum.checked_div(count).unwrap_or(0);
                let worker = worker.clone();
                if let Some(heard) = seen.heard
                    && now.since_ms(heard) >= SILENT_MS
                {
                    let ms = now.since_ms(heard);
                    concerns.push(Concern::Silent {
                        task: *task,
                        worker,
                        ms,
                    });
                } else if count > 0 && ms >= (usual * SLOW_FACTOR).max(SLOW_MS_MIN) {
                    concerns.push(Concern::Slow {
                        task: *task,
                        worker,
                        ms,
                    });
                }
            } else if seen.status == TaskStatus::Pending {
                let ended = |by: &&TaskId| {
                    self.tasks.get(by).is_some_and(|seen| {
                        matches!(seen.status, TaskStatus::Failed | TaskStatus::Cancelled)
                    })
                };
                if let Some(by) = seen.waits_for.iter().find(ended) {
                    concerns.push(Concern::BlockedForEver {
                        task: *task,
                        by: *by,
                    });
                }
            }
        }
        concerns.sort_by_key(|concern| match concern {
            Concern::Slow { task, .. }
            | Concern::Silent { task, .. }
            | Concern::BlockedForEver { task, .. }
            | Concern::NobodyCan { task, .. } => *task,
        });
        concerns
    }
}

/// A pending task that no registered worker could take.
pub fn nobody_can<'a>(
    task: &Task,
    now: Time,
    workers: impl Iterator<Item = &'a Worker>,
) -> Option<Concern> {
    match task.waits_for(now, false, 0, workers) {
        Some(crate::task::Waits::NoCapableWorker { missing }) => Some(Concern::NobodyCan {
            task: task.id,
            missing,
        }),
        _ => None,
    }
}
