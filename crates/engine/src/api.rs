//! The in-process [`Api`]: asks of the wheel, reads beside it.

use crate::ask::Ask;
use crate::clock::SystemIds;
use crate::keyring::digest;
use crate::open::Engine;
use async_trait::async_trait;
use domain::blackboard::{Entry, EntryFilter, NewEntry, project};
use domain::command::{Claimant, Command, Outcome, RunStart, Submission};
use domain::credential::Credential;
use domain::demand::{Demand, Miss};
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Recorded};
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::limits::{BOARD_ENTRIES_MAX, CAPACITY_MAX, PAGE_MAX, REQUEST_COMMANDS_MAX};
use domain::message::{Message, NewMessage};
use domain::name::Name;
use domain::pool::Pool;
use domain::record::{Finding, Record};
use domain::run::{Run, RunStatus};
use domain::state::{Key, Row};
use domain::statistics::Tally;
use domain::task::{Address, Task, TaskStatus};
use domain::worker::{Home, Worker, WorkerSpec};
use protocol::api::{
    Api, ApiRead, NewCredential, Result, RunQuery, TaskQuery, Work, Worked, WorkerQuery,
};
use protocol::speech::{Cursor, Heard, Say};
use protocol::v1::{
    Assignment, BoardStatistics, CredentialView, Delivered, Minted, Page, PoolStatistics,
    QueueView, RunView, Signal, Statistics, TaskView, WorkerView,
};
use std::sync::Arc;
use std::time::Duration;
use store::{Answer, Op, Query, Request};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Rows in a page when nothing is said.
const PAGE_DEFAULT: usize = 100;
/// Bytes of chance in a credential's id: enough to tell one from the next.
const ID_BYTES: usize = 5;
/// Bytes of chance in a secret: 256 bits, which nobody guesses.
const SECRET_BYTES: usize = 32;
/// Longest wait in one request; ask again to wait longer.
const WAIT_MAX: Duration = Duration::from_secs(3600);

fn stopped<E>(_: E) -> Error {
    Error::new(Code::Stopped, "the engine has stopped")
}

fn unexpected(what: &str) -> Error {
    Error::new(Code::Internal, format!("an answer that is not {what}"))
}

fn page_limit(limit: usize) -> usize {
    if limit == 0 {
        PAGE_DEFAULT
    } else {
        limit.min(PAGE_MAX)
    }
}

impl Engine {
    async fn apply(&self, ops: Vec<Op>) -> Result<Vec<Answer>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Apply {
            request: Request {
                origin: self.origin.clone(),
                ops,
            },
            reply,
        });
        answer.await.map_err(stopped)?
    }

    async fn command(&self, command: Command) -> Result<Outcome> {
        match self.apply(vec![Op::Command(command)]).await?.pop() {
            Some(Answer::Outcome(outcome)) => outcome,
            _ => Err(unexpected("an outcome")),
        }
    }

    async fn done(&self, command: Command) -> Result<()> {
        self.command(command).await.map(|_| ())
    }

    async fn row(&self, key: Key) -> Result<Option<Row>> {
        match self.apply(vec![Op::Get(key)]).await?.pop() {
            Some(Answer::Row(row)) => row,
            _ => Err(unexpected("a row")),
        }
    }

    /// A task's row, whole.
    ///
    /// # Errors
    /// [`Code::TaskUnknown`], or the store's own.
    pub async fn task(&self, task: TaskId) -> Result<Arc<Task>> {
        match self.row(Key::Task(task)).await? {
            Some(Row::Task(row)) => Ok(row),
            _ => Err(Error::new(
                Code::TaskUnknown,
                format!("there is no task {task}"),
            )),
        }
    }

    /// A run's row, whole.
    ///
    /// # Errors
    /// [`Code::RunUnknown`], or the store's own.
    pub async fn run(&self, run: RunId) -> Result<Arc<Run>> {
        match self.row(Key::Run(run)).await? {
            Some(Row::Run(row)) => Ok(row),
            _ => Err(Error::new(
                Code::RunUnknown,
                format!("there is no run {run}"),
            )),
        }
    }

    async fn workers(&self) -> Result<Vec<Arc<Worker>>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Workers { reply });
        answer.await.map_err(stopped)?
    }

    /// Rows as they are now: what is behind is written first, or laid over what is read.
    async fn keyed_rows(&self, query: Query) -> Result<Vec<(Key, Row)>> {
        let (reply, settled) = oneshot::channel();
        self.ask(Ask::Flush { reply });
        let behind = settled.await.map_err(stopped)??;
        let wider = query.wider(behind.len());
        let rows = self.read(move |reader| reader.rows(&wider)).await?;
        Ok(store::overlay(&query, rows, behind))
    }

    async fn rows(&self, query: Query) -> Result<Vec<Row>> {
        let rows = self.keyed_rows(query).await?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// A page of what became of a task's steps. Those that are done are read; the others stand in
    /// the row, and end the last page.
    async fn records(&self, task: Arc<Task>, after: u64, limit: usize) -> Result<Page<Record>> {
        let mut page = store::records::Page::default();
        if task.finished.steps > 0 {
            let (reply, settled) = oneshot::channel();
            self.ask(Ask::Flush { reply });
            let behind = settled.await.map_err(stopped)??;
            let id = task.id;
            let read =
                self.read(move |reader| store::records::page(reader, behind, id, after, limit));
            page = read.await?;
        }
        let mut items = page.records;
        if page.next.is_none() {
            // The row may be from before a step that was read as done.
            let done = items.len();
            for open in &task.records {
                if !items[..done].iter().any(|record| record.key == open.key) {
                    items.push(open.clone());
                }
            }
        }
        let next = page.next.map(|position| position.to_string());
        Ok(Page { items, next })
    }

    /// A task, without the records of what it has done.
    async fn view(&self, task: TaskId) -> Result<(Arc<Task>, TaskView)> {
        let task = self.task(task).await?;
        if task.status() != TaskStatus::Pending {
            let view = TaskView::new(&task, None);
            return Ok((task, view));
        }
        let mut views = self.views(vec![Arc::clone(&task)]).await?;
        let view = views.pop().ok_or_else(|| unexpected("a task"))?;
        Ok((task, view))
    }

    async fn views(&self, tasks: Vec<Arc<Task>>) -> Result<Vec<TaskView>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Explain {
            tasks: tasks.clone(),
            reply,
        });
        let reasons = answer.await.map_err(stopped)??;
        Ok(tasks
            .iter()
            .zip(reasons)
            .map(|(task, waits)| TaskView::new(task, waits))
            .collect())
    }

    /// A run's tasks, oldest first, at most `limit` after `after`.
    async fn tasks_of_run(
        &self,
        query: &TaskQuery,
        run: RunId,
        limit: usize,
    ) -> Result<Vec<Arc<Task>>> {
        let run = self.run(run).await?;
        let mut tasks = Vec::new();
        let begun = run.steps.iter().filter(|step| step.total > 0);
        let mut ranges: Vec<_> = begun
            .filter_map(|step| Some((step.first?, step.total)))
            .collect();
        // Steps begin in another order than they are written in.
        ranges.sort_unstable();
        for (first, total) in ranges {
            let last = first.offset(u64::from(total - 1));
            let from = TaskId::new(first.0.saturating_sub(1));
            let after = query.after.map_or(from, |after| after.max(from));
            if after >= last || tasks.len() >= limit {
                continue;
            }
            let rows = self.rows(Query::Tasks {
                after: Some(after),
                last: Some(last),
                status: query.status,
                kind: query.kind.as_ref().map(Name::to_string),
                worker: query.worker.as_ref().map(Name::to_string),
                limit: limit - tasks.len(),
            });
            tasks.extend(rows.await?.into_iter().filter_map(task_row));
        }
        Ok(tasks)
    }
}

fn task_row(row: Row) -> Option<Arc<Task>> {
    match row {
        Row::Task(task) => Some(task),
        _ => None,
    }
}

impl Engine {
    /// Everything on a board: what was written, and what a run's tasks show of themselves.
    async fn board(&self, run: Option<RunId>) -> Result<Vec<Entry>> {
        let limit = 2 * BOARD_ENTRIES_MAX as usize;
        let rows = self.rows(Query::Entries { run, limit }).await?;
        let mut entries: Vec<Entry> = rows
            .into_iter()
            .filter_map(|row| match row {
                Row::Entry(entry) => Some(Arc::unwrap_or_clone(entry)),
                _ => None,
            })
            .collect();
        if let Some(run) = run {
            let row = self.run(run).await?;
            let all = domain::limits::RUN_TASKS_MAX;
            for task in self.tasks_of_run(&TaskQuery::default(), run, all).await? {
                project(&row, &task, &mut entries);
            }
        }
        Ok(entries)
    }

    /// The message that answers `asked`, if it comes before `until`.
    async fn answer_to(&self, asker: &Name, asked: MessageId, until: Instant) -> Option<Delivered> {
        let postbox = self.shared.relay.postbox();
        loop {
            let wake = match postbox.take_answer(asker, asked) {
                Ok(answer) => return Some(answer),
                Err(wake) => wake,
            };
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // An answer between the look and here would wake nobody: look again once listening.
            if let Ok(answer) = postbox.take_answer(asker, asked) {
                return Some(answer);
            }
            timeout_at(until, woken).await.ok()?;
        }
    }
}

#[async_trait]
impl ApiRead for Engine {
    async fn task_get(&self, task: TaskId) -> Result<TaskView> {
        let (task, view) = self.view(task).await?;
        if task.finished.steps == 0 {
            return Ok(view);
        }
        Ok(view.with_records(self.records(task, 0, PAGE_MAX).await?))
    }

    async fn record_list(
        &self,
        task: TaskId,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>> {
        let task = self.task(task).await?;
        let after = match after {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                let text = format!("“{text}” is not where a page of records begins");
                Error::new(Code::OutOfRange, text)
            })?,
        };
        self.records(task, after, page_limit(limit)).await
    }

    async fn task_list(&self, query: TaskQuery) -> Result<Page<TaskView>> {
        let limit = page_limit(query.limit);
        let tasks: Vec<Arc<Task>> = match query.run {
            Some(run) => self.tasks_of_run(&query, run, limit + 1).await?,
            None => {
                let rows = self.rows(Query::Tasks {
                    after: query.after,
                    last: None,
                    status: query.status,
                    kind: query.kind.map(|kind| kind.to_string()),
                    worker: query.worker.map(|worker| worker.to_string()),
                    limit: limit + 1,
                });
                rows.await?.into_iter().filter_map(task_row).collect()
            }
        };
        let more = tasks.len() > limit;
        let mut items = self.views(tasks).await?;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .map(|task| task.task_id.to_string());
        Ok(Page { items, next })
    }

    async fn task_wait(&self, task: TaskId, wait: Duration) -> Result<TaskView> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        // Wait first, look second: an end between the two is not missed.
        let ended = self.shared.relay.wait_for(task);
        let view = self.view(task).await.map(|(_, view)| view);
        if view.as_ref().map_or(true, |view| view.status.is_terminal()) {
            drop(ended);
            self.shared.relay.stop_waiting(task);
            return view;
        }
        match timeout_at(until, ended).await {
            Ok(_) => self.view(task).await.map(|(_, view)| view),
            Err(_) => {
                self.shared.relay.stop_waiting(task);
                let status = self.view(task).await?.1.status;
                let text = format!("{task} is still {status} after {} ms", wait.as_millis());
                Err(Error::new(Code::WaitTimedOut, text))
            }
        }
    }

    async fn queue_peek(&self, queue: Name, limit: usize) -> Result<Vec<TaskView>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Peek {
            queue,
            limit: page_limit(limit),
            reply,
        });
        let tasks = answer.await.map_err(stopped)??;
        self.views(tasks).await
    }

    async fn queue_list(&self) -> Result<Vec<QueueView>> {
        let rows = self.keyed_rows(Query::Queues).await?;
        let view = |(key, row)| match (key, row) {
            (Key::Queue(queue), Row::Queue(row)) => {
                let (pending, leased, paused) = (row.pending, row.leased, row.paused);
                Some(QueueView {
                    queue,
                    pending,
                    leased,
                    paused,
                })
            }
            _ => None,
        };
        Ok(rows.into_iter().filter_map(view).collect())
    }

    async fn run_get(&self, run: RunId) -> Result<RunView> {
        let view = RunView::from(&*self.run(run).await?);
        let account = match self.row(Key::Account(run)).await? {
            Some(Row::Account(account)) => Some(*account),
            _ => None,
        };
        Ok(RunView { account, ..view })
    }

    async fn run_stream(&self, run: RunId, after: Option<Cursor>, wait: Duration) -> Result<Heard> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let speech = self.shared.relay.speech();
        let listening = speech.listen(run);
        loop {
            let woken = listening.wake.notified();
            tokio::pin!(woken);
            // Wait first, look second: what is said between the two is not missed.
            woken.as_mut().enable();
            let ended = self.run(run).await?.status() != RunStatus::Running;
            let heard = speech.hear(run, after, ended);
            let is_news = heard.anew || heard.lost > 0 || heard.ended;
            if is_news || !heard.pieces.is_empty() || timeout_at(until, woken).await.is_err() {
                return Ok(heard);
            }
        }
    }

    async fn run_list(&self, query: RunQuery) -> Result<Page<RunView>> {
        let limit = page_limit(query.limit);
        let rows = self
            .rows(Query::Runs {
                before: query.after,
                status: query.status.map(|status| status.as_str().to_owned()),
                limit: limit + 1,
            })
            .await?;
        let more = rows.len() > limit;
        let runs = rows.into_iter().take(limit).filter_map(|row| match row {
            Row::Run(run) => Some(RunView::from(&*run)),
            _ => None,
        });
        let items: Vec<RunView> = runs.collect();
        let next = items
            .last()
            .filter(|_| more)
            .map(|run| run.run_id.to_string());
        Ok(Page { items, next })
    }

    async fn worker_get(&self, worker: Name) -> Result<WorkerView> {
        match self.row(Key::Worker(worker.clone())).await? {
            Some(Row::Worker(row)) => {
                let heard = self.shared.hearts.heard(&worker);
                Ok(WorkerView::new(&row, self.shared.clock.now(), heard))
            }
            _ => Err(Error::new(
                Code::WorkerUnknown,
                format!("there is no worker “{worker}”"),
            )),
        }
    }

    async fn worker_list(&self, query: WorkerQuery) -> Result<Page<WorkerView>> {
        let now = self.shared.clock.now();
        let limit = page_limit(query.limit);
        let fits = |worker: &&Arc<Worker>| {
            let spec = &worker.spec;
            query.after.as_ref().is_none_or(|after| spec.id > *after)
                && query
                    .agent_type
                    .as_ref()
                    .is_none_or(|wanted| spec.agent_type == *wanted)
                && query
                    .capability
                    .as_ref()
                    .is_none_or(|wanted| spec.can(wanted))
        };
        let view = |worker: &Arc<Worker>| {
            WorkerView::new(worker, now, self.shared.hearts.heard(&worker.spec.id))
        };
        let workers = self.workers().await?;
        let mut items: Vec<WorkerView> = workers
            .iter()
            .filter(fits)
            .map(view)
            .filter(|view| query.status.is_none_or(|wanted| view.status == wanted))
            .take(limit + 1)
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| more);
        let next = last.map(|worker| worker.worker_id.to_string());
        Ok(Page { items, next })
    }

    async fn pool_list(&self) -> Result<Vec<Pool>> {
        let rows = self.rows(Query::Pools).await?;
        let pools = rows.into_iter().filter_map(|row| match row {
            Row::Pool(pool) => Some(Arc::unwrap_or_clone(pool)),
            _ => None,
        });
        Ok(pools.collect())
    }

    async fn pool_get(&self, pool: Name) -> Result<Pool> {
        match self.row(Key::Pool(pool.clone())).await? {
            Some(Row::Pool(row)) => Ok(Arc::unwrap_or_clone(row)),
            _ => Err(Error::new(
                Code::PoolUnknown,
                format!("there is no pool “{pool}”"),
            )),
        }
    }

    fn home(&self) -> Home {
        Home::InProcess
    }

    async fn tool_demand_list(&self) -> Result<Vec<Demand>> {
        let rows = self.rows(Query::Demands).await?;
        let demands = rows.into_iter().filter_map(|row| match row {
            Row::Demand(demand) => Some(Arc::unwrap_or_clone(demand)),
            _ => None,
        });
        let mut demands: Vec<Demand> = demands.collect();
        demands.sort_by(|a, b| (b.last_at, &a.last.tool).cmp(&(a.last_at, &b.last.tool)));
        Ok(demands)
    }

    async fn credential_list(&self) -> Result<Vec<CredentialView>> {
        let all = self.shared.keyring.all();
        Ok(all.iter().map(|one| CredentialView::from(&**one)).collect())
    }

    async fn pool_statistics(&self, pool: Name) -> Result<PoolStatistics> {
        let Some(Row::Pool(row)) = self.row(Key::Pool(pool.clone())).await? else {
            return Err(Error::new(
                Code::PoolUnknown,
                format!("there is no pool “{pool}”"),
            ));
        };
        let workers = self.workers().await?;
        let members = workers
            .iter()
            .filter(|worker| row.members.contains(&worker.spec.id));
        Ok(PoolStatistics::new(
            members.map(|worker| &**worker),
            self.shared.clock.now(),
        ))
    }

    async fn statistics(&self) -> Result<Statistics> {
        let position = *self.shared.relay.follow().borrow();
        Ok(match self.row(Key::Tally).await? {
            Some(Row::Tally(tally)) => Statistics::new(&tally, position),
            _ => Statistics::new(&Tally::default(), position),
        })
    }

    async fn entry_list(&self, filter: EntryFilter) -> Result<Vec<Entry>> {
        let entries = self.board(filter.run).await?;
        Ok(filter.select(entries.into_iter(), self.shared.clock.now()))
    }

    async fn board_statistics(&self, run: Option<RunId>) -> Result<BoardStatistics> {
        let entries = self.board(run).await?;
        Ok(BoardStatistics::new(
            entries.iter(),
            self.shared.clock.now(),
        ))
    }

    async fn message_get(&self, message: MessageId) -> Result<Message> {
        match self.row(Key::Message(message)).await? {
            Some(Row::Message(row)) => Ok(Arc::unwrap_or_clone(row)),
            _ => Err(Error::new(
                Code::MessageUnknown,
                format!("there is no message {message}"),
            )),
        }
    }

    async fn message_list(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<Message>> {
        let rows = self
            .rows(Query::Messages {
                after,
                limit: page_limit(limit),
            })
            .await?;
        let messages = rows.into_iter().filter_map(|row| match row {
            Row::Message(message) => Some(Arc::unwrap_or_clone(message)),
            _ => None,
        });
        Ok(messages.collect())
    }

    async fn event_list(&self, after: u64, limit: usize) -> Result<Vec<Recorded>> {
        let limit = page_limit(limit);
        self.read(move |reader| reader.events(after, limit)).await
    }

    async fn event_wait(&self, after: u64, wait: Duration) -> Result<u64> {
        let mut head = self.shared.relay.follow();
        let until = Instant::now() + wait.min(WAIT_MAX);
        let later = timeout_at(until, head.wait_for(|head| *head > after)).await;
        match later.map(|woken| woken.map(|head| *head)) {
            Ok(head) => head.map_err(stopped),
            Err(_) => Ok(*head.borrow()),
        }
    }
}

#[async_trait]
impl Api for Engine {
    async fn task_submit(&self, tasks: Vec<Submission>) -> Result<Vec<Result<TaskId>>> {
        if tasks.len() > REQUEST_COMMANDS_MAX {
            return Err(Error::limit(
                "tasks in one request",
                tasks.len(),
                REQUEST_COMMANDS_MAX,
            ));
        }
        let ops = tasks
            .into_iter()
            .map(|task| Op::Command(Command::TaskSubmit(task)))
            .collect();
        let answers = self.apply(ops).await?;
        let id = |answer| match answer {
            Answer::Outcome(Ok(Outcome::Task(task))) => Ok(task),
            Answer::Outcome(Err(error)) => Err(error),
            _ => Err(unexpected("a task")),
        };
        Ok(answers.into_iter().map(id).collect())
    }

    async fn task_cancel(&self, task: TaskId, reason: String) -> Result<()> {
        self.done(Command::TaskCancel { task, reason }).await
    }

    async fn task_redrive(&self, task: TaskId) -> Result<()> {
        self.done(Command::TaskRedrive(task)).await
    }

    async fn task_reassign(&self, task: TaskId, to: Address) -> Result<()> {
        self.done(Command::TaskReassign { task, to }).await
    }

    async fn record_resolve(&self, task: TaskId, key: Name, finding: Finding) -> Result<()> {
        self.done(Command::RecordResolve { task, key, finding })
            .await
    }

    async fn run_start(&self, run: RunStart) -> Result<RunId> {
        match self.command(Command::RunStart(Box::new(run))).await? {
            Outcome::Run(run) => Ok(run),
            _ => Err(unexpected("a run")),
        }
    }

    async fn run_settle(&self, run: RunId, step: Name, output: Json) -> Result<()> {
        self.done(Command::RunSettle { run, step, output }).await
    }

    async fn run_cancel(&self, run: RunId, reason: String) -> Result<()> {
        self.done(Command::RunCancel { run, reason }).await
    }

    async fn run_retry(&self, run: RunId) -> Result<()> {
        self.done(Command::RunRetry(run)).await
    }

    async fn worker_register(&self, worker: WorkerSpec) -> Result<()> {
        let worker = Arc::new(worker);
        self.done(Command::WorkerRegister(Arc::clone(&worker)))
            .await?;
        // Registering what is registered already changes nothing, yet it is a sign of life.
        self.shared
            .hearts
            .register(&worker, self.shared.clock.now());
        Ok(())
    }

    async fn worker_heartbeat(
        &self,
        worker: Name,
        session: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Signal>> {
        // A longer wait would end after the lease does.
        let longest = self.shared.hearts.patience(&worker);
        let until = Instant::now() + wait.min(longest);
        loop {
            if !self.shared.hearts.is_current(&worker, session) {
                return Err(domain::worker::superseded(&worker));
            }
            self.shared.hearts.beat(&worker, self.shared.clock.now());
            let Some((signals, wake)) = self.shared.hearts.listen(&worker) else {
                let text = format!("worker “{worker}” is not registered, or was lost");
                return Err(Error::new(Code::WorkerUnknown, text));
            };
            if !signals.is_empty() || timeout_at(until, wake.notified()).await.is_err() {
                return Ok(signals);
            }
        }
    }

    async fn worker_leave(&self, worker: Name, session: Option<u64>, reason: String) -> Result<()> {
        let command = Command::WorkerLose {
            worker,
            session,
            reason,
        };
        self.done(command).await
    }

    async fn worker_ready(&self, worker: Name) -> Result<()> {
        self.done(Command::WorkerReady(worker)).await
    }

    async fn worker_drain(&self, worker: Name) -> Result<()> {
        self.done(Command::WorkerDrain(worker)).await
    }

    async fn worker_error(&self, worker: Name, reason: String) -> Result<()> {
        self.done(Command::WorkerError { worker, reason }).await
    }

    async fn work(&self, work: Work) -> Result<Worked> {
        if work.reports.len() > REQUEST_COMMANDS_MAX {
            return Err(Error::limit(
                "reports in one request",
                work.reports.len(),
                REQUEST_COMMANDS_MAX,
            ));
        }
        let worker = work.worker;
        let report = |(task, attempt, report)| {
            let lease = AttemptRef {
                task,
                attempt,
                worker: worker.clone(),
            };
            Op::Command(Command::TaskReport { lease, report })
        };
        let ops = work.reports.into_iter().map(report).collect();
        let request = Request {
            origin: self.origin.clone(),
            ops,
        };
        let (answers, claimed) = match work.claim {
            None => {
                let (reply, answer) = oneshot::channel();
                self.shared.hearts.beat(&worker, self.shared.clock.now());
                self.ask(Ask::Apply { request, reply });
                (answer.await.map_err(stopped)??, Ok(Vec::new()))
            }
            Some(claim) => {
                let (reply, answer) = oneshot::channel();
                let by = Claimant {
                    worker,
                    session: work.session,
                    starts: claim.starts,
                    claim: claim.key,
                    again: claim.again,
                };
                self.ask(Ask::Work {
                    request,
                    by,
                    max: claim.max.min(CAPACITY_MAX),
                    wait_ms: claim.wait_ms.min(WAIT_MAX.as_millis() as u64),
                    reply,
                });
                answer.await.map_err(stopped)??
            }
        };
        let outcome = |answer| match answer {
            Answer::Outcome(outcome) => outcome.map(|_| ()),
            _ => Err(unexpected("an outcome")),
        };
        let (claimed, refused) = match claimed {
            Ok(claimed) => (claimed, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut tasks = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let Some(mut task) = Assignment::new(&claimed.task) else {
                continue;
            };
            if claimed.task.finished.steps > 0 {
                let records = self.records(claimed.task, 0, PAGE_MAX).await?;
                task = task.with_records(records);
            }
            tasks.push(task);
        }
        Ok(Worked {
            reports: answers.into_iter().map(outcome).collect(),
            tasks,
            refused,
        })
    }

    async fn task_say(&self, worker: Name, say: Say) -> Result<()> {
        say.check()?;
        let task = self.task(say.task_id).await?;
        task.check_current(&worker, say.attempt)?;
        if let Some(of) = &task.spec.of {
            let speech = self.shared.relay.speech();
            speech.say(of.run, say, self.shared.clock.now());
        }
        Ok(())
    }

    async fn queue_pause(&self, queue: Name, paused: bool) -> Result<()> {
        self.done(Command::QueuePause { queue, paused }).await
    }

    async fn pool_define(&self, pool: Pool, expected: Option<u64>) -> Result<Pool> {
        let id = pool.id.clone();
        self.done(Command::PoolDefine { pool, expected }).await?;
        self.pool_get(id).await
    }

    async fn pool_join(&self, pool: Name, worker: Name) -> Result<()> {
        self.done(Command::PoolJoin { pool, worker }).await
    }

    async fn pool_leave(&self, pool: Name, worker: Name) -> Result<()> {
        self.done(Command::PoolLeave { pool, worker }).await
    }

    async fn pool_reserve(
        &self,
        pool: Name,
        capability: Option<Name>,
        holder: Name,
        keep: Duration,
    ) -> Result<Name> {
        let until = self
            .shared
            .clock
            .now()
            .plus_ms(keep.min(WAIT_MAX).as_millis() as u64);
        match self
            .command(Command::PoolReserve {
                pool,
                capability,
                holder,
                until,
            })
            .await?
        {
            Outcome::Worker(worker) => Ok(worker),
            _ => Err(unexpected("a worker")),
        }
    }

    async fn pool_unreserve(&self, worker: Name, holder: Name) -> Result<()> {
        self.done(Command::PoolUnreserve { worker, holder }).await
    }

    async fn credential_create(&self, new: NewCredential) -> Result<Minted> {
        let now = self.shared.clock.now();
        let id: Name = SystemIds::token(ID_BYTES)?.parse()?;
        let key = protocol::key::Key::new(
            self.shared.tenant.clone(),
            id.clone(),
            SystemIds::token(SECRET_BYTES)?,
        );
        let credential = Credential {
            id,
            label: new.label,
            digest: digest(key.secret()),
            scopes: new.scopes,
            created_at: now,
            expires_at: new.ttl_ms.map(|ms| now.plus_ms(ms)),
            revoked_at: None,
        };
        let view = CredentialView::from(&credential);
        self.done(Command::CredentialCreate(Arc::new(credential)))
            .await?;
        Ok(Minted {
            credential: view,
            key: key.reveal(),
        })
    }

    async fn tool_missed(&self, miss: Miss) -> Result<()> {
        self.done(Command::ToolMiss(Arc::new(miss))).await
    }

    async fn credential_revoke(&self, id: Name) -> Result<()> {
        self.done(Command::CredentialRevoke(id)).await
    }

    async fn entry_write(&self, entry: NewEntry) -> Result<EntryId> {
        match self.command(Command::EntryWrite(entry)).await? {
            Outcome::Entry(entry) => Ok(entry),
            _ => Err(unexpected("an entry")),
        }
    }

    async fn entry_claim(
        &self,
        entry: EntryId,
        expected: Option<Name>,
        by: Option<Name>,
    ) -> Result<()> {
        self.done(Command::EntryClaim {
            entry,
            expected,
            by,
        })
        .await
    }

    async fn message_subscribe(&self, agent: Name, kinds: Vec<Name>) -> Result<()> {
        self.shared.relay.postbox().subscribe(agent, kinds);
        Ok(())
    }

    async fn message_unsubscribe(&self, agent: Name) -> Result<()> {
        self.shared.relay.postbox().unsubscribe(&agent);
        Ok(())
    }

    async fn message_send(&self, message: NewMessage) -> Result<MessageId> {
        let postbox = self.shared.relay.postbox();
        let recipients = postbox.resolve(&message.from, &message.to, &message.kind);
        match self
            .command(Command::MessageSend {
                message,
                recipients,
            })
            .await?
        {
            Outcome::Message(message) => Ok(message),
            _ => Err(unexpected("a message")),
        }
    }

    async fn message_receive(
        &self,
        agent: Name,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivered>> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        loop {
            let wake = match self.shared.relay.postbox().take(
                &agent,
                page_limit(max),
                self.shared.clock.now(),
            ) {
                Ok(taken) => return Ok(taken),
                Err(wake) => wake,
            };
            let woken = wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // A message between the look and here would wake nobody: look again once listening.
            if let Ok(taken) =
                self.shared
                    .relay
                    .postbox()
                    .take(&agent, page_limit(max), self.shared.clock.now())
            {
                return Ok(taken);
            }
            if timeout_at(until, woken).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn message_settle(
        &self,
        message: MessageId,
        agent: Name,
        failure: Option<String>,
    ) -> Result<()> {
        self.done(Command::MessageSettle {
            message,
            recipient: agent,
            failure,
        })
        .await
    }

    async fn message_request(&self, message: NewMessage, wait: Duration) -> Result<Delivered> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let asker = message.from.clone();
        let _asking = self.shared.relay.postbox().ask(&asker);
        let asked = self.message_send(message).await?;
        let Some(answer) = self.answer_to(&asker, asked, until).await else {
            let text = format!("nobody answered {asked} within {} ms", wait.as_millis());
            return Err(Error::new(Code::WaitTimedOut, text));
        };
        self.message_settle(answer.id, asker, None).await?;
        Ok(answer)
    }
}
