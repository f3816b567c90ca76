"""What goes over the wire, as the server's OpenAPI document describes it.

Written by `generate.py`; do not edit. Fields that a class of its own calls required are
always there; all the others may be absent."""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union


class _AccountRequired(TypedDict):
    """What is always there."""

    budget: Budget
    """What may be spent."""

    since: Time
    """When it was opened; the clock of `wall_ms` runs from here."""


class Account(_AccountRequired, total=False):
    """A run's account: its row."""

    held: Amount
    """Reserved: spent already, perhaps, by a step of which nobody has heard again."""

    spent: Amount
    """Spent."""

    warned: bool
    """Its owner was told that it comes to its end."""


class AddressPrefer(TypedDict):
    """This one while it is there and has room, or within a bounded wait; then whoever can."""

    prefer: Name
    """This one while it is there and has room, or within a bounded wait; then whoever can."""


class AddressOnly(TypedDict):
    """This one alone."""

    only: Name
    """This one alone."""


Address = Union[Literal["any"], "AddressPrefer", "AddressOnly"]
"""Which worker may take a task."""


class Amount(TypedDict, total=False):
    """What something costs."""

    calls: int
    """Requests to models, and calls of tools."""

    tokens: int
    """Tokens, read and written."""

    usd_micros: int
    """Millionths of a US dollar."""


class _AssignmentRequired(TypedDict):
    """What is always there."""

    attempt: int
    """The fencing token: reports count only with it."""

    deadline: Time
    """When the attempt times out."""

    input: Json
    """The brief."""

    kind: Name
    """The task's type."""

    priority: Priority
    """What comes first."""

    task_id: TaskId
    """The task."""

    trace: TraceParent
    """Where this attempt stands in the distributed trace: a W3C `traceparent`."""


class Assignment(_AssignmentRequired, total=False):
    """A task given to a worker: all it needs to know."""

    checkpoint: Optional[Json]
    """What an earlier attempt handed back to go on from."""

    item: Optional[int]
    """The item."""

    metadata: Dict[str, str]
    """The submitter's."""

    records: List[Record]
    """What became of its steps in earlier attempts, the first page: what is done is reused."""

    records_next: Optional[str]
    """Where the next page of them begins, when there is more."""

    run_id: Optional[RunId]
    """The run, step and item, when it has them."""

    step: Optional[Name]
    """The step."""


AttemptEnd = Literal["failed", "timed_out", "lost", "cancelled"]
"""How an attempt ended without a result."""


class AttemptRef(TypedDict):
    """One attempt, as a report or an event names it: the number is the fencing token."""

    attempt: int
    """1, 2, 3, … for each lease of the task; only the newest is current."""

    task: TaskId
    """The task."""

    worker: Name
    """Who holds or held it."""


class AttemptReport(TypedDict):
    """What one worker says about one attempt."""

    report: Report
    """What."""

    worker: Name
    """Who."""


AttemptState = Literal[
    "leased",
    "running",
    "succeeded",
    "failed",
    "timed_out",
    "lost",
    "cancelled",
]
"""An attempt's state: `leased` and `running` while its task is leased, then how it ended."""


class _AttemptsRequired(TypedDict):
    """What is always there."""

    attempts: int
    """Leases given out so far."""

    ended: List[EndedAttempt]
    """Those that ended, oldest first; the newest 20."""

    status: TaskStatus
    """Where the task stands."""


class Attempts(_AttemptsRequired, total=False):
    """A task's attempts."""

    worker: Optional[Name]
    """Who holds the current one."""


class BoardStatistics(TypedDict):
    """What stands on a board."""

    by_author: Dict[str, int]
    """Of these, by author."""

    by_segment: Dict[str, int]
    """Of these, by segment."""

    entries: int
    """Entries that have not expired, those that tasks show of themselves included."""


class Budget(TypedDict, total=False):
    """What a run may spend; `None` is no bound."""

    calls: Optional[int]
    """Requests to models, and calls of tools."""

    tokens: Optional[int]
    """Tokens, read and written."""

    usd_micros: Optional[int]
    """Millionths of a US dollar."""

    wall_ms: Optional[int]
    """Milliseconds on the clock, from the start on."""


class _ClaimRequired(TypedDict):
    """What is always there."""

    max: int
    """At most so many."""


class Claim(_ClaimRequired, total=False):
    """A worker asks for tasks."""

    again: bool
    """It was asked before under this number."""

    key: Optional[int]
    """The worker's own number of this request, new for each: the same number with `again`,
    because the answer was lost, gives the same tasks again. If it gave none, it does not wait:
    claim under the next number. Without one, tasks whose answer could not be delivered go back
    at once.
    """

    starts: bool
    """It starts them at once, so that no extra report is needed."""

    wait_ms: int
    """Milliseconds to wait for the first."""


class ClaimEntry(TypedDict, total=False):
    """Compare-and-set of who holds an entry."""

    by: Optional[Name]
    """Who shall hold it; nobody when absent."""

    expected: Optional[Name]
    """Who must hold it now; nobody when absent."""


class Cost(TypedDict, total=False):
    """What a step announces beside its intent."""

    calls: int
    """Requests to models, and calls of tools."""

    tokens: int
    """Tokens, read and written."""

    usd_micros: int
    """Millionths of a US dollar."""

    last: bool
    """These are last words, for which a part of every cap is kept."""


class Counts(TypedDict):
    """How many tasks stand where."""

    cancelled: int
    """Not wanted any more."""

    completed: int
    """Done."""

    failed: int
    """Dead letters."""

    pending: int
    """Waiting."""

    running: int
    """With a worker."""

    total: int
    """All."""


class _CredentialRequired(TypedDict):
    """What is always there."""

    digest: str
    """SHA-256 of the secret, in hexadecimal."""

    id: Name
    """Its id, which is part of the key that its bearer shows."""

    label: Name
    """What people call it; the audit trail names it."""

    scopes: List[Scope]
    """What it is good for."""


class Credential(_CredentialRequired, total=False):
    """A credential's row."""

    created_at: Time
    """When it was made."""

    expires_at: Optional[Time]
    """When it ends by itself."""

    revoked_at: Optional[Time]
    """When it was revoked."""


class _CredentialViewRequired(TypedDict):
    """What is always there."""

    created_at: Time
    """When it was made."""

    id: Name
    """Its id, which the key that its bearer shows has in it."""

    label: Name
    """What people call it."""

    scopes: List[Scope]
    """What it is good for."""


class CredentialView(_CredentialViewRequired, total=False):
    """A credential, without anything that could be used in its place."""

    expires_at: Optional[Time]
    """When it ends by itself."""

    revoked_at: Optional[Time]
    """When it was revoked."""


class Credentials(TypedDict):
    """Credentials, without their secrets."""

    items: List[CredentialView]
    """All of them, revoked ones included."""


class Crew(TypedDict, total=False):
    """Who works on a run, and how its tasks are shared out."""

    members: List[Member]
    """Who, in order. Nobody named means whoever serves the queue."""

    strategy: Strategy
    """How."""


Cursor = str
"""A position in one of a run's streams: send it back as it was."""


class Delivered(TypedDict):
    """A message for one recipient."""

    id: MsgId
    """Its id."""

    message: Message
    """All of it."""


class DeliveryPendingPending(TypedDict):
    """Offered so many times, not yet dealt with."""

    failures: int
    """Times offered that failed."""


class DeliveryPending(TypedDict):
    """Offered so many times, not yet dealt with."""

    pending: DeliveryPendingPending
    """Offered so many times, not yet dealt with."""


class DeliveryDeliveredDelivered(TypedDict):
    """Dealt with."""

    at: Time
    """When."""


class DeliveryDelivered(TypedDict):
    """Dealt with."""

    delivered: DeliveryDeliveredDelivered
    """Dealt with."""


class DeliveryDeadLetteredDeadLettered(TypedDict):
    """Given up."""

    at: Time
    """When."""

    reason: str
    """Why."""


class DeliveryDeadLettered(TypedDict):
    """Given up."""

    dead_lettered: DeliveryDeadLetteredDeadLettered
    """Given up."""


class DeliveryExpiredExpired(TypedDict):
    """Too late."""

    at: Time
    """When."""


class DeliveryExpired(TypedDict):
    """Too late."""

    expired: DeliveryExpiredExpired
    """Too late."""


Delivery = Union[
    "DeliveryPending",
    "DeliveryDelivered",
    "DeliveryDeadLettered",
    "DeliveryExpired",
]
"""How one recipient's part stands."""


class _DemandRequired(TypedDict):
    """What is always there."""

    by: Name
    """Who wanted it: an agent, or a supervisor for its plan."""

    lack: Lack
    """Why it was not to be had."""

    tool: Name
    """The tool's name, as it was wanted."""

    count: int
    """How often it was wanted."""

    first_at: Time
    """When it was wanted first."""

    last_at: Time
    """When it was wanted last."""


class Demand(_DemandRequired, total=False):
    """A tool that is missed."""

    run: Optional[RunId]
    """In which run."""

    task: Optional[TaskId]
    """For which task."""


class Demands(TypedDict):
    """Tools that are missed."""

    items: List[Demand]
    """All of them, the last missed first."""


class Dues(TypedDict, total=False):
    """How an event moves the accounts it touches."""

    held: Amount
    """Newly held."""

    released: Amount
    """Held no longer."""

    spent: Amount
    """Spent."""


class _EachRequired(TypedDict):
    """What is always there."""

    task: Template
    """What each task is."""


class Each(_EachRequired, total=False):
    """A task per item."""

    concurrency: Optional[int]
    """How many run at once, at most."""

    items: List[Any]
    """The items, when the plan knows them. Once the run has started they are in its tasks, and
    here no more.
    """

    over: Optional[Name]
    """The step whose output has the items: a list, or an object whose `items` are one."""


EffectClass = Literal["pure", "keyed", "verify_first", "at_most_once"]
"""What doing a step twice would mean."""


class _EndedAttemptRequired(TypedDict):
    """What is always there."""

    attempt: int
    """1, 2, 3, …"""

    ended_at: Time
    """When."""

    ran_ms: int
    """Milliseconds from lease to end."""

    state: AttemptState
    """How it ended."""

    worker: Name
    """Who tried."""


class EndedAttempt(_EndedAttemptRequired, total=False):
    """One ended attempt, as it is kept with its task."""

    failure: Optional[Failure]
    """Why, unless it succeeded."""


class Entries(TypedDict):
    """Entries, the most important first."""

    items: List[Entry]
    """At most 1,000."""


class _EntryRequired(TypedDict):
    """What is always there."""

    at: Time
    """When."""

    author: Name
    """Who wrote it."""

    content: Json
    """What."""

    id: EntryId
    """Its id."""

    importance: float
    """0 to 1."""

    segment: Name
    """Part of the board."""

    tags: List[Name]
    """Found by."""


class Entry(_EntryRequired, total=False):
    """An entry's row."""

    claimed_by: Optional[Name]
    """Who took it for itself."""

    expires_at: Optional[Time]
    """Until when."""

    metadata: Dict[str, str]
    """For people and filters."""

    provenance: Optional[Provenance]
    """Where it comes from."""

    run: Optional[RunId]
    """Whose board."""


class EntryFilter(TypedDict, total=False):
    """Which entries to read. All conditions must hold."""

    age_max_ms: Optional[int]
    """Not older than so many milliseconds."""

    author: Optional[Name]
    """Only by this author."""

    exclude_own: Optional[Name]
    """Not by this author: the reader itself."""

    importance_min: Optional[float]
    """At least this important."""

    limit: Optional[int]
    """At most so many; none means `PAGE_MAX`."""

    run: Optional[RunId]
    """Whose board; none is the shared one."""

    segment: Optional[Name]
    """Only this segment."""

    tags_all: List[Name]
    """All of these tags."""

    tags_any: List[Name]
    """At least one of these tags."""


EntryId = str
"""`entry_` and 26 characters; ids of later things sort later."""


class EntryRef(TypedDict):
    """An entry's id."""

    entry_id: EntryId
    """The entry."""


class _EventTaskSubmittedTaskSubmittedRequired(TypedDict):
    """What is always there."""

    spec: TaskSpec
    """All that was asked."""

    task: TaskId
    """Its id."""


class EventTaskSubmittedTaskSubmitted(_EventTaskSubmittedTaskSubmittedRequired, total=False):
    """A task exists now, `pending`. Refused before it is an event: an id in use with another
    content (`task.exists`), a bad specification, an unknown dependency.
    """

    blocked_by: List[TaskId]
    """Dependencies that have not completed yet."""

    receipt: Optional[List[Union[str, int]]]
    """The idempotency key it came with, and the digest of its content."""


EventTaskSubmitted = TypedDict(
    "EventTaskSubmitted",
    {
        # A task exists now, `pending`. Refused before it is an event: an id in use with another content
        # (`task.exists`), a bad specification, an unknown dependency.
        "task.submitted": "EventTaskSubmittedTaskSubmitted",
    },
)
"""A task exists now, `pending`. Refused before it is an event: an id in use with another
content (`task.exists`), a bad specification, an unknown dependency.
"""


class _EventTaskAssignedTaskAssignedRequired(TypedDict):
    """What is always there."""

    deadline: Time
    """When the attempt times out."""

    lease: AttemptRef
    """The new attempt."""

    ties: Ties
    """What counts along."""


class EventTaskAssignedTaskAssigned(_EventTaskAssignedTaskAssignedRequired, total=False):
    """A worker leased the task. Folds in `pending` only: → `assigned`, or → `in_progress` when
    the worker said it starts at once. In any other state the claim is refused
    (`task.not_claimable`).
    """

    claim: Optional[int]
    """The worker's own number of the request that claimed it."""

    slot_max: Optional[int]
    """How many of the slot may be leased at once."""

    started: bool
    """The worker starts at once."""


EventTaskAssigned = TypedDict(
    "EventTaskAssigned",
    {
        # A worker leased the task. Folds in `pending` only: → `assigned`, or → `in_progress` when the
        # worker said it starts at once. In any other state the claim is refused (`task.not_claimable`).
        "task.assigned": "EventTaskAssignedTaskAssigned",
    },
)
"""A worker leased the task. Folds in `pending` only: → `assigned`, or → `in_progress` when the
worker said it starts at once. In any other state the claim is refused (`task.not_claimable`).
"""


class EventTaskStartedTaskStarted(TypedDict):
    """The worker began. Folds in `assigned`; a repeat in `in_progress` is answered without an
    event; elsewhere the report is stale.
    """

    lease: AttemptRef
    """The attempt."""

    ties: Ties
    """What counts along."""


EventTaskStarted = TypedDict(
    "EventTaskStarted",
    {
        # The worker began. Folds in `assigned`; a repeat in `in_progress` is answered without an event;
        # elsewhere the report is stale.
        "task.started": "EventTaskStartedTaskStarted",
    },
)
"""The worker began. Folds in `assigned`; a repeat in `in_progress` is answered without an
event; elsewhere the report is stale.
"""


class _EventTaskProgressedTaskProgressedRequired(TypedDict):
    """What is always there."""

    lease: AttemptRef
    """The attempt."""


class EventTaskProgressedTaskProgressed(_EventTaskProgressedTaskProgressedRequired, total=False):
    """The worker told how far it is. Folds in `assigned` and `in_progress`; elsewhere stale."""

    fraction: Optional[float]
    """0 to 1, when it can be told."""

    note: str
    """In words."""

    run: Optional[RunId]
    """The task's run, for those who follow one."""


EventTaskProgressed = TypedDict(
    "EventTaskProgressed",
    {
        # The worker told how far it is. Folds in `assigned` and `in_progress`; elsewhere stale.
        "task.progressed": "EventTaskProgressedTaskProgressed",
    },
)
"""The worker told how far it is. Folds in `assigned` and `in_progress`; elsewhere stale."""


class _EventRecordNotedRecordNotedRequired(TypedDict):
    """What is always there."""

    lease: AttemptRef
    """The attempt."""

    record: NewRecord
    """What it said."""


class EventRecordNotedRecordNoted(_EventRecordNotedRecordNotedRequired, total=False):
    """The worker told what became of a step. Folds in `assigned` and `in_progress`; elsewhere
    stale. What the record's own state does not allow is refused (`record.state`,
    `record.in_doubt`); the same again is answered without an event.
    """

    dues: Optional[Dues]
    """What it moves on the accounts of the task and of its run."""

    run: Optional[RunId]
    """The task's run, for those who follow one."""


EventRecordNoted = TypedDict(
    "EventRecordNoted",
    {
        # The worker told what became of a step. Folds in `assigned` and `in_progress`; elsewhere stale.
        # What the record's own state does not allow is refused (`record.state`, `record.in_doubt`); the
        # same again is answered without an event.
        "record.noted": "EventRecordNotedRecordNoted",
    },
)
"""The worker told what became of a step. Folds in `assigned` and `in_progress`; elsewhere
stale. What the record's own state does not allow is refused (`record.state`,
`record.in_doubt`); the same again is answered without an event.
"""


class _EventRecordResolvedRecordResolvedRequired(TypedDict):
    """What is always there."""

    finding: Finding
    """What was found."""

    key: Name
    """The step."""

    task: TaskId
    """The task."""


class EventRecordResolvedRecordResolved(_EventRecordResolvedRecordResolvedRequired, total=False):
    """A person found out about a step in doubt. Folds in every state of its task; refused when
    the step is not in doubt (`record.state`).
    """

    dues: Optional[Dues]
    """What it moves on the accounts of the task and of its run."""

    run: Optional[RunId]
    """The task's run, for those who follow one."""


EventRecordResolved = TypedDict(
    "EventRecordResolved",
    {
        # A person found out about a step in doubt. Folds in every state of its task; refused when the
        # step is not in doubt (`record.state`).
        "record.resolved": "EventRecordResolvedRecordResolved",
    },
)
"""A person found out about a step in doubt. Folds in every state of its task; refused when the
step is not in doubt (`record.state`).
"""


class _EventTaskCompletedTaskCompletedRequired(TypedDict):
    """What is always there."""

    lease: AttemptRef
    """The attempt that succeeded."""

    output: Json
    """The result."""

    ran_ms: int
    """Milliseconds from lease to result."""

    ties: Ties
    """What counts along."""


class EventTaskCompletedTaskCompleted(_EventTaskCompletedTaskCompletedRequired, total=False):
    """The result was accepted. Folds in `assigned` and `in_progress`: → `completed`. With
    another token, or in any other state, the result is refused and `ResultRefused` tells.
    """

    dependents: List[TaskId]
    """Tasks that wait for this one."""

    started: bool
    """Whether the worker had reported its start."""


EventTaskCompleted = TypedDict(
    "EventTaskCompleted",
    {
        # The result was accepted. Folds in `assigned` and `in_progress`: → `completed`. With another
        # token, or in any other state, the result is refused and `ResultRefused` tells.
        "task.completed": "EventTaskCompletedTaskCompleted",
    },
)
"""The result was accepted. Folds in `assigned` and `in_progress`: → `completed`. With another
token, or in any other state, the result is refused and `ResultRefused` tells.
"""


class _EventAttemptEndedAttemptEndedRequired(TypedDict):
    """What is always there."""

    end: AttemptEnd
    """How it ended."""

    failure: Failure
    """Why, in words and a code."""

    lease: AttemptRef
    """The attempt."""

    ran_ms: int
    """Milliseconds from lease to end."""

    ties: Ties
    """What counts along."""


class EventAttemptEndedAttemptEnded(_EventAttemptEndedAttemptEndedRequired, total=False):
    """An attempt ended without a result. Folds in `assigned` and `in_progress`: → `pending`.
    What comes next (another try, the dead letters) is in `retry_at` and a following
    `TaskFailed`.
    """

    checkpoint: Optional[Json]
    """What the next attempt may go on from."""

    counted: bool
    """Whether it counts against the retry policy."""

    retry_at: Optional[Time]
    """Not before this instant again; `None` goes back to its old place in the queue."""

    started: bool
    """Whether the worker had reported its start."""


EventAttemptEnded = TypedDict(
    "EventAttemptEnded",
    {
        # An attempt ended without a result. Folds in `assigned` and `in_progress`: → `pending`. What
        # comes next (another try, the dead letters) is in `retry_at` and a following `TaskFailed`.
        "attempt.ended": "EventAttemptEndedAttemptEnded",
    },
)
"""An attempt ended without a result. Folds in `assigned` and `in_progress`: → `pending`. What
comes next (another try, the dead letters) is in `retry_at` and a following `TaskFailed`.
"""


class _EventTaskFailedTaskFailedRequired(TypedDict):
    """What is always there."""

    failure: Failure
    """The last failure."""

    task: TaskId
    """The task."""

    ties: Ties
    """What counts along."""


class EventTaskFailedTaskFailed(_EventTaskFailedTaskFailedRequired, total=False):
    """No attempt is left: the task is a dead letter. Folds in `pending`: → `failed`."""

    worker: Optional[Name]
    """The worker of the last attempt."""


EventTaskFailed = TypedDict(
    "EventTaskFailed",
    {
        # No attempt is left: the task is a dead letter. Folds in `pending`: → `failed`.
        "task.failed": "EventTaskFailedTaskFailed",
    },
)
"""No attempt is left: the task is a dead letter. Folds in `pending`: → `failed`."""


class _EventTaskCancelledTaskCancelledRequired(TypedDict):
    """What is always there."""

    reason: str
    """Why."""

    task: TaskId
    """The task."""

    ties: Ties
    """What counts along."""


class EventTaskCancelledTaskCancelled(_EventTaskCancelledTaskCancelledRequired, total=False):
    """Somebody does not want it any more. Folds in `pending`, `assigned`, `in_progress`: →
    `cancelled`; a worker that holds it is told. Refused in terminal states (`task.state`),
    except that cancelling twice is answered without an event.
    """

    lease: Optional[AttemptRef]
    """The attempt it took the task from."""

    started: bool
    """Whether that attempt had reported its start."""


EventTaskCancelled = TypedDict(
    "EventTaskCancelled",
    {
        # Somebody does not want it any more. Folds in `pending`, `assigned`, `in_progress`: →
        # `cancelled`; a worker that holds it is told. Refused in terminal states (`task.state`), except
        # that cancelling twice is answered without an event.
        "task.cancelled": "EventTaskCancelledTaskCancelled",
    },
)
"""Somebody does not want it any more. Folds in `pending`, `assigned`, `in_progress`: →
`cancelled`; a worker that holds it is told. Refused in terminal states (`task.state`), except
that cancelling twice is answered without an event.
"""


class EventTaskUnblockedTaskUnblocked(TypedDict):
    """A dependency completed. Folds in `pending`; ignored elsewhere (the task was cancelled).
    """

    by: TaskId
    """The dependency."""

    task: TaskId
    """The task that waited."""


EventTaskUnblocked = TypedDict(
    "EventTaskUnblocked",
    {
        # A dependency completed. Folds in `pending`; ignored elsewhere (the task was cancelled).
        "task.unblocked": "EventTaskUnblockedTaskUnblocked",
    },
)
"""A dependency completed. Folds in `pending`; ignored elsewhere (the task was cancelled)."""


class _EventTaskReassignedTaskReassignedRequired(TypedDict):
    """What is always there."""

    task: TaskId
    """The task."""

    to: Address
    """Who may take it now."""


class EventTaskReassignedTaskReassigned(_EventTaskReassignedTaskReassignedRequired, total=False):
    """The task was given to another worker. Folds in `pending`: whoever held it has lost it by
    an `AttemptEnded` before.
    """

    run: Optional[RunId]
    """The task's run, for those who follow one."""


EventTaskReassigned = TypedDict(
    "EventTaskReassigned",
    {
        # The task was given to another worker. Folds in `pending`: whoever held it has lost it by an
        # `AttemptEnded` before.
        "task.reassigned": "EventTaskReassignedTaskReassigned",
    },
)
"""The task was given to another worker. Folds in `pending`: whoever held it has lost it by an
`AttemptEnded` before.
"""


class _EventTaskRedrivenTaskRedrivenRequired(TypedDict):
    """What is always there."""

    task: TaskId
    """The task."""

    ties: Ties
    """What counts along."""


class EventTaskRedrivenTaskRedriven(_EventTaskRedrivenTaskRedrivenRequired, total=False):
    """A dead letter or a cancelled task goes back into its queue. Folds in `failed` and
    `cancelled`: → `pending`; refused elsewhere (`task.state`).
    """

    blocked_by: List[TaskId]
    """Dependencies that have not completed yet."""

    was_cancelled: bool
    """It was `cancelled`, not `failed`."""


EventTaskRedriven = TypedDict(
    "EventTaskRedriven",
    {
        # A dead letter or a cancelled task goes back into its queue. Folds in `failed` and `cancelled`: →
        # `pending`; refused elsewhere (`task.state`).
        "task.redriven": "EventTaskRedrivenTaskRedriven",
    },
)
"""A dead letter or a cancelled task goes back into its queue. Folds in `failed` and
`cancelled`: → `pending`; refused elsewhere (`task.state`).
"""


class EventTaskYieldAskedTaskYieldAsked(TypedDict):
    """The worker is asked to hand the task back at its next safe point, because more urgent
    work waits. Folds in `assigned` and `in_progress`.
    """

    lease: AttemptRef
    """The attempt that is asked."""

    urgent: TaskId
    """For which task."""


EventTaskYieldAsked = TypedDict(
    "EventTaskYieldAsked",
    {
        # The worker is asked to hand the task back at its next safe point, because more urgent work
        # waits. Folds in `assigned` and `in_progress`.
        "task.yield_asked": "EventTaskYieldAskedTaskYieldAsked",
    },
)
"""The worker is asked to hand the task back at its next safe point, because more urgent work
waits. Folds in `assigned` and `in_progress`.
"""


class EventResultRefusedResultRefused(TypedDict):
    """A report came too late, or from the wrong worker; nothing changed. Folds everywhere."""

    lease: AttemptRef
    """The attempt it claimed to be."""

    reason: str
    """Why."""


EventResultRefused = TypedDict(
    "EventResultRefused",
    {
        # A report came too late, or from the wrong worker; nothing changed. Folds everywhere.
        "result.refused": "EventResultRefusedResultRefused",
    },
)
"""A report came too late, or from the wrong worker; nothing changed. Folds everywhere."""


class _EventWorkerRegisteredWorkerRegisteredRequired(TypedDict):
    """What is always there."""

    spec: WorkerSpec
    """What it is and can."""


class EventWorkerRegisteredWorkerRegistered(_EventWorkerRegisteredWorkerRegisteredRequired, total=False):
    """A worker is there, or is there again (its counts stay, what it held is released before).
    """

    first: bool
    """Its id was never heard of before."""


EventWorkerRegistered = TypedDict(
    "EventWorkerRegistered",
    {
        # A worker is there, or is there again (its counts stay, what it held is released before).
        "worker.registered": "EventWorkerRegisteredWorkerRegistered",
    },
)
"""A worker is there, or is there again (its counts stay, what it held is released before)."""


class EventWorkerLostWorkerLost(TypedDict):
    """A worker is gone: its connection or process ended, its lease ran out, or it said
    good-bye.
    """

    reason: str
    """Why."""

    worker: Name
    """Which."""


EventWorkerLost = TypedDict(
    "EventWorkerLost",
    {
        # A worker is gone: its connection or process ended, its lease ran out, or it said good-bye.
        "worker.lost": "EventWorkerLostWorkerLost",
    },
)
"""A worker is gone: its connection or process ended, its lease ran out, or it said good-bye."""


class EventWorkerForgottenWorkerForgotten(TypedDict):
    """A worker was gone for long enough. What it did stays in the statistics."""

    worker: Name
    """Which."""


EventWorkerForgotten = TypedDict(
    "EventWorkerForgotten",
    {
        # A worker was gone for long enough. What it did stays in the statistics.
        "worker.forgotten": "EventWorkerForgottenWorkerForgotten",
    },
)
"""A worker was gone for long enough. What it did stays in the statistics."""


class EventWorkerDrainingWorkerDraining(TypedDict):
    """A worker finishes what it has and gets nothing new."""

    worker: Name
    """Which."""


EventWorkerDraining = TypedDict(
    "EventWorkerDraining",
    {
        # A worker finishes what it has and gets nothing new.
        "worker.draining": "EventWorkerDrainingWorkerDraining",
    },
)
"""A worker finishes what it has and gets nothing new."""


class EventWorkerFaultedWorkerFaulted(TypedDict):
    """A worker reported, or earned, a status."""

    reason: str
    """Why."""

    until: Time
    """It gets nothing before this instant."""

    worker: Name
    """Which."""


EventWorkerFaulted = TypedDict(
    "EventWorkerFaulted",
    {
        # A worker reported, or earned, a status.
        "worker.faulted": "EventWorkerFaultedWorkerFaulted",
    },
)
"""A worker reported, or earned, a status."""


class EventWorkerReservedWorkerReserved(TypedDict):
    """One unit of a worker's capacity is kept for somebody, for a while."""

    holder: Name
    """For whom."""

    pool: Name
    """The pool it was reserved from."""

    until: Time
    """Until when at the latest."""

    worker: Name
    """Which."""


EventWorkerReserved = TypedDict(
    "EventWorkerReserved",
    {
        # One unit of a worker's capacity is kept for somebody, for a while.
        "worker.reserved": "EventWorkerReservedWorkerReserved",
    },
)
"""One unit of a worker's capacity is kept for somebody, for a while."""


class EventWorkerReservationEndedWorkerReservationEnded(TypedDict):
    """A reservation was given back."""

    holder: Name
    """Whose."""

    worker: Name
    """Which."""


EventWorkerReservationEnded = TypedDict(
    "EventWorkerReservationEnded",
    {
        # A reservation was given back.
        "worker.reservation_ended": "EventWorkerReservationEndedWorkerReservationEnded",
    },
)
"""A reservation was given back."""


class EventQueuePausedQueuePaused(TypedDict):
    """A queue gives out nothing until it is resumed."""

    queue: Name
    """Which."""


EventQueuePaused = TypedDict(
    "EventQueuePaused",
    {
        # A queue gives out nothing until it is resumed.
        "queue.paused": "EventQueuePausedQueuePaused",
    },
)
"""A queue gives out nothing until it is resumed."""


class EventQueueResumedQueueResumed(TypedDict):
    """A queue gives out tasks again."""

    queue: Name
    """Which."""


EventQueueResumed = TypedDict(
    "EventQueueResumed",
    {
        # A queue gives out tasks again.
        "queue.resumed": "EventQueueResumedQueueResumed",
    },
)
"""A queue gives out tasks again."""


class EventPoolDefinedPoolDefined(TypedDict):
    """A pool exists, or has another strategy."""

    pool: Pool
    """All of it."""


EventPoolDefined = TypedDict(
    "EventPoolDefined",
    {
        # A pool exists, or has another strategy.
        "pool.defined": "EventPoolDefinedPoolDefined",
    },
)
"""A pool exists, or has another strategy."""


class EventPoolJoinedPoolJoined(TypedDict):
    """A worker joined."""

    pool: Name
    """Which pool."""

    worker: Name
    """Who."""


EventPoolJoined = TypedDict(
    "EventPoolJoined",
    {
        # A worker joined.
        "pool.joined": "EventPoolJoinedPoolJoined",
    },
)
"""A worker joined."""


class EventPoolLeftPoolLeft(TypedDict):
    """A worker left."""

    pool: Name
    """Which pool."""

    worker: Name
    """Who."""


EventPoolLeft = TypedDict(
    "EventPoolLeft",
    {
        # A worker left.
        "pool.left": "EventPoolLeftPoolLeft",
    },
)
"""A worker left."""


class _EventRunStartedRunStartedRequired(TypedDict):
    """What is always there."""

    crew: Crew
    """Who works, and how work is shared out."""

    goal: str
    """What for."""

    graph: Graph
    """The plan, pinned; the items of its steps are in the tasks."""

    run: RunId
    """Its id."""

    supervisor: Name
    """Its supervisor."""


class EventRunStartedRunStarted(_EventRunStartedRunStartedRequired, total=False):
    """A run exists and runs. Its tasks follow as `task.submitted`."""

    budget: Optional[Budget]
    """What it may spend."""

    metadata: Dict[str, Json]
    """Whatever the caller wants to find again."""

    receipt: Optional[List[Union[str, int]]]
    """The idempotency key it came with, and the digest of its content."""

    trace: Optional[TraceParent]
    """Where it stands in its starter's trace."""


EventRunStarted = TypedDict(
    "EventRunStarted",
    {
        # A run exists and runs. Its tasks follow as `task.submitted`.
        "run.started": "EventRunStartedRunStarted",
    },
)
"""A run exists and runs. Its tasks follow as `task.submitted`."""


class _EventStepStartedStepStartedRequired(TypedDict):
    """What is always there."""

    run: RunId
    """The run."""

    step: Name
    """The step."""

    total: int
    """How many tasks."""


class EventStepStartedStepStarted(_EventStepStartedStepStartedRequired, total=False):
    """A step began; its `total` tasks have consecutive ids from `first`."""

    due: Optional[Time]
    """When its gate opens with what is there."""

    first: Optional[TaskId]
    """Its first task; gates have none."""


EventStepStarted = TypedDict(
    "EventStepStarted",
    {
        # A step began; its `total` tasks have consecutive ids from `first`.
        "step.started": "EventStepStartedStepStarted",
    },
)
"""A step began; its `total` tasks have consecutive ids from `first`."""


class _EventStepEndedStepEndedRequired(TypedDict):
    """What is always there."""

    end: StepEnd
    """How."""

    run: RunId
    """The run."""

    step: Name
    """The step."""


class EventStepEndedStepEnded(_EventStepEndedStepEndedRequired, total=False):
    """A step ended."""

    output: Optional[Json]
    """Its output, when it has one."""


EventStepEnded = TypedDict(
    "EventStepEnded",
    {
        # A step ended.
        "step.ended": "EventStepEndedStepEnded",
    },
)
"""A step ended."""


class EventGateAwaitsSupervisorGateAwaitsSupervisor(TypedDict):
    """A gate's condition holds, or can no longer hold, and the supervisor is to reduce what is
    there.
    """

    partial: bool
    """The condition cannot hold any more: what comes is a partial result."""

    run: RunId
    """The run."""

    step: Name
    """The gate."""


EventGateAwaitsSupervisor = TypedDict(
    "EventGateAwaitsSupervisor",
    {
        # A gate's condition holds, or can no longer hold, and the supervisor is to reduce what is there.
        "gate.awaits_supervisor": "EventGateAwaitsSupervisorGateAwaitsSupervisor",
    },
)
"""A gate's condition holds, or can no longer hold, and the supervisor is to reduce what is
there.
"""


class EventRunCompletedRunCompleted(TypedDict):
    """All steps ended well."""

    result: Json
    """Its result."""

    run: RunId
    """The run."""


EventRunCompleted = TypedDict(
    "EventRunCompleted",
    {
        # All steps ended well.
        "run.completed": "EventRunCompletedRunCompleted",
    },
)
"""All steps ended well."""


class _EventRunFailedRunFailedRequired(TypedDict):
    """What is always there."""

    failure: Failure
    """Why."""

    run: RunId
    """The run."""


class EventRunFailedRunFailed(_EventRunFailedRunFailedRequired, total=False):
    """The run cannot reach its end; what there is of a result is kept."""

    partial: Optional[Json]
    """A partial result."""


EventRunFailed = TypedDict(
    "EventRunFailed",
    {
        # The run cannot reach its end; what there is of a result is kept.
        "run.failed": "EventRunFailedRunFailed",
    },
)
"""The run cannot reach its end; what there is of a result is kept."""


class EventRunCancelledRunCancelled(TypedDict):
    """Somebody stopped the run. Its open tasks were cancelled before."""

    reason: str
    """Why."""

    run: RunId
    """The run."""


EventRunCancelled = TypedDict(
    "EventRunCancelled",
    {
        # Somebody stopped the run. Its open tasks were cancelled before.
        "run.cancelled": "EventRunCancelledRunCancelled",
    },
)
"""Somebody stopped the run. Its open tasks were cancelled before."""


class EventRunReopenedRunReopened(TypedDict):
    """A failed or cancelled run goes on: its failed tasks follow as `task.redriven`."""

    run: RunId
    """The run."""


EventRunReopened = TypedDict(
    "EventRunReopened",
    {
        # A failed or cancelled run goes on: its failed tasks follow as `task.redriven`.
        "run.reopened": "EventRunReopenedRunReopened",
    },
)
"""A failed or cancelled run goes on: its failed tasks follow as `task.redriven`."""


class EventRunExtendedRunExtended(TypedDict):
    """A task of a run added steps to it. Folds while the run runs; refused otherwise
    (`run.state`), and when the steps do not fit the graph (`graph.invalid`).
    """

    lease: AttemptRef
    """Which attempt said so."""

    run: RunId
    """The run."""

    steps: List[Step]
    """The steps, behind those that are there."""


EventRunExtended = TypedDict(
    "EventRunExtended",
    {
        # A task of a run added steps to it. Folds while the run runs; refused otherwise (`run.state`),
        # and when the steps do not fit the graph (`graph.invalid`).
        "run.extended": "EventRunExtendedRunExtended",
    },
)
"""A task of a run added steps to it. Folds while the run runs; refused otherwise (`run.state`),
and when the steps do not fit the graph (`graph.invalid`).
"""


class EventBudgetWarnedBudgetWarned(TypedDict):
    """Of something that a run may spend, most is spent. Once for each run."""

    run: RunId
    """The run."""


EventBudgetWarned = TypedDict(
    "EventBudgetWarned",
    {
        # Of something that a run may spend, most is spent. Once for each run.
        "budget.warned": "EventBudgetWarnedBudgetWarned",
    },
)
"""Of something that a run may spend, most is spent. Once for each run."""


class _EventEntryWrittenEntryWrittenRequired(TypedDict):
    """What is always there."""

    entry: Entry
    """All of it."""


class EventEntryWrittenEntryWritten(_EventEntryWrittenEntryWrittenRequired, total=False):
    """Somebody wrote on a blackboard."""

    receipt: Optional[List[Union[str, int]]]
    """The idempotency key it came with, and the digest of its content."""


EventEntryWritten = TypedDict(
    "EventEntryWritten",
    {
        # Somebody wrote on a blackboard.
        "entry.written": "EventEntryWrittenEntryWritten",
    },
)
"""Somebody wrote on a blackboard."""


class _EventEntryClaimedEntryClaimedRequired(TypedDict):
    """What is always there."""

    entry: EntryId
    """Which."""


class EventEntryClaimedEntryClaimed(_EventEntryClaimedEntryClaimedRequired, total=False):
    """Somebody took an entry for itself."""

    by: Optional[Name]
    """Who; nobody when it was given back."""


EventEntryClaimed = TypedDict(
    "EventEntryClaimed",
    {
        # Somebody took an entry for itself.
        "entry.claimed": "EventEntryClaimedEntryClaimed",
    },
)
"""Somebody took an entry for itself."""


class _EventEntryForgottenEntryForgottenRequired(TypedDict):
    """What is always there."""

    entry: EntryId
    """Which."""

    reason: str
    """Why."""


class EventEntryForgottenEntryForgotten(_EventEntryForgottenEntryForgottenRequired, total=False):
    """An entry is gone: its time was over, or its board was full of more important ones."""

    run: Optional[RunId]
    """Whose board."""


EventEntryForgotten = TypedDict(
    "EventEntryForgotten",
    {
        # An entry is gone: its time was over, or its board was full of more important ones.
        "entry.forgotten": "EventEntryForgottenEntryForgotten",
    },
)
"""An entry is gone: its time was over, or its board was full of more important ones."""


class _EventMessageSentMessageSentRequired(TypedDict):
    """What is always there."""

    message: Message
    """All of it."""


class EventMessageSentMessageSent(_EventMessageSentMessageSentRequired, total=False):
    """A message was accepted for the recipients it names."""

    receipt: Optional[List[Union[str, int]]]
    """The idempotency key it came with, and the digest of its content."""


EventMessageSent = TypedDict(
    "EventMessageSent",
    {
        # A message was accepted for the recipients it names.
        "message.sent": "EventMessageSentMessageSent",
    },
)
"""A message was accepted for the recipients it names."""


class EventMessageDeliveredMessageDelivered(TypedDict):
    """A recipient has dealt with it."""

    message: MsgId
    """Which."""

    recipient: Name
    """By whom."""


EventMessageDelivered = TypedDict(
    "EventMessageDelivered",
    {
        # A recipient has dealt with it.
        "message.delivered": "EventMessageDeliveredMessageDelivered",
    },
)
"""A recipient has dealt with it."""


class EventMessageOfferedAgainMessageOfferedAgain(TypedDict):
    """A recipient failed on it and will be offered it again."""

    message: MsgId
    """Which."""

    reason: str
    """What it said."""

    recipient: Name
    """To whom."""


EventMessageOfferedAgain = TypedDict(
    "EventMessageOfferedAgain",
    {
        # A recipient failed on it and will be offered it again.
        "message.offered_again": "EventMessageOfferedAgainMessageOfferedAgain",
    },
)
"""A recipient failed on it and will be offered it again."""


class _EventMessageDeadLetteredMessageDeadLetteredRequired(TypedDict):
    """What is always there."""

    message: MsgId
    """Which."""

    reason: str
    """Why."""


class EventMessageDeadLetteredMessageDeadLettered(_EventMessageDeadLetteredMessageDeadLetteredRequired, total=False):
    """A recipient will not get it."""

    recipient: Optional[Name]
    """Who; nobody when there was no recipient at all."""


EventMessageDeadLettered = TypedDict(
    "EventMessageDeadLettered",
    {
        # A recipient will not get it.
        "message.dead_lettered": "EventMessageDeadLetteredMessageDeadLettered",
    },
)
"""A recipient will not get it."""


class EventMessageExpiredMessageExpired(TypedDict):
    """Its time was over before every recipient had dealt with it."""

    message: MsgId
    """Which."""


EventMessageExpired = TypedDict(
    "EventMessageExpired",
    {
        # Its time was over before every recipient had dealt with it.
        "message.expired": "EventMessageExpiredMessageExpired",
    },
)
"""Its time was over before every recipient had dealt with it."""


class EventMessageForgottenMessageForgotten(TypedDict):
    """Kept long enough."""

    message: MsgId
    """Which."""


EventMessageForgotten = TypedDict(
    "EventMessageForgotten",
    {
        # Kept long enough.
        "message.forgotten": "EventMessageForgottenMessageForgotten",
    },
)
"""Kept long enough."""


class EventCredentialCreatedCredentialCreated(TypedDict):
    """Somebody may be let in."""

    credential: Credential
    """All of it; of the secret, a digest."""


EventCredentialCreated = TypedDict(
    "EventCredentialCreated",
    {
        # Somebody may be let in.
        "credential.created": "EventCredentialCreatedCredentialCreated",
    },
)
"""Somebody may be let in."""


class EventCredentialRevokedCredentialRevoked(TypedDict):
    """A credential is good for nothing any more."""

    id: Name
    """Which."""


EventCredentialRevoked = TypedDict(
    "EventCredentialRevoked",
    {
        # A credential is good for nothing any more.
        "credential.revoked": "EventCredentialRevokedCredentialRevoked",
    },
)
"""A credential is good for nothing any more."""


class _EventToolMissedToolMissedRequired(TypedDict):
    """What is always there."""

    miss: Miss
    """Which, who and why."""


class EventToolMissedToolMissed(_EventToolMissedToolMissedRequired, total=False):
    """Somebody wanted a tool and did not have it."""

    first: bool
    """Nobody had before."""


EventToolMissed = TypedDict(
    "EventToolMissed",
    {
        # Somebody wanted a tool and did not have it.
        "tool.missed": "EventToolMissedToolMissed",
    },
)
"""Somebody wanted a tool and did not have it."""


class EventReceiptForgottenReceiptForgotten(TypedDict):
    """An idempotency key was remembered long enough."""

    key: Name
    """Which."""


EventReceiptForgotten = TypedDict(
    "EventReceiptForgotten",
    {
        # An idempotency key was remembered long enough.
        "receipt.forgotten": "EventReceiptForgottenReceiptForgotten",
    },
)
"""An idempotency key was remembered long enough."""


Event = Union[
    "EventTaskSubmitted",
    "EventTaskAssigned",
    "EventTaskStarted",
    "EventTaskProgressed",
    "EventRecordNoted",
    "EventRecordResolved",
    "EventTaskCompleted",
    "EventAttemptEnded",
    "EventTaskFailed",
    "EventTaskCancelled",
    "EventTaskUnblocked",
    "EventTaskReassigned",
    "EventTaskRedriven",
    "EventTaskYieldAsked",
    "EventResultRefused",
    "EventWorkerRegistered",
    "EventWorkerLost",
    "EventWorkerForgotten",
    "EventWorkerDraining",
    "EventWorkerFaulted",
    "EventWorkerReserved",
    "EventWorkerReservationEnded",
    "EventQueuePaused",
    "EventQueueResumed",
    "EventPoolDefined",
    "EventPoolJoined",
    "EventPoolLeft",
    "EventRunStarted",
    "EventStepStarted",
    "EventStepEnded",
    "EventGateAwaitsSupervisor",
    "EventRunCompleted",
    "EventRunFailed",
    "EventRunCancelled",
    "EventRunReopened",
    "EventRunExtended",
    "EventBudgetWarned",
    "EventEntryWritten",
    "EventEntryClaimed",
    "EventEntryForgotten",
    "EventMessageSent",
    "EventMessageDelivered",
    "EventMessageOfferedAgain",
    "EventMessageDeadLettered",
    "EventMessageExpired",
    "EventMessageForgotten",
    "EventCredentialCreated",
    "EventCredentialRevoked",
    "EventToolMissed",
    "EventReceiptForgotten",
]
"""What happened. For each event on a task: which states it folds in. Folding one in another
state is a broken invariant (it would mean `decide` allowed it), asserted in debug builds and
ignored in release.
"""


class Events(TypedDict):
    """Events, in order."""

    items: List[Recorded]
    """Those of this page that pass the filter."""

    next: int
    """Pass it as `after` to go on: everything up to here was looked at."""


class _FailureRequired(TypedDict):
    """What is always there."""

    code: str
    """A code for machines: the worker's own, or one of `attempt.timed_out`, `attempt.lost`, ….
    """

    message: str
    """What happened, for people. Cut to `FAILURE_BYTES_MAX`."""


class Failure(_FailureRequired, total=False):
    """Why an attempt, or a task, failed."""

    retryable: bool
    """Another attempt may succeed."""

    worker_fault: bool
    """It was the worker's fault, not the task's: enough of these in a row put it into `error`.
    """


class FindingDoneDone(TypedDict):
    """It happened."""

    output: Json
    """What came of it."""


class FindingDone(TypedDict):
    """It happened."""

    done: FindingDoneDone
    """It happened."""


class FindingFailedFailed(TypedDict):
    """It did not happen."""

    failure: Failure
    """Why."""


class FindingFailed(TypedDict):
    """It did not happen."""

    failed: FindingFailedFailed
    """It did not happen."""


Finding = Union["FindingDone", "FindingFailed"]
"""What somebody found out about a step in doubt."""


class _GateRequired(TypedDict):
    """What is always there."""

    join: Join
    """When."""


class Gate(_GateRequired, total=False):
    """When a gate opens, and what it makes of what is there."""

    reduce: Reduce
    """What."""


class Graph(TypedDict):
    """Steps, in an order in which each comes after what it needs."""

    steps: List[Step]
    """All steps."""


class Health(TypedDict):
    """How the server is."""

    checks: Dict[str, str]
    """What was looked at, and how it is."""

    status: str
    """`healthy`, or `unhealthy`."""

    timestamp: int
    """Milliseconds since 1970-01-01T00:00:00Z, by the server's clock."""

    version: str
    """The version of the program."""


class _HeardRequired(TypedDict):
    """What is always there."""

    anew: bool
    """The stream is not the one that the reader was in: forget what was half said."""

    ended: bool
    """The run has ended, and there is nothing after these."""

    lost: int
    """Pieces before these that are not kept any more."""

    pieces: List[Piece]
    """In order, without a gap among them; at most 256, or about 64 KiB."""


class Heard(_HeardRequired, total=False):
    """What a reader of a run's stream hears."""

    next: Optional[Cursor]
    """Where to go on; nothing while nothing was ever said."""


class Heartbeat(TypedDict, total=False):
    """A sign of life."""

    session: Optional[int]
    """The worker's life, as it registered."""

    wait_ms: int
    """Milliseconds to wait for something to tell."""


Home = Literal["in_process", "remote"]
"""Where a worker lives, which says how its death is noticed."""


class JoinQuorum(TypedDict):
    """So many completed, the rest may be wrong; the rest is cancelled."""

    quorum: int
    """So many completed, the rest may be wrong; the rest is cancelled."""


class JoinFirstK(TypedDict):
    """The first so many to complete, in that order; the rest is cancelled."""

    first_k: int
    """The first so many to complete, in that order; the rest is cancelled."""


class JoinEnded(TypedDict):
    """All ended, whether well or not, and at least so many completed; 0 will do."""

    ended: int
    """All ended, whether well or not, and at least so many completed; 0 will do."""


class JoinDeadline(TypedDict):
    """All ended, or so many milliseconds have passed since it began to watch, and at least one
    completed; the rest is cancelled.
    """

    deadline: int
    """All ended, or so many milliseconds have passed since it began to watch, and at least one
    completed; the rest is cancelled.
    """


Join = Union[
    Literal["all"],
    Literal["any"],
    "JoinQuorum",
    "JoinFirstK",
    "JoinEnded",
    "JoinDeadline",
]
"""When a gate opens, counted over the tasks of the steps it needs."""


Json = Any
"""Any JSON, at most 1 MiB."""


Lack = Literal["unknown", "not_granted", "unavailable"]
"""Why a tool was not to be had."""


class Ledger(TypedDict, total=False):
    """What was spent, and what is held for steps under way."""

    held: Amount
    """Reserved: spent already, perhaps, by a step of which nobody has heard again."""

    spent: Amount
    """Spent."""


class _MemberRequired(TypedDict):
    """What is always there."""

    worker: Name
    """Who."""


class Member(_MemberRequired, total=False):
    """A worker as a strategy sees it."""

    capabilities: List[Name]
    """What it can do, for `Capability`."""

    capacity: int
    """Declared capacity, at least 1."""


class Membership(TypedDict):
    """A task's place in a run."""

    item: int
    """Which item of the step, from 0."""

    run: RunId
    """The run."""

    step: Name
    """The step that made it."""


_MessageRequired = TypedDict(
    "_MessageRequired",
    {
        # When.
        "at": "Time",
        # Until when.
        "expires_at": "Time",
        # By whom.
        "from": "Name",
        # Its id.
        "id": "MsgId",
        # Its type.
        "kind": "Name",
        # What.
        "payload": "Json",
        # Each recipient's part.
        "recipients": Dict[str, "Delivery"],
        # To whom, as it was addressed.
        "to": "To",
    },
)
"""What is always there."""


class Message(_MessageRequired, total=False):
    """A message's row."""

    correlation: Optional[MsgId]
    """What it answers."""

    dead: Optional[str]
    """Why nobody got it, when nobody was there."""

    headers: Dict[str, str]
    """Carried along."""


class MessageRef(TypedDict):
    """A message's id."""

    message_id: MsgId
    """The message."""


class Messages(TypedDict):
    """Messages, oldest first."""

    items: List[Message]
    """A page of them."""


class Minted(TypedDict):
    """A credential that was just made."""

    credential: CredentialView
    """The credential."""

    key: str
    """The key to show: kept nowhere, so keep it now."""


class _MissRequired(TypedDict):
    """What is always there."""

    by: Name
    """Who wanted it: an agent, or a supervisor for its plan."""

    lack: Lack
    """Why it was not to be had."""

    tool: Name
    """The tool's name, as it was wanted."""


class Miss(_MissRequired, total=False):
    """Somebody wanted a tool and did not have it."""

    run: Optional[RunId]
    """In which run."""

    task: Optional[TaskId]
    """For which task."""


MsgId = str
"""`msg_` and 26 characters; ids of later things sort later."""


Name = str
"""Printable text without spaces at its ends, at most 128 bytes."""


class _NewCredentialRequired(TypedDict):
    """What is always there."""

    label: Name
    """What people call it; the audit trail names it."""

    scopes: List[Scope]
    """What it is good for."""


class NewCredential(_NewCredentialRequired, total=False):
    """A credential to be."""

    ttl_ms: Optional[int]
    """Milliseconds until it ends by itself; without, it does not."""


class _NewEntryRequired(TypedDict):
    """What is always there."""

    author: Name
    """Who writes."""

    content: Json
    """What."""


class NewEntry(_NewEntryRequired, total=False):
    """What an agent writes."""

    importance: float
    """0 to 1."""

    key: Optional[Name]
    """An idempotency key: the same key and content within a day is one entry."""

    metadata: Dict[str, str]
    """For people and filters."""

    provenance: Optional[Provenance]
    """Where it comes from."""

    run: Optional[RunId]
    """Whose board; none is the shared one."""

    segment: Name
    """Part of the board."""

    tags: List[Name]
    """Found by."""

    ttl_ms: Optional[int]
    """Milliseconds until it is forgotten."""


_NewMessageRequired = TypedDict(
    "_NewMessageRequired",
    {
        # By whom.
        "from": "Name",
        # Its type.
        "kind": "Name",
        # To whom.
        "to": "To",
    },
)
"""What is always there."""


class NewMessage(_NewMessageRequired, total=False):
    """What an agent sends."""

    correlation: Optional[MsgId]
    """The message this one answers, or the conversation it belongs to."""

    headers: Dict[str, str]
    """Carried along."""

    id: Optional[MsgId]
    """Its id, when the sender chooses it: sending the same id twice sends once."""

    key: Optional[Name]
    """An idempotency key: the same key and content within a day is one message."""

    payload: Json
    """What."""

    ttl_ms: Optional[int]
    """Milliseconds until it expires."""


class _NewRecordRequired(TypedDict):
    """What is always there."""

    effect: EffectClass
    """What doing it twice would mean."""

    key: Name
    """The step's name: the same in every attempt of the task."""

    state: RecordState
    """Where it stands."""


class NewRecord(_NewRecordRequired, total=False):
    """What a worker says about a step."""

    cost: Optional[Cost]
    """With an intent, what to reserve for it; with an outcome, what it cost. An outcome that
    does not say cost what was reserved.
    """


class _PageRecordRequired(TypedDict):
    """What is always there."""

    items: List[Record]
    """The rows."""


class PageRecord(_PageRecordRequired, total=False):
    """A page of a list, and where the next one begins."""

    next: Optional[str]
    """Pass it as `after` to go on; absent on the last page."""


class _PageRunViewRequired(TypedDict):
    """What is always there."""

    items: List[RunView]
    """The rows."""


class PageRunView(_PageRunViewRequired, total=False):
    """A page of a list, and where the next one begins."""

    next: Optional[str]
    """Pass it as `after` to go on; absent on the last page."""


class _PageTaskViewRequired(TypedDict):
    """What is always there."""

    items: List[TaskView]
    """The rows."""


class PageTaskView(_PageTaskViewRequired, total=False):
    """A page of a list, and where the next one begins."""

    next: Optional[str]
    """Pass it as `after` to go on; absent on the last page."""


class _PageWorkerViewRequired(TypedDict):
    """What is always there."""

    items: List[WorkerView]
    """The rows."""


class PageWorkerView(_PageWorkerViewRequired, total=False):
    """A page of a list, and where the next one begins."""

    next: Optional[str]
    """Pass it as `after` to go on; absent on the last page."""


class Piece(TypedDict):
    """A piece of a run's stream."""

    agent: Name
    """Who."""

    attempt: int
    """Which attempt of it; another one begins its turns from 1."""

    position: int
    """Its place in the stream, from 1 and growing by one."""

    said: Said
    """What."""

    task_id: TaskId
    """The task."""


class _PoolRequired(TypedDict):
    """What is always there."""

    id: Name
    """Its name."""


class Pool(_PoolRequired, total=False):
    """A pool's row."""

    members: List[Name]
    """Who is in it, in the order they joined."""

    strategy: Strategy
    """How it shares work out."""

    version: int
    """Changes so far: whoever defines it can say which form they read."""


class PoolBody(TypedDict, total=False):
    """A pool, without its name."""

    members: List[Name]
    """Who is in it; members it already has stay."""

    strategy: Strategy
    """How it shares work out."""


class PoolStatistics(TypedDict):
    """A pool's statistics."""

    available_workers: int
    """Of these, there with room."""

    average_task_ms: float
    """Mean milliseconds of these."""

    busy_workers: int
    """Of these, at capacity."""

    tasks_by_worker: Dict[str, int]
    """Tasks completed, by member."""

    total_tasks_processed: int
    """Tasks that members completed."""

    total_workers: int
    """Members."""


class Pools(TypedDict):
    """Pools."""

    items: List[Pool]
    """All of them."""


class Position(TypedDict):
    """A position in the log."""

    position: int
    """Of the last event."""


Priority = int
"""What comes first: higher. Five bands have names; any number between them is allowed."""


class _ProblemRequired(TypedDict):
    """What is always there."""

    code: str
    """The stable code: match on this."""

    detail: str
    """What happened this time."""

    hint: str
    """What to do."""

    retryable: bool
    """Whether the same request may succeed later without anybody changing it."""

    status: int
    """The HTTP status."""

    title: str
    """The code's meaning, the same for every problem of the kind."""

    type: str
    """Names the kind of problem; a page of the documentation explains it."""


class Problem(_ProblemRequired, total=False):
    """What went wrong, as the body of a response that is not a success."""

    instance: Optional[str]
    """Names the request, as in the server's log."""


class _ProgressRequired(TypedDict):
    """What is always there."""

    at: Time
    """When it told."""

    attempt: int
    """Which attempt told."""

    worker: Name
    """Who told."""


class Progress(_ProgressRequired, total=False):
    """How far a task is, as its worker told."""

    fraction: Optional[float]
    """0 to 1, when it can be told."""

    note: str
    """In words."""


class _ProvenanceRequired(TypedDict):
    """What is always there."""

    task: TaskId
    """The task it was written in."""


class Provenance(_ProvenanceRequired, total=False):
    """Where an entry comes from."""

    attempt: Optional[int]
    """The attempt."""


class QueueView(TypedDict):
    """A queue."""

    leased: int
    """Tasks of it that workers hold."""

    paused: bool
    """It gives out nothing."""

    pending: int
    """Tasks that wait in it."""

    queue: Name
    """Its name."""


class Queues(TypedDict):
    """Queues."""

    items: List[QueueView]
    """All of them."""


class Reason(TypedDict, total=False):
    """Why."""

    reason: str
    """In words."""


class Reassign(TypedDict):
    """Who shall do it."""

    to: Address
    """Who."""


class Receive(TypedDict, total=False):
    """A receiver asks."""

    max: int
    """At most so many; 0 means 100."""

    wait_ms: int
    """Milliseconds to wait for the first."""


class Received(TypedDict):
    """Messages for a receiver: each is to be settled within a minute, or comes again."""

    messages: List[Delivered]
    """In order."""


class _RecordRequired(TypedDict):
    """What is always there."""

    at: Time
    """Since when it stands there."""

    attempt: int
    """Which attempt said so, or left it in doubt; a person's finding leaves it as it is."""

    effect: EffectClass
    """What doing it twice would mean."""

    key: Name
    """The step's name within its task."""

    state: RecordState
    """Where it stands."""


class Record(_RecordRequired, total=False):
    """A step's receipt, as it is kept with its task."""

    held: Amount
    """What is reserved for it, while nobody knows its outcome."""


class RecordStateDoneDone(TypedDict):
    """It happened. Final."""

    output: Json
    """What came of it: what later attempts reuse."""


class RecordStateDone(TypedDict):
    """It happened. Final."""

    done: RecordStateDoneDone
    """It happened. Final."""


class RecordStateFailedFailed(TypedDict):
    """It did not happen, and that is known."""

    failure: Failure
    """Why."""


class RecordStateFailed(TypedDict):
    """It did not happen, and that is known."""

    failed: RecordStateFailedFailed
    """It did not happen, and that is known."""


RecordState = Union[
    Literal["intended"],
    "RecordStateDone",
    "RecordStateFailed",
    Literal["in_doubt"],
]
"""Where a record stands; each state owns its data."""


class _RecordedRequired(TypedDict):
    """What is always there."""

    at: Time
    """When it was decided."""

    event: Event
    """What happened."""

    position: int
    """1, 2, 3, … without a gap."""


class Recorded(_RecordedRequired, total=False):
    """An event with its place in the one total order."""

    by: Optional[Name]
    """Who asked for it: the label of the credential it came with. Nobody, when the engine did
    it by itself or nobody had to show one.
    """

    cause: Optional[Name]
    """The request that caused it, as its sender named it (a correlation id), if it did."""


class ReduceExpression(TypedDict):
    """The value of an expression over `outputs`, `goal` and `steps`."""

    expression: str
    """The value of an expression over `outputs`, `goal` and `steps`."""


Reduce = Union[
    Literal["collect"],
    Literal["concat"],
    Literal["merge"],
    Literal["outcomes"],
    Literal["vote"],
    "ReduceExpression",
    Literal["supervisor"],
]
"""What a gate makes of the outputs of completed tasks."""


class ReportProgressedProgressed(TypedDict, total=False):
    """How far it is."""

    fraction: Optional[float]
    """0 to 1."""

    note: str
    """In words."""


class ReportProgressed(TypedDict):
    """How far it is."""

    progressed: ReportProgressedProgressed
    """How far it is."""


class ReportRecorded(TypedDict):
    """What became of one step of it."""

    recorded: NewRecord
    """What became of one step of it."""


class ReportExtendedExtended(TypedDict):
    """Its run goes on with these steps, too. They may need each other and what is there; the
    same said again changes nothing.
    """

    steps: List[Step]
    """All of them."""


class ReportExtended(TypedDict):
    """Its run goes on with these steps, too. They may need each other and what is there; the
    same said again changes nothing.
    """

    extended: ReportExtendedExtended
    """Its run goes on with these steps, too. They may need each other and what is there; the
    same said again changes nothing.
    """


class ReportCompletedCompleted(TypedDict):
    """The result."""

    output: Json
    """What came out."""


class ReportCompleted(TypedDict):
    """The result."""

    completed: ReportCompletedCompleted
    """The result."""


class ReportFailedFailed(TypedDict):
    """It did not work."""

    failure: Failure
    """Why."""


class ReportFailed(TypedDict):
    """It did not work."""

    failed: ReportFailedFailed
    """It did not work."""


class _ReportReleasedReleasedRequired(TypedDict):
    """What is always there."""

    reason: str
    """Why."""


class ReportReleasedReleased(_ReportReleasedReleasedRequired, total=False):
    """Handed back at a safe point: a yield, or a worker that stops."""

    after_ms: int
    """Milliseconds before which another attempt is of no use; at most `BACKOFF_MS_MAX`."""

    checkpoint: Optional[Json]
    """What the next attempt may go on from."""


class ReportReleased(TypedDict):
    """Handed back at a safe point: a yield, or a worker that stops."""

    released: ReportReleasedReleased
    """Handed back at a safe point: a yield, or a worker that stops."""


Report = Union[
    Literal["started"],
    "ReportProgressed",
    "ReportRecorded",
    "ReportExtended",
    "ReportCompleted",
    "ReportFailed",
    "ReportReleased",
]
"""What a worker tells about an attempt."""


class ReportItem(TypedDict):
    """What became of one attempt."""

    attempt: int
    """The fencing token."""

    report: Report
    """What became of it."""

    task_id: TaskId
    """The task."""


class RequestMessage(TypedDict):
    """A message whose answer is waited for."""

    message: NewMessage
    """The message."""

    wait_ms: int
    """Milliseconds to wait."""


class _ReserveRequired(TypedDict):
    """What is always there."""

    holder: Name
    """For whom."""

    keep_ms: int
    """Milliseconds to keep it."""


class Reserve(_ReserveRequired, total=False):
    """Room to be kept."""

    capability: Optional[Name]
    """What the worker must be able to do."""


class ResolveRecord(TypedDict):
    """What a person found out about a step in doubt."""

    finding: Finding
    """What."""


class RetryPolicy(TypedDict, total=False):
    """How often and how late."""

    attempts: int
    """Attempts in all, the first included. 1 means no retry."""

    backoff_max_ms: int
    """No wait is longer, in milliseconds."""

    backoff_ms: int
    """Milliseconds before the second attempt."""

    factor_percent: int
    """Each wait is this many hundredths of the one before: 200 doubles."""


RunId = str
"""`run_` and 26 characters; ids of later things sort later."""


class RunRef(TypedDict):
    """A run's id."""

    run_id: RunId
    """The run."""


class _RunStartRequired(TypedDict):
    """What is always there."""

    goal: str
    """What for."""

    graph: Graph
    """The plan."""

    supervisor: Name
    """Its supervisor."""


class RunStart(_RunStartRequired, total=False):
    """A run to be."""

    budget: Optional[Budget]
    """What it may spend; nothing said is no bound."""

    crew: Crew
    """Who works."""

    key: Optional[Name]
    """An idempotency key: the same key and content within a day is one run."""

    metadata: Dict[str, Json]
    """Whatever the caller wants to find again."""

    trace: Optional[TraceParent]
    """Where it stands in its starter's trace; it is not part of the content."""


RunStatus = Literal["running", "completed", "failed", "cancelled"]
"""A run's state without its data."""


class _RunViewRequired(TypedDict):
    """What is always there."""

    created_at: Time
    """When it started."""

    crew: Crew
    """Who works."""

    goal: str
    """What for."""

    plan: Graph
    """The plan."""

    run_id: RunId
    """Its id."""

    status: RunStatus
    """Where it stands."""

    steps: List[StepView]
    """Its steps."""

    supervisor: Name
    """Its supervisor."""

    tasks: Counts
    """Its tasks."""


class RunView(_RunViewRequired, total=False):
    """A run."""

    account: Optional[Account]
    """What it may spend, and what it has spent; only of one run that is asked for."""

    awaits_supervisor: Optional[Name]
    """The gate that its supervisor is to reduce."""

    cancelled: Optional[str]
    """Why it was cancelled."""

    ended_at: Optional[Time]
    """When it ended."""

    failure: Optional[Failure]
    """Why it failed."""

    final_result: Optional[Json]
    """The result, or what there is of it."""

    metadata: Dict[str, Json]
    """Whatever its starter wants to find again."""

    partial: bool
    """The result is not whole: the run failed."""

    waits_for: Optional[RunWaits]
    """What it waits for, while it is open."""


class RunWaits(TypedDict):
    """What an open run waits for, and who can do something about it."""

    what: str
    """What."""

    who: str
    """Who."""


class SaidTurnBegan(TypedDict):
    """A model is asked, for the first time or again."""

    kind: Literal["turn_began"]

    turn: int
    """The turn's number within the attempt; each try has its own."""


class SaidText(TypedDict):
    """Words of a model, in the order they come."""

    kind: Literal["text"]

    text: str
    """The words."""

    turn: int
    """In which turn."""


class SaidTurnEnded(TypedDict):
    """A model has answered, or broke off."""

    kind: Literal["turn_ended"]

    turn: int
    """Which turn."""

    whole: bool
    """Its words are an answer; if not, they are to be forgotten, and another turn may follow.
    """


class SaidToolCall(TypedDict):
    """A tool is called."""

    arguments: str
    """With what: JSON, cut after 1,024 bytes."""

    kind: Literal["tool_call"]

    tool: str
    """Which."""


class SaidToolProgress(TypedDict):
    """A call goes on."""

    kind: Literal["tool_progress"]

    text: str
    """How far it is, in its own words: somebody else's, perhaps."""

    tool: str
    """Of which tool."""


class SaidToolResult(TypedDict):
    """A call came to its end."""

    bytes: int
    """Bytes that it gave back."""

    kind: Literal["tool_result"]

    succeeded: bool
    """It did what was asked."""

    tool: str
    """Of which tool."""


class SaidNote(TypedDict):
    """Something for people."""

    kind: Literal["note"]

    text: str
    """In words."""


class SaidDropped(TypedDict):
    """The worker dropped pieces of its attempt here, because nobody took them in time."""

    kind: Literal["dropped"]

    pieces: int
    """How many."""


Said = Union[
    "SaidTurnBegan",
    "SaidText",
    "SaidTurnEnded",
    "SaidToolCall",
    "SaidToolProgress",
    "SaidToolResult",
    "SaidNote",
    "SaidDropped",
]
"""What is said."""


class Say(TypedDict):
    """What an attempt says at once."""

    attempt: int
    """The fencing token."""

    pieces: List[Utterance]
    """In order; at most 256, with at most 64 KiB of text."""

    task_id: TaskId
    """The task."""


Scope = Literal["reader", "submitter", "worker", "operator", "admin"]
"""What a credential lets its bearer do."""


class _SetStatusRequired(TypedDict):
    """What is always there."""

    status: WorkerStatus
    """Which."""


class SetStatus(_SetStatusRequired, total=False):
    """A status to be, of those that are not computed: `available`, `draining`, `error`,
    `unavailable`.
    """

    reason: str
    """Why."""


class Settle(TypedDict):
    """A supervisor's reduction of a gate."""

    output: Json
    """What it made."""


class _SettleMessageRequired(TypedDict):
    """What is always there."""

    agent: Name
    """Who."""


class SettleMessage(_SettleMessageRequired, total=False):
    """How a receiver dealt with a message."""

    failure: Optional[str]
    """Why it failed, when it did."""


class SignalStop(TypedDict):
    """Stop: the attempt has ended, whatever comes of it is refused."""

    attempt: int
    """The attempt."""

    reason: str
    """Why."""

    signal: Literal["stop"]

    task: TaskId
    """The task."""


class SignalYield(TypedDict):
    """Hand it back at the next safe point: more urgent work waits."""

    attempt: int
    """The attempt."""

    signal: Literal["yield"]

    task: TaskId
    """The task."""


Signal = Union["SignalStop", "SignalYield"]
"""What a worker is told about a task it holds, or held."""


class Signals(TypedDict):
    """What a worker must know."""

    signals: List[Signal]
    """In order."""


class Skill(TypedDict):
    """Something that the server's own workers can do."""

    name: str
    """The task type that asks for it."""

    summary: str
    """What it does, in a sentence."""


class Skills(TypedDict):
    """What the server's own workers can do."""

    items: List[Skill]
    """All of it."""


class SlotUse(TypedDict):
    """At most `max` tasks with the same `key` run at once."""

    key: Name
    """The concurrency key."""

    max: int
    """How many at once; the newest claim's number holds."""


class Statistics(TypedDict):
    """The supervisor's statistics, exact after every restart."""

    attempts: int
    """Leases given out."""

    average_execution_ms: float
    """Mean milliseconds of a successful attempt."""

    percentiles_ms: Dict[str, int]
    """Upper bounds of percentiles, exact to a factor of two, in milliseconds: 50, 95, 99."""

    position: int
    """The position of the last event."""

    results_refused: int
    """Late or foreign results refused."""

    runs: int
    """Runs ever started."""

    runs_open: int
    """Runs that are open."""

    tasks_assigned: int
    """Leased, not begun."""

    tasks_by_agent: Dict[str, int]
    """Tasks completed, by worker."""

    tasks_by_type: Dict[str, int]
    """Tasks accepted, by type."""

    tasks_cancelled: int
    """Not wanted any more."""

    tasks_completed: int
    """Done."""

    tasks_failed: int
    """Dead letters."""

    tasks_in_progress: int
    """Begun."""

    tasks_pending: int
    """Waiting."""

    total_tasks_submitted: int
    """Tasks ever accepted: the sum of the six that follow."""


class _StepRequired(TypedDict):
    """What is always there."""

    id: Name
    """Its name, unique in the graph; its output is addressed by it."""


class Step(_StepRequired, total=False):
    """One step."""

    task: Template
    """One task."""

    each: Each
    """A task per item."""

    gate: Gate
    """Opens on a condition over the tasks of the steps it needs, and reduces their outputs."""

    needs: List[Name]
    """Steps that must have ended first. A gate watches them from their start on."""


StepEnd = Literal["done", "failed", "skipped"]
"""How a step ended."""


class StepKindTask(TypedDict):
    """One task."""

    task: Template
    """One task."""


class StepKindEach(TypedDict):
    """A task per item."""

    each: Each
    """A task per item."""


class StepKindGate(TypedDict):
    """Opens on a condition over the tasks of the steps it needs, and reduces their outputs."""

    gate: Gate
    """Opens on a condition over the tasks of the steps it needs, and reduces their outputs."""


StepKind = Union["StepKindTask", "StepKindEach", "StepKindGate"]
"""What a step does."""


StepStatus = Literal[
    "waiting",
    "running",
    "awaiting_supervisor",
    "awaiting_partial",
    "done",
    "failed",
    "skipped",
]
"""Where a step stands."""


class _StepViewRequired(TypedDict):
    """What is always there."""

    status: StepStatus
    """Where it stands."""

    step: Name
    """Its name."""

    tasks: Counts
    """Its tasks."""


class StepView(_StepViewRequired, total=False):
    """A step of a run."""

    output: Optional[Json]
    """What it made."""


Strategy = Literal["round_robin", "least_loaded", "weighted", "capability", "affinity"]
"""How work is shared out."""


class _SubmissionRequired(TypedDict):
    """What is always there."""

    spec: TaskSpec
    """What is asked."""


class Submission(_SubmissionRequired, total=False):
    """A task to be."""

    id: Optional[TaskId]
    """Its id, when the submitter chooses it: the same id and content twice is one task."""

    key: Optional[Name]
    """An idempotency key: the same key and content within a day is one task."""


class SubmitMany(TypedDict):
    """Many tasks, in one transaction."""

    tasks: List[Submission]
    """At most 10,000."""


class SubmitResult(TypedDict, total=False):
    """What became of one."""

    problem: Optional[Problem]
    """Why not, otherwise."""

    task_id: Optional[TaskId]
    """The task, when it was accepted."""


class Submitted(TypedDict):
    """What became of each."""

    results: List[SubmitResult]
    """In the order they were sent."""


class Subscription(TypedDict, total=False):
    """What an agent listens to besides messages to itself and to everybody."""

    kinds: List[Name]
    """Types."""


TaskId = str
"""`task_` and 26 characters; ids of later things sort later."""


class TaskRef(TypedDict):
    """A task's id."""

    task_id: TaskId
    """The task."""


class TaskSpec(TypedDict, total=False):
    """All that a submitter says about a task. Every field but the input has a default."""

    address: Address
    """Who may take it."""

    after: List[TaskId]
    """Not before these tasks have completed."""

    capability: Optional[Name]
    """What a worker must be able to do. `None` means nothing special."""

    input: Json
    """What the handler gets, the brief."""

    kind: Name
    """The task's type: which handler runs it, and what statistics count it as."""

    metadata: Dict[str, str]
    """Carried to the result, for the submitter."""

    not_before: Optional[Time]
    """Not before this instant."""

    of: Optional[Membership]
    """Its place in a run."""

    priority: Priority
    """What comes first."""

    queue: Name
    """Where it waits."""

    retry: RetryPolicy
    """When a failed attempt is followed by another."""

    slot: Optional[SlotUse]
    """A bound on how many run at once."""

    timeout_ms: int
    """Milliseconds an attempt may take, from its lease."""

    trace: Optional[TraceParent]
    """Where it stands in its submitter's trace."""


TaskStatus = Literal["pending", "assigned", "in_progress", "completed", "failed", "cancelled"]
"""A task's state without its data. Wire names as in the closed list of the design."""


class _TaskViewRequired(TypedDict):
    """What is always there."""

    address: Address
    """Who may take it."""

    attempts: int
    """Leases so far."""

    band: str
    """The band its priority lies in."""

    input: Json
    """What the handler gets."""

    kind: Name
    """Its type."""

    priority: Priority
    """What comes first."""

    queue: Name
    """Where it waits."""

    status: TaskStatus
    """Where it stands."""

    submitted_at: Time
    """When it was submitted."""

    task_id: TaskId
    """Its id."""


class TaskView(_TaskViewRequired, total=False):
    """A task."""

    account: Ledger
    """What its steps cost."""

    cancelled: Optional[str]
    """Why it was cancelled."""

    capability: Optional[Name]
    """What a worker must be able to do."""

    ended: List[EndedAttempt]
    """The newest ended attempts."""

    ended_at: Optional[Time]
    """When it ended."""

    failure: Optional[Failure]
    """The last failure."""

    item: Optional[int]
    """Which item of the step."""

    metadata: Dict[str, str]
    """Carried for the submitter."""

    output: Optional[Json]
    """The result."""

    progress: Optional[Progress]
    """How far it is."""

    ran_ms: Optional[int]
    """Milliseconds that the successful attempt took."""

    records: List[Record]
    """What became of its steps: read alone, the first page of those that are done; then, and in
    lists, those that are not.
    """

    records_done: int
    """How many of its steps its attempts have done."""

    records_next: Optional[str]
    """Where the next page of its records begins, when it was read alone and has more."""

    run_id: Optional[RunId]
    """Its run, step and item."""

    step: Optional[Name]
    """The step that made it."""

    waits_for: Optional[Waits]
    """Why it waits, while it does."""

    worker: Optional[Name]
    """Who completed it, has it, or is to have it."""


class _TemplateRequired(TypedDict):
    """What is always there."""

    kind: Name
    """Their type."""


class Template(_TemplateRequired, total=False):
    """What the tasks of a step have in common."""

    affinity_from: Optional[str]
    """Tasks whose value here is the same go to the same worker, under `Affinity`. An expression
    like `input_from`.
    """

    capability: Optional[Name]
    """What a worker must be able to do."""

    input: Any
    """Their input, when it is not the item."""

    input_from: Optional[str]
    """Or an expression for it, over `goal`, `steps` (outputs by step) and, in `each`, `item`
    and `index`.
    """

    priority: Priority
    """What comes first."""

    queue: Name
    """The queue."""

    retry: RetryPolicy
    """When a failed attempt is followed by another."""

    timeout_ms: Optional[int]
    """Milliseconds an attempt may take."""


class TenantList(TypedDict):
    """Tenants."""

    items: List[TenantRef]
    """All of them."""


class TenantRef(TypedDict):
    """A tenant's name."""

    tenant: Name
    """1 to 63 lower-case letters, digits and hyphens."""


class _TiesRequired(TypedDict):
    """What is always there."""

    kind: Name
    """The task's type, for statistics."""

    queue: Name
    """Its queue."""


class Ties(_TiesRequired, total=False):
    """What the counters of a task's surroundings need to know about it. Every event that
    changes a task's state carries it, so that queue, run, slot and statistics fold without the
    task's row.
    """

    of: Optional[Membership]
    """Its place in a run."""

    slot: Optional[Name]
    """The concurrency key it occupies while leased."""


Time = int
"""Milliseconds since 1970-01-01T00:00:00Z."""


class ToAgent(TypedDict):
    """One agent, whether or not it subscribed to the type."""

    agent: Name
    """One agent, whether or not it subscribed to the type."""


class ToPrefix(TypedDict):
    """Everybody whose id begins with this."""

    prefix: str
    """Everybody whose id begins with this."""


To = Union["ToAgent", Literal["type"], Literal["everybody"], "ToPrefix"]
"""To whom."""


TraceParent = str
"""A `traceparent` of W3C Trace Context."""


class Utterance(TypedDict):
    """Who says what, within an attempt."""

    agent: Name
    """Who: an agent's name."""

    said: Said
    """What."""


class WaitsReady(TypedDict):
    """For its turn, behind what goes first."""

    reason: Literal["ready"]


class WaitsNotDue(TypedDict):
    """For an instant."""

    reason: Literal["not_due"]

    until: Time
    """Which."""


class WaitsRateLimited(TypedDict):
    """For an instant before which its worker could do nothing: a provider lets nobody in."""

    reason: Literal["rate_limited"]

    until: Time
    """Which."""

    why: str
    """What its worker said."""


class WaitsAwaitingHuman(TypedDict):
    """For a person's yes, or to find out what became of a step."""

    reason: Literal["awaiting_human"]

    step: Name
    """Which step."""

    why: str
    """What its worker said."""


class WaitsBlockedBy(TypedDict):
    """For other tasks."""

    reason: Literal["blocked_by"]

    tasks: List[TaskId]
    """Which have not completed."""


class WaitsNoCapableWorker(TypedDict):
    """For a worker that can do it, or for the one it is addressed to."""

    missing: str
    """What is missing, in words."""

    reason: Literal["no_capable_worker"]


class WaitsAtCapacity(TypedDict):
    """For room: every worker that may take it is full, or its concurrency key is."""

    full: str
    """What is full, in words."""

    reason: Literal["at_capacity"]


class WaitsPaused(TypedDict):
    """For somebody to resume its queue."""

    queue: Name
    """The queue."""

    reason: Literal["paused"]


Waits = Union[
    "WaitsReady",
    "WaitsNotDue",
    "WaitsRateLimited",
    "WaitsAwaitingHuman",
    "WaitsBlockedBy",
    "WaitsNoCapableWorker",
    "WaitsAtCapacity",
    "WaitsPaused",
]
"""Why a pending task waits. Wire names as in the closed list of the design."""


class WorkBody(TypedDict, total=False):
    """What a worker says: what became of its tasks, and what it wants next."""

    claim: Optional[Claim]
    """What it wants."""

    reports: List[ReportItem]
    """What became of which attempt."""

    session: Optional[int]
    """The worker's life, as it registered."""


class _WorkedBodyRequired(TypedDict):
    """What is always there."""

    reports: List[Optional[Problem]]
    """For each report, why it was refused; null when it was accepted."""

    tasks: List[Assignment]
    """The tasks it holds now in addition."""


class WorkedBody(_WorkedBodyRequired, total=False):
    """The answer to a worker."""

    refused: Optional[Problem]
    """Why the claim was refused, when it was; the reports stand all the same."""


class WorkerRef(TypedDict):
    """A worker's id."""

    worker_id: Name
    """The worker."""


class _WorkerSpecRequired(TypedDict):
    """What is always there."""

    id: Name
    """Its id, chosen by itself: `worker_1`, `worker_0`, a host name."""


class WorkerSpec(_WorkerSpecRequired, total=False):
    """What a worker says about itself when it registers."""

    agent_type: Name
    """What kind of agent it is, for whoever looks for one."""

    capabilities: List[Name]
    """What it can do, matched without regard to case."""

    capacity: int
    """Tasks it runs at once."""

    endpoint: Optional[str]
    """Where it can be reached, when it can."""

    home: Home
    """How its death is noticed."""

    intents: List[Name]
    """What it understands to be asked for: capabilities too."""

    kinds: List[Name]
    """The task types it handles; none named means all."""

    lease_ms: int
    """Milliseconds without a heartbeat after which it is lost."""

    metadata: Dict[str, str]
    """For people and filters."""

    queues: List[Name]
    """The queues it serves."""

    session: int
    """Tells one life from the next: a new session releases what the old one held."""

    tools: List[Name]
    """Tools it can use: capabilities too."""


WorkerStatus = Literal["unknown", "available", "busy", "unavailable", "error", "draining"]
"""A worker's status as people and filters see it."""


class _WorkerViewRequired(TypedDict):
    """What is always there."""

    agent_type: Name
    """What kind of agent it is."""

    average_ms: float
    """Mean milliseconds of those that succeeded."""

    capabilities: List[Name]
    """What it can do."""

    capacity: int
    """Tasks it runs at once."""

    completed: int
    """Attempts that succeeded."""

    current_task_count: int
    """Tasks it has now."""

    failed: int
    """Attempts that ended otherwise."""

    queues: List[Name]
    """The queues it serves."""

    status: WorkerStatus
    """Whether it is there."""

    worker_id: Name
    """Its id."""


class WorkerView(_WorkerViewRequired, total=False):
    """A worker."""

    endpoint: Optional[str]
    """Where it can be reached."""

    intents: List[Name]
    """What it understands to be asked for."""

    last_heartbeat: Optional[Time]
    """When it was heard last, in this process' life."""

    metadata: Dict[str, str]
    """For people and filters."""

    reason: Optional[str]
    """Why it is not."""

    tools: List[Name]
    """Tools it can use."""


EVENT_TYPES = (
    "attempt.ended",
    "budget.warned",
    "credential.created",
    "credential.revoked",
    "entry.claimed",
    "entry.forgotten",
    "entry.written",
    "gate.awaits_supervisor",
    "message.dead_lettered",
    "message.delivered",
    "message.expired",
    "message.forgotten",
    "message.offered_again",
    "message.sent",
    "pool.defined",
    "pool.joined",
    "pool.left",
    "queue.paused",
    "queue.resumed",
    "receipt.forgotten",
    "record.noted",
    "record.resolved",
    "result.refused",
    "run.cancelled",
    "run.completed",
    "run.extended",
    "run.failed",
    "run.reopened",
    "run.started",
    "step.ended",
    "step.started",
    "task.assigned",
    "task.cancelled",
    "task.completed",
    "task.failed",
    "task.progressed",
    "task.reassigned",
    "task.redriven",
    "task.started",
    "task.submitted",
    "task.unblocked",
    "task.yield_asked",
    "tool.missed",
    "worker.draining",
    "worker.faulted",
    "worker.forgotten",
    "worker.lost",
    "worker.registered",
    "worker.reservation_ended",
    "worker.reserved",
)
"""The type of every event that the log can have."""
