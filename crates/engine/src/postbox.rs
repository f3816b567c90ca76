//! Who is subscribed, and which messages wait for whom. In memory: a subscription lasts as long as
//! the process that made it, the messages themselves are in the store and come back from there.

use domain::id::MessageId;
use domain::limits::MESSAGE_VISIBLE_MS;
use domain::message::{Delivery, Message, To};
use domain::name::Name;
use domain::time::Time;
use protocol::v1::Delivered;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inbox {
    kinds: HashSet<Name>,
    subscribed: bool,
    /// Requests that wait for an answer: whoever asks can be answered.
    asking: usize,
    waiting: VecDeque<MessageId>,
    /// Received and not settled, in the order they were received: when they are offered again.
    taken: VecDeque<(Time, MessageId)>,
    wake: Arc<Notify>,
}

impl Inbox {
    fn forget(&mut self, message: MessageId) {
        self.waiting.retain(|waiting| *waiting != message);
        self.taken.retain(|(_, taken)| *taken != message);
    }
}

#[derive(Debug, Default)]
struct Content {
    inboxes: BTreeMap<Name, Inbox>,
    messages: HashMap<MessageId, Open>,
}

/// A message that somebody still has to deal with, and how many.
#[derive(Debug)]
struct Open {
    message: Arc<Message>,
    recipients: usize,
}

/// Who listens and what waits for them. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Postbox(Arc<Mutex<Content>>);

/// An agent that asks; dropping it says that it has its answer, or gave up.
pub(crate) struct Asking {
    postbox: Postbox,
    agent: Name,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(inbox) = self.postbox.content().inboxes.get_mut(&self.agent) {
            inbox.asking -= 1;
        }
    }
}

impl Postbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent listens: to what is for itself or for everybody, and to these types.
    pub fn subscribe(&self, agent: Name, kinds: Vec<Name>) {
        let mut content = self.content();
        let inbox = content.inboxes.entry(agent).or_default();
        inbox.subscribed = true;
        inbox.kinds.extend(kinds);
    }

    /// It listens no more; what waits for it stays.
    pub fn unsubscribe(&self, agent: &Name) {
        if let Some(inbox) = self.content().inboxes.get_mut(agent) {
            inbox.subscribed = false;
            inbox.kinds.clear();
            inbox.wake.notify_waiters();
        }
    }

    /// An agent asks: until what is given back is dropped, it can be answered, subscribed or not.
    pub(crate) fn ask(&self, agent: &Name) -> Asking {
        self.content()
            .inboxes
            .entry(agent.clone())
            .or_default()
            .asking += 1;
        Asking {
            postbox: self.clone(),
            agent: agent.clone(),
        }
    }

    /// Whom an address means now. A sender does not get its own broadcast.
    pub fn resolve(&self, from: &Name, to: &To, kind: &Name) -> Vec<Name> {
        let content = self.content();
        let mut names: Vec<Name> = content
            .inboxes
            .iter()
            .filter(|(name, inbox)| match to {
                To::Agent(agent) if *name == agent => inbox.subscribed || inbox.asking > 0,
                // A direct message reaches whoever listens to its type, too.
                To::Agent(_) | To::Type => inbox.subscribed && inbox.kinds.contains(kind),
                To::Everybody => inbox.subscribed && *name != from,
                To::Prefix(prefix) => {
                    inbox.subscribed && *name != from && name.starts_with(prefix.as_str())
                }
            })
            .map(|(name, _)| name.clone())
            .collect();
        if let To::Agent(agent) = to
            && !names.contains(agent)
        {
            // Nobody is there under that name: listeners to its type do not make up for it.
            names.clear();
        }
        names
    }

    pub(crate) fn deliver(&self, message: &Arc<Message>) {
        let mut content = self.content();
        let mut recipients = 0;
        for (recipient, part) in &message.recipients {
            if matches!(part, Delivery::Pending { .. }) {
                recipients += 1;
                let inbox = content.inboxes.entry(recipient.clone()).or_default();
                inbox.waiting.push_back(message.id);
                inbox.wake.notify_waiters();
            }
        }
        if recipients > 0 {
            let message = Arc::clone(message);
            let open = Open {
                message,
                recipients,
            };
            content.messages.insert(open.message.id, open);
        }
    }

    /// A recipient's part has ended; after the last one the message is the store's alone.
    pub(crate) fn settle(&self, message: MessageId, recipient: &Name) {
        let mut content = self.content();
        if let Some(inbox) = content.inboxes.get_mut(recipient) {
            inbox.forget(message);
        }
        if let Some(open) = content.messages.get_mut(&message) {
            open.recipients -= 1;
            if open.recipients == 0 {
                content.messages.remove(&message);
            }
        }
    }

    pub(crate) fn offer_again(&self, message: MessageId, recipient: &Name) {
        let mut content = self.content();
        if content.messages.contains_key(&message)
            && let Some(inbox) = content.inboxes.get_mut(recipient)
        {
            inbox.forget(message);
            inbox.waiting.push_back(message);
            inbox.wake.notify_waiters();
        }
    }

    pub(crate) fn drop_message(&self, message: MessageId) {
        let mut content = self.content();
        content.messages.remove(&message);
        for inbox in content.inboxes.values_mut() {
            inbox.forget(message);
        }
    }

    /// Whether somebody has received what it has not settled.
    pub(crate) fn is_waiting_for_settlement(&self) -> bool {
        let content = self.content();
        content
            .inboxes
            .values()
            .any(|inbox| !inbox.taken.is_empty())
    }

    /// What was received and not settled for too long waits again: its receiver may be gone.
    pub(crate) fn offer_overdue(&self, now: Time) {
        let mut content = self.content();
        let Content { inboxes, messages } = &mut *content;
        for inbox in inboxes.values_mut() {
            let before = inbox.waiting.len();
            while let Some((at, message)) = inbox.taken.front().copied()
                && at <= now
            {
                inbox.taken.pop_front();
                if messages.contains_key(&message) {
                    inbox.waiting.push_back(message);
                }
            }
            if inbox.waiting.len() > before {
                inbox.wake.notify_waiters();
            }
        }
    }

    /// Takes what waits for an agent, at most `max`.
    ///
    /// # Errors
    /// Nothing waits; what wakes the agent when something does.
    pub fn take(&self, agent: &Name, max: usize, now: Time) -> Result<Vec<Delivered>, Arc<Notify>> {
        let mut content = self.content();
        let Content { inboxes, messages } = &mut *content;
        let inbox = inboxes.entry(agent.clone()).or_default();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = inbox.waiting.pop_front()
        {
            if let Some(open) = messages.get(&id) {
                inbox.taken.push_back((now.plus_ms(MESSAGE_VISIBLE_MS), id));
                taken.push(Delivered {
                    id,
                    message: Arc::clone(&open.message),
                });
            }
        }
        if taken.is_empty() {
            Err(Arc::clone(&inbox.wake))
        } else {
            Ok(taken)
        }
    }

    /// Takes the message that answers `asked`, or says what wakes the asker.
    pub(crate) fn take_answer(
        &self,
        agent: &Name,
        asked: MessageId,
    ) -> Result<Delivered, Arc<Notify>> {
        let mut content = self.content();
        let Content { inboxes, messages } = &mut *content;
        let inbox = inboxes.entry(agent.clone()).or_default();
        let answers = |id: &MessageId| {
            messages
                .get(id)
                .is_some_and(|open| open.message.correlation == Some(asked))
        };
        let found = inbox.waiting.iter().position(answers);
        match found.and_then(|at| inbox.waiting.remove(at)) {
            Some(id) if messages.contains_key(&id) => Ok(Delivered {
                id,
                message: Arc::clone(&messages[&id].message),
            }),
            _ => Err(Arc::clone(&inbox.wake)),
        }
    }
}
