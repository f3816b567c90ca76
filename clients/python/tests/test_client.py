"""What a program sees that submits, reads and watches."""

from __future__ import annotations

import asyncio
import io
import logging
import pickle
import uuid
from typing import Iterator

import pytest
from chargehand import (
    AsyncChargehand,
    Chargehand,
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    KeyRefused,
    NewTask,
    NotFound,
    Retry,
    RunFailed,
    ScopeMissing,
    ServerUnreachable,
    SomeRefused,
    TaskCancelled,
    WaitTimedOut,
    Worker,
)
from conftest import PATIENCE, Server, free_port


def fresh(noun: str) -> str:
    return f"{noun}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def doubler(shared: Server) -> Iterator[str]:
    kind = fresh("double")
    worker = Worker(fresh("doubler"), url=shared.url)

    @worker.task(kind, concurrency=8)
    def double(_: object, number: int) -> int:
        return number * 2

    with worker:
        yield kind


def test_a_task_comes_back_with_its_output(client: Chargehand, doubler: str) -> None:
    task = client.submit(doubler, 21, priority="high", metadata={"who": "me"})
    assert task.wait(timeout=PATIENCE) == 42
    view = client.task(task.id).get()
    assert (view["status"], view["band"], view["attempts"]) == ("completed", "high", 1)
    assert view["metadata"] == {"who": "me"}
    assert task.attempts()["ended"][0]["state"] == "succeeded"


def test_many_tasks_keep_their_order(client: Chargehand, doubler: str) -> None:
    tasks = client.submit_many(NewTask(doubler, n) for n in range(200))
    assert [task.wait(timeout=PATIENCE) for task in tasks] == [2 * n for n in range(200)]
    listed = [view["task_id"] for view in client.tasks(kind=doubler, page_size=30)]
    assert listed == [task.id for task in tasks]


def test_tasks_wait_for_others(client: Chargehand, doubler: str) -> None:
    first = client.submit(doubler, 1, not_before=None)
    second = client.submit(doubler, 2, after=[first], concurrency_key=("customer-7", 2))
    assert second.wait(timeout=PATIENCE) == 4
    assert first.get()["status"] == "completed"


def test_of_many_the_refused_ones_are_named(client: Chargehand) -> None:
    kind = fresh("nobody")
    with pytest.raises(SomeRefused) as refused:
        client.submit_many([NewTask(kind, 1), NewTask(kind, 2, priority=5000), NewTask(kind, 3)])
    good, bad, _ = refused.value.results
    assert bad.code == "value.out_of_range" and isinstance(bad, InvalidRequest)
    assert good.get()["status"] == "pending"
    assert len(list(client.tasks(kind=kind))) == 2


def test_the_same_idempotency_key_is_one_task(client: Chargehand) -> None:
    kind, key = fresh("once"), uuid.uuid4().hex
    first = client.submit(kind, 1, idempotency_key=key)
    assert client.submit(kind, 1, idempotency_key=key).id == first.id
    with pytest.raises(IdempotencyMismatch):
        client.submit(kind, 2, idempotency_key=key)
    again = client.submit_many([NewTask(kind, 7), NewTask(kind, 8)], idempotency_key="b" + key)
    more = client.submit_many([NewTask(kind, 7), NewTask(kind, 8)], idempotency_key="b" + key)
    assert [task.id for task in again] == [task.id for task in more]
    assert client.submit(kind, 1).id != client.submit(kind, 1).id


def test_a_task_may_bring_its_own_id(client: Chargehand) -> None:
    kind, other = fresh("mine"), fresh("other")
    id = "task_0" + uuid.uuid4().hex[:25]
    assert client.submit(kind, 1, id=id).id == client.submit(kind, 1, id=id).id == id
    with pytest.raises(Conflict) as taken:
        client.submit(other, 2, id=id)
    assert taken.value.code == "task.exists"


def test_cancelled_and_late_tasks_are_exceptions(client: Chargehand) -> None:
    task = client.submit(fresh("nobody"))
    with pytest.raises(TimeoutError) as late:
        task.wait(timeout=0.2)
    assert isinstance(late.value, WaitTimedOut)
    client.cancel(task, "not wanted")
    with pytest.raises(TaskCancelled) as cancelled:
        task.wait(timeout=PATIENCE)
    assert cancelled.value.reason == "not wanted"


def test_an_error_says_what_to_do(client: Chargehand) -> None:
    with pytest.raises(NotFound) as unknown:
        client.task("task_" + "0" * 26).get()
    error = unknown.value
    assert (error.code, error.status, error.retryable) == ("task.unknown", 404, False)
    assert error.hint and error.request_id and error.request_id.startswith("req_")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(InvalidRequest):
        client.submit(fresh("bad"), priority=10_000)
    with pytest.raises(ValueError):
        client.submit(fresh("bad"), float("nan"))


def test_a_server_that_is_not_there_is_an_error_in_bounded_time() -> None:
    with Chargehand(f"http://127.0.0.1:{free_port()}", retries=1) as client:
        with pytest.raises(ConnectionError) as nobody:
            client.submit("x")
    assert isinstance(nobody.value, ServerUnreachable) and nobody.value.retryable


def test_runs(client: Chargehand, doubler: str) -> None:
    run = client.start_run(
        "double some",
        [
            {"id": "each", "each": {"items": [1, 2, 3], "task": {"kind": doubler}}},
            {"id": "all", "needs": ["each"], "gate": {"join": "all", "reduce": "collect"}},
        ],
        metadata={"n": 3},
    )
    assert sorted(run.wait(timeout=PATIENCE)) == [2, 4, 6]
    assert run.id in [view["run_id"] for view in client.runs(status="completed")]
    for event in run.events(types="run.*"):
        if event.type == "run.completed":
            break
    bad = client.start_run(
        "fail",
        [{"id": "one", "task": {"kind": doubler, "input": None, "retry": Retry(1).policy()}}],
    )
    with pytest.raises(RunFailed) as failed:
        bad.wait(timeout=PATIENCE)
    assert failed.value.code


def test_the_blackboard(client: Chargehand) -> None:
    author, tag = fresh("author"), fresh("tag")
    entry = client.blackboard.write({"n": 1}, author=author, tags=[tag], importance=0.9)
    client.blackboard.write({"n": 2}, author=author, tags=[tag], importance=0.1)
    found = client.blackboard.list(tags_all=[tag], importance_min=0.5)
    assert [item["content"] for item in found] == [{"n": 1}]
    client.blackboard.claim(entry, "one")
    with pytest.raises(Conflict) as held:
        client.blackboard.claim(entry, "two")
    assert held.value.code == "entry.claimed"
    client.blackboard.claim(entry, None, expected="one")
    assert client.blackboard.statistics()["by_author"][author] == 2


def test_messages(client: Chargehand, shared: Server) -> None:
    asker, answerer = fresh("asker"), fresh("answerer")
    client.messages.subscribe(asker)
    client.messages.subscribe(answerer)
    sent = client.messages.send(asker, answerer, "greeting", {"text": "hello"})
    (got,) = client.messages.receive(answerer, timeout=PATIENCE)
    assert (got["id"], got["message"]["payload"]) == (sent, {"text": "hello"})
    client.messages.settle(sent, answerer)

    async def ask_and_answer() -> object:
        async with AsyncChargehand(shared.url) as aclient:
            asking = asyncio.ensure_future(
                aclient.messages.request(asker, answerer, "question", 6, timeout=PATIENCE)
            )
            (question,) = await aclient.messages.receive(answerer, timeout=PATIENCE)
            await aclient.messages.send(
                answerer, asker, "answer", 42, correlation=question["id"]
            )
            return (await asking)["message"]["payload"]

    assert asyncio.run(ask_and_answer()) == 42


def test_pools(client: Chargehand, doubler: str) -> None:
    pool, holder = fresh("pool"), fresh("holder")
    (member,) = [view["worker_id"] for view in client.workers(status="available")]
    made = client.pools.define(pool, members=[member], expected=0)
    with pytest.raises(Conflict):
        client.pools.define(pool, expected=0)
    client.pools.define(pool, strategy="weighted", expected=made["version"])
    assert client.pools.reserve(pool, holder) == member
    client.pools.unreserve(member, holder)
    assert client.pools.statistics(pool)["total_workers"] == 1
    assert client.pools.get(pool)["strategy"] == "weighted"


def test_queues_and_statistics(client: Chargehand) -> None:
    queue = fresh("queue")
    client.submit(fresh("nobody"), queue=queue)
    assert [q["pending"] for q in client.queues() if q["queue"] == queue] == [1]
    client.pause_queue(queue)
    assert [q["paused"] for q in client.queues() if q["queue"] == queue] == [True]
    client.resume_queue(queue)
    numbers = client.statistics()
    assert numbers["total_tasks_submitted"] > 0 and client.position() >= numbers["position"]


def test_events_of_a_type_from_a_position(client: Chargehand, doubler: str) -> None:
    after = client.position()
    task = client.submit(doubler, 5)
    seen = []
    for event in client.events(after, types=["task.submitted", "task.completed"]):
        if task.id in str(event.data):
            seen.append(event.type)
        if event.type == "task.completed":
            break
    assert seen == ["task.submitted", "task.completed"]


def test_a_trace_goes_through(client: Chargehand, shared: Server) -> None:
    kind = fresh("traced")
    worker = Worker(fresh("tracer"), url=shared.url)

    @worker.task(kind)
    async def traced(ctx, _):  # type: ignore[no-untyped-def]
        return ctx.traceparent

    trace = uuid.uuid4().hex
    with worker:
        task = client.submit(kind, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
        assert task.wait(timeout=PATIENCE).split("-")[1] == trace


def test_the_async_client_is_the_same(shared: Server, doubler: str) -> None:
    async def both() -> None:
        async with AsyncChargehand(shared.url) as client:
            tasks = await client.submit_many([NewTask(doubler, n) for n in range(20)])
            outputs = await asyncio.gather(*(task.wait(timeout=PATIENCE) for task in tasks))
            assert outputs == [2 * n for n in range(20)]
            assert len([view async for view in client.tasks(kind=doubler, page_size=7)]) == 20

    asyncio.run(both())


def test_a_key_opens_only_what_it_is_for_and_is_seen_nowhere(own: Server) -> None:
    told = io.StringIO()
    watching = logging.StreamHandler(told)
    logging.getLogger().addHandler(watching)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        with own.client() as opener:
            admin = opener.keys.create("admin", ["admin"])["key"]
        with own.client(admin) as client:
            reader = client.keys.create("reader", ["reader"])
            worker_key = client.keys.create("worker", ["worker"])["key"]
            submitter = client.keys.create("submitter", ["submitter", "reader"])["key"]
        with own.client() as nobody, pytest.raises(KeyRefused) as refused:
            nobody.statistics()
        assert refused.value.code == "key.refused"
        with own.client(reader["key"]) as client:
            assert client.statistics()["total_tasks_submitted"] == 0
            with pytest.raises(ScopeMissing) as missing:
                client.submit("x")
            assert missing.value.code == "key.scope_missing"
            assert "submitter" in missing.value.detail + missing.value.hint
            shown = repr(client) + repr(client._http.__dict__) + str(vars(client))
        lost = Worker("w", url=own.url, key=reader["key"])
        lost.task("x")(lambda ctx, input: input)
        with pytest.raises(ScopeMissing):
            lost.run()
        # A worker needs no more than the scope of this name.
        worker = Worker("w", url=own.url, key=worker_key)
        worker.task("x")(lambda ctx, input: ctx.blackboard.write(input))
        with worker, own.client(submitter) as client:
            assert client.submit("x", "note").wait(timeout=PATIENCE).startswith("entry_")
        shown += repr(worker) + str(vars(worker))
        for key in (admin, reader["key"], worker_key, submitter):
            secret = key.rsplit("_", 1)[-1]
            assert len(secret) > 20 and secret not in told.getvalue() + shown
        with own.client(admin) as client:
            client.keys.revoke(reader["credential"]["id"])
        with own.client(reader["key"]) as client, pytest.raises(KeyRefused):
            client.statistics()
    finally:
        logging.getLogger().removeHandler(watching)
        logging.getLogger().setLevel(logging.WARNING)


def test_an_address_with_a_password_is_refused() -> None:
    for wrong in ("127.0.0.1:7420", "ftp://example.com", "http://user:secret@127.0.0.1"):
        with pytest.raises(ValueError) as refused:
            Chargehand(wrong)
        assert "secret" not in str(refused.value)
