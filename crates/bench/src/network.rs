//! What is measured of the server, from outside: over HTTP/1.1 on the loopback, with a key, by a
//! load generator on one thread of this process. Each round of a scenario has a server of its own,
//! in a process of its own, over a new store on the disk that is measured.
//!
//! What was done is taken from the server's own statistics, and every request that was refused or
//! broke off is counted; there should be none. Processor time is the server's; the load generator's
//! has its own figure, because both share the machine.

use crate::children::{Process, Role, runtime};
use crate::figure::{Meaning, Sample, To};
use crate::flow::worker;
use crate::http::{Connection, FAILURES_MAX, Hammered, Head, connect, hammer};
use crate::measure::{Percentiles, Shown, cpu, io, us};
use crate::report::Side;
use crate::serving::{CONNECTIONS, START_TIME_MAX, Serving, files_raise, input};
use domain::command::Report;
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use protocol::api::Claim;
use protocol::wire::{Position, ReportItem, SubmitMany, Submitted, WorkBody};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The scenarios of the server, in the order they run.
pub const SERVER_NAMES: [&str; 7] = [
    "http_submit",
    "http_single_op",
    "http_batch",
    "http_latency",
    "sse_fanout",
    "server_idle",
    "binary_size",
];

/// Beyond the time a round is meant to take, what was begun may still end within this.
const GRACE: Duration = Duration::from_secs(30);
/// Tasks in one request of `http_batch`.
const BATCH: u32 = 100;
/// Milliseconds a worker waits for its next task.
const WAIT_MS: u64 = 100;
/// Milliseconds the worker of `http_latency` waits: longer than anything should take.
const LONG_POLL_MS: u64 = 5_000;
/// Between a long poll's request and the submission it is to notice.
const PARKED_AFTER: Duration = Duration::from_millis(3);
/// Subscribers of `sse_fanout`.
const SUBSCRIBERS: usize = 1_000;
/// Between two of its submissions.
const SUBMIT_EVERY: Duration = Duration::from_millis(20);
/// Files that a process has open besides its subscribers' connections, at most.
const FILES_OTHER: u64 = 200;
/// Until an idle server's memory is looked at.
const SETTLED: Duration = Duration::from_millis(500);

/// The names that were asked for, in the order they run.
pub(crate) fn wanted(asked: &[String]) -> Result<Vec<&'static str>, Error> {
    if let Some(unknown) = asked
        .iter()
        .find(|name| !SERVER_NAMES.contains(&name.as_str()))
    {
        let text = format!("“{unknown}” is not a scenario of the server");
        let hint = format!("Use: {}.", SERVER_NAMES.join(", "));
        return Err(Error::new(Code::OutOfRange, text).hint(hint));
    }
    let is_wanted = |name: &&str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    Ok(SERVER_NAMES.into_iter().filter(is_wanted).collect())
}

/// Everything a scenario of the server needs.
pub(crate) struct Network {
    folder: PathBuf,
    quick: bool,
    runtime: Runtime,
    stores: u64,
    size_told: bool,
}

/// A server that is measured.
struct Served {
    process: Process,
    serving: Serving,
}

/// What was spent so far, by whom.
struct Spent {
    server: Option<Duration>,
    wheel: Option<Duration>,
    load: Duration,
}

impl Served {
    fn head(&self, method: &str, path: &str) -> Head {
        Head::new(method, path, &self.serving.key)
    }

    fn shown(&self) -> Shown {
        self.process.shown()
    }

    fn spent(&self) -> Spent {
        Spent {
            server: self.shown().cpu(),
            wheel: self.shown().thread_cpu("wheel"),
            load: cpu(),
        }
    }

    /// What was spent since, for each of so many tasks.
    fn account(&self, since: &Spent, tasks: u64, sample: &mut Sample) {
        let now = self.spent();
        let per_task =
            |now: Duration, before: Duration| us(now.saturating_sub(before)) / tasks.max(1) as f64;
        let both = |now: Option<Duration>, before| Some(per_task(now?, before?));
        sample.cpu_us = both(now.server, since.server);
        sample.wheel_us = both(now.wheel, since.wheel);
        sample.load_us = Some(per_task(now.load, since.load));
        sample.peak_rss = self.shown().rss_peak();
    }

    /// Asks once, and reads the answer; not measured.
    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T, Error> {
        let request = self.head(method, path).request(body);
        let ask = async {
            let mut connection = Connection::open(self.serving.address).await?;
            let answer = connection.ask(&request).await?;
            Ok((answer.is_good(), answer.body.to_vec()))
        };
        let (good, body) = ask
            .await
            .map_err(|fault: std::io::Error| io("the measured server", &fault))?;
        let told = String::from_utf8_lossy(&body);
        if !good {
            let text = format!("the measured server refused {method} {path}: {told}");
            return Err(Error::new(Code::Internal, text));
        }
        serde_json::from_slice(&body).map_err(|fault| {
            let text = format!("the measured server answered {method} {path}: {fault}: {told}");
            Error::new(Code::Internal, text)
        })
    }

    async fn statistics(&self) -> Result<Counted, Error> {
        self.ask("GET", "/v1/statistics", b"").await
    }
}

/// Of the server's statistics, what is compared with what was asked.
#[derive(Debug, Deserialize)]
struct Counted {
    total_tasks_submitted: u64,
    tasks_completed: u64,
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|fault| Error::new(Code::Internal, fault.to_string()))
}

/// A task as the load submits it.
fn task() -> TaskSpec {
    TaskSpec::new(Name::literal("noop"), Json::from_value(&input().into()))
}

impl Network {
    pub(crate) fn new(folder: PathBuf, quick: bool) -> Result<Self, Error> {
        Ok(Self {
            folder,
            quick,
            runtime: runtime()?,
            stores: 0,
            size_told: false,
        })
    }

    /// One round of one scenario; `None` for what is measured once, in the first.
    pub(crate) fn run(&mut self, name: &str) -> Result<Option<Sample>, Error> {
        let quick = self.quick;
        let time = Duration::from_millis(if quick { 200 } else { 3_000 });
        let each = |clients: u64, batch: u32| Life {
            submitters: clients,
            workers: clients,
            batch,
            time,
        };
        match name {
            "http_submit" => self.on_server(async |server| submit(server, time).await),
            "http_single_op" => {
                let life = each(CONNECTIONS as u64 / 2, 1);
                self.on_server(async |server| life.run(server).await)
            }
            "http_batch" => {
                let life = each(8, BATCH);
                self.on_server(async |server| life.run(server).await)
            }
            "http_latency" => {
                let tasks = if quick { 20 } else { 500 };
                self.on_server(async |server| latency(server, tasks).await)
            }
            "sse_fanout" => {
                let (subscribers, tasks) = if quick { (20, 10) } else { (SUBSCRIBERS, 200) };
                self.on_server(async |server| fan_out(server, subscribers, tasks).await)
            }
            "server_idle" => self.on_server(async |server| {
                tokio::time::sleep(SETTLED).await;
                let bytes = server.shown().rss();
                Ok(Sample {
                    value: bytes.map(|bytes| bytes as f64 / 1e6),
                    ..Sample::default()
                })
            }),
            "binary_size" => return self.size(),
            unknown => Err(Error::new(Code::Internal, format!("scenario {unknown}"))),
        }
        .map(Some)
    }

    /// A server over a new store, for as long as `use_it` takes; then both are gone.
    fn on_server(
        &mut self,
        use_it: impl AsyncFnOnce(&Served) -> Result<Sample, Error>,
    ) -> Result<Sample, Error> {
        self.stores += 1;
        let folder = self.folder.join(format!("served-{}", self.stores));
        let role = Role::Serve {
            folder: folder.clone(),
        };
        let (process, serving) = Process::start(&role, START_TIME_MAX)?;
        let served = Served { process, serving };
        let used = self.runtime.block_on(use_it(&served));
        served.process.end();
        // The run's own folder is removed in any case; this keeps the disk from filling.
        let _ = std::fs::remove_dir_all(&folder);
        used
    }

    fn size(&mut self) -> Result<Option<Sample>, Error> {
        if std::mem::replace(&mut self.size_told, true) {
            return Ok(None);
        }
        let program = std::env::current_exe().map_err(|fault| io("this program", &fault))?;
        let bytes = std::fs::metadata(&program).map_err(|fault| io("this program", &fault))?;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let note = match cfg!(debug_assertions) {
            true => "built without optimizations: says nothing about a release",
            false => "as it was built, with its symbols if it has any",
        };
        Ok(Some(Sample {
            value: Some(bytes.len() as f64 / 1e6),
            note: format!("`{name}`, {note}"),
            ..Sample::default()
        }))
    }
}

/// Durable submissions, each with its own request.
async fn submit(server: &Served, time: Duration) -> Result<Sample, Error> {
    let request = server.head("POST", "/v1/tasks").request(&json(&task())?);
    server.shown().reset_peak();
    let before = server.spent();
    let hammering = hammer(server.serving.address, CONNECTIONS, request, time);
    let hammered = tokio::time::timeout(time + GRACE, hammering).await;
    let stopped = hammered.is_err();
    let Hammered {
        seconds,
        answered,
        errors,
        us,
    } = hammered.unwrap_or_else(|_| Ok(Hammered::default()))?;
    let mut sample = Sample {
        value: Some(answered as f64 / seconds.max(f64::EPSILON)),
        asked: answered + errors,
        stopped,
        errors: Some(errors),
        requests_per_task: Some(1.0),
        request_us: us,
        note: "a request is one durable task submission, acknowledged after its sync, over \
               authenticated HTTP/1.1 keep-alive on the loopback, from a load generator on the same \
               machine"
            .into(),
        ..Sample::default()
    };
    server.account(&before, answered, &mut sample);
    sample.counted = server.statistics().await?.total_tasks_submitted;
    Ok(sample)
}

/// Tasks in their full life: clients submit, and workers report and claim the next in one request.
#[derive(Debug, Clone, Copy)]
struct Life {
    submitters: u64,
    workers: u64,
    /// Tasks in a submission, and in a claim.
    batch: u32,
    /// How long is submitted; what was submitted is then completed.
    time: Duration,
}

/// What submitters and workers share.
#[derive(Debug)]
struct Progress {
    /// Clients that still submit.
    submitting: AtomicU64,
    submitted: AtomicU64,
    claimed: AtomicU64,
    completed: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    submit_until: Instant,
    work_until: Instant,
}

impl Progress {
    fn is_all_claimed(&self) -> bool {
        self.submitting.load(Relaxed) == 0
            && self.claimed.load(Relaxed) >= self.submitted.load(Relaxed)
    }

    fn is_hopeless(&self) -> bool {
        self.errors.load(Relaxed) >= FAILURES_MAX
    }

    fn failed(&self, times: usize) {
        self.errors.fetch_add(times as u64, Relaxed);
    }
}

/// A client's requests in microseconds, and when the last of them had an effect.
type Client = (Vec<f64>, Instant);

impl Life {
    async fn run(self, server: &Served) -> Result<Sample, Error> {
        let mut workers = Vec::new();
        for n in 0..self.workers {
            let spec = json(&worker(n, self.batch)?)?;
            let _: serde_json::Value = server.ask("POST", "/v1/workers", &spec).await?;
            workers.push(server.head("POST", &format!("/v1/workers/worker_{n}/work")));
        }
        let count = (self.submitters + self.workers) as usize;
        let mut connections = connect(server.serving.address, count).await?;
        let submission: Arc<[u8]> = self.submission(server)?.into();
        server.shown().reset_peak();
        let before = server.spent();
        let begin = Instant::now();
        let progress = Arc::new(Progress {
            submitting: AtomicU64::new(self.submitters),
            submitted: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            submit_until: begin + self.time,
            work_until: begin + self.time + GRACE,
        });
        let mut clients: JoinSet<Result<Client, Error>> = JoinSet::new();
        for (head, connection) in workers
            .into_iter()
            .zip(connections.drain(self.submitters as usize..))
        {
            clients.spawn(work(Arc::clone(&progress), connection, head, self.batch));
        }
        for connection in connections {
            let (progress, request) = (Arc::clone(&progress), Arc::clone(&submission));
            clients.spawn(submit_on(progress, connection, request, self.batch));
        }
        let (mut request_us, mut end) = (Vec::new(), begin);
        let joined = async {
            while let Some(client) = clients.join_next().await {
                let (times, last) = client
                    .map_err(|fault| Error::new(Code::Internal, format!("a client: {fault}")))??;
                request_us.extend(times);
                end = end.max(last);
            }
            Ok::<(), Error>(())
        };
        // One answer that never comes must not hold everything up.
        let stopped = match tokio::time::timeout(self.time + GRACE * 2, joined).await {
            Ok(joined) => joined.map(|()| false)?,
            Err(_) => true,
        };
        let of = |count: &AtomicU64| count.load(Relaxed);
        let completed = of(&progress.completed);
        let seconds = end.duration_since(begin).as_secs_f64();
        let mut sample = Sample {
            value: Some(completed as f64 / seconds.max(f64::EPSILON)),
            asked: of(&progress.submitted),
            stopped: stopped || completed < of(&progress.submitted),
            errors: Some(of(&progress.errors)),
            requests_per_task: Some(of(&progress.requests) as f64 / completed.max(1) as f64),
            request_us,
            note: format!(
                "{} connections submit and {} work, {} a request; a worker reports what it has and \
                 claims the next in one request",
                self.submitters,
                self.workers,
                match self.batch {
                    1 => "one task".to_owned(),
                    batch => format!("{batch} tasks"),
                }
            ),
            ..Sample::default()
        };
        server.account(&before, completed, &mut sample);
        sample.counted = server.statistics().await?.tasks_completed;
        Ok(sample)
    }

    fn submission(self, server: &Served) -> Result<Vec<u8>, Error> {
        if self.batch == 1 {
            return Ok(server.head("POST", "/v1/tasks").request(&json(&task())?));
        }
        let spec = Arc::new(task());
        let submission = || domain::command::Submission {
            id: None,
            key: None,
            spec: Arc::clone(&spec),
        };
        let tasks = (0..self.batch).map(|_| submission()).collect();
        let body = json(&SubmitMany { tasks })?;
        Ok(server.head("POST", "/v1/tasks/batch").request(&body))
    }
}

/// A client that submits: the same request, until the time is over.
async fn submit_on(
    progress: Arc<Progress>,
    mut connection: Connection,
    request: Arc<[u8]>,
    batch: u32,
) -> Result<Client, Error> {
    let (mut times, mut last) = (Vec::new(), Instant::now());
    while last < progress.submit_until && !progress.is_hopeless() {
        let begin = Instant::now();
        progress.requests.fetch_add(1, Relaxed);
        let accepted = match connection.ask(&request).await {
            Ok(answer) if !answer.is_good() => 0,
            Ok(_) if batch == 1 => 1,
            Ok(answer) => serde_json::from_slice::<Submitted>(answer.body).map_or(0, |found| {
                found
                    .results
                    .iter()
                    .filter(|result| result.task_id.is_some())
                    .count()
            }),
            // A broken connection is broken for good, and so is its client.
            Err(_) => {
                progress.failed(batch as usize);
                break;
            }
        };
        last = Instant::now();
        times.push(us(last - begin));
        progress.submitted.fetch_add(accepted as u64, Relaxed);
        progress.failed(batch as usize - accepted.min(batch as usize));
    }
    progress.submitting.fetch_sub(1, Relaxed);
    Ok((times, last))
}

/// Of the answer to a worker, what it needs: less than a whole assignment, for the load's sake.
#[derive(Debug, Deserialize)]
struct Got {
    reports: Vec<Option<serde::de::IgnoredAny>>,
    tasks: Vec<Assigned>,
    #[serde(default)]
    refused: Option<serde::de::IgnoredAny>,
}

/// One assignment.
#[derive(Debug, Deserialize)]
struct Assigned {
    task_id: domain::id::TaskId,
    attempt: u32,
}

/// A worker: what it holds is completed with the request that claims more.
async fn work(
    progress: Arc<Progress>,
    mut connection: Connection,
    head: Head,
    batch: u32,
) -> Result<Client, Error> {
    let (mut times, mut last) = (Vec::new(), Instant::now());
    let (mut held, mut request): (Vec<Assigned>, _) = (Vec::new(), Vec::new());
    loop {
        let ends = progress.is_hopeless() || Instant::now() >= progress.work_until;
        let claim = !ends && !progress.is_all_claimed();
        if !claim && held.is_empty() {
            return Ok((times, last));
        }
        let reported = held.len();
        let body = body(&mut held, claim.then(|| Claim::new(batch, WAIT_MS)));
        head.with(&json(&body)?, &mut request);
        progress.requests.fetch_add(1, Relaxed);
        let begin = Instant::now();
        let Ok(answer) = connection.ask(&request).await else {
            progress.failed(1);
            return Ok((times, last));
        };
        let end = Instant::now();
        let got = match answer.is_good() {
            true => serde_json::from_slice::<Got>(answer.body).ok(),
            false => None,
        };
        let Some(got) = got else {
            progress.failed(1);
            continue;
        };
        let refused = got.reports.iter().flatten().count();
        let completed = reported.saturating_sub(refused);
        progress.failed(refused + usize::from(got.refused.is_some()));
        progress.completed.fetch_add(completed as u64, Relaxed);
        progress.claimed.fetch_add(got.tasks.len() as u64, Relaxed);
        if completed > 0 {
            last = end;
        }
        if reported > 0 || !got.tasks.is_empty() {
            times.push(us(end - begin));
        }
        held = got.tasks;
    }
}

/// What a worker says: all that it holds is done, and what it wants.
fn body(held: &mut Vec<Assigned>, claim: Option<Claim>) -> WorkBody {
    let done = |assigned: Assigned| ReportItem {
        task_id: assigned.task_id,
        attempt: assigned.attempt,
        report: Report::Completed {
            output: Json::default(),
        },
    };
    WorkBody {
        session: None,
        reports: held.drain(..).map(done).collect(),
        claim,
    }
}

/// Until a worker that waits on an idle server holds what was just submitted.
async fn latency(server: &Served, tasks: u64) -> Result<Sample, Error> {
    let spec = json(&worker(0, 1)?)?;
    let _: serde_json::Value = server.ask("POST", "/v1/workers", &spec).await?;
    let head = server.head("POST", "/v1/workers/worker_0/work");
    let submission = server.head("POST", "/v1/tasks").request(&json(&task())?);
    let mut connections = connect(server.serving.address, 2).await?;
    let (Some(mut client), Some(mut worker)) = (connections.pop(), connections.pop()) else {
        return Err(Error::new(Code::Internal, "no connections"));
    };
    let measure = async {
        let (mut times, mut errors, mut held) = (Vec::new(), 0, Vec::new());
        let before = server.spent();
        for _ in 0..tasks {
            let claim = Some(Claim::new(1, LONG_POLL_MS));
            let request = head.request(&json(&body(&mut held, claim))?);
            let sent = worker.send(&request).await;
            sent.map_err(|fault| io("a long poll", &fault))?;
            tokio::time::sleep(PARKED_AFTER).await;
            let begin = Instant::now();
            let submitting = async {
                let answer = client.ask(&submission).await;
                answer.is_ok_and(|answer| answer.is_good())
            };
            let waiting = async {
                let answer = worker.answer().await;
                let at = Instant::now();
                let got = answer.ok().filter(|answer| answer.is_good());
                let got = got.and_then(|answer| serde_json::from_slice::<Got>(answer.body).ok());
                (got, at)
            };
            let (accepted, (got, at)) = tokio::join!(submitting, waiting);
            let got =
                got.filter(|got| got.tasks.len() == 1 && got.reports.iter().all(Option::is_none));
            let Some(got) = got.filter(|_| accepted) else {
                errors += 1;
                continue;
            };
            times.push(us(at - begin));
            held = got.tasks;
        }
        // The last one is done, too.
        let request = head.request(&json(&body(&mut held, None))?);
        let ended = worker.ask(&request).await;
        errors += u64::from(!ended.is_ok_and(|answer| answer.is_good()));
        let mut sample = Sample {
            value: Percentiles::of(&times).map(|us| us.p99 / 1e3),
            asked: tasks,
            errors: Some(errors),
            requests_per_task: Some(2.0),
            request_us: times,
            note: "the value is the 99th percentile, from the submission's first byte sent to the \
                   waiting worker's last byte received; the request columns are the same in \
                   microseconds"
                .into(),
            ..Sample::default()
        };
        server.account(&before, tasks, &mut sample);
        sample.counted = server.statistics().await?.tasks_completed;
        Ok(sample)
    };
    let most = Duration::from_millis(LONG_POLL_MS * 2) + GRACE;
    tokio::time::timeout(most, measure)
        .await
        .unwrap_or_else(|_| {
            Ok(Sample {
                asked: tasks,
                stopped: true,
                ..Sample::default()
            })
        })
}

/// When each submission of a fan-out was sent.
type Sent = Arc<Vec<std::sync::OnceLock<Instant>>>;

/// A subscriber: how long after each submission it had the event, and how many events were not the
/// next one.
async fn follow(mut stream: Connection, sent: Sent, until: Instant) -> (Vec<f64>, u64) {
    let (mut times, mut errors) = (Vec::with_capacity(sent.len()), 0);
    let (mut line, mut position) = (Vec::new(), 0u64);
    while times.len() < sent.len() {
        let next = tokio::time::timeout_at(until.into(), stream.next_bytes());
        let Ok(Ok(bytes)) = next.await else {
            return (times, errors);
        };
        let at = Instant::now();
        let mut lines = bytes.split(|byte| *byte == b'\n');
        // The first may go on what the last one began; the last may not be complete.
        line.extend_from_slice(lines.next().unwrap_or_default());
        for next in lines {
            if let Some(id) = line.strip_prefix(b"id: ") {
                let id = std::str::from_utf8(id)
                    .ok()
                    .and_then(|id| id.trim().parse().ok());
                let id = id.unwrap_or(0);
                errors += u64::from(id <= position);
                position = id;
            } else if line.starts_with(b"event: task.submitted") {
                match sent.get(times.len()).and_then(|sent| sent.get()) {
                    Some(sent) => times.push(us(at.saturating_duration_since(*sent))),
                    None => errors += 1,
                }
            }
            line.clear();
            line.extend_from_slice(next);
        }
    }
    (times, errors)
}

/// Many subscribers of the log while somebody submits now and then.
async fn fan_out(server: &Served, subscribers: usize, tasks: usize) -> Result<Sample, Error> {
    let files = usize::try_from(files_raise().saturating_sub(FILES_OTHER)).unwrap_or(usize::MAX);
    let wanted = subscribers;
    let subscribers = wanted.min(files.max(1));
    let Position { position } = server.ask("GET", "/v1/events/head", b"").await?;
    let path = format!("/v1/events?after={position}&type=task.submitted");
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\n\
         accept: text/event-stream\r\n\r\n",
        server.serving.key
    );
    let sent: Sent = Arc::new((0..tasks).map(|_| std::sync::OnceLock::new()).collect());
    let until = Instant::now() + SUBMIT_EVERY * tasks as u32 + GRACE;
    let mut errors = 0;
    let mut streams = JoinSet::new();
    for mut stream in connect(server.serving.address, subscribers).await? {
        // All of them follow before anything is submitted.
        match stream.ask_stream(head.as_bytes()).await {
            Ok(200) => drop(streams.spawn(follow(stream, Arc::clone(&sent), until))),
            _ => errors += 1,
        }
    }
    let submission = server.head("POST", "/v1/tasks").request(&json(&task())?);
    let mut writers = connect(server.serving.address, 1).await?;
    server.shown().reset_peak();
    let before = server.spent();
    let mut pace = tokio::time::interval(SUBMIT_EVERY);
    for sent in sent.iter() {
        pace.tick().await;
        let _ = sent.set(Instant::now());
        let answer = match writers.first_mut() {
            Some(writer) => writer
                .ask(&submission)
                .await
                .is_ok_and(|answer| answer.is_good()),
            None => false,
        };
        errors += u64::from(!answer);
    }
    let mut times = Vec::with_capacity(subscribers * tasks);
    while let Some(stream) = streams.join_next().await {
        let (received, out_of_order) =
            stream.map_err(|fault| Error::new(Code::Internal, format!("a subscriber: {fault}")))?;
        errors += out_of_order;
        times.extend(received);
    }
    let asked = (subscribers * tasks) as u64;
    let counted = times.len() as u64;
    let fewer = match subscribers < wanted {
        true => format!(" (of {wanted}: this process may not open more files)"),
        false => String::new(),
    };
    let mut sample = Sample {
        value: Percentiles::of(&times).map(|us| us.p99 / 1e3),
        asked,
        counted,
        stopped: counted < asked,
        errors: Some(errors),
        request_us: times,
        note: format!(
            "the value is the 99th percentile, from a submission sent to its event received by each \
             of {subscribers} subscribers{fewer}, {} submissions a second; a task here is one event \
             received by one subscriber",
            1_000 / SUBMIT_EVERY.as_millis()
        ),
        ..Sample::default()
    };
    server.account(&before, counted, &mut sample);
    Ok(sample)
}

/// What a scenario of the server means.
pub(crate) fn meaning(name: &str) -> Meaning {
    use Side::{AtLeast, AtMost};
    match name {
        "http_submit" => Meaning {
            what: "64 connections, a durable submission a request",
            unit: "requests/s",
            goal: Some((AtLeast, 10_000.0)),
            ratios: vec![(To::Echo, None)],
        },
        "http_single_op" => Meaning {
            what: "64 connections, one task a request, submitted, claimed and completed",
            unit: "tasks/s",
            goal: None,
            ratios: vec![
                (To::Echo, Some((AtLeast, 0.6))),
                (To::Postgres, Some((AtLeast, 2.5))),
            ],
        },
        "http_batch" => Meaning {
            what: "16 connections, 100 tasks a request, submitted, claimed and completed",
            unit: "tasks/s",
            goal: None,
            ratios: vec![(To::Sqlite, None), (To::Postgres, None)],
        },
        "http_latency" => Meaning {
            what: "an idle server: from a submission sent to the waiting worker that holds the task",
            unit: "ms",
            goal: Some((AtMost, 2.0)),
            ratios: vec![(To::Sync(1_000.0), None)],
        },
        "sse_fanout" => Meaning {
            what: "1,000 subscribers of the log: from a submission sent to each one's receipt",
            unit: "ms",
            goal: Some((AtMost, 50.0)),
            ratios: Vec::new(),
        },
        "server_idle" => Meaning {
            what: "memory of an idle server over a new store",
            unit: "MB",
            goal: Some((AtMost, 40.0)),
            ratios: Vec::new(),
        },
        _ => Meaning {
            what: "size of this program",
            unit: "MB",
            goal: Some((AtMost, 40.0)),
            ratios: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_ones() {
        let error = wanted(&["ack".into()]).unwrap_err();
        assert_eq!(error.code, Code::OutOfRange);
        assert_eq!(wanted(&[]).unwrap(), SERVER_NAMES);
        let two = wanted(&["sse_fanout".into(), "http_submit".into()]).unwrap();
        assert_eq!(two, ["http_submit", "sse_fanout"]);
    }
}
