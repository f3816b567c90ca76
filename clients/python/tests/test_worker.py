"""What a program sees that works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, List

import pytest
from chargehand import (
    Cancelled,
    Chargehand,
    PermanentError,
    Retry,
    Superseded,
    TaskError,
    TaskFailed,
    Worker,
)
from conftest import PATIENCE, Server, until


def fresh(noun: str) -> str:
    return f"{noun}-{uuid.uuid4().hex[:12]}"


def test_a_failure_is_tried_again_and_the_last_one_is_told(
    client: Chargehand, shared: Server
) -> None:
    flaky, hopeless, permanent, odd = (fresh(n) for n in ("flaky", "hopeless", "never", "odd"))
    worker = Worker(fresh("w"), url=shared.url)

    @worker.task(flaky)
    def second_time(ctx: Any, _: Any) -> Any:
        if ctx.attempt == 1:
            raise ConnectionError("the first time")
        return [ctx.attempt, ctx.idempotency_key]

    @worker.task(hopeless)
    async def always(ctx: Any, _: Any) -> Any:
        raise TaskError("no luck", code="luck.none")

    @worker.task(permanent)
    def refuse(ctx: Any, _: Any) -> Any:
        raise PermanentError("the input makes no sense")

    @worker.task(odd)
    def not_json(ctx: Any, _: Any) -> Any:
        return {1, 2}

    quick = Retry(attempts=2, backoff=0.01)
    with worker:
        task = client.submit(flaky, retry=quick)
        assert task.wait(timeout=PATIENCE) == [2, task.id]
        assert task.attempts()["ended"][0]["failure"]["code"] == "ConnectionError"
        with pytest.raises(TaskFailed) as failed:
            client.submit(hopeless, retry=quick).wait(timeout=PATIENCE)
        assert (failed.value.code, failed.value.detail) == ("luck.none", "no luck")
        task = client.submit(permanent, retry=quick)
        with pytest.raises(TaskFailed) as failed:
            task.wait(timeout=PATIENCE)
        assert failed.value.failure["retryable"] is False and task.get()["attempts"] == 1
        with pytest.raises(TaskFailed) as failed:
            client.submit(odd, retry=quick).wait(timeout=PATIENCE)
        assert failed.value.code == "output.not_json"


def test_a_reader_sees_progress(client: Chargehand, shared: Server) -> None:
    kind, go = fresh("slow"), threading.Event()
    worker = Worker(fresh("w"), url=shared.url)

    @worker.task(kind)
    def slow(ctx: Any, _: Any) -> str:
        ctx.progress(0.25, "a quarter")
        assert go.wait(PATIENCE)
        ctx.progress(0.75, "more")
        return "done"

    with worker:
        task = client.submit(kind)
        until(lambda: (task.get().get("progress") or {}).get("fraction") == 0.25, "progress")
        assert task.get()["status"] == "in_progress"
        go.set()
        assert task.wait(timeout=PATIENCE) == "done"


def test_a_cancellation_reaches_every_handler(client: Chargehand, shared: Server) -> None:
    blocking, waiting = fresh("blocking"), fresh("waiting")
    seen: List[str] = []
    worker = Worker(fresh("w"), url=shared.url)

    @worker.task(blocking)
    def block(ctx: Any, _: Any) -> None:
        try:
            while True:
                assert ctx.cancelled.wait(PATIENCE)
                ctx.check()
        except Exception:
            seen.append("this is not how it ends")
        except Cancelled as why:
            seen.append(f"blocking: {why}")
            raise

    @worker.task(waiting)
    async def sleep(ctx: Any, _: Any) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            seen.append(f"waiting: {ctx.reason}")

    with worker:
        tasks = [client.submit(blocking), client.submit(waiting)]
        for task in tasks:
            until(lambda: task.get()["status"] == "in_progress", "the start")
        for task in tasks:
            task.cancel("changed my mind")
        until(lambda: len(seen) == 2, "the cancellation")
        assert all("changed my mind" in what for what in seen), seen
        assert [what.split(":")[0] for what in sorted(seen)] == ["blocking", "waiting"]
        # The room is free again.
        again = client.submit(blocking)
        until(lambda: again.get()["status"] == "in_progress", "the next task")
        again.cancel()


def test_no_type_runs_more_often_at_once_than_it_may(client: Chargehand, shared: Server) -> None:
    many, one = fresh("many"), fresh("one")
    lock, now, most = threading.Lock(), {many: 0, one: 0}, {many: 0, one: 0}
    worker = Worker(fresh("w"), url=shared.url)

    def body(ctx: Any, _: Any) -> None:
        with lock:
            now[ctx.kind] += 1
            most[ctx.kind] = max(most[ctx.kind], now[ctx.kind])
        time.sleep(0.03)
        with lock:
            now[ctx.kind] -= 1

    worker.task(many, concurrency=3)(body)
    worker.task(one)(body)
    with worker:
        assert client.worker(worker.id)["capacity"] == 4
        tasks = [client.submit(kind) for _ in range(12) for kind in (many, one)]
        for task in tasks:
            task.wait(timeout=PATIENCE)
    assert most[one] == 1 and 1 < most[many] <= 3


def test_one_type_that_is_full_does_not_keep_another_waiting(
    client: Chargehand, shared: Server
) -> None:
    long, short, go = fresh("long"), fresh("short"), threading.Event()
    worker = Worker(fresh("w"), url=shared.url)
    worker.task(long)(lambda ctx, input: go.wait(PATIENCE))
    worker.task(short)(lambda ctx, input: input)
    with worker:
        slow = [client.submit(long) for _ in range(3)]
        assert client.submit(short, 5).wait(timeout=PATIENCE) == 5
        assert [task.get()["status"] for task in slow].count("in_progress") == 1
        go.set()
        for task in slow:
            assert task.wait(timeout=PATIENCE) is True


def test_a_task_handed_back_goes_on_from_its_checkpoint(
    client: Chargehand, shared: Server
) -> None:
    kind = fresh("steps")
    worker = Worker(fresh("w"), url=shared.url)

    @worker.task(kind)
    def steps(ctx: Any, _: Any) -> Any:
        if ctx.checkpoint is None:
            ctx.release({"done": 3})
        return [ctx.attempt, ctx.checkpoint["done"]]

    with worker:
        assert client.submit(kind).wait(timeout=PATIENCE) == [2, 3]


def test_more_urgent_work_asks_to_yield(client: Chargehand, shared: Server) -> None:
    kind, queue = fresh("work"), fresh("queue")
    worker = Worker(fresh("w"), url=shared.url, queues=[queue])
    order: List[str] = []

    @worker.task(kind)
    def work(ctx: Any, name: str) -> None:
        if name == "slow" and ctx.attempt == 1:
            until(lambda: ctx.should_yield, "the wish to yield")
            ctx.release()
        order.append(name)

    with worker:
        slow = client.submit(kind, "slow", queue=queue, priority="low")
        until(lambda: slow.get()["status"] == "in_progress", "the start")
        urgent = client.submit(kind, "urgent", queue=queue, priority="critical")
        urgent.wait(timeout=PATIENCE)
        slow.wait(timeout=PATIENCE)
    assert order == ["urgent", "slow"]


def test_a_handler_writes_on_the_board_of_its_run(client: Chargehand, shared: Server) -> None:
    kind = fresh("writer")
    worker = Worker(fresh("w"), url=shared.url)

    @worker.task(kind)
    async def write(ctx: Any, _: Any) -> str:
        ctx.log.info("writing")
        return str(await ctx.blackboard.write({"found": 1}, tags=["finding"]))

    with worker:
        run = client.start_run("write", [{"id": "only", "task": {"kind": kind}}])
        run.wait(timeout=PATIENCE)
    (entry,) = client.blackboard.list(run=run.id, tags_all=["finding"])
    assert (entry["author"], entry["content"]) == (worker.id, {"found": 1})
    assert entry["provenance"]["attempt"] == 1


def test_of_two_workers_with_one_id_the_older_one_stops(
    client: Chargehand, shared: Server
) -> None:
    kind, id = fresh("hold"), fresh("twin")
    stopped: List[str] = []

    def make(name: str) -> Worker:
        worker = Worker(id, url=shared.url)

        @worker.task(kind)
        def hold(ctx: Any, _: Any) -> str:
            if name == "older":
                ctx.cancelled.wait(PATIENCE)
                stopped.append(ctx.reason)
            return name

        return worker

    older = make("older")
    older.start()
    task = client.submit(kind)
    until(lambda: task.get()["status"] == "in_progress", "the start")
    with make("newer"):
        assert task.wait(timeout=PATIENCE) == "newer"
        with pytest.raises(Superseded):
            older.stop()
        until(lambda: stopped, "the older one's end")
        # It said no good-bye for the newer one.
        assert client.worker(id)["status"] == "available"


def test_a_drained_worker_gets_nothing_until_it_is_available_again(
    client: Chargehand, shared: Server
) -> None:
    kind = fresh("drained")
    worker = Worker(fresh("w"), url=shared.url)
    worker.task(kind)(lambda ctx, input: input)
    with worker:
        assert client.submit(kind, 1).wait(timeout=PATIENCE) == 1
        client.set_worker_status(worker.id, "draining")
        task = client.submit(kind, 2)
        time.sleep(0.5)
        assert client.worker(worker.id)["status"] == "draining"
        assert task.get()["status"] == "pending"
        client.set_worker_status(worker.id, "available")
        assert task.wait(timeout=PATIENCE) == 2


def test_a_handler_that_blocks_does_not_cost_the_lease(client: Chargehand, shared: Server) -> None:
    kind = fresh("blocks")
    worker = Worker(fresh("w"), url=shared.url, lease=0.5)

    @worker.task(kind)
    async def blocks(ctx: Any, _: Any) -> int:
        time.sleep(2)
        return int(ctx.attempt)

    with worker:
        assert client.submit(kind).wait(timeout=PATIENCE) == 1


def test_an_exception_that_cannot_be_shown_is_a_failure_all_the_same(
    client: Chargehand, shared: Server
) -> None:
    kind = fresh("odd")
    worker = Worker(fresh("w"), url=shared.url)

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    @worker.task(kind)
    def odd(ctx: Any, what: str) -> None:
        raise Odd() if what == "odd" else ValueError("\ud800" + "é" * 100_000)

    with worker:
        for what, code in (("odd", "Odd"), ("long", "ValueError")):
            with pytest.raises(TaskFailed) as failed:
                client.submit(kind, what, retry=1).wait(timeout=PATIENCE)
            assert failed.value.code == code and len(failed.value.detail) < 5000


def test_a_worker_in_a_program_with_a_loop(client: Chargehand, shared: Server) -> None:
    kind = fresh("looped")

    async def main() -> Any:
        worker = Worker(fresh("w"), url=shared.url)
        loop = asyncio.get_running_loop()

        @worker.task(kind, concurrency=4)
        async def same_loop(ctx: Any, _: Any) -> bool:
            return asyncio.get_running_loop() is loop

        working = asyncio.ensure_future(worker.run_async())
        task = client.submit(kind)
        output = await loop.run_in_executor(None, lambda: task.wait(timeout=PATIENCE))
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert client.worker(worker.id)["status"] == "unavailable"
        return output

    assert asyncio.run(main()) is True


PROGRAM = """
import sys, time
from chargehand import Worker

worker = Worker(sys.argv[2], url=sys.argv[1], lease=1.0, grace=float(sys.argv[4]))

@worker.task(sys.argv[3], concurrency=2)
def work(ctx, input):
    if input == "long" and ctx.attempt == 1:
        ctx.save({"so": "far"})
        ctx.progress(0.5)
        time.sleep(600)
    if input == "medium":
        ctx.progress(0.5)
        time.sleep(0.5)
    return [ctx.attempt, ctx.checkpoint]

worker.run()
"""


def program(
    folder: Path, shared: Server, id: str, kind: str, grace: float
) -> "subprocess.Popen[bytes]":
    file = folder / "worker.py"
    file.write_text(PROGRAM)
    return subprocess.Popen([sys.executable, str(file), shared.url, id, kind, str(grace)])


def test_what_a_killed_worker_had_comes_back(
    client: Chargehand, shared: Server, tmp_path: Path
) -> None:
    kind, id = fresh("killed"), fresh("victim")
    process = program(tmp_path, shared, id, kind, 10)
    tasks = [client.submit(kind, "long") for _ in range(2)]
    for task in tasks:
        until(lambda: task.get().get("progress"), "the start")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    heir = program(tmp_path, shared, fresh("heir"), kind, 10)
    try:
        assert [task.wait(timeout=PATIENCE)[0] for task in tasks] == [2, 2]
        assert tasks[0].attempts()["ended"][0]["state"] == "lost"
    finally:
        heir.send_signal(signal.SIGTERM)
        assert heir.wait(PATIENCE) == 0


def test_a_worker_that_is_told_to_stop_finishes_or_hands_back(
    client: Chargehand, shared: Server, tmp_path: Path
) -> None:
    kind, id = fresh("stopped"), fresh("leaver")
    process = program(tmp_path, shared, id, kind, 1.5)
    medium, long = client.submit(kind, "medium"), client.submit(kind, "long")
    for task in (medium, long):
        until(lambda: task.get().get("progress"), "the start")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert medium.wait(timeout=PATIENCE) == [1, None]
    # It said good-bye: nobody has to wait for its lease.
    assert client.worker(id)["status"] == "unavailable"
    view = long.get()
    assert (view["status"], view["ended"][0]["failure"]["code"]) == ("pending", "attempt.released")
    heir = program(tmp_path, shared, fresh("heir"), kind, 1)
    try:
        assert long.wait(timeout=PATIENCE) == [2, {"so": "far"}]
    finally:
        heir.send_signal(signal.SIGINT)
        assert heir.wait(PATIENCE) == 0


def test_a_worker_without_handlers_or_with_two_of_one_type_is_refused(shared: Server) -> None:
    worker = Worker(fresh("w"), url=shared.url)
    with pytest.raises(RuntimeError):
        worker.run()
    worker.task("one")(lambda ctx, input: input)
    with pytest.raises(ValueError):
        worker.task("one")(lambda ctx, input: input)
    with pytest.raises(ValueError):
        worker.task("two", concurrency=0)
