"""What can go wrong, as exceptions.

The server says what went wrong with a stable code; the class of the exception is the family that the
code belongs to, so that a program catches what it can do something about. There is no class per code:
match on `code` for more.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Type

from . import types


class ChargehandError(Exception):
    """Something did not work.

    >>> error = ChargehandError("task.unknown", "there is no task task_1", hint="List tasks.")
    >>> str(error)
    'task.unknown: there is no task task_1 (List tasks.)'
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str = "",
        retryable: bool = False,
        request_id: Optional[str] = None,
        status: Optional[int] = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        """The stable code, such as `task.unknown`."""
        self.detail = detail
        """What happened this time."""
        self.hint = hint
        """What to do."""
        self.retryable = retryable
        """Whether the same request may succeed later without anybody changing it."""
        self.request_id = request_id
        """Names the request, as in the server's log and in the `cause` of its events."""
        self.status = status
        """The HTTP status, when there was an answer."""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code}: {self.detail}{hint}"

    def __reduce__(self) -> Any:
        # What is sent between processes keeps all it says.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: Type[ChargehandError], args: Any, said: Dict[str, Any]) -> ChargehandError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(said)
    return error


class InvalidRequest(ChargehandError):
    """The request is wrong; the same request will be refused again."""


class NotFound(ChargehandError):
    """There is nothing of this id or name."""


class Conflict(ChargehandError):
    """The request was right for a state that has changed: read again, then decide."""


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before, with another content."""


class AttemptStale(Conflict):
    """The attempt is over for the server: whatever comes of it is refused."""


class Superseded(Conflict):
    """Another process registered under this worker's id."""


class KeyRefused(ChargehandError):
    """The key is missing, wrong, revoked or expired."""


class ScopeMissing(ChargehandError):
    """The key is good, but not for this; `detail` names the scope that is needed."""


class WaitTimedOut(ChargehandError, TimeoutError):
    """What was waited for did not happen in time."""


class Limited(ChargehandError):
    """Too much at a time: a rate, a quota or the server's load."""


class Unavailable(ChargehandError):
    """The server cannot do it for now: it stops, or its disk does not let it."""


class ServerUnreachable(Unavailable, ConnectionError):
    """The server could not be reached, or broke off."""


class ServerStrange(ChargehandError):
    """The answer is not one of Chargehand's."""


class ServerFault(ChargehandError):
    """A defect of the server."""


class TaskFailed(ChargehandError):
    """The task is a dead letter: its last attempt failed and there will be no other by itself."""

    def __init__(self, task_id: str, failure: types.Failure) -> None:
        super().__init__(
            failure["code"], failure["message"], retryable=failure.get("retryable", True)
        )
        self.task_id = task_id
        """Which."""
        self.failure = failure
        """Why, as the worker told it."""


class TaskCancelled(ChargehandError):
    """The task was cancelled."""

    def __init__(self, task_id: str, reason: str) -> None:
        super().__init__("task.cancelled", reason or "it was cancelled")
        self.task_id = task_id
        """Which."""
        self.reason = reason
        """Why, as it was told."""


class RunFailed(ChargehandError):
    """The run failed; what there is of its result is in `partial`."""

    def __init__(self, run_id: str, failure: types.Failure, partial: types.Json) -> None:
        super().__init__(failure["code"], failure["message"], retryable=False)
        self.run_id = run_id
        """Which."""
        self.failure = failure
        """Why."""
        self.partial = partial
        """What there is of the result."""


class RunCancelled(ChargehandError):
    """The run was cancelled."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__("run.cancelled", reason or "it was cancelled")
        self.run_id = run_id
        """Which."""
        self.reason = reason
        """Why, as it was told."""


class SomeRefused(ChargehandError):
    """Of tasks that were submitted together, some were refused; the others are accepted."""

    def __init__(self, results: List[Any]) -> None:
        self.results = results
        """In the order they were sent: a handle, or the error."""
        refused = [result for result in results if isinstance(result, ChargehandError)]
        first = refused[0]
        super().__init__(
            first.code,
            f"{len(refused)} of {len(results)} tasks were refused, the first one because: {first.detail}",
            hint=first.hint,
            retryable=all(error.retryable for error in refused),
            request_id=first.request_id,
        )


_BY_CODE: Dict[str, Type[ChargehandError]] = {
    "attempt.stale": AttemptStale,
    "engine.overloaded": Limited,
    "idempotency.mismatch": IdempotencyMismatch,
    "internal": ServerFault,
    "key.refused": KeyRefused,
    "key.scope_missing": ScopeMissing,
    "quota.exceeded": Limited,
    "server.connections_full": Limited,
    "server.rate_limited": Limited,
    "server.streams": Limited,
    "server.unreachable": ServerUnreachable,
    "wait.timed_out": WaitTimedOut,
    "worker.superseded": Superseded,
}


def _family(code: str, status: Optional[int]) -> Type[ChargehandError]:
    """A code of a newer server belongs to the family that its status says."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 404:
        return NotFound
    if status in (409, 412):
        return Conflict
    if status == 401:
        return KeyRefused
    if status == 403:
        return ScopeMissing
    if status == 429:
        return Limited
    if status in (502, 503, 504, 507):
        return Unavailable
    if status is not None and status >= 500:
        return ServerFault
    return InvalidRequest


def of_problem(problem: Mapping[str, Any], request_id: Optional[str] = None) -> ChargehandError:
    """The exception that a problem body says."""
    status = problem.get("status")
    code = str(problem.get("code", "internal"))
    return _family(code, status)(
        code,
        str(problem.get("detail") or problem.get("title") or ""),
        hint=str(problem.get("hint", "")),
        retryable=bool(problem.get("retryable", False)),
        request_id=problem.get("instance") or request_id,
        status=status,
    )


__all__ = [
    "AttemptStale",
    "ChargehandError",
    "Conflict",
    "IdempotencyMismatch",
    "InvalidRequest",
    "KeyRefused",
    "Limited",
    "NotFound",
    "RunCancelled",
    "RunFailed",
    "ScopeMissing",
    "ServerFault",
    "ServerStrange",
    "ServerUnreachable",
    "SomeRefused",
    "Superseded",
    "TaskCancelled",
    "TaskFailed",
    "Unavailable",
    "WaitTimedOut",
]
