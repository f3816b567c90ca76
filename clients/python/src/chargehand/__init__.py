"""Chargehand for Python: submit tasks, work on them, watch them.

>>> from chargehand import Chargehand
>>> Chargehand("http://127.0.0.1:7420", key="secret")
<Chargehand http://127.0.0.1:7420>
"""

from . import errors, types
from ._async import AsyncChargehand, AsyncRunHandle, AsyncTaskHandle
from ._sync import Chargehand, RunHandle, TaskHandle
from ._wire import Event, NewTask, Retry
from .errors import (
    AttemptStale,
    ChargehandError,
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    KeyRefused,
    Limited,
    NotFound,
    RunCancelled,
    RunFailed,
    ScopeMissing,
    ServerFault,
    ServerStrange,
    ServerUnreachable,
    SomeRefused,
    Superseded,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    WaitTimedOut,
)
from .worker import AsyncContext, Cancelled, Context, PermanentError, TaskError, Worker

__version__ = "0.1.0"

__all__ = [
    "AsyncChargehand",
    "AsyncContext",
    "AsyncRunHandle",
    "AsyncTaskHandle",
    "AttemptStale",
    "Cancelled",
    "Chargehand",
    "ChargehandError",
    "Conflict",
    "Context",
    "Event",
    "IdempotencyMismatch",
    "InvalidRequest",
    "KeyRefused",
    "Limited",
    "NewTask",
    "NotFound",
    "PermanentError",
    "Retry",
    "RunCancelled",
    "RunFailed",
    "RunHandle",
    "ScopeMissing",
    "ServerFault",
    "ServerStrange",
    "ServerUnreachable",
    "SomeRefused",
    "Superseded",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskHandle",
    "Unavailable",
    "WaitTimedOut",
    "Worker",
    "errors",
    "types",
]
