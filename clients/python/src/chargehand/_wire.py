"""What both clients share and no client waits for: what a request is made of, what an answer means, and
how long to wait before it is tried again. No IO, no clock, so that it is written once.
"""

from __future__ import annotations

import json
import os
import random
import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Generator, Iterable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import quote, urlsplit

import httpx

from . import types
from .errors import ChargehandError, ServerStrange, ServerUnreachable, Unavailable, of_problem

DEFAULT_URL = "http://127.0.0.1:7420"
BATCH_MAX = 10_000
"""Tasks in one request at most; longer lists go in several."""
WAIT_S = 20.0
"""Seconds that one request waits at most; a longer wait is several requests."""
STREAM_SILENCE_S = 45.0
"""Seconds without a byte after which a stream counts as broken: the server shows life every 15."""
PAUSE_S = (0.1, 5.0)
"""Shortest and longest pause before a request is tried again, in seconds."""
RETRY_AFTER_S_MAX = 60.0
"""A server that asks for a longer pause than so many seconds gets this one."""

_BANDS = {"batch": -20, "low": -10, "normal": 0, "high": 10, "critical": 20}

Duration = Union[float, int, timedelta]
"""Seconds, or a `timedelta`."""


class KeyAuth(httpx.Auth):
    """Shows the key to the server and to nobody else: not to a log, not in a `repr`."""

    def __init__(self, key: Optional[str]) -> None:
        self.__key = key

    def auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        if self.__key:
            request.headers["Authorization"] = f"Bearer {self.__key}"
        yield request

    def __repr__(self) -> str:
        return "KeyAuth(…)"

    def __reduce__(self) -> Any:
        raise TypeError("a key is not written anywhere")


def address(url: Optional[str]) -> str:
    """The server's address: the one given, the environment's, or the default."""
    url = url or os.environ.get("CHARGEHAND_SERVER") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the server's address is like http://127.0.0.1:7420")
    if parts.username or parts.password:
        raise ValueError("the server's address has no user in it; give the key as `key`")
    return url.rstrip("/")


def auth(key: Optional[str]) -> KeyAuth:
    """The key: the one given, or the environment's."""
    key = (key or os.environ.get("CHARGEHAND_KEY") or "").strip()
    if not key.isascii() or any(letter.isspace() for letter in key):
        raise ValueError("this is not a key")
    return KeyAuth(key or None)


def path(*parts: str) -> str:
    """A path of parts that may have any characters in them."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def encode(body: Any) -> bytes:
    """JSON as the server reads it: no NaN, no half characters."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def asked(params: Mapping[str, Any]) -> Dict[str, Any]:
    """A query without what was not asked for."""
    return {name: value for name, value in params.items() if value is not None}


def milliseconds(duration: Duration) -> int:
    """
    >>> milliseconds(1.5), milliseconds(timedelta(minutes=1))
    (1500, 60000)
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return max(0, round(seconds * 1000))


def once(key: Optional[str]) -> str:
    """An idempotency key: the caller's, or a fresh one."""
    return key or uuid.uuid4().hex


def pause(attempt: int, retry_after: Optional[float] = None) -> float:
    """Seconds before try number `attempt + 1`: doubling, half of it chance, and never before the server
    wants to be asked again."""
    low, high = PAUSE_S
    full = min(high, low * 2.0 ** min(attempt - 1, 16))
    jittered = full / 2 + random.random() * full / 2
    if retry_after is None:
        return jittered
    return min(retry_after, RETRY_AFTER_S_MAX) + random.random() * full / 2


def retry_after(response: httpx.Response) -> Optional[float]:
    """The header of this name, where it is a number of seconds (Chargehand sends no dates, and a date
    would need the server's clock)."""
    text = response.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else None


def unreachable(fault: Exception) -> ServerUnreachable:
    """The exception for a request without an answer."""
    what = str(fault) or type(fault).__name__
    return ServerUnreachable(
        "server.unreachable",
        f"no answer: {what}",
        hint="Check that `chargehand serve` runs, and the address.",
        retryable=True,
    )


def refusal(response: httpx.Response) -> ChargehandError:
    """The exception for an answer that is not a success; its body has been read."""
    request_id = response.headers.get("x-request-id")
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("code"), str):
        return of_problem({**body, "status": response.status_code}, request_id)
    status, text = response.status_code, f"the answer is {response.status_code} without a problem"
    if status in (429, 502, 503, 504):
        # What stands in front of a server says this while there is none behind it.
        return Unavailable(
            "server.unreachable", text, retryable=True, request_id=request_id, status=status
        )
    return strange(text, request_id, status)


def strange(
    text: str, request_id: Optional[str] = None, status: Optional[int] = None
) -> ServerStrange:
    """The exception for an answer that makes no sense."""
    hint = "Check that the address is a Chargehand server's, and that both are of versions that fit."
    return ServerStrange(
        "server.strange", text, hint=hint, request_id=request_id, status=status
    )


def decode(response: httpx.Response) -> Any:
    """The JSON of an answer, or nothing where there is none."""
    if response.status_code == 204 or not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise strange("the answer is not JSON", response.headers.get("x-request-id")) from None


def never_sent(fault: httpx.TransportError) -> bool:
    """Whether the request certainly did not reach the server."""
    return isinstance(fault, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def may_repeat(error: ChargehandError, repeats: bool) -> bool:
    """Whether a request that was refused like this may be sent again by itself. A gateway's 502 and 504
    do not say whether the server did it."""
    if not error.retryable:
        return False
    return error.status in (429, 503) or (repeats and error.status in (502, 504))


@dataclass(frozen=True)
class Retry:
    """When a failed task is tried again. Durations in seconds.

    >>> Retry(attempts=5, backoff=0.5).policy()["backoff_ms"]
    500
    """

    attempts: int = 3
    """Attempts in all, the first included; 1 means no retry."""
    backoff: Duration = 1.0
    """Before the second attempt."""
    factor: float = 2.0
    """Each wait is so many times the one before."""
    backoff_max: Duration = 60.0
    """No wait is longer."""

    def policy(self) -> types.RetryPolicy:
        """As it goes over the wire."""
        return {
            "attempts": self.attempts,
            "backoff_ms": milliseconds(self.backoff),
            "factor_percent": round(self.factor * 100),
            "backoff_max_ms": milliseconds(self.backoff_max),
        }


def task_id(task: Any) -> str:
    """The id of a task: itself, or of a handle."""
    return task if isinstance(task, str) else str(task.id)


@dataclass(frozen=True)
class NewTask:
    """A task to be, for `submit_many`; the fields are the arguments of `submit`.

    >>> NewTask("summarize", {"n": 1}, priority="high").spec()
    {'kind': 'summarize', 'input': {'n': 1}, 'priority': 10}
    """

    kind: str
    input: types.Json = None
    priority: Union[int, str, None] = None
    timeout: Optional[Duration] = None
    retry: Union[Retry, int, None] = None
    queue: Optional[str] = None
    capability: Optional[str] = None
    after: Sequence[Any] = ()
    concurrency_key: Union[str, Tuple[str, int], None] = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    not_before: Optional[datetime] = None
    worker: Optional[str] = None
    prefer: Optional[str] = None
    id: Optional[str] = None
    idempotency_key: Optional[str] = None

    def spec(self) -> types.TaskSpec:
        """As it goes over the wire, without what is as by default."""
        spec: types.TaskSpec = {"kind": self.kind, "input": self.input}
        if self.priority is not None:
            spec["priority"] = _priority(self.priority)
        if self.timeout is not None:
            spec["timeout_ms"] = milliseconds(self.timeout)
        if self.retry is not None:
            retry = Retry(attempts=self.retry) if isinstance(self.retry, int) else self.retry
            spec["retry"] = retry.policy()
        if self.queue is not None:
            spec["queue"] = self.queue
        if self.capability is not None:
            spec["capability"] = self.capability
        if self.after:
            spec["after"] = [task_id(task) for task in self.after]
        if self.concurrency_key is not None:
            at_once = 1
            key = self.concurrency_key
            if not isinstance(key, str):
                key, at_once = key
            spec["slot"] = {"key": key, "max": at_once}
        if self.metadata:
            spec["metadata"] = dict(self.metadata)
        if self.not_before is not None:
            if self.not_before.tzinfo is None:
                raise ValueError("`not_before` needs a time zone")
            since = self.not_before - datetime(1970, 1, 1, tzinfo=timezone.utc)
            spec["not_before"] = milliseconds(since)
        if self.worker is not None and self.prefer is not None:
            raise ValueError("give `worker` or `prefer`, not both")
        if self.worker is not None:
            spec["address"] = {"only": self.worker}
        elif self.prefer is not None:
            spec["address"] = {"prefer": self.prefer}
        return spec

    def submission(self) -> types.Submission:
        """As one of many."""
        new: types.Submission = {"spec": self.spec()}
        if self.id is not None:
            new["id"] = self.id
        if self.idempotency_key is not None:
            new["key"] = self.idempotency_key
        return new


def _priority(priority: Union[int, str]) -> int:
    if isinstance(priority, int):
        return priority
    if priority not in _BANDS:
        raise ValueError(f"use a whole number or one of {', '.join(_BANDS)}")
    return _BANDS[priority]


@dataclass(frozen=True)
class Event:
    """One event of the log."""

    position: int
    """1, 2, 3, … without a gap."""
    type: str
    """Such as `task.completed`; `chargehand.types.EVENT_TYPES` has them all."""
    data: Dict[str, Any]
    """What it says; the type of this is `Event…` in `chargehand.types`."""
    at: int
    """When it was decided, by the server's clock, in milliseconds since 1970."""
    by: Optional[str] = None
    """The label of the key it was asked with."""
    cause: Optional[str] = None
    """The request that caused it."""


def event(text: str) -> Event:
    """An event as it comes in a stream."""
    try:
        recorded = json.loads(text)
        ((kind, data),) = recorded["event"].items()
        return Event(
            recorded["position"],
            kind,
            data,
            recorded["at"],
            recorded.get("by"),
            recorded.get("cause"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise strange("a frame of the stream is not an event") from None


def filtered(kinds: Union[str, Iterable[str], None]) -> Optional[str]:
    """Types of events as a query has them."""
    if kinds is None or isinstance(kinds, str):
        return kinds
    return ",".join(kinds)


def entry(
    content: types.Json,
    author: str,
    run: Optional[str],
    tags: Sequence[str],
    segment: Optional[str],
    importance: Optional[float],
    ttl: Optional[Duration],
    metadata: Optional[Mapping[str, str]],
    provenance: Optional[types.Provenance],
) -> types.NewEntry:
    """A blackboard entry as it goes over the wire."""
    new: types.NewEntry = {"author": author, "content": content}
    if run is not None:
        new["run"] = run
    if tags:
        new["tags"] = list(tags)
    if segment is not None:
        new["segment"] = segment
    if importance is not None:
        new["importance"] = importance
    if ttl is not None:
        new["ttl_ms"] = milliseconds(ttl)
    if metadata:
        new["metadata"] = dict(metadata)
    if provenance is not None:
        new["provenance"] = provenance
    return new


def message(
    sender: str,
    to: Union[str, types.To],
    kind: str,
    payload: types.Json,
    correlation: Optional[str],
    headers: Optional[Mapping[str, str]],
    ttl: Optional[Duration],
) -> types.NewMessage:
    """A message as it goes over the wire; a plain text as `to` is an agent's id."""
    new: types.NewMessage = {
        "from": sender,
        "to": {"agent": to} if isinstance(to, str) and to not in ("type", "everybody") else to,  # type: ignore[typeddict-item]
        "kind": kind,
        "payload": payload,
    }
    if correlation is not None:
        new["correlation"] = correlation
    if headers:
        new["headers"] = dict(headers)
    if ttl is not None:
        new["ttl_ms"] = milliseconds(ttl)
    return new


def graph(plan: Union[types.Graph, Sequence[types.Step]]) -> types.Graph:
    """A plan: a graph, or its steps."""
    if isinstance(plan, dict):
        return plan
    steps: List[types.Step] = list(plan)
    return {"steps": steps}
