//! Tells the outside what was committed: workers whose task was taken or is to yield, callers that
//! wait for a task's end, followers of the log, and the postbox. Hints only: whoever misses one
//! finds the truth in the store.

use crate::ask::Committed;
use crate::postbox::Postbox;
use crate::rescue::Hearts;
use crate::speech::Speech;
use crate::tail::{Chunk, Tail};
use domain::event::Event;
use domain::id::TaskId;
use domain::task::AttemptEnd;
use protocol::v1::Signal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{oneshot, watch};

type Waiting = HashMap<TaskId, Vec<oneshot::Sender<()>>>;

/// Whom to tell. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Relay {
    head: watch::Sender<u64>,
    waiting: Arc<Mutex<Waiting>>,
    tail: Tail,
    postbox: Postbox,
    speech: Speech,
}

impl Relay {
    pub(crate) fn new(head: u64, postbox: Postbox) -> Self {
        Self {
            head: watch::Sender::new(head),
            waiting: Arc::default(),
            tail: Tail::default(),
            postbox,
            speech: Speech::default(),
        }
    }

    /// Follows the last position.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Resolves when the task has ended, or the engine has.
    pub(crate) fn wait_for(&self, task: TaskId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all = waiting.entry(task).or_default();
        all.retain(|sender| !sender.is_closed());
        all.push(sender);
        receiver
    }

    /// Drops waiters nobody listens to.
    pub(crate) fn stop_waiting(&self, task: TaskId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = waiting.get_mut(&task) {
            all.retain(|sender| !sender.is_closed());
            if all.is_empty() {
                waiting.remove(&task);
            }
        }
    }

    pub(crate) fn publish(&self, events: Committed, body: Vec<u8>, hearts: &Hearts) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for recorded in &events {
            let ended = match &recorded.event {
                Event::TaskCompleted { lease, .. } => Some(lease.task),
                Event::TaskFailed { task, .. } => Some(*task),
                Event::TaskCancelled {
                    task,
                    lease,
                    reason,
                    ..
                } => {
                    if let Some(lease) = lease {
                        let (task, attempt, reason) = (*task, lease.attempt, reason.clone());
                        hearts.signal(
                            &lease.worker,
                            Signal::Stop {
                                task,
                                attempt,
                                reason,
                            },
                        );
                    }
                    Some(*task)
                }
                // The worker's own report needs no signal; what happened to it from outside does.
                Event::AttemptEnded {
                    lease,
                    end,
                    failure,
                    ..
                } if *end != AttemptEnd::Failed && !domain::task::is_handed_back(&failure.code) => {
                    let (task, attempt) = (lease.task, lease.attempt);
                    let reason = failure.message.clone();
                    hearts.signal(
                        &lease.worker,
                        Signal::Stop {
                            task,
                            attempt,
                            reason,
                        },
                    );
                    None
                }
                Event::TaskYieldAsked { lease, .. } => {
                    let (task, attempt) = (lease.task, lease.attempt);
                    hearts.signal(&lease.worker, Signal::Yield { task, attempt });
                    None
                }
                Event::RunCompleted { run, .. }
                | Event::RunFailed { run, .. }
                | Event::RunCancelled { run, .. } => {
                    self.speech.end(*run, recorded.at);
                    None
                }
                Event::MessageSent { message, .. } => {
                    self.postbox.deliver(message);
                    None
                }
                Event::MessageOfferedAgain {
                    message, recipient, ..
                } => {
                    self.postbox.offer_again(*message, recipient);
                    None
                }
                Event::MessageDelivered { message, recipient }
                | Event::MessageDeadLettered {
                    message,
                    recipient: Some(recipient),
                    ..
                } => {
                    self.postbox.settle(*message, recipient);
                    None
                }
                Event::MessageForgotten { message } | Event::MessageExpired { message } => {
                    self.postbox.drop_message(*message);
                    None
                }
                _ => None,
            };
            if let Some(senders) = ended.and_then(|task| waiting.remove(&task)) {
                for sender in senders {
                    let _ = sender.send(());
                }
            }
        }
        drop(waiting);
        if let Some(last) = events.last().map(|last| last.position) {
            self.tail.push(Chunk::new(events, body));
            self.head.send_replace(last);
        }
    }

    /// What was committed last.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What agents say.
    pub(crate) fn speech(&self) -> &Speech {
        &self.speech
    }

    /// Who listens for messages.
    pub fn postbox(&self) -> &Postbox {
        &self.postbox
    }
}
