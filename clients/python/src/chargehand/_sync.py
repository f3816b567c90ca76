"""The blocking client. Written by `generate.py` from `_async.py`; do not edit."""

from __future__ import annotations

import time
import ssl
from time import monotonic
from typing import (
    Any,
    Iterator,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

import httpx

from . import _wire, types
from ._sse import Reader
from ._wire import Duration, Event, NewTask, Retry
from .errors import (
    ChargehandError,
    Conflict,
    RunCancelled,
    RunFailed,
    SomeRefused,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    WaitTimedOut,
    of_problem,
)


class TaskHandle:
    """One task on the server, by its id."""

    def __init__(self, client: Chargehand, id: str) -> None:
        self._client = client
        self.id = id
        """Its id, `task_…`."""

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    def get(self) -> types.TaskView:
        """The task as it is now."""
        view = self._client._call("GET", _wire.path("tasks", self.id))
        return cast(types.TaskView, view)

    def ended(self, timeout: Optional[Duration] = None) -> types.TaskView:
        """The task, as soon as it has ended, however it did.

        Raises `WaitTimedOut` when it has not within `timeout`.
        """
        view = self._client._when_ended(_wire.path("tasks", self.id), timeout)
        return cast(types.TaskView, view)

    def wait(self, timeout: Optional[Duration] = None) -> types.Json:
        """The task's output, as soon as there is one.

        Raises `TaskFailed` with the last failure when there will be no other attempt, `TaskCancelled`,
        and `WaitTimedOut` when it has not ended within `timeout`.
        """
        view = self.ended(timeout)
        if view["status"] == "completed":
            return view.get("output")
        if view["status"] == "cancelled":
            raise TaskCancelled(self.id, view.get("cancelled") or "")
        failure: types.Failure = {"code": "unknown", "message": "the server does not say why"}
        raise TaskFailed(self.id, view.get("failure") or failure)

    def attempts(self) -> types.Attempts:
        """Its attempts: those that ended, and who holds it."""
        path = _wire.path("tasks", self.id, "attempts")
        return cast(types.Attempts, self._client._call("GET", path))

    def cancel(self, reason: str = "") -> None:
        """Cancels it; a worker that has it is told."""
        path = _wire.path("tasks", self.id, "cancel")
        self._client._call("POST", path, {"reason": reason})

    def redrive(self) -> None:
        """Puts a failed or cancelled task back into its queue. Needs an operator's key."""
        path = _wire.path("tasks", self.id, "redrive")
        self._client._call("POST", path, repeats=False)

    def reassign(self, *, worker: Optional[str] = None, prefer: Optional[str] = None) -> None:
        """Gives it to another worker, or to whoever can. Needs an operator's key."""
        to: types.Address = "any"
        if worker is not None:
            to = {"only": worker}
        elif prefer is not None:
            to = {"prefer": prefer}
        path = _wire.path("tasks", self.id, "reassign")
        self._client._call("POST", path, {"to": to}, repeats=False)


class RunHandle:
    """One run on the server, by its id."""

    def __init__(self, client: Chargehand, id: str) -> None:
        self._client = client
        self.id = id
        """Its id, `run_…`."""

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def get(self) -> types.RunView:
        """The run as it is now."""
        return cast(types.RunView, self._client._call("GET", _wire.path("runs", self.id)))

    def ended(self, timeout: Optional[Duration] = None) -> types.RunView:
        """The run, as soon as it has ended, however it did.

        Raises `WaitTimedOut` when it has not within `timeout`.
        """
        view = self._client._when_ended(_wire.path("runs", self.id), timeout)
        return cast(types.RunView, view)

    def wait(self, timeout: Optional[Duration] = None) -> types.Json:
        """The run's result, as soon as there is one.

        Raises `RunFailed` with what there is of the result, `RunCancelled`, and `WaitTimedOut` when it
        has not ended within `timeout`.
        """
        view = self.ended(timeout)
        if view["status"] == "completed":
            return view.get("final_result")
        if view["status"] == "cancelled":
            raise RunCancelled(self.id, view.get("cancelled") or "")
        failure: types.Failure = {"code": "unknown", "message": "the server does not say why"}
        raise RunFailed(self.id, view.get("failure") or failure, view.get("final_result"))

    def cancel(self, reason: str = "") -> None:
        """Stops it and its open tasks."""
        self._client._call("POST", _wire.path("runs", self.id, "cancel"), {"reason": reason})

    def retry(self) -> None:
        """Lets a failed or cancelled run go on with what failed. Needs an operator's key."""
        self._client._call("POST", _wire.path("runs", self.id, "retry"), repeats=False)

    def settle(self, step: str, output: types.Json) -> None:
        """Gives the supervisor's reduction of a gate that awaits it."""
        path = _wire.path("runs", self.id, "steps", step, "settle")
        self._client._call("POST", path, {"output": output}, repeats=False)

    def events(
        self, after: Optional[int] = None, *, types: Union[str, Iterable[str], None] = None
    ) -> Iterator[Event]:
        """Its events as they come, like `events` of the client."""
        for event in self._client.events(after, types=types, run=self.id):
            yield event


class Blackboard:
    """What agents know together: entries on a run's board, or on the shared one."""

    def __init__(self, client: Chargehand) -> None:
        self._client = client

    def write(
        self,
        content: types.Json,
        *,
        author: str,
        run: Optional[str] = None,
        tags: Sequence[str] = (),
        segment: Optional[str] = None,
        importance: Optional[float] = None,
        ttl: Optional[Duration] = None,
        metadata: Optional[Mapping[str, str]] = None,
        provenance: Optional[types.Provenance] = None,
        idempotency_key: Optional[str] = None,
    ) -> str:
        """Writes an entry and returns its id. `importance` is 0 to 1; it is forgotten after `ttl`."""
        new = _wire.entry(
            content, author, run, tags, segment, importance, ttl, metadata, provenance
        )
        made = self._client._create(_wire.path("entries"), new, idempotency_key)
        return str(made["entry_id"])

    def list(
        self,
        *,
        run: Optional[str] = None,
        tags_all: Sequence[str] = (),
        tags_any: Sequence[str] = (),
        segment: Optional[str] = None,
        author: Optional[str] = None,
        exclude_own: Optional[str] = None,
        importance_min: Optional[float] = None,
        age_max: Optional[Duration] = None,
        limit: Optional[int] = None,
    ) -> List[types.Entry]:
        """Entries that meet every condition, the most important first; at most 1,000."""
        conditions = {
            "run": run,
            "tags_all": list(tags_all) or None,
            "tags_any": list(tags_any) or None,
            "segment": segment,
            "author": author,
            "exclude_own": exclude_own,
            "importance_min": importance_min,
            "age_max_ms": None if age_max is None else _wire.milliseconds(age_max),
            "limit": limit,
        }
        path = _wire.path("entries", "search")
        found = self._client._call("POST", path, _wire.asked(conditions))
        return cast("List[types.Entry]", found["items"])

    def claim(self, entry: str, by: Optional[str], *, expected: Optional[str] = None) -> None:
        """Makes `by` the entry's holder if `expected` is it now (nobody, when nothing is said).

        Raises `Conflict` with code `entry.claimed` when somebody else holds it.
        """
        path = _wire.path("entries", entry, "claim")
        body = _wire.asked({"by": by, "expected": expected})
        try:
            self._client._call("POST", path, body, repeats=False)
            return
        except Unavailable:
            # The answer was lost. Asking again finds out whether it was done: then it is `by` who holds
            # it.
            pass
        try:
            self._client._call("POST", path, body)
        except Conflict:
            if by is None or by == expected:
                raise
            self._client._call("POST", path, {"by": by, "expected": by})

    def statistics(self, run: Optional[str] = None) -> types.BoardStatistics:
        """What stands on a board."""
        path = _wire.path("entries", "statistics")
        found = self._client._call("GET", path, params={"run": run})
        return cast(types.BoardStatistics, found)


class Messages:
    """Messages between agents."""

    def __init__(self, client: Chargehand) -> None:
        self._client = client

    def send(
        self,
        sender: str,
        to: Union[str, types.To],
        kind: str,
        payload: types.Json = None,
        *,
        correlation: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
        ttl: Optional[Duration] = None,
        idempotency_key: Optional[str] = None,
    ) -> str:
        """Sends a message and returns its id. `to` is an agent's id, `"type"` (whoever subscribed to
        `kind`), `"everybody"`, or `{"prefix": "…"}`."""
        new = _wire.message(sender, to, kind, payload, correlation, headers, ttl)
        made = self._client._create(_wire.path("messages"), new, idempotency_key)
        return str(made["message_id"])

    def request(
        self,
        sender: str,
        to: Union[str, types.To],
        kind: str,
        payload: types.Json = None,
        *,
        timeout: Duration = 30.0,
        headers: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str] = None,
    ) -> types.Delivered:
        """Sends a message and waits for its answer: the message whose correlation is its id.

        Raises `WaitTimedOut` when there is none within `timeout`; a late one stays in the sender's
        inbox.
        """
        new = _wire.message(sender, to, kind, payload, None, headers, None)
        new["key"] = _wire.once(idempotency_key)
        body = {"message": new, "wait_ms": _wire.milliseconds(timeout)}
        path = _wire.path("messages", "request")
        wait = body["wait_ms"] / 1000  # type: ignore[operator]
        answer = self._client._call("POST", path, body, wait=wait)
        return cast(types.Delivered, answer)

    def receive(
        self, agent: str, *, limit: int = 100, timeout: Duration = 0
    ) -> List[types.Delivered]:
        """Messages that `agent` has not settled; waits up to `timeout` for the first. Each is to be
        settled within a minute, or comes again."""
        until = monotonic() + _wire.milliseconds(timeout) / 1000
        path = _wire.path("inboxes", agent, "receive")
        while True:
            wait = min(_wire.WAIT_S, max(0.0, until - monotonic()))
            body = {"max": limit, "wait_ms": round(wait * 1000)}
            found = self._client._call("POST", path, body, wait=wait)
            if found["messages"] or monotonic() >= until:
                return cast("List[types.Delivered]", found["messages"])

    def settle(self, message: str, agent: str, *, failure: Optional[str] = None) -> None:
        """Says that `agent` dealt with a message, or why it failed (then it is offered again)."""
        body = _wire.asked({"agent": agent, "failure": failure})
        path = _wire.path("messages", message, "settle")
        self._client._call("POST", path, body, repeats=failure is None)

    def get(self, message: str) -> types.Message:
        """A message, with how each recipient's part stands."""
        return cast(types.Message, self._client._call("GET", _wire.path("messages", message)))

    def subscribe(self, agent: str, kinds: Sequence[str] = ()) -> None:
        """Subscribes `agent` to messages for itself, for everybody, and of these types; for as long as
        the server runs."""
        self._client._call("PUT", _wire.path("inboxes", agent), {"kinds": list(kinds)})

    def unsubscribe(self, agent: str) -> None:
        """Ends that; what is still open for the agent stays until it expires."""
        self._client._call("DELETE", _wire.path("inboxes", agent))


class Pools:
    """Workers managed together."""

    def __init__(self, client: Chargehand) -> None:
        self._client = client

    def list(self) -> List[types.Pool]:
        """All pools."""
        found = self._client._call("GET", _wire.path("pools"))
        return cast("List[types.Pool]", found["items"])

    def get(self, pool: str) -> types.Pool:
        """One pool, with its version."""
        return cast(types.Pool, self._client._call("GET", _wire.path("pools", pool)))

    def define(
        self,
        pool: str,
        *,
        strategy: types.Strategy = "least_loaded",
        members: Sequence[str] = (),
        expected: Optional[int] = None,
    ) -> types.Pool:
        """Defines a pool, or changes its strategy; members it has stay. With `expected`, only when that
        is its version now (0: it does not exist yet); `Conflict` otherwise. Needs an operator's key."""
        headers: Dict[str, str] = {}
        if expected == 0:
            headers["If-None-Match"] = "*"
        elif expected is not None:
            headers["If-Match"] = f'"{expected}"'
        body = {"strategy": strategy, "members": list(members)}
        made = self._client._call(
            "PUT", _wire.path("pools", pool), body, headers=headers, repeats=expected is None
        )
        return cast(types.Pool, made)

    def join(self, pool: str, worker: str) -> None:
        """Adds a registered worker. Needs an operator's key."""
        path = _wire.path("pools", pool, "workers", worker)
        self._client._call("PUT", path, repeats=False)

    def leave(self, pool: str, worker: str) -> None:
        """Removes a worker, and drains it. Needs an operator's key."""
        path = _wire.path("pools", pool, "workers", worker)
        self._client._call("DELETE", path, repeats=False)

    def statistics(self, pool: str) -> types.PoolStatistics:
        """A pool's statistics."""
        found = self._client._call("GET", _wire.path("pools", pool, "statistics"))
        return cast(types.PoolStatistics, found)

    def reserve(
        self, pool: str, holder: str, *, keep: Duration = 60.0, capability: Optional[str] = None
    ) -> str:
        """Keeps room for `holder` at the least loaded fitting member and returns its id; the same
        holder again gets the same room. Needs an operator's key."""
        body = {"holder": holder, "keep_ms": _wire.milliseconds(keep), "capability": capability}
        path = _wire.path("pools", pool, "reservations")
        kept = self._client._call("POST", path, _wire.asked(body))
        return str(kept["worker_id"])

    def unreserve(self, worker: str, holder: str) -> None:
        """Gives the room back. Needs an operator's key."""
        path = _wire.path("workers", worker, "reservations", holder)
        self._client._call("DELETE", path)


class Keys:
    """Who may do what. Needs an admin's key, once there is one."""

    def __init__(self, client: Chargehand) -> None:
        self._client = client

    def create(
        self, label: str, scopes: Sequence[types.Scope], *, ttl: Optional[Duration] = None
    ) -> types.Minted:
        """Makes a key. It is in the answer and nowhere else: keep it now."""
        body = {
            "label": label,
            "scopes": list(scopes),
            "ttl_ms": None if ttl is None else _wire.milliseconds(ttl),
        }
        # The secret is in one answer only, so that a second one would be another key.
        made = self._client._call(
            "POST", _wire.path("keys"), _wire.asked(body), repeats=False
        )
        return cast(types.Minted, made)

    def list(self) -> List[types.CredentialView]:
        """All keys, revoked ones included, without their secrets."""
        found = self._client._call("GET", _wire.path("keys"))
        return cast("List[types.CredentialView]", found["items"])

    def revoke(self, id: str) -> None:
        """Ends a key for good."""
        self._client._call("DELETE", _wire.path("keys", id))


class Chargehand:
    """A Chargehand server.

    `url` is `CHARGEHAND_SERVER` or `http://127.0.0.1:7420` when nothing is said, `key` is
    `CHARGEHAND_KEY`. `timeout` is how many seconds an answer may take beyond what was asked to wait
    for; `retries` is how often a request is sent again when the server cannot be reached or refuses it
    for now, with growing pauses (together about 20 s).
    """

    def __init__(
        self,
        url: Optional[str] = None,
        key: Optional[str] = None,
        *,
        timeout: float = 15.0,
        retries: int = 8,
        verify: Union[ssl.SSLContext, str, bool] = True,
    ) -> None:
        self.url = _wire.address(url)
        """Where the server is."""
        self._timeout = timeout
        self._retries = retries
        self._http = httpx.Client(
            base_url=self.url,
            auth=_wire.auth(key),
            verify=verify,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers={"User-Agent": "chargehand-python"},
        )
        self.blackboard = Blackboard(self)
        """What agents know together."""
        self.messages = Messages(self)
        """Messages between agents."""
        self.pools = Pools(self)
        """Workers managed together."""
        self.keys = Keys(self)
        """Who may do what."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __enter__(self) -> Chargehand:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    # --- tasks ---------------------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        input: types.Json = None,
        *,
        priority: Union[int, str, None] = None,
        timeout: Optional[Duration] = None,
        retry: Union[Retry, int, None] = None,
        queue: Optional[str] = None,
        capability: Optional[str] = None,
        after: Sequence[Union[str, TaskHandle]] = (),
        concurrency_key: Union[str, Tuple[str, int], None] = None,
        metadata: Optional[Mapping[str, str]] = None,
        not_before: Any = None,
        worker: Optional[str] = None,
        prefer: Optional[str] = None,
        id: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> TaskHandle:
        """Submits a task; when this returns it is on the server's disk.

        `priority` is a number or `batch`, `low`, `normal`, `high`, `critical`. `timeout` is how long an
        attempt may take (10 minutes when nothing is said). `retry` is a `Retry`, or attempts in all.
        `after` are tasks that must have completed first. Of tasks with the same `concurrency_key` one
        runs at once, or as many as a pair such as `("customer-7", 4)` says. `worker` alone may take it;
        `prefer` takes it while it has room. The same `idempotency_key` (within a day) or `id` with the
        same content is the same task.
        """
        new = NewTask(
            kind,
            input,
            priority,
            timeout,
            retry,
            queue,
            capability,
            after,
            concurrency_key,
            metadata or {},
            not_before,
            worker,
            prefer,
        )
        if id is not None:
            if idempotency_key is not None:
                raise ValueError("give `id` or `idempotency_key`: each makes it safe to send again")
            made = self._call(
                "PUT", _wire.path("tasks", id), new.spec(), headers=_trace(traceparent)
            )
        else:
            made = self._create(
                _wire.path("tasks"), new.spec(), idempotency_key, _trace(traceparent)
            )
        return TaskHandle(self, made["task_id"])

    def submit_many(
        self,
        tasks: Iterable[NewTask],
        *,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> List[TaskHandle]:
        """Submits many tasks, up to 10,000 in one transaction, and returns their handles in order.

        Raises `SomeRefused` when some were refused; the others are accepted all the same.
        """
        key = _wire.once(idempotency_key)
        results: List[Union[TaskHandle, ChargehandError]] = []
        waiting = [task.submission() for task in tasks]
        for start in range(0, len(waiting), _wire.BATCH_MAX):
            body = {"tasks": waiting[start : start + _wire.BATCH_MAX]}
            part = key if start == 0 else f"{key}+{start}"
            path = _wire.path("tasks", "batch")
            answer = self._create(path, body, part, _trace(traceparent))
            for result in answer["results"]:
                if result.get("task_id"):
                    results.append(TaskHandle(self, result["task_id"]))
                else:
                    results.append(of_problem(result.get("problem") or {}))
        handles = [result for result in results if isinstance(result, TaskHandle)]
        if len(handles) < len(results):
            raise SomeRefused(results)
        return handles

    def task(self, id: str) -> TaskHandle:
        """A task by its id; nothing is asked of the server yet."""
        return TaskHandle(self, id)

    def tasks(
        self,
        *,
        run: Optional[str] = None,
        status: Optional[types.TaskStatus] = None,
        kind: Optional[str] = None,
        worker: Optional[str] = None,
        page_size: int = 100,
    ) -> Iterator[types.TaskView]:
        """Tasks, oldest first, read page by page as they are wanted."""
        conditions = {"run": run, "status": status, "kind": kind, "worker": worker}
        for task in self._pages(_wire.path("tasks"), conditions, page_size):
            yield cast(types.TaskView, task)

    def cancel(self, task: Union[str, TaskHandle], reason: str = "") -> None:
        """Cancels a task; a worker that has it is told."""
        self.task(_wire.task_id(task)).cancel(reason)

    # --- runs ----------------------------------------------------------------------------------

    def start_run(
        self,
        goal: str,
        plan: Union[types.Graph, Sequence[types.Step]],
        *,
        supervisor: str = "python",
        crew: Optional[types.Crew] = None,
        metadata: Optional[Mapping[str, types.Json]] = None,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> RunHandle:
        """Starts a run of a plan: a graph, or its steps."""
        body: Dict[str, Any] = {"goal": goal, "supervisor": supervisor, "graph": _wire.graph(plan)}
        body.update(_wire.asked({"crew": crew, "metadata": dict(metadata) if metadata else None}))
        made = self._create(
            _wire.path("runs"), body, idempotency_key, _trace(traceparent)
        )
        return RunHandle(self, made["run_id"])

    def run(self, id: str) -> RunHandle:
        """A run by its id; nothing is asked of the server yet."""
        return RunHandle(self, id)

    def runs(
        self, *, status: Optional[types.RunStatus] = None, page_size: int = 100
    ) -> Iterator[types.RunView]:
        """Runs, newest first, read page by page as they are wanted."""
        for run in self._pages(_wire.path("runs"), {"status": status}, page_size):
            yield cast(types.RunView, run)

    # --- events --------------------------------------------------------------------------------

    def events(
        self,
        after: Optional[int] = None,
        *,
        types: Union[str, Iterable[str], None] = None,
        run: Optional[str] = None,
        patience: Optional[Duration] = None,
    ) -> Iterator[Event]:
        """The log as it grows, from its beginning or after a position, without an end.

        When the connection breaks or the server restarts, it goes on after the last event that came,
        without a gap and without a repeat. `types` are such as `task.completed` or `task.*`. Without
        `patience` it waits for a server that is away for as long as it takes; with it, it raises after so
        long without an answer. To hear only what is new, give `position()` as `after`.
        """
        path = _wire.path("events") if run is None else _wire.path("runs", run, "events")
        params = _wire.asked({"type": _wire.filtered(types)})
        position, heard, failures = after or 0, monotonic(), 0
        give_up = None if patience is None else _wire.milliseconds(patience) / 1000
        limits = httpx.Timeout(self._timeout, read=_wire.STREAM_SILENCE_S)
        while True:
            reader = Reader()
            broken: ChargehandError
            wanted: Optional[float] = None
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(position)}
            try:
                with self._http.stream(
                    "GET", path, params=params, headers=headers, timeout=limits
                ) as response:
                    if response.status_code != 200:
                        response.read()
                        wanted = _wire.retry_after(response)
                        raise _wire.refusal(response)
                    for piece in response.iter_bytes():
                        heard, failures = monotonic(), 0
                        for frame in reader.feed(piece):
                            if frame.data and frame.id is not None:
                                event = _wire.event(frame.data)
                                if event.position > position:
                                    position = event.position
                                    yield event
                            elif frame.id is not None and frame.id.isdigit():
                                # Everything up to here was looked at, and did not pass the filter.
                                position = max(position, int(frame.id))
                broken = _wire.unreachable(ConnectionError("the stream ended"))
            except httpx.TransportError as fault:
                broken = _wire.unreachable(fault)
            except ChargehandError as refused:
                if not refused.retryable:
                    raise
                broken = refused
            failures += 1
            if give_up is not None and monotonic() - heard > give_up:
                raise broken
            if wanted is None and reader.retry_ms is not None:
                wanted = reader.retry_ms / 1000
            time.sleep(_wire.pause(failures, wanted))

    def position(self) -> int:
        """The position of the last event."""
        found = self._call("GET", _wire.path("events", "head"))
        return int(found["position"])

    # --- the crew ------------------------------------------------------------------------------

    def workers(
        self,
        *,
        agent_type: Optional[str] = None,
        capability: Optional[str] = None,
        status: Optional[types.WorkerStatus] = None,
        page_size: int = 100,
    ) -> Iterator[types.WorkerView]:
        """Workers by id, read page by page as they are wanted."""
        conditions = {"type": agent_type, "capability": capability, "status": status}
        for worker in self._pages(_wire.path("workers"), conditions, page_size):
            yield cast(types.WorkerView, worker)

    def worker(self, id: str) -> types.WorkerView:
        """A worker."""
        return cast(types.WorkerView, self._call("GET", _wire.path("workers", id)))

    def set_worker_status(
        self, id: str, status: types.WorkerStatus, reason: str = ""
    ) -> None:
        """Makes a worker `available`, `draining`, `error` or `unavailable`. Needs an operator's key."""
        path = _wire.path("workers", id, "status")
        self._call("PUT", path, {"status": status, "reason": reason})

    def queues(self) -> List[types.QueueView]:
        """The queues."""
        found = self._call("GET", _wire.path("queues"))
        return cast("List[types.QueueView]", found["items"])

    def pause_queue(self, queue: str) -> None:
        """Stops giving out a queue's tasks. Needs an operator's key."""
        self._call("POST", _wire.path("queues", queue, "pause"))

    def resume_queue(self, queue: str) -> None:
        """Gives them out again. Needs an operator's key."""
        self._call("POST", _wire.path("queues", queue, "resume"))

    def statistics(self) -> types.Statistics:
        """The statistics, a consistent snapshot."""
        return cast(types.Statistics, self._call("GET", _wire.path("statistics")))

    # --- the transport -------------------------------------------------------------------------

    def _create(
        self,
        path: str,
        body: Any,
        key: Optional[str],
        headers: Optional[Mapping[str, str]] = None,
    ) -> Any:
        headers = {**(headers or {}), "Idempotency-Key": _wire.once(key)}
        return self._call("POST", path, body, headers=headers)

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
        repeats: bool = True,
        wait: float = 0.0,
        retries: Optional[int] = None,
    ) -> Any:
        """Sends a request until there is an answer, or no hope for one. `repeats`: the server recognizes
        it, or it changes nothing when it is done twice. `wait`: seconds that the server was asked to
        wait before it answers."""
        content = None if body is None else _wire.encode(body)
        headers = dict(headers or {})
        if content is not None:
            headers["Content-Type"] = "application/json"
        limits = httpx.Timeout(self._timeout, read=self._timeout + wait)
        retries = self._retries if retries is None else retries
        attempt = 0
        while True:
            attempt += 1
            wanted: Optional[float] = None
            try:
                response = self._http.request(
                    method,
                    path,
                    params=_wire.asked(params or {}),
                    content=content,
                    headers=headers,
                    timeout=limits,
                )
            except httpx.TransportError as fault:
                error: ChargehandError = _wire.unreachable(fault)
                again = repeats or _wire.never_sent(fault)
            else:
                if response.is_success:
                    return _wire.decode(response)
                error = _wire.refusal(response)
                again = _wire.may_repeat(error, repeats)
                wanted = _wire.retry_after(response)
            if not again or attempt > retries:
                raise error
            time.sleep(_wire.pause(attempt, wanted))

    def _pages(
        self, path: str, params: Mapping[str, Any], page_size: int
    ) -> Iterator[Any]:
        after: Optional[str] = None
        while True:
            page = self._call(
                "GET", path, params={**params, "limit": page_size, "after": after}
            )
            for item in page["items"]:
                yield item
            after = page.get("next")
            if after is None:
                return

    def _when_ended(self, path: str, timeout: Optional[Duration]) -> Any:
        """What is at `path` as soon as it has ended, asked for again and again."""
        left = None if timeout is None else _wire.milliseconds(timeout) / 1000
        until = None if left is None else monotonic() + left
        while True:
            wait = _wire.WAIT_S if until is None else min(_wire.WAIT_S, until - monotonic())
            wait = max(0.0, wait)
            try:
                params = {"wait_ms": round(wait * 1000)}
                return self._call("GET", path, params=params, wait=wait)
            except WaitTimedOut:
                if until is not None and monotonic() >= until:
                    raise


def _trace(traceparent: Optional[str]) -> Dict[str, str]:
    return {} if traceparent is None else {"traceparent": traceparent}
