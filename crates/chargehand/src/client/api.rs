//! The contract, method by method, over the paths of `docs/api.md`.

use crate::client::{Client, WAIT_MAX, Wait};
use async_trait::async_trait;
use domain::blackboard::{Entry, EntryFilter, NewEntry};
use domain::command::{RunStart, Submission};
use domain::demand::{Demand, Miss};
use domain::error::{Code, Error};
use domain::event::Recorded;
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::limits::{FAILURE_BYTES_MAX, REQUEST_COMMANDS_MAX};
use domain::message::{Message, NewMessage};
use domain::name::Name;
use domain::pool::Pool;
use domain::record::{Finding, Record};
use domain::task::Address;
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use protocol::api::{
    Api, ApiRead, NewCredential, Result, RunQuery, TaskQuery, Work, Worked, WorkerQuery,
};
use protocol::speech::{Cursor, Heard, Say};
use protocol::v1::{
    BoardStatistics, CredentialView, Delivered, Minted, Page, PoolStatistics, QueueView, RunView,
    Signal, Statistics, TaskView, WorkerView,
};
use protocol::wire::*;
use reqwest::header::{HeaderValue, IF_MATCH, IF_NONE_MATCH};
use std::time::Duration;

fn page(after: Option<String>, limit: usize) -> PageParams {
    PageParams { after, limit }
}

/// A reason travels in a path's query: cut to what every server and proxy takes.
fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(FAILURE_BYTES_MAX / 4));
    reason
}

#[async_trait]
impl ApiRead for Client {
    async fn task_get(&self, task: TaskId) -> Result<TaskView> {
        self.ask(self.get(&["v1", "tasks", &task.to_string()])?)
            .await
    }

    async fn task_list(&self, query: TaskQuery) -> Result<Page<TaskView>> {
        let request = self.get(&["v1", "tasks"])?;
        self.ask(request.query(&TaskParams::from(query))?).await
    }

    async fn task_wait(&self, task: TaskId, wait: Duration) -> Result<TaskView> {
        let id = task.to_string();
        let mut wait = Wait::new(wait);
        let mut late = Error::new(Code::WaitTimedOut, format!("{task} has not ended"));
        while let Some(portion) = wait.portion().await {
            let query = WaitParams {
                wait_ms: Some(portion.ms),
            };
            let request = self.get(&["v1", "tasks", &id])?.query(&query)?;
            match self.ask(request.waiting(portion.time())).await {
                Err(error) if error.code == Code::WaitTimedOut => late = error,
                answer => return answer,
            }
        }
        Err(late)
    }

    async fn record_list(
        &self,
        task: TaskId,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>> {
        let request = self.get(&["v1", "tasks", &task.to_string(), "records"])?;
        self.ask(request.query(&page(after, limit))?).await
    }

    async fn queue_peek(&self, queue: Name, limit: usize) -> Result<Vec<TaskView>> {
        let request = self.get(&["v1", "queues", &queue, "tasks"])?;
        let page: Page<TaskView> = self.ask(request.query(&page(None, limit))?).await?;
        Ok(page.items)
    }

    async fn queue_list(&self) -> Result<Vec<QueueView>> {
        let queues: Queues = self.ask(self.get(&["v1", "queues"])?).await?;
        Ok(queues.items)
    }

    async fn run_get(&self, run: RunId) -> Result<RunView> {
        self.ask(self.get(&["v1", "runs", &run.to_string()])?).await
    }

    async fn run_stream(&self, run: RunId, after: Option<Cursor>, wait: Duration) -> Result<Heard> {
        let id = run.to_string();
        let mut wait = Wait::new(wait);
        let mut heard = Heard {
            anew: false,
            lost: 0,
            pieces: Vec::new(),
            next: after,
            ended: false,
        };
        while let Some(portion) = wait.portion().await {
            let query = SpeechParams {
                after,
                wait_ms: Some(portion.ms),
            };
            let request = self.get(&["v1", "runs", &id, "stream"])?.query(&query)?;
            heard = self.ask(request.waiting(portion.time())).await?;
            if heard.anew || heard.lost > 0 || heard.ended || !heard.pieces.is_empty() {
                break;
            }
        }
        Ok(heard)
    }

    async fn run_list(&self, query: RunQuery) -> Result<Page<RunView>> {
        let request = self.get(&["v1", "runs"])?;
        self.ask(request.query(&RunParams::from(query))?).await
    }

    async fn worker_get(&self, worker: Name) -> Result<WorkerView> {
        self.ask(self.get(&["v1", "workers", &worker])?).await
    }

    async fn worker_list(&self, query: WorkerQuery) -> Result<Page<WorkerView>> {
        let request = self.get(&["v1", "workers"])?;
        self.ask(request.query(&WorkerParams::from(query))?).await
    }

    async fn pool_list(&self) -> Result<Vec<Pool>> {
        let pools: Pools = self.ask(self.get(&["v1", "pools"])?).await?;
        Ok(pools.items)
    }

    async fn pool_get(&self, pool: Name) -> Result<Pool> {
        self.ask(self.get(&["v1", "pools", &pool])?).await
    }

    async fn pool_statistics(&self, pool: Name) -> Result<PoolStatistics> {
        self.ask(self.get(&["v1", "pools", &pool, "statistics"])?)
            .await
    }

    async fn statistics(&self) -> Result<Statistics> {
        self.ask(self.get(&["v1", "statistics"])?).await
    }

    async fn entry_list(&self, filter: EntryFilter) -> Result<Vec<Entry>> {
        let request = self.post(&["v1", "entries", "search"])?;
        let entries: Entries = self.ask(request.json(&filter)?).await?;
        Ok(entries.items)
    }

    async fn board_statistics(&self, run: Option<RunId>) -> Result<BoardStatistics> {
        let request = self.get(&["v1", "entries", "statistics"])?;
        self.ask(request.query(&BoardParams { run })?).await
    }

    async fn message_get(&self, message: MessageId) -> Result<Message> {
        self.ask(self.get(&["v1", "messages", &message.to_string()])?)
            .await
    }

    async fn message_list(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<Message>> {
        let after = after.map(|after| after.to_string());
        let request = self.get(&["v1", "messages"])?;
        let messages: Messages = self.ask(request.query(&page(after, limit))?).await?;
        Ok(messages.items)
    }

    fn home(&self) -> Home {
        Home::Remote
    }

    async fn tool_demand_list(&self) -> Result<Vec<Demand>> {
        let demands: Demands = self.ask(self.get(&["v1", "tools", "missing"])?).await?;
        Ok(demands.items)
    }

    async fn credential_list(&self) -> Result<Vec<CredentialView>> {
        let credentials: Credentials = self.ask(self.get(&["v1", "keys"])?).await?;
        Ok(credentials.items)
    }

    async fn event_list(&self, after: u64, limit: usize) -> Result<Vec<Recorded>> {
        let query = EventParams {
            after: Some(after),
            limit,
            ..EventParams::default()
        };
        let events: Events = self
            .ask(self.get(&["v1", "events"])?.query(&query)?)
            .await?;
        Ok(events.items)
    }

    async fn event_wait(&self, after: u64, wait: Duration) -> Result<u64> {
        let mut head = Position { position: after };
        let mut wait = Wait::new(wait);
        while let Some(portion) = wait.portion().await {
            let query = [("after", after), ("wait_ms", portion.ms)];
            let request = self.get(&["v1", "events", "head"])?.query(&query)?;
            head = self.ask(request.waiting(portion.time())).await?;
            if head.position > after {
                break;
            }
        }
        Ok(head.position)
    }
}

#[async_trait]
impl Api for Client {
    async fn task_submit(&self, tasks: Vec<Submission>) -> Result<Vec<Result<TaskId>>> {
        self.submit(tasks).await
    }

    async fn task_cancel(&self, task: TaskId, reason: String) -> Result<()> {
        let request = self.post(&["v1", "tasks", &task.to_string(), "cancel"])?;
        self.tell(request.json(&Reason { reason })?).await
    }

    async fn task_redrive(&self, task: TaskId) -> Result<()> {
        let request = self.post(&["v1", "tasks", &task.to_string(), "redrive"])?;
        self.tell(request.once()).await
    }

    async fn task_reassign(&self, task: TaskId, to: Address) -> Result<()> {
        let request = self.post(&["v1", "tasks", &task.to_string(), "reassign"])?;
        self.tell(request.json(&Reassign { to })?.once()).await
    }

    async fn record_resolve(&self, task: TaskId, key: Name, finding: Finding) -> Result<()> {
        let path = ["v1", "tasks", &task.to_string(), "records", &key, "resolve"];
        let request = self.post(&path)?.json(&ResolveRecord { finding })?;
        self.tell(request).await
    }

    async fn run_start(&self, mut run: RunStart) -> Result<RunId> {
        let request = self.post(&["v1", "runs"])?.keyed(&mut run.key)?;
        let made: RunRef = self.ask(request.json(&run)?).await?;
        Ok(made.run_id)
    }

    async fn run_settle(&self, run: RunId, step: Name, output: Json) -> Result<()> {
        let request = self.post(&["v1", "runs", &run.to_string(), "steps", &step, "settle"])?;
        self.tell(request.json(&Settle { output })?).await
    }

    async fn run_cancel(&self, run: RunId, reason: String) -> Result<()> {
        let request = self.post(&["v1", "runs", &run.to_string(), "cancel"])?;
        self.tell(request.json(&Reason { reason })?).await
    }

    async fn run_retry(&self, run: RunId) -> Result<()> {
        let request = self.post(&["v1", "runs", &run.to_string(), "retry"])?;
        self.tell(request.once()).await
    }

    async fn worker_register(&self, mut worker: WorkerSpec) -> Result<()> {
        // Whoever speaks over HTTP lives elsewhere, whatever it believes.
        worker.home = Home::Remote;
        self.tell(self.post(&["v1", "workers"])?.json(&worker)?)
            .await
    }

    async fn worker_heartbeat(
        &self,
        worker: Name,
        session: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Signal>> {
        let mut heard = Signals {
            signals: Vec::new(),
        };
        let mut wait = Wait::new(wait);
        while let Some(portion) = wait.portion().await {
            let body = Heartbeat {
                session,
                wait_ms: portion.ms,
            };
            let request = self.post(&["v1", "workers", &worker, "heartbeat"])?;
            heard = self
                .ask(request.json(&body)?.waiting(portion.time()))
                .await?;
            if !heard.signals.is_empty() {
                break;
            }
        }
        Ok(heard.signals)
    }

    async fn worker_leave(&self, worker: Name, session: Option<u64>, reason: String) -> Result<()> {
        let query = LeaveParams {
            session,
            reason: cut(reason),
        };
        let request = self.delete(&["v1", "workers", &worker])?;
        self.tell(request.query(&query)?).await
    }

    async fn worker_ready(&self, worker: Name) -> Result<()> {
        self.worker_status(worker, WorkerStatus::Available, String::new())
            .await
    }

    async fn worker_drain(&self, worker: Name) -> Result<()> {
        self.worker_status(worker, WorkerStatus::Draining, String::new())
            .await
    }

    async fn worker_error(&self, worker: Name, reason: String) -> Result<()> {
        self.worker_status(worker, WorkerStatus::Error, reason)
            .await
    }

    async fn work(&self, work: Work) -> Result<Worked> {
        if work.reports.len() > REQUEST_COMMANDS_MAX {
            let what = "reports in one request";
            return Err(Error::limit(what, work.reports.len(), REQUEST_COMMANDS_MAX));
        }
        let request = self.post(&["v1", "workers", &work.worker, "work"])?;
        let mut body = WorkBody::from(work);
        let reports = body.reports.len();
        let request = match &mut body.claim {
            None => request,
            Some(claim) => {
                claim.wait_ms = claim.wait_ms.min(WAIT_MAX.as_millis() as u64);
                let request = request.waiting(Duration::from_millis(claim.wait_ms));
                match claim.key {
                    Some(_) => request,
                    // Nobody could say again which tasks these were.
                    None => request.once(),
                }
            }
        };
        let answer: WorkedBody = self.ask(request.work(body)).await?;
        if answer.reports.len() != reports {
            let text = format!(
                "the server answered {} of {reports} reports",
                answer.reports.len()
            );
            return Err(Error::new(Code::ServerStrange, text));
        }
        Ok(answer.into())
    }

    async fn task_say(&self, worker: Name, say: Say) -> Result<()> {
        say.check()?;
        let request = self.post(&["v1", "workers", &worker, "say"])?.json(&say)?;
        // Said twice, it would be heard twice.
        self.tell(request.once()).await
    }

    async fn queue_pause(&self, queue: Name, paused: bool) -> Result<()> {
        let word = if paused { "pause" } else { "resume" };
        self.tell(self.post(&["v1", "queues", &queue, word])?).await
    }

    async fn pool_define(&self, pool: Pool, expected: Option<u64>) -> Result<Pool> {
        let request = self.put(&["v1", "pools", &pool.id])?;
        let request = match expected {
            None => request,
            // Said twice, the second would hear that somebody (itself) has changed it since.
            Some(0) => request
                .header(IF_NONE_MATCH, HeaderValue::from_static("*"))
                .once(),
            Some(version) => {
                let tag = HeaderValue::try_from(format!("\"{version}\""));
                let tag =
                    tag.map_err(|_| Error::new(Code::Internal, "a version that is no tag"))?;
                request.header(IF_MATCH, tag).once()
            }
        };
        let body = PoolBody {
            strategy: pool.strategy,
            members: pool.members,
        };
        self.ask(request.json(&body)?).await
    }

    async fn pool_join(&self, pool: Name, worker: Name) -> Result<()> {
        self.tell(self.put(&["v1", "pools", &pool, "workers", &worker])?)
            .await
    }

    async fn pool_leave(&self, pool: Name, worker: Name) -> Result<()> {
        self.tell(self.delete(&["v1", "pools", &pool, "workers", &worker])?)
            .await
    }

    async fn pool_reserve(
        &self,
        pool: Name,
        capability: Option<Name>,
        holder: Name,
        keep: Duration,
    ) -> Result<Name> {
        let body = Reserve {
            capability,
            holder,
            keep_ms: keep.as_millis() as u64,
        };
        // Asked twice for one holder, it gives the same room.
        let request = self.post(&["v1", "pools", &pool, "reservations"])?;
        let found: WorkerRef = self.ask(request.json(&body)?).await?;
        Ok(found.worker_id)
    }

    async fn pool_unreserve(&self, worker: Name, holder: Name) -> Result<()> {
        self.tell(self.delete(&["v1", "workers", &worker, "reservations", &holder])?)
            .await
    }

    async fn credential_create(&self, new: NewCredential) -> Result<Minted> {
        // A key is shown once and kept nowhere, so nothing could show it again.
        self.ask(self.post(&["v1", "keys"])?.json(&new)?.once())
            .await
    }

    async fn tool_missed(&self, miss: Miss) -> Result<()> {
        // Said twice for one task, it counts once.
        let request = self.post(&["v1", "tools", "missing"])?;
        self.tell(request.json(&miss)?).await
    }

    async fn credential_revoke(&self, id: Name) -> Result<()> {
        self.tell(self.delete(&["v1", "keys", &id])?).await
    }

    async fn entry_write(&self, mut entry: NewEntry) -> Result<EntryId> {
        // JSON has no NaN: what it would become must not be what is refused.
        entry.check()?;
        let request = self.post(&["v1", "entries"])?.keyed(&mut entry.key)?;
        let made: EntryRef = self.ask(request.json(&entry)?).await?;
        Ok(made.entry_id)
    }

    async fn entry_claim(
        &self,
        entry: EntryId,
        expected: Option<Name>,
        by: Option<Name>,
    ) -> Result<()> {
        let request = self.post(&["v1", "entries", &entry.to_string(), "claim"])?;
        self.tell(request.json(&ClaimEntry { expected, by })?).await
    }

    async fn message_subscribe(&self, agent: Name, kinds: Vec<Name>) -> Result<()> {
        let request = self.put(&["v1", "inboxes", &agent])?;
        self.tell(request.json(&Subscription { kinds })?).await
    }

    async fn message_unsubscribe(&self, agent: Name) -> Result<()> {
        self.tell(self.delete(&["v1", "inboxes", &agent])?).await
    }

    async fn message_send(&self, mut message: NewMessage) -> Result<MessageId> {
        let request = self.post(&["v1", "messages"])?.keyed(&mut message.key)?;
        let made: MessageRef = self.ask(request.json(&message)?).await?;
        Ok(made.message_id)
    }

    async fn message_receive(
        &self,
        agent: Name,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivered>> {
        let mut received = Received {
            messages: Vec::new(),
        };
        let mut wait = Wait::new(wait);
        while let Some(portion) = wait.portion().await {
            let body = Receive {
                max,
                wait_ms: portion.ms,
            };
            // What was received and never heard of comes again: nothing settled it.
            let request = self.post(&["v1", "inboxes", &agent, "receive"])?;
            received = self
                .ask(request.json(&body)?.waiting(portion.time()))
                .await?;
            if !received.messages.is_empty() {
                break;
            }
        }
        Ok(received.messages)
    }

    async fn message_settle(
        &self,
        message: MessageId,
        agent: Name,
        failure: Option<String>,
    ) -> Result<()> {
        let request = self.post(&["v1", "messages", &message.to_string(), "settle"])?;
        self.tell(request.json(&SettleMessage { agent, failure })?)
            .await
    }

    async fn message_request(&self, message: NewMessage, wait: Duration) -> Result<Delivered> {
        let wait = wait.min(WAIT_MAX);
        let request = self
            .post(&["v1", "messages", "request"])?
            .waiting(wait)
            // The answer is settled as it is given: asked again, there would be none.
            .once();
        let body = RequestMessage {
            message,
            wait_ms: wait.as_millis() as u64,
        };
        self.ask(request.json(&body)?).await
    }
}

impl Client {
    async fn worker_status(
        &self,
        worker: Name,
        status: WorkerStatus,
        reason: String,
    ) -> Result<()> {
        let request = self.put(&["v1", "workers", &worker, "status"])?;
        self.tell(request.json(&SetStatus { status, reason })?)
            .await
    }
}
