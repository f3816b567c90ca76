//! One connection to a server, from its start to its end.
//!
//! What a server says is told without the secrets that it was given, and they are taken out before a
//! text is cut or quoted: half a secret is not known as one any more.

use super::content::{Gave, gave};
use super::listed::Listed;
use super::progress::Progress;
use super::{CALLS_AT_ONCE_MAX, KEY_FIELD, MESSAGE_BYTES_MAX};
use crate::command::{
    Capture, DRAIN_TIME_MAX, Group, STDERR_BYTES_MAX, Surroundings, program_of, spawn,
};
use crate::tool::command::{Revealed, redacted_part};
use crate::tool::{STOP_TIME_MAX, Tell, cut};
use reqwest::redirect::Policy;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotificationParam, ClientCapabilities,
    ClientConfig, Implementation, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ProtocolVersion, RequestId, RequestMetaObject, ServerResult,
    SubscriptionFilter,
};
use rmcp::service::{
    ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer,
    PeerRequestOptions, RunningService, ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpError,
};
use rmcp::{ClientHandler, RoleClient};
use serde_json::Value;
use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::Child;
use tokio::sync::{Mutex, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Longest time for an address to be connected to.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest time a program has to end by itself when it is no longer needed.
const LEAVE_TIME: Duration = Duration::from_millis(100);
/// Redirects that are followed, all of them at the same address.
const REDIRECTS_MAX: usize = 5;

/// A connection that was begun.
pub(super) struct Connection {
    running: RunningService<RoleClient, Listener>,
    process: Option<Process>,
    /// Its tools, as they were listed last.
    pub(super) listed: Mutex<Option<Arc<Listed>>>,
    /// Secrets that it was given.
    pub(super) revealed: Vec<Revealed>,
    heard: Listener,
    /// A call was given up: it is not known whether it still answers.
    doubtful: AtomicBool,
    following: Option<AbortHandle>,
}

/// Why something that was asked did not come.
pub(super) struct Broken {
    pub(super) code: &'static str,
    pub(super) why: String,
    pub(super) retryable: bool,
    /// The connection is of no use any more.
    pub(super) over: bool,
}

impl Broken {
    /// It broke off, and may have happened.
    pub(super) fn off(why: String) -> Self {
        Self {
            code: "mcp.broken",
            why,
            retryable: false,
            over: true,
        }
    }

    /// What it said is not of the protocol, or too large; it may have happened.
    fn protocol(why: String) -> Self {
        Self {
            code: "mcp.protocol",
            over: false,
            ..Self::off(why)
        }
    }

    /// It answered that it will not.
    fn refused(why: String, retryable: bool) -> Self {
        Self {
            code: "mcp.refused",
            retryable,
            over: false,
            ..Self::off(why)
        }
    }

    /// Nothing was sent.
    fn unreachable(why: String) -> Self {
        Self {
            code: "mcp.unreachable",
            retryable: true,
            ..Self::off(why)
        }
    }
}

impl Connection {
    /// Starts a program and speaks to it.
    ///
    /// Some old servers end when they are asked what they do not know. One that does is started once
    /// more, and is spoken to as servers were of old.
    pub(super) async fn to_program(
        folder: &Path,
        command: &str,
        variables: &[(String, String)],
        revealed: Vec<Revealed>,
    ) -> Result<Self, String> {
        let mut told = String::new();
        for lifecycle in [any_revision(), ClientLifecycleMode::Initialize] {
            let (process, read, write) = Process::start(folder, command, variables)?;
            let transport = AsyncRwTransport::new_client(read, write)
                .with_max_line_length(MESSAGE_BYTES_MAX + 1);
            let listener = Listener::hiding(&revealed);
            match serve_client_with_lifecycle(listener.clone(), transport, lifecycle).await {
                Ok(running) => {
                    return Ok(Self::begun(running, listener, revealed, Some(process)).await);
                }
                Err(fault) => {
                    let ended = matches!(fault, ClientInitializeError::ConnectionClosed(_));
                    let story = process.story(&revealed).await;
                    told = match process.story.ended().as_deref() {
                        Some(NO_PROGRAM) => no_program(command, &revealed),
                        _ => format!("{}{story}", begun_badly(&fault, &revealed)),
                    };
                    if !ended {
                        break;
                    }
                }
            }
        }
        Err(told)
    }

    /// Speaks to what is at an address.
    pub(super) async fn to_address(url: &str, key: Option<Revealed>) -> Result<Self, String> {
        let revealed: Vec<Revealed> = key.into_iter().collect();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .redirect(same_address())
            .retry(reqwest::retry::never())
            .referer(false)
            // What is left unread of an answer would hold up the next question.
            .pool_max_idle_per_host(0);
        let loopback = reqwest::Url::parse(url)
            .is_ok_and(|url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")));
        let http = if loopback { http.no_proxy() } else { http };
        let http = match url.starts_with("http://") {
            // Plain HTTP must work where the system has no certificates.
            true => http.tls_certs_only([]),
            false => http,
        };
        let http = http.build().map_err(|fault| causes(&fault, &revealed))?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(url);
        config.max_sse_event_size = MESSAGE_BYTES_MAX;
        config.max_concurrent_requests = CALLS_AT_ONCE_MAX;
        config.auth_header = revealed.first().map(|key| key.secret.clone());
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let listener = Listener::hiding(&revealed);
        match serve_client_with_lifecycle(listener.clone(), transport, any_revision()).await {
            Ok(running) => Ok(Self::begun(running, listener, revealed, None).await),
            Err(fault) => Err(begun_badly(&fault, &revealed)),
        }
    }

    async fn begun(
        running: RunningService<RoleClient, Listener>,
        heard: Listener,
        revealed: Vec<Revealed>,
        process: Option<Process>,
    ) -> Self {
        let peer = running.peer();
        // The list is kept here, with our bounds.
        let cache = peer.set_response_cache_config(ClientCacheConfig::disabled());
        cache.await;
        let follows = peer.peer_info().is_some_and(|info| {
            let tools = info.capabilities.tools.as_ref();
            let tells = tools.is_some_and(|tools| tools.list_changed == Some(true));
            // Before, it says so without being asked to.
            tells && info.protocol_version >= ProtocolVersion::V_2026_07_28
        });
        let following = follows.then(|| {
            let following = tokio::spawn(follow(peer.clone(), Arc::clone(&heard.changes)));
            following.abort_handle()
        });
        Self {
            running,
            process,
            listed: Mutex::default(),
            revealed,
            heard,
            doubtful: AtomicBool::new(false),
            following,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.running.is_closed() && !self.running.peer().is_transport_closed()
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Relaxed)
    }

    /// It said something just now.
    pub(super) fn is_well(&self) {
        self.doubtful.store(false, Relaxed);
    }

    /// How often it said that its list changed.
    pub(super) fn changes(&self) -> u64 {
        self.heard.changes.load(Relaxed)
    }

    /// The protocol's revision that is spoken.
    pub(super) fn protocol(&self) -> String {
        let info = self.running.peer().peer_info();
        info.map_or_else(String::new, |info| info.protocol_version.to_string())
    }

    /// What is known of its end, to follow a message.
    pub(super) async fn story(&self) -> String {
        match &self.process {
            Some(process) if !self.is_open() => process.story(&self.revealed).await,
            _ => String::new(),
        }
    }

    /// A page of its tools.
    pub(super) async fn list(&self, page: Option<String>) -> Result<ListToolsResult, Broken> {
        let mut params = PaginatedRequestParams::default();
        params.cursor = page;
        let listed = self.running.peer().list_tools(Some(params)).await;
        listed.map_err(|fault| broken(fault, &self.revealed))
    }

    /// Makes a call, once. What comes of it is without secrets.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        key: &str,
        tell: &Tell,
    ) -> Result<Gave, Broken> {
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = arguments.as_object().cloned();
        let mut meta = RequestMetaObject::new();
        meta.insert(KEY_FIELD.into(), key.into());
        params.meta = Some(meta);
        let request = CallToolRequest::new(params).into();
        let peer = self.running.peer();
        let broken = |fault| broken(fault, &self.revealed);
        let sent = peer.send_request_with_option(request, PeerRequestOptions::no_options());
        let sent = sent.await.map_err(broken)?;
        let mut unanswered = Unanswered {
            doubtful: &self.doubtful,
            call: Some((peer, sent.id.clone())),
        };
        let call = sent.progress_token.clone();
        let progress = &self.heard.progress;
        let answer = tokio::select! {
            answer = sent.await_response() => answer,
            never = progress.follow(&call, tell) => match never {},
        };
        unanswered.call = None;
        match answer.map_err(broken)? {
            ServerResult::CallToolResult(result) => Ok(gave(result, &self.revealed)),
            ServerResult::InputRequiredResult(_) => {
                let why = "it wants to ask a person or a model back, which it may not";
                Err(Broken::refused(why.into(), false))
            }
            ServerResult::CreateTaskResult(_) => Err(Broken::protocol(
                "it answered a call with a task, which it was not asked to".into(),
            )),
            _ => Err(broken(ServiceError::UnexpectedResponse)),
        }
    }
}

/// A call under way. When it is given up, nobody knows whether the server still answers, and it is
/// told in the protocol's words that nobody waits any more.
struct Unanswered<'a> {
    doubtful: &'a AtomicBool,
    call: Option<(&'a Peer<RoleClient>, RequestId)>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some((peer, call)) = self.call.take() else {
            return;
        };
        self.doubtful.store(true, Relaxed);
        let peer = peer.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let cancelled = CancelledNotificationParam::new(Some(call), None);
                let _ = peer.notify_cancelled(cancelled).await;
            });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

/// The current revision if the server knows it, or else the one before.
fn any_revision() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    }
}

/// Follows redirects that keep the request as it is and lead to the same scheme, host and port.
fn same_address() -> Policy {
    Policy::custom(|attempt| {
        let keeps = matches!(attempt.status().as_u16(), 307 | 308);
        let first = attempt.previous().first();
        let same = first.is_some_and(|first| first.origin() == attempt.url().origin());
        match keeps && same && attempt.previous().len() <= REDIRECTS_MAX {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    })
}

/// Notes when the server says that its list changed.
async fn follow(peer: Peer<RoleClient>, changes: Arc<AtomicU64>) {
    let wanted = SubscriptionFilter::builder().tools_list_changed().build();
    // Where this is not to be had, the list has its time all the same.
    let Ok(mut said) = peer.listen(wanted).await else {
        return;
    };
    while let Ok(Some(_)) = said.next().await {
        changes.fetch_add(1, Relaxed);
    }
    // What was said meanwhile is not known.
    changes.fetch_add(1, Relaxed);
}

/// Our side of a connection: it hears that the list changed and how far calls are, and declines
/// whatever it is asked.
#[derive(Clone)]
struct Listener {
    changes: Arc<AtomicU64>,
    progress: Arc<Progress>,
}

impl Listener {
    fn hiding(revealed: &[Revealed]) -> Self {
        Self {
            changes: Arc::default(),
            progress: Arc::new(Progress::hiding(revealed.to_vec())),
        }
    }
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("chargehand", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.fetch_add(1, Relaxed);
    }

    async fn on_progress(
        &self,
        said: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress.note(said);
    }
}

/// As much of what a server said as is told. Its own library may have cut it already.
fn said(text: &str, hidden: &[Revealed]) -> String {
    cut(&redacted_part(text, hidden))
}

/// How a shell ends that does not find the program it is to run.
const NO_PROGRAM: &str = "exit status: 127";

fn no_program(command: &str, hidden: &[Revealed]) -> String {
    let program = program_of(command);
    let program = program.as_deref().unwrap_or(command);
    let which = said(program, hidden);
    match program.contains('/') {
        true => format!("there is no program `{which}` (from the crew file's folder)"),
        false => format!("there is no program `{which}` on the PATH"),
    }
}

fn begun_badly(fault: &ClientInitializeError, hidden: &[Revealed]) -> String {
    use ClientInitializeError as E;
    match fault {
        E::ConnectionClosed(_) => "it ended before it answered".into(),
        E::TransportError { error, .. } => match http(&*error.error, hidden) {
            Some(broken) => broken.why,
            None => causes(error, hidden),
        },
        E::JsonRpcError(error) => format!("it refuses to begin: {}", said(&error.message, hidden)),
        E::NoCompatibleProtocolVersion { .. } => {
            "it speaks no revision of the protocol that is spoken here".into()
        }
        E::LegacyFallbackFailed { fallback, .. } => begun_badly(fallback, hidden),
        // Other faults show what was sent.
        _ => "it answered with something else than the beginning of a connection".into(),
    }
}

fn broken(fault: ServiceError, hidden: &[Revealed]) -> Broken {
    match fault {
        ServiceError::McpError(error) => {
            let why = said(&error.message, hidden);
            let text = format!("it refuses: {why} ({})", error.code.0);
            Broken::refused(text, false)
        }
        ServiceError::TransportSend(error) => match http(&*error.error, hidden) {
            Some(broken) => broken,
            None => Broken::off(causes(&error, hidden)),
        },
        ServiceError::TransportClosed => Broken::off("it broke off".into()),
        ServiceError::UnexpectedResponse => {
            Broken::protocol("it answered with something that is no answer to this".into())
        }
        other => Broken::off(said(&other.to_string(), hidden)),
    }
}

/// What a fault on the way over HTTP means, if it is one.
fn http(fault: &(dyn Error + 'static), hidden: &[Revealed]) -> Option<Broken> {
    use StreamableHttpError as E;
    let fault = fault.downcast_ref::<E<reqwest::Error>>()?;
    Some(match fault {
        E::Client(fault) if fault.is_connect() => {
            Broken::unreachable(format!("there is no way to it: {}", causes(fault, hidden)))
        }
        E::Client(fault) => Broken::off(causes(fault, hidden)),
        E::AuthRequired(_) | E::InsufficientScope(_) => Broken::refused(
            "it wants another key than it was given (`key`)".into(),
            false,
        ),
        E::HttpStatus(status) if status.status == 429 => {
            Broken::refused("it is asked too much (HTTP 429)".into(), true)
        }
        E::HttpStatus(status) => Broken::off(format!("it answered with HTTP {}", status.status)),
        E::UnexpectedServerResponse(text) => Broken::protocol(format!(
            "it answered with no message: {}",
            said(text, hidden)
        )),
        E::ResponseBodyTooLarge { .. } | E::Sse(_) => Broken::protocol(format!(
            "it sent too much at once, or no events: {}",
            said(&fault.to_string(), hidden)
        )),
        E::UnexpectedContentType(_) | E::Deserialize(_) => {
            Broken::protocol(said(&fault.to_string(), hidden))
        }
        _ => Broken::off(said(&fault.to_string(), hidden)),
    })
}

/// An error with what caused it, without the address, which may have a secret in it.
fn causes(fault: &dyn Error, hidden: &[Revealed]) -> String {
    let mut text = match fault.source() {
        Some(_) => String::new(),
        None => fault.to_string(),
    };
    let mut next = fault.source();
    while let Some(cause) = next {
        next = cause.source();
        if next.is_none() {
            text = cause.to_string();
        }
    }
    said(&text, hidden)
}

/// A server's process. When this is dropped, it and all that it started are asked to end, and killed a
/// moment later, before anything else happens here: there may be no later.
struct Process {
    /// There as long as the process is: its number may be another's then.
    group: Weak<Group>,
    story: Arc<Story>,
    /// Dropped to say that it is no longer needed.
    _needed: oneshot::Sender<()>,
}

/// What is known of a process.
struct Story {
    said: Capture,
    ended: StdMutex<Option<String>>,
}

impl Process {
    fn start(
        folder: &Path,
        command: &str,
        variables: &[(String, String)],
    ) -> Result<
        (
            Self,
            Lines<tokio::process::ChildStdout>,
            tokio::process::ChildStdin,
        ),
        String,
    > {
        let child = spawn(Surroundings::Bare(folder), command, variables);
        let mut child = child.map_err(|error| error.message)?;
        let group = Arc::new(Group::of(&child));
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it has no standard input or output".into());
        };
        let story = Arc::new(Story {
            said: Capture::last(child.stderr.take(), STDERR_BYTES_MAX),
            ended: StdMutex::default(),
        });
        let (needed, left) = oneshot::channel();
        let (gone, end) = oneshot::channel();
        let kept = Arc::downgrade(&group);
        tokio::spawn(keep(child, group, left, Arc::clone(&story), gone));
        let lines = Lines {
            inner: stdout,
            end,
            bytes: 0,
            story: Arc::clone(&story),
        };
        let process = Self {
            group: kept,
            story,
            _needed: needed,
        };
        Ok((process, lines, stdin))
    }

    /// How it ended, if it did, and what it said on its standard error.
    async fn story(&self, hidden: &[Revealed]) -> String {
        // A process that closes its output is about to end.
        let ended = async {
            while self.story.ended().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(DRAIN_TIME_MAX, ended).await;
        let _ = timeout(DRAIN_TIME_MAX, self.story.said.end()).await;
        let ended = self.story.ended().map(|how| format!(" ({how})"));
        let said = &self.story.said;
        let said = said.quoted_as(&|said| redacted_part(said, hidden));
        format!("{}{said}", ended.unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.end_within(LEAVE_TIME);
        }
    }
}

impl Story {
    fn ended(&self) -> Option<String> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }

    /// The first reason counts.
    fn end(&self, how: String) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(how);
    }
}

/// Stays with a process until it is over, and ends all that it started.
async fn keep(
    mut child: Child,
    group: Arc<Group>,
    mut left: oneshot::Receiver<()>,
    story: Arc<Story>,
    gone: oneshot::Sender<()>,
) {
    tokio::select! {
        status = child.wait() => {
            if let Ok(status) = status {
                story.end(status.to_string());
            }
        }
        // It is killed by now.
        _ = &mut left => {
            let _ = timeout(STOP_TIME_MAX, child.wait()).await;
        }
    }
    drop(group);
    let _ = gone.send(());
}

/// What a process says, until it is gone, or says a line that is too long.
struct Lines<R> {
    inner: R,
    end: oneshot::Receiver<()>,
    /// Bytes since the last end of a line.
    bytes: usize,
    story: Arc<Story>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if Pin::new(&mut self.inner).poll_read(cx, buf)?.is_pending() {
            // What it started may hold its output open for ever.
            let _ = ready!(Pin::new(&mut self.end).poll(cx));
            return Poll::Ready(Ok(()));
        }
        let new = &buf.filled()[before..];
        self.bytes = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => new.len() - end - 1,
            None => self.bytes + new.len(),
        };
        if self.bytes > MESSAGE_BYTES_MAX {
            let why = format!("it sent more than {MESSAGE_BYTES_MAX} bytes in one line");
            self.story.end(why.clone());
            return Poll::Ready(Err(io::Error::other(why)));
        }
        Poll::Ready(Ok(()))
    }
}
