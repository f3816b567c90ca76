//! Opening an engine, and its handle.

use crate::ask::{Ask, INBOX_MAX, TURN_MAX};
use crate::clock::{Clock, SystemIds};
use crate::keyring::Keyring;
use crate::pulse::Pulse;
use crate::relay::Relay;
use crate::rescue::Hearts;
use crate::tail::Chunk;
use crate::wheel::Wheel;
use domain::error::{Code, Error};
use domain::event::{Origin, Recorded};
use domain::id::Ids;
use domain::state::Quotas;
use domain::time::Time;
use protocol::key::Tenant;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use store::backend::{memory::Memory, sqlite::Sqlite};
use store::{Backend, Reader, Store};
use tokio::sync::oneshot;

/// Bytes of stack for the wheel's thread: expressions are compiled there, and their parser recurses.
const STACK_BYTES: usize = 16 * 1024 * 1024;
/// Events read from the store for one chunk, about.
const CHUNK_EVENTS: usize = 1_000;
/// Bytes of them after which no more is read. One event may be a megabyte, and a follower that lags
/// takes about so much at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Reading connections kept open for the next reader.
const READERS_KEPT: usize = 4;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this process, gone with it.
    Memory,
    /// In a folder.
    Folder(PathBuf),
}

impl std::str::FromStr for Place {
    type Err = Error;
    /// `memory:`, `sqlite://FOLDER` or a folder's path.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        let path = text.strip_prefix("sqlite://").unwrap_or(text);
        if path.is_empty() || path.contains("://") {
            let text = format!("“{text}” is not a store");
            return Err(Error::new(Code::StorePath, text).hint(
                "Use a folder's path, sqlite://FOLDER, or memory: for one that is not kept.",
            ));
        }
        Ok(Self::Folder(PathBuf::from(path)))
    }
}

/// Opens another reading connection.
type ReaderFactory = Box<dyn FnMut() -> Result<Box<dyn Reader>, Error> + Send>;

/// What all handles share.
pub(crate) struct Shared {
    inbox: SyncSender<Ask>,
    thread: Mutex<Option<JoinHandle<Result<(), Error>>>>,
    pub(crate) hearts: Hearts,
    pub(crate) keyring: Keyring,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
    pub(crate) tenant: Tenant,
    readers: Mutex<Vec<Box<dyn Reader>>>,
    reader_factory: Mutex<ReaderFactory>,
}

/// A running engine: the handle, and the in-process [`Api`](protocol::Api). Cloning shares it. When
/// the last handle goes, the engine writes what is behind and stops.
///
/// ```
/// use domain::{command::Submission, json::Json, name::Name, task::TaskSpec};
/// use engine::{Engine, Place};
/// use protocol::{Api, ApiRead};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::open(&Place::Memory)?;
/// let spec = TaskSpec::new(Name::literal("text.stats"), Json::default());
/// let task = engine.task_submit(vec![Submission::new(spec)]).await?.remove(0)?;
/// assert_eq!(engine.task_get(task).await?.status.as_str(), "pending");
/// # Ok::<(), domain::error::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    /// On whose behalf this handle asks.
    pub(crate) origin: Origin,
}

/// How an engine is opened.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whose engine it is.
    pub tenant: Tenant,
    /// How much may be open in it.
    pub quotas: Quotas,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the store at `place`, recovers, takes the tasks from workers that died with the last
    /// process, and starts the wheel.
    ///
    /// # Errors
    /// The store's own, each saying what to do.
    pub fn open(place: &Place) -> Result<Self, Error> {
        Self::open_with(place, Settings::default())
    }

    /// As [`open`](Self::open), for a tenant with its quotas.
    ///
    /// # Errors
    /// The store's own, each saying what to do.
    pub fn open_with(place: &Place, settings: Settings) -> Result<Self, Error> {
        let backend: Box<dyn Backend> = match place {
            Place::Memory => Box::new(Memory::default()),
            Place::Folder(folder) => Box::new(Sqlite::open(folder)?),
        };
        Self::start_with(backend, Box::new(SystemIds), Clock::system(), settings)
    }

    /// Opens the store in `folder` beside whoever works with it, to look: every change is refused,
    /// and what it shows is as of now.
    ///
    /// # Errors
    /// The store's own.
    pub fn open_to_read(folder: &std::path::Path) -> Result<Self, Error> {
        let backend = Box::new(Sqlite::open_to_read(folder)?);
        Self::start(backend, Box::new(SystemIds), Clock::system())
    }

    /// As [`open`](Self::open), over any backend, ids and clock.
    ///
    /// # Errors
    /// The backend's own.
    pub fn start(
        backend: Box<dyn Backend>,
        ids: Box<dyn Ids + Send>,
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::start_with(backend, ids, clock, Settings::default())
    }

    fn start_with(
        backend: Box<dyn Backend>,
        ids: Box<dyn Ids + Send>,
        clock: Clock,
        settings: Settings,
    ) -> Result<Self, Error> {
        let mut wheel = Wheel::over(Store::open(backend, ids)?, clock.now())?;
        wheel.store().set_quotas(settings.quotas);
        let (hearts, relay) = (wheel.hearts().clone(), wheel.relay().clone());
        let (keyring, pulse) = (wheel.keyring().clone(), Arc::clone(wheel.pulse()));
        // One reader is opened here to make more from: the wheel's thread owns the store.
        let mut first = Some(wheel.store().reader()?);
        let (inbox, asks) = sync_channel(INBOX_MAX);
        let (make_reader, readers) =
            sync_channel::<oneshot::Sender<Result<Box<dyn Reader>, Error>>>(1);
        let wheel_clock = clock.clone();
        let thread = std::thread::Builder::new()
            .name("wheel".into())
            .stack_size(STACK_BYTES)
            .spawn(move || turn_until_stopped(wheel, &asks, &readers, &wheel_clock))
            .map_err(|fault| Error::new(Code::StoreIo, format!("no thread: {fault}")))?;
        let own = inbox.clone();
        let reader_factory = Box::new(move || {
            if let Some(reader) = first.take() {
                return Ok(reader);
            }
            let (reply, answer) = oneshot::channel();
            let stopped = || Error::new(Code::Stopped, "the engine has stopped");
            make_reader.send(reply).map_err(|_| stopped())?;
            // Wakes the wheel, which looks at readers between turns.
            let (flushed, _) = oneshot::channel();
            let _ = own.try_send(Ask::Flush { reply: flushed });
            answer.blocking_recv().map_err(|_| stopped())?
        });
        Ok(Self {
            shared: Arc::new(Shared {
                inbox,
                thread: Mutex::new(Some(thread)),
                hearts,
                keyring,
                pulse,
                relay,
                clock,
                tenant: settings.tenant,
                readers: Mutex::default(),
                reader_factory: Mutex::new(reader_factory),
            }),
            origin: Origin::default(),
        })
    }

    /// The same engine, asked on somebody's behalf: what comes of it says so in the log.
    #[must_use]
    pub fn on_behalf(&self, origin: Origin) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            origin,
        }
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.shared.tenant
    }

    /// Who may be let in.
    pub fn keyring(&self) -> &Keyring {
        &self.shared.keyring
    }

    /// What it does, counted.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.shared.pulse
    }

    /// Events after a position, with their lines of JSON: from memory when they are recent, else from
    /// the store, as many as were committed together or about 64 KiB, whichever is more. Empty when
    /// there are none.
    ///
    /// # Errors
    /// The store's own.
    pub async fn chunk(&self, after: u64) -> Result<Arc<Chunk>, Error> {
        if let Some(chunk) = self.shared.relay.tail().after(after) {
            return Ok(chunk);
        }
        let read = move |reader: &mut dyn Reader| {
            let (mut events, mut body) = (Vec::<Recorded>::new(), Vec::new());
            // How large they are is known only when they are read: so few first, then twice as many.
            let (mut last, mut count) = (after, 1);
            while body.len() < CHUNK_BYTES && events.len() < CHUNK_EVENTS {
                let frames = reader.frames(last, count)?;
                if frames.is_empty() {
                    break;
                }
                for frame in frames {
                    events.extend(store::chain::decode(&frame)?);
                    body.extend(frame.body);
                }
                last = events.last().map_or(last, |event| event.position);
                count *= 2;
            }
            Ok(Chunk::new(events, body))
        };
        self.read(read).await.map(Arc::new)
    }

    /// Its clock.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// The position of the last event, followed.
    pub fn head(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.relay.follow()
    }

    /// Puts an ask into the inbox.
    pub(crate) fn ask(&self, ask: Ask) {
        match self.shared.inbox.try_send(ask) {
            Ok(()) => {}
            Err(TrySendError::Full(ask)) => {
                let text = format!("{INBOX_MAX} requests are waiting already");
                ask.refuse(Error::new(Code::Overloaded, text));
            }
            Err(TrySendError::Disconnected(ask)) => {
                ask.refuse(Error::new(Code::Stopped, "the engine has stopped"));
            }
        }
    }

    /// Reads on a thread that may block, with a connection of its own.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || {
            let kept = lock(&shared.readers).pop();
            let mut reader = match kept {
                Some(reader) => reader,
                None => (lock(&shared.reader_factory))()?,
            };
            let answer = read(&mut *reader);
            let mut readers = lock(&shared.readers);
            if readers.len() < READERS_KEPT {
                readers.push(reader);
            }
            answer
        });
        work.await
            .map_err(|fault| Error::new(Code::Internal, format!("a read: {fault}")))?
    }

    /// Writes what is behind and stops, whoever still has a handle. Idempotent.
    ///
    /// # Errors
    /// When what is behind could not be written; it is still in the log.
    pub fn stop(&self) -> Result<(), Error> {
        let Some(thread) = lock(&self.shared.thread).take() else {
            return Ok(());
        };
        let _ = self.shared.inbox.send(Ask::Stop);
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(Code::Internal, "the wheel broke")))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = self.inbox.send(Ask::Stop);
            // The lock on the store must be free when the last handle is gone.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type ReaderRequests = Receiver<oneshot::Sender<Result<Box<dyn Reader>, Error>>>;

fn turn_until_stopped(
    mut wheel: Wheel,
    asks: &Receiver<Ask>,
    readers: &ReaderRequests,
    clock: &Clock,
) -> Result<(), Error> {
    let mut inbox = Vec::new();
    loop {
        let sleep = Duration::from_millis(wheel.sleep_ms(clock.now()).max(1));
        let mut stop = false;
        match asks.recv_timeout(sleep) {
            Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => stop = true,
            Ok(ask) => inbox.push(ask),
            Err(RecvTimeoutError::Timeout) => {}
        }
        while inbox.len() < TURN_MAX && !stop {
            match asks.try_recv() {
                Ok(Ask::Stop) => stop = true,
                Ok(ask) => inbox.push(ask),
                Err(_) => break,
            }
        }
        wheel.turn(&mut inbox, clock.now());
        while let Ok(reply) = readers.try_recv() {
            let _ = reply.send(wheel.store().reader());
        }
        if stop {
            return wheel.close();
        }
    }
}
