"""The worker: registers, takes as many tasks at once as it has room for, tells what became of them, and
says good-bye.

It speaks to the server from a thread of its own, so that a handler that computes, blocks or sleeps never
keeps a heartbeat waiting. One claim is under way at a time and waits on the server until there is work;
reports do not wait for it. A report is sent again until it is answered; a claim whose answer was lost is
asked for again under its number, so that the same tasks come. What the server's clock says is used
nowhere.

A worker does not decide anything about a task: whether a failed one is tried again, whether a late result
counts. The server does.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import random
import secrets
import signal as signals
import socket
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import (
    Any,
    Awaitable,
    Callable,
    Dict,
    List,
    Mapping,
    MutableMapping,
    NoReturn,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
    cast,
)

from . import _wire, types
from ._async import AsyncChargehand
from ._sync import Chargehand
from ._wire import Duration
from .errors import (
    ChargehandError,
    InvalidRequest,
    KeyRefused,
    NotFound,
    ScopeMissing,
    ServerUnreachable,
    Superseded,
    of_problem,
)

LOG = logging.getLogger("chargehand.worker")

CLAIM_WAIT_S = 20.0
"""Seconds that a claim waits on the server for work."""
PATIENCE_S = 0.005
"""Seconds that a type of task that is full is given to have room again, before the worker tells the server
not to send more of it."""
REPORT_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of reports in one request, about."""
REPORTS_MAX = 200
"""Reports in one request."""
TEXT_BYTES_MAX = 4096
"""Bytes of a failure's message or a note of progress; longer ones are cut."""
OUTPUT_BYTES_MAX = 1024 * 1024
"""Bytes of an output or a checkpoint as JSON."""
PARTING_S = 10.0
"""Seconds that the last reports and the good-bye may take, when the worker stops."""

Key = Tuple[str, int]
H = TypeVar("H", bound=Callable[..., Any])


class TaskError(Exception):
    """A failure that says what it is: raise it in a handler.

    `code` is for machines; `retryable` says whether another attempt may succeed; `worker_fault` that it
    is not the task's fault (the third in a row puts the worker aside for a while).
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        code: Optional[str] = None,
        retryable: Optional[bool] = None,
        worker_fault: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).__name__
        if retryable is not None:
            self.retryable = retryable
        self.worker_fault = worker_fault


class PermanentError(TaskError):
    """A failure that another attempt would only repeat."""

    retryable = False


class Cancelled(BaseException):
    """The attempt is over for the server. Not an `Exception`, so that a handler that catches everything
    does not go on."""


class Released(BaseException):
    """The handler hands the task back; see `Context.release`."""

    def __init__(self, reason: str, checkpoint: types.Json) -> None:
        super().__init__(reason)
        self.reason = reason
        self.checkpoint = checkpoint


class _Logger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """Puts the task and the attempt before what is logged, and into the record's fields."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> Tuple[Any, MutableMapping[str, Any]]:
        known = dict(self.extra or {})
        kwargs["extra"] = {**known, **(kwargs.get("extra") or {})}
        return f"{known.get('task')}#{known.get('attempt')}: {msg}", kwargs


class Attempt:
    """What a handler gets besides its input, whether it is `async` or not."""

    def __init__(self, crew: _Crew, assignment: types.Assignment) -> None:
        self._crew = crew
        self.assignment = assignment
        """All that the server said."""
        self.task_id = assignment["task_id"]
        """The task."""
        self.attempt = assignment["attempt"]
        """1, 2, 3, … for each lease of the task."""
        self.kind = assignment["kind"]
        """The task's type."""
        self.checkpoint: types.Json = assignment.get("checkpoint")
        """What an earlier attempt handed back to go on from; `None` when there is nothing."""
        self.run_id: Optional[str] = assignment.get("run_id")
        """The run, when it belongs to one."""
        self.metadata: Mapping[str, str] = assignment.get("metadata", {})
        """The submitter's."""
        self.traceparent = assignment["trace"]
        """Where this attempt stands in the distributed trace (W3C Trace Context)."""
        self.log = _Logger(
            logging.getLogger(f"chargehand.task.{self.kind}"),
            {"task": self.task_id, "attempt": self.attempt, "kind": self.kind},
        )
        """A logger that knows the task and the attempt."""
        self.cancelled = threading.Event()
        """Set when the attempt is over for the server: whatever comes of it is refused."""
        self.reason = ""
        """Why it was cancelled."""
        self._yields = threading.Event()
        self._saved: types.Json = self.checkpoint

    def __repr__(self) -> str:
        return f"<{self.task_id} attempt {self.attempt}>"

    @property
    def idempotency_key(self) -> str:
        """A key for effects outside: the same for every attempt of this task, and for no other task."""
        return self.task_id

    @property
    def should_yield(self) -> bool:
        """Whether more urgent work waits, or the worker is to stop: `release` at the next safe point."""
        return self._yields.is_set()

    def check(self) -> None:
        """Raises `Cancelled` when the attempt is over for the server."""
        if self.cancelled.is_set():
            raise Cancelled(self.reason)

    def progress(self, fraction: Optional[float] = None, note: str = "") -> None:
        """Tells how far it is, `fraction` from 0 to 1. Does not wait; of several in short succession
        the newest is told."""
        self.check()
        if fraction is not None and not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress {fraction} is outside 0 to 1")
        told: Dict[str, Any] = {"note": _text(note)}
        if fraction is not None:
            told["fraction"] = float(fraction)
        self._crew.tell(self, {"progressed": told})

    def save(self, checkpoint: types.Json) -> None:
        """Keeps what the next attempt may go on from, should this worker be stopped before the handler
        is done. Nothing is sent now."""
        _payload("the checkpoint", checkpoint)
        self._saved = checkpoint

    def release(self, checkpoint: types.Json = None, reason: str = "handed back") -> NoReturn:
        """Ends the handler and hands the task back, with what the next attempt may go on from. It does
        not count as a failure."""
        raise Released(reason, self._saved if checkpoint is None else checkpoint)

    def _board(self, conditions: Dict[str, Any]) -> Dict[str, Any]:
        conditions.setdefault("run", self.run_id)
        return conditions

    def _provenance(self) -> types.Provenance:
        return {"task": self.task_id, "attempt": self.attempt}


class BoardOfTask:
    """The blackboard of the task's run (the shared one, when it has none), written as this worker."""

    def __init__(self, attempt: Attempt, client: Callable[[], Chargehand], worker: str) -> None:
        self._attempt, self._client, self._worker = attempt, client, worker

    def write(
        self,
        content: types.Json,
        *,
        tags: Sequence[str] = (),
        segment: Optional[str] = None,
        importance: Optional[float] = None,
        ttl: Optional[Duration] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str] = None,
    ) -> str:
        """Writes an entry, with this task as its provenance, and returns its id."""
        return self._client().blackboard.write(
            content,
            author=self._worker,
            run=self._attempt.run_id,
            tags=tags,
            segment=segment,
            importance=importance,
            ttl=ttl,
            metadata=metadata,
            provenance=self._attempt._provenance(),
            idempotency_key=idempotency_key,
        )

    def list(self, **conditions: Any) -> List[types.Entry]:
        """Entries, as `blackboard.list` of the client has them. Needs a key that may read."""
        return self._client().blackboard.list(**self._attempt._board(conditions))

    def claim(self, entry: str) -> None:
        """Takes an entry for this worker; `Conflict` when somebody else holds it."""
        self._client().blackboard.claim(entry, self._worker)


class AsyncBoardOfTask:
    """The blackboard of the task's run (the shared one, when it has none), written as this worker."""

    def __init__(
        self, attempt: Attempt, client: Callable[[], AsyncChargehand], worker: str
    ) -> None:
        self._attempt, self._client, self._worker = attempt, client, worker

    async def write(
        self,
        content: types.Json,
        *,
        tags: Sequence[str] = (),
        segment: Optional[str] = None,
        importance: Optional[float] = None,
        ttl: Optional[Duration] = None,
        metadata: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str] = None,
    ) -> str:
        """Writes an entry, with this task as its provenance, and returns its id."""
        return await self._client().blackboard.write(
            content,
            author=self._worker,
            run=self._attempt.run_id,
            tags=tags,
            segment=segment,
            importance=importance,
            ttl=ttl,
            metadata=metadata,
            provenance=self._attempt._provenance(),
            idempotency_key=idempotency_key,
        )

    async def list(self, **conditions: Any) -> List[types.Entry]:
        """Entries, as `blackboard.list` of the client has them. Needs a key that may read."""
        return await self._client().blackboard.list(**self._attempt._board(conditions))

    async def claim(self, entry: str) -> None:
        """Takes an entry for this worker; `Conflict` when somebody else holds it."""
        await self._client().blackboard.claim(entry, self._worker)


class Context(Attempt):
    """What a handler gets besides its input. It runs in a thread of its own, which nobody can stop from
    outside: look at `cancelled`, or call `check`, now and then."""

    def __init__(self, crew: _Crew, assignment: types.Assignment) -> None:
        super().__init__(crew, assignment)
        self.blackboard = BoardOfTask(self, crew.blocking_client, crew.id)
        """What agents know together."""

    @property
    def client(self) -> Chargehand:
        """A client with the worker's address and key."""
        return self._crew.blocking_client()


class AsyncContext(Attempt):
    """What an `async` handler gets besides its input. When the attempt is over for the server the handler
    is cancelled, as `asyncio` does it."""

    def __init__(self, crew: _Crew, assignment: types.Assignment) -> None:
        super().__init__(crew, assignment)
        self.blackboard = AsyncBoardOfTask(self, crew.async_client, crew.id)
        """What agents know together."""

    @property
    def client(self) -> AsyncChargehand:
        """A client with the worker's address and key."""
        return self._crew.async_client()


@dataclass(frozen=True)
class _Handler:
    run: Callable[..., Any]
    concurrency: int
    is_async: bool


@dataclass
class _Running:
    """An attempt under way, or whose report has not been answered."""

    attempt: Attempt
    abort: Optional[Callable[[], None]] = None
    ended: bool = False


class Worker:
    """A worker to be: name it, give it handlers, and `run` it.

    `queues` are those it serves, `capabilities`, `tools` and `intents` what it says it can do, for tasks
    that require it. `lease` is how long it may be silent before the server gives its tasks to others.
    `grace` is how long running handlers may go on once it is to stop; whatever has not ended by then is
    handed back.
    """

    def __init__(
        self,
        id: str,
        *,
        url: Optional[str] = None,
        key: Optional[str] = None,
        queues: Sequence[str] = ("default",),
        capabilities: Sequence[str] = (),
        tools: Sequence[str] = (),
        intents: Sequence[str] = (),
        agent_type: str = "worker",
        metadata: Optional[Mapping[str, str]] = None,
        endpoint: Optional[str] = None,
        lease: Duration = 10.0,
        grace: Duration = 10.0,
        verify: Any = True,
    ) -> None:
        self.id = id
        """Its id. Two processes with one id are one too many: the older one is stopped."""
        self._url = _wire.address(url)
        _wire.auth(key)
        self._key: Callable[[], Optional[str]] = lambda: key
        self._verify = verify
        self._grace = _wire.milliseconds(grace) / 1000
        self._handlers: Dict[str, _Handler] = {}
        self._crew: Optional[_Crew] = None
        spec: types.WorkerSpec = {
            "id": id,
            "agent_type": agent_type,
            "queues": list(queues),
            "capabilities": list(capabilities),
            "tools": list(tools),
            "intents": list(intents),
            "lease_ms": _wire.milliseconds(lease),
            "metadata": {
                "process": f"{socket.gethostname()}:{os.getpid()}",
                "client": "python",
                **(metadata or {}),
            },
        }
        if endpoint is not None:
            spec["endpoint"] = endpoint
        self._spec = spec

    def __repr__(self) -> str:
        return f"<worker {self.id} at {self._url}>"

    def task(self, kind: str, *, concurrency: int = 1) -> Callable[[H], H]:
        """Makes a function the handler of a type of task: `handler(ctx, input)`, `async` or not. So many
        of them run at once; what it returns, as JSON, is the task's output.

        An exception is a failure of the attempt. Its `code` and `retryable` count when it has them;
        otherwise the code is the name of its class and another attempt may succeed.
        """
        if not 1 <= concurrency <= 1000:
            raise ValueError(f"concurrency {concurrency} is outside 1 to 1000")
        if self._crew is not None:
            raise RuntimeError("the worker runs already")

        def register(handler: H) -> H:
            if kind in self._handlers:
                raise ValueError(f"“{kind}” has a handler already")
            self._handlers[kind] = _Handler(
                handler, concurrency, inspect.iscoroutinefunction(handler)
            )
            return handler

        return register

    def run(self) -> None:
        """Works until it is told to stop: by SIGINT or SIGTERM (a second one does not wait for running
        handlers), or by `stop` from another thread.

        Raises `Superseded` when another process registers under its id, `KeyRefused` or `ScopeMissing`
        when the server does not let it work.
        """
        crew = self._begin(None)
        before: Dict[int, Any] = {}

        def asked_to_stop(number: int, _: Any) -> None:
            LOG.info("worker “%s” got signal %s", self.id, number)
            crew.stop(0.0 if crew.stopping.is_set() else self._grace)

        if threading.current_thread() is threading.main_thread():
            for wanted in (signals.SIGINT, signals.SIGTERM):
                before[wanted] = signals.signal(wanted, asked_to_stop)
        try:
            crew.start()
            # In short waits, because a long one would keep a signal from being handled on some systems.
            while not crew.over.wait(0.5):
                pass
        finally:
            crew.stop(0.0)
            crew.over.wait(PARTING_S)
            for number, handler in before.items():
                signals.signal(number, handler)
            self._crew = None
        crew.outcome()

    async def run_async(self) -> None:
        """Like `run`, in a program that has an `asyncio` loop of its own: `async` handlers run there.
        Cancel it, or call `stop`, to end it."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        crew = self._begin(loop)
        crew.on_over = lambda: cast(None, loop.call_soon_threadsafe(over.set))
        crew.start()
        try:
            await over.wait()
        except asyncio.CancelledError:
            crew.stop(self._grace)
            await over.wait()
            raise
        finally:
            self._crew = None
        crew.outcome()

    def start(self) -> None:
        """Registers, and works in the background. Waits for a server that is not there yet; raises what
        `run` would."""
        crew = self._begin(None)
        crew.start()
        crew.there.wait()
        if crew.over.is_set():
            self._crew = None
            crew.outcome()

    def stop(self, grace: Optional[Duration] = None) -> None:
        """Takes no more tasks, lets running ones end for at most `grace`, hands back the rest, and says
        good-bye. Raises what `run` would."""
        crew = self._crew
        if crew is None:
            return
        crew.stop(self._grace if grace is None else _wire.milliseconds(grace) / 1000)
        if threading.current_thread() is not crew.thread:
            crew.over.wait()
            self._crew = None
            crew.outcome()

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _begin(self, loop: Optional[asyncio.AbstractEventLoop]) -> _Crew:
        if self._crew is not None:
            raise RuntimeError("the worker runs already")
        if not self._handlers:
            raise RuntimeError("the worker has no handlers; use `@worker.task(kind)`")
        self._crew = _Crew(self, loop)
        return self._crew


class _Crew:
    """A worker at work: one life of it, in a thread with a loop of its own."""

    def __init__(self, worker: Worker, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        self.id = worker.id
        self.worker = worker
        self.handlers = dict(worker._handlers)
        self.over = threading.Event()
        self.there = threading.Event()
        self.stopping = threading.Event()
        self.thread = threading.Thread(
            target=self._live, name=f"chargehand-{worker.id}", daemon=True
        )
        # Tells this life of the worker from every other; what a signed 64-bit number holds.
        self.session = secrets.randbits(63)
        self.fatal: Optional[ChargehandError] = None
        self._kill_at: Optional[float] = None
        self._running: Dict[Key, _Running] = {}
        self._finals: List[Tuple[Key, Any, int]] = []
        self._progress: Dict[Key, Any] = {}
        self._claims = 0
        self._claiming: Optional[asyncio.Task[None]] = None
        self._registered: Optional[List[str]] = None
        self._handler_loop = loop
        self._own_handler_loop = loop is None
        self.on_over: Optional[Callable[[], None]] = None
        self._returns = 0
        self._lock = threading.Lock()
        self._blocking: Optional[Chargehand] = None
        self._async: Optional[AsyncChargehand] = None

    # --- from any thread -----------------------------------------------------------------------

    def start(self) -> None:
        self.thread.start()

    def stop(self, grace: float) -> None:
        until = monotonic() + grace
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)
        self.stopping.set()
        for running in list(self._running.values()):
            running.attempt._yields.set()
        self._wake()

    def outcome(self) -> None:
        if self.fatal is not None:
            raise self.fatal

    def tell(self, attempt: Attempt, report: Any) -> None:
        key = (attempt.task_id, attempt.attempt)
        self._soon(self._note_progress, key, report)

    def blocking_client(self) -> Chargehand:
        with self._lock:
            if self._blocking is None:
                worker = self.worker
                self._blocking = Chargehand(worker._url, worker._key(), verify=worker._verify)
            return self._blocking

    def async_client(self) -> AsyncChargehand:
        with self._lock:
            if self._async is None:
                worker = self.worker
                self._async = AsyncChargehand(worker._url, worker._key(), verify=worker._verify)
            return self._async

    def _soon(self, call: Callable[..., Any], *args: Any) -> None:
        with suppress(RuntimeError, AttributeError):
            # After the loop has closed there is nobody left to tell.
            self._loop.call_soon_threadsafe(call, *args)

    def _wake(self) -> None:
        def woken() -> None:
            # It may be told to stop before its first step.
            with suppress(AttributeError):
                self._changed.set()

        self._soon(woken)

    # --- the life ------------------------------------------------------------------------------

    def _live(self) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._loop.run_until_complete(self._work())
        except ChargehandError as error:
            self.fatal = error
        except BaseException as error:  # noqa: BLE001 - the thread's last words
            LOG.exception("worker “%s” broke", self.id)
            self.fatal = ChargehandError("worker.broken", repr(error))
        finally:
            with suppress(Exception):
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            with suppress(Exception):
                self._close_clients()
            self.over.set()
            self.there.set()
            if self.on_over is not None:
                with suppress(RuntimeError):
                    self.on_over()

    async def _work(self) -> None:
        self._changed = asyncio.Event()
        self._registering = asyncio.Lock()
        if self._handler_loop is None and any(h.is_async for h in self.handlers.values()):
            self._handler_loop = asyncio.new_event_loop()
            threading.Thread(
                target=_run_loop,
                args=(self._handler_loop,),
                name=f"chargehand-{self.id}-handlers",
                daemon=True,
            ).start()
        worker = self.worker
        async with AsyncChargehand(
            worker._url, worker._key(), retries=0, verify=worker._verify
        ) as self.api:
            await self._register(self._open_kinds())
            if self._registered is None:
                return
            LOG.info("worker “%s” is there", self.id)
            self.there.set()
            beating = asyncio.ensure_future(self._beat())
            try:
                try:
                    await self._turn()
                except ChargehandError as error:
                    # Told to stop, and nobody there to tell the rest to.
                    if not (self.stopping.is_set() and error.retryable):
                        raise
                await self._part()
            except ChargehandError as error:
                self._abandon(str(error))
                raise
            finally:
                for task in (beating, self._claiming):
                    if task is not None:
                        task.cancel()
                        with suppress(asyncio.CancelledError, Exception):
                            await task

    async def _turn(self) -> None:
        """Claims and reports until it is to stop and nothing runs any more."""
        while True:
            if self.fatal is not None:
                raise self.fatal
            stopping = self.stopping.is_set()
            if stopping:
                if self._claiming is not None:
                    # What is leased to it all the same goes back at good-bye.
                    self._claiming.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await self._claiming
                    self._claiming = None
                for running in self._running.values():
                    running.attempt._yields.set()
                if not self._running or monotonic() >= (self._kill_at or 0):
                    return
            self._changed.clear()
            room = 0 if stopping or self._claiming is not None else self._room()
            if self._finals or self._progress:
                # Reports and a claim that does not wait go together: one round trip, one write.
                await self._exchange(room)
            elif room > 0:
                if not await self._narrowed():
                    self._claiming = asyncio.ensure_future(self._claim())
                    self._claiming.add_done_callback(lambda _: self._changed.set())
            else:
                timeout = None
                if stopping:
                    timeout = max(0.0, (self._kill_at or 0) - monotonic())
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout)
            if self._claiming is not None and self._claiming.done():
                done, self._claiming = self._claiming, None
                done.result()

    async def _part(self) -> None:
        """Hands back what has not ended, tells the last results, and says good-bye."""
        self._kill_at = monotonic() + PARTING_S
        for key, running in list(self._running.items()):
            if running.ended:
                continue
            attempt = running.attempt
            self._end(key, {"released": _released("the worker stops", attempt._saved)})
            attempt.reason = "the worker stops"
            attempt.cancelled.set()
            if running.abort is not None:
                running.abort()
        with suppress(asyncio.TimeoutError, ChargehandError):
            await asyncio.wait_for(self._farewell(), PARTING_S)
            LOG.info("worker “%s” said good-bye", self.id)

    async def _farewell(self) -> None:
        while self._finals:
            await self._exchange(0)
        params = {"session": self.session, "reason": "it stopped"}
        path = _wire.path("workers", self.id)
        with suppress(NotFound, Superseded):
            await self.api._call("DELETE", path, params=params, retries=3)

    def _abandon(self, reason: str) -> None:
        """Nothing that runs here counts any more."""
        for running in self._running.values():
            self._cancel(running, reason)

    def _close_clients(self) -> None:
        if self._blocking is not None:
            self._blocking.close()
        loop, client = self._handler_loop, self._async
        if loop is None:
            return

        async def close() -> None:
            if self._own_handler_loop:
                # Handlers that were cancelled may clean up first.
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                if others:
                    await asyncio.wait(others, timeout=2.0)
            if client is not None:
                await client.aclose()

        closing = asyncio.run_coroutine_threadsafe(close(), loop)
        if self._own_handler_loop:
            with suppress(Exception):
                closing.result(5)
            loop.call_soon_threadsafe(loop.stop)

    # --- registration --------------------------------------------------------------------------

    def _capacity(self) -> int:
        return sum(handler.concurrency for handler in self.handlers.values())

    async def _register(self, kinds: List[str]) -> None:
        """Registers, as often as it takes."""
        spec = {
            **self.worker._spec,
            "session": self.session,
            "kinds": kinds,
            "capacity": self._capacity(),
        }
        attempt = 0
        while True:
            attempt += 1
            try:
                await self.api._call("POST", _wire.path("workers"), spec)
                self._registered = kinds
                return
            except ChargehandError as error:
                if not error.retryable:
                    raise
                LOG.warning("worker “%s” cannot register, and tries again: %s", self.id, error)
            if self.stopping.is_set():
                return
            await self._rest(attempt)

    async def _return(self) -> None:
        """The server does not know it, or has given up on it. After a restart of the server what runs
        here still counts; after a lost lease it does not: the server is asked about each."""
        before = self._returns
        async with self._registering:
            if self._returns != before:
                return
            await self._register(self._open_kinds())
            self._returns += 1
            LOG.warning("worker “%s” registered again", self.id)
            held = [key for key, running in self._running.items() if not running.ended]
            if not held:
                return
            reports = [_item(key, "started") for key in held]
            body = {"session": self.session, "reports": reports}
            try:
                worked = await self.api._call("POST", self._path("work"), body)
            except ChargehandError as error:
                LOG.warning("worker “%s” does not know what it still has: %s", self.id, error)
                return
            for key, problem in zip(held, worked["reports"]):
                if problem is not None and problem["code"] in ("attempt.stale", "task.unknown"):
                    self._stop(key, problem["detail"])

    async def _rest(self, attempt: int) -> None:
        """A pause that the end of the worker's life cuts short."""
        until = monotonic() + _wire.pause(attempt)
        while monotonic() < until and not self.stopping.is_set():
            await asyncio.sleep(min(0.1, max(0.0, until - monotonic())))
        if self.stopping.is_set():
            await asyncio.sleep(0.1)

    async def _recover(self, error: ChargehandError, attempt: int) -> None:
        """After a request that was refused or got no answer: what can be done before the next try."""
        if isinstance(error, (Superseded, KeyRefused, ScopeMissing)):
            raise error
        if self.stopping.is_set() and monotonic() >= (self._kill_at or 0):
            raise error
        if error.code == "worker.unknown":
            await self._return()
            return
        if error.code == "worker.state":
            # It is drained, in error, or given up; only the last of these is cured by registering.
            try:
                await self.api._call(
                    "POST", self._path("heartbeat"), {"session": self.session, "wait_ms": 0}
                )
            except NotFound:
                await self._return()
                return
            except ChargehandError as other:
                error = other
        elif error.code not in ("worker.full", "task.not_claimable"):
            LOG.warning("worker “%s” tries again: %s", self.id, error)
        await self._rest(attempt)

    def _path(self, verb: str) -> str:
        return _wire.path("workers", self.id, verb)

    # --- heartbeats ----------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Shows that it lives, and hears what it must know."""
        wait = self.worker._spec["lease_ms"] / 3000
        body = {"session": self.session, "wait_ms": round(wait * 1000)}
        attempt = 0
        while True:
            try:
                told = await self.api._call(
                    "POST", self._path("heartbeat"), body, wait=wait - self.api._timeout + 5.0
                )
                attempt = 0
                for signal in told["signals"]:
                    key = (signal["task"], signal["attempt"])
                    if signal["signal"] == "stop":
                        self._stop(key, signal["reason"])
                    elif key in self._running:
                        self._running[key].attempt._yields.set()
            except (Superseded, KeyRefused, ScopeMissing) as error:
                self.fatal = error
                self._changed.set()
                return
            except ChargehandError as error:
                attempt += 1
                if error.code == "worker.unknown" and not self.stopping.is_set():
                    try:
                        await self._return()
                    except ChargehandError as refused:
                        self.fatal = refused
                        self._changed.set()
                        return
                else:
                    await asyncio.sleep(min(_wire.pause(attempt), wait))

    def _stop(self, key: Key, reason: str) -> None:
        running = self._running.get(key)
        if running is not None and not running.ended:
            running.attempt.log.info("the attempt is over: %s", reason)
            self._cancel(running, reason)

    def _cancel(self, running: _Running, reason: str) -> None:
        attempt = running.attempt
        attempt.reason = reason
        attempt.cancelled.set()
        if running.abort is not None:
            running.abort()

    # --- claims --------------------------------------------------------------------------------

    def _busy(self, kind: str) -> int:
        return sum(
            running.attempt.kind == kind and not running.ended
            for running in self._running.values()
        )

    def _open_kinds(self) -> List[str]:
        """Types of which it can run one more."""
        kinds = [k for k, handler in self.handlers.items() if self._busy(k) < handler.concurrency]
        # With none the server would take it for all of them.
        return sorted(kinds or self.handlers)

    def _room(self) -> int:
        """How many tasks it can take on, whatever their type."""
        free = {k: h.concurrency - self._busy(k) for k, h in self.handlers.items()}
        if len(free) == 1:
            return next(iter(free.values()))
        # A claim cannot say how many of which type, so with several types it takes one at a time.
        return 1 if any(room > 0 for room in free.values()) else 0

    async def _narrowed(self) -> bool:
        """Tells the server which types it can take, where that has changed. Whether something else
        happened meanwhile, so that the next step is to be thought over."""
        kinds = self._open_kinds()
        if kinds == self._registered:
            return False
        if not set(kinds) >= set(self._registered or ()):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), PATIENCE_S)
                return True
        async with self._registering:
            await self._register(self._open_kinds())
        return self._changed.is_set()

    def _number(self) -> int:
        self._claims += 1
        return self._claims

    async def _claim(self) -> None:
        """One claim that waits for work, asked for until it is answered."""
        claim: Dict[str, Any] = {
            "max": self._room(),
            "starts": True,
            "wait_ms": round(CLAIM_WAIT_S * 1000),
            "key": self._number(),
        }
        await self._ask([], claim, CLAIM_WAIT_S)

    async def _exchange(self, room: int) -> None:
        """Sends what there is to tell, and claims with it when there is room."""
        finals: List[Tuple[Key, Any]] = []
        size = 0
        for key, report, length in self._finals[:REPORTS_MAX]:
            if finals and size + length > REPORT_BYTES_MAX:
                break
            finals.append((key, report))
            size += length
        progress, self._progress = self._progress, {}
        reports = [(key, report) for key, report in progress.items()] + finals
        claim: Optional[Dict[str, Any]] = None
        if room > 0 and self._open_kinds() == self._registered:
            claim = {"max": room, "starts": True, "wait_ms": 0, "key": self._number()}
        await self._ask(reports, claim, 0.0)
        del self._finals[: len(finals)]
        for key, _ in finals:
            self._running.pop(key, None)
        self._changed.set()
        if self._claiming is not None and self._registered is not None:
            # A claim that waits shall see that there is room for more types again.
            kinds = self._open_kinds()
            if set(kinds) > set(self._registered):
                async with self._registering:
                    await self._register(kinds)

    async def _ask(
        self, reports: List[Tuple[Key, Any]], claim: Optional[Dict[str, Any]], wait: float
    ) -> None:
        """Reports and claims until there is an answer, and acts on it."""
        body: Dict[str, Any] = {"session": self.session}
        if claim is not None:
            body["claim"] = claim
        attempt = 0
        while True:
            body["reports"] = [_item(key, report) for key, report in reports]
            attempt += 1
            try:
                worked = await self.api._call(
                    "POST", self._path("work"), body, wait=wait
                )
                break
            except ChargehandError as error:
                if isinstance(error, ServerUnreachable) or error.retryable:
                    # Perhaps it arrived. A result is recognized when it comes again; the progress before
                    # it would come too late, and be recorded as such.
                    ended = {key for key, report in reports if not _is_progress(report)}
                    reports = [
                        (key, report)
                        for key, report in reports
                        if not (_is_progress(report) and key in ended)
                    ]
                    if claim is not None:
                        # Perhaps it was answered: the same tasks shall come.
                        claim["again"] = True
                elif reports and isinstance(error, InvalidRequest):
                    await self._one_by_one(reports, error)
                    return
                if claim is not None and self.stopping.is_set():
                    body.pop("claim", None)
                    claim = None
                    if not reports:
                        return
                await self._recover(error, attempt)
        for (key, report), problem in zip(reports, worked["reports"]):
            if problem is not None:
                self._refused(key, report, of_problem(problem))
        for assignment in worked["tasks"]:
            self._take(assignment)
        if worked.get("refused"):
            await self._recover(of_problem(worked["refused"]), 1)

    async def _one_by_one(self, reports: List[Tuple[Key, Any]], error: ChargehandError) -> None:
        """The server cannot read one of these reports: it must not keep the others from arriving."""
        if len(reports) > 1:
            for report in reports:
                await self._ask([report], None, 0.0)
            return
        ((key, report),) = reports
        if isinstance(report, dict) and "failed" not in report and not _is_progress(report):
            failure = _failure("report.refused", f"the server cannot read the result: {error}")
            await self._ask([(key, {"failed": {"failure": failure}})], None, 0.0)
        else:
            LOG.error("worker “%s” drops a report on %s: %s", self.id, key[0], error)

    def _refused(self, key: Key, report: Any, error: ChargehandError) -> None:
        if error.code == "attempt.stale":
            self._stop(key, error.detail)
            LOG.info("a report on %s#%s came too late: %s", key[0], key[1], error.detail)
        elif isinstance(report, dict) and report.get("released", {}).get("checkpoint") is not None:
            # Handed back without what it cannot be handed back with.
            LOG.error("the checkpoint of %s is refused: %s", key[0], error)
            bare = {"released": _released(report["released"]["reason"], None)}
            self._finals.append((key, bare, 0))
        else:
            LOG.warning("a report on %s#%s was refused: %s", key[0], key[1], error)

    # --- handlers ------------------------------------------------------------------------------

    def _take(self, assignment: types.Assignment) -> None:
        key = (assignment["task_id"], assignment["attempt"])
        if key in self._running:
            return
        handler = self.handlers.get(assignment["kind"])
        if handler is None:
            text = f"worker “{self.id}” has no handler for “{assignment['kind']}”"
            self._running[key] = _Running(Attempt(self, assignment))
            self._end(key, {"failed": {"failure": _failure("worker.no_handler", text, True, True)}})
            return
        if handler.is_async:
            self._start_async(key, handler, AsyncContext(self, assignment))
        else:
            self._start_thread(key, handler, Context(self, assignment))

    def _start_thread(self, key: Key, handler: _Handler, ctx: Context) -> None:
        self._running[key] = _Running(ctx)

        def body() -> None:
            try:
                report: Any = _completed(handler.run(ctx, ctx.assignment["input"]))
            except BaseException as fault:  # noqa: BLE001 - every ending is told
                report = _ending(ctx, fault)
            self._soon(self._end, key, report)

        # Not a pool: the threads of a pool would keep the process alive until every handler returns.
        name = f"chargehand-{ctx.kind}-{ctx.task_id[-6:]}"
        threading.Thread(target=body, name=name, daemon=True).start()

    def _start_async(self, key: Key, handler: _Handler, ctx: AsyncContext) -> None:
        loop = cast(asyncio.AbstractEventLoop, self._handler_loop)
        running = self._running[key] = _Running(ctx)

        async def body() -> None:
            try:
                report: Any = _completed(await handler.run(ctx, ctx.assignment["input"]))
            except BaseException as fault:  # noqa: BLE001 - every ending is told
                report = _ending(ctx, fault)
            self._soon(self._end, key, report)

        def begin() -> None:
            task = loop.create_task(body())
            # One that is cancelled before its first step has no other ending than this.
            bare = {"released": _released("the handler was cancelled", None)}
            task.add_done_callback(lambda _: self._soon(self._end, key, bare))
            running.abort = lambda: cast(None, loop.call_soon_threadsafe(task.cancel))
            if ctx.cancelled.is_set():
                task.cancel()

        loop.call_soon_threadsafe(begin)

    def _note_progress(self, key: Key, report: Any) -> None:
        running = self._running.get(key)
        if running is not None and not running.ended and not running.attempt.cancelled.is_set():
            self._progress[key] = report
            self._changed.set()

    def _end(self, key: Key, report: Any) -> None:
        """A handler has ended, or is given up. What was cancelled meanwhile needs no report: the server
        ended the attempt."""
        running = self._running.get(key)
        if running is None or running.ended:
            return
        running.ended = True
        self._changed.set()
        if running.attempt.cancelled.is_set():
            self._progress.pop(key, None)
            del self._running[key]
        else:
            self._finals.append((key, report, len(json.dumps(report))))


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _is_progress(report: Any) -> bool:
    return isinstance(report, dict) and "progressed" in report


def _item(key: Key, report: Any) -> Dict[str, Any]:
    return {"task_id": key[0], "attempt": key[1], "report": report}


def _failure(
    code: str, message: str, retryable: bool = False, worker_fault: bool = False
) -> types.Failure:
    failure: types.Failure = {"code": code, "message": message, "retryable": retryable}
    if worker_fault:
        failure["worker_fault"] = True
    return failure


def _text(text: str) -> str:
    """Text that goes over the wire: bounded, and without half characters."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    while len(text.encode("utf-8")) > TEXT_BYTES_MAX:
        text = text[: min(len(text) - 1, TEXT_BYTES_MAX) * 3 // 4]
    return text


def _said(fault: BaseException) -> str:
    try:
        return str(fault) or repr(fault)
    except Exception:  # noqa: BLE001 - an exception of the user's that cannot be shown
        return type(fault).__name__


def _payload(what: str, value: Any) -> None:
    """Refuses what the server would: not JSON, or too much of it."""
    try:
        size = len(_wire.encode(value))
    except (TypeError, ValueError, RecursionError) as fault:
        raise PermanentError(f"{what} is not JSON: {fault}", code="output.not_json") from None
    if size > OUTPUT_BYTES_MAX:
        text = f"{what} is {size} bytes; at most {OUTPUT_BYTES_MAX} are allowed"
        raise PermanentError(text, code="payload.too_large")


def _completed(output: Any) -> Any:
    _payload("the output", output)
    # As it is now: the handler may keep the object and change it.
    return {"completed": {"output": json.loads(_wire.encode(output))}}


def _released(reason: str, checkpoint: types.Json) -> Dict[str, Any]:
    released: Dict[str, Any] = {"reason": reason}
    if checkpoint is not None:
        released["checkpoint"] = checkpoint
    return released


def _ending(attempt: Attempt, fault: BaseException) -> Any:
    """The report for a handler that did not return."""
    if isinstance(fault, Released):
        try:
            _payload("the checkpoint", fault.checkpoint)
            return {"released": _released(fault.reason, fault.checkpoint)}
        except PermanentError as refused:
            fault = refused
    if isinstance(fault, (Cancelled, asyncio.CancelledError)):
        return {"released": _released(str(fault) or "the handler was cancelled", attempt._saved)}
    code = getattr(fault, "code", None)
    retryable = getattr(fault, "retryable", True)
    message = _said(fault)
    attempt.log.warning(
        "the attempt failed: %s: %s\n%s",
        type(fault).__name__,
        message,
        "".join(traceback.format_exception(type(fault), fault, fault.__traceback__)).rstrip(),
    )
    failure = _failure(
        _text(code if isinstance(code, str) and code else type(fault).__name__),
        _text(message),
        retryable if isinstance(retryable, bool) else True,
        getattr(fault, "worker_fault", False) is True,
    )
    return {"failed": {"failure": failure}}
