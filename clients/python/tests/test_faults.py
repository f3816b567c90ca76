"""What holds when servers die and connections break."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, List

import pytest
from chargehand import Chargehand, Event, NewTask, ServerUnreachable, Worker
from conftest import PATIENCE, Server, until
from proxy import Proxy

TASKS = 60


def check_all_done_once(client: Chargehand, tasks: List[Any]) -> None:
    """Every task has one accepted result, in the log and in the rows."""
    assert [task.wait(timeout=PATIENCE)["n"] for task in tasks] == list(range(len(tasks)))
    log = read_all(client)
    done = Counter(e.data["lease"]["task"] for e in log if e.type == "task.completed")
    assert done == Counter(task.id for task in tasks)
    assert client.statistics()["total_tasks_submitted"] == len(tasks)


def read_all(client: Chargehand) -> List[Event]:
    head, events = client.position(), []
    for event in client.events():
        events.append(event)
        if event.position >= head:
            return events
    raise AssertionError("a stream has no end")


def test_a_server_killed_during_work_loses_nothing(own: Server) -> None:
    begun: "Counter[str]" = Counter()
    lock = threading.Lock()
    worker = Worker("steady", url=own.url, lease=5)

    @worker.task("number", concurrency=8)
    def number(ctx: Any, n: int) -> Any:
        with lock:
            begun[ctx.task_id] += 1
        time.sleep(0.05)
        return {"n": n, "attempt": ctx.attempt}

    with worker, own.client() as client:
        tasks = client.submit_many(NewTask("number", n) for n in range(TASKS))
        for _ in range(2):
            target = len(begun) + TASKS // 4
            until(lambda: len(begun) >= target, "work")
            own.kill()
            time.sleep(0.2)
            own.start()
        check_all_done_once(client, tasks)
        # What ran while the server was away was accepted afterwards, not done again.
        assert set(begun.values()) == {1}
        assert {task.get()["attempts"] for task in tasks} == {1}


def test_a_submission_survives_a_restart(own: Server) -> None:
    with own.client() as client:
        own.kill()
        threading.Timer(0.5, own.start).start()
        task = client.submit("later", 1)
        assert task.get()["status"] == "pending"
        assert client.statistics()["total_tasks_submitted"] == 1


def test_a_stream_goes_on_after_a_restart_without_gap_or_repeat(own: Server) -> None:
    seen: List[Event] = []
    filtered: List[Event] = []

    def follow(into: List[Event], **what: Any) -> None:
        with own.client() as client:
            for event in client.events(**what):
                into.append(event)
                if event.data.get("spec", {}).get("kind") == "last":
                    return

    followers = [
        threading.Thread(target=follow, args=(seen,), daemon=True),
        threading.Thread(
            target=follow, args=(filtered,), kwargs={"types": "task.submitted"}, daemon=True
        ),
    ]
    for follower in followers:
        follower.start()
    with own.client() as client:
        for life in range(3):
            for n in range(20):
                client.submit("some", n)
            until(lambda: len(filtered) >= 10 * (life + 1), "the stream")
            if life == 1:
                own.end()
            else:
                own.kill()
            own.start()
        client.submit("last")
    for follower in followers:
        follower.join(PATIENCE)
        assert not follower.is_alive()
    positions = [event.position for event in seen]
    assert positions == list(range(1, positions[-1] + 1))
    inputs = [event.data["spec"].get("input") for event in filtered]
    assert inputs == [*range(20), *range(20), *range(20), None]


def test_connections_cut_in_the_middle_of_an_answer(own: Server) -> None:
    proxy, milder = Proxy(own.port, 4_000), Proxy(own.port, 40_000)
    worker = Worker("cut off", url=proxy.url, lease=5)

    @worker.task("number", concurrency=4)
    def number(ctx: Any, n: int) -> Any:
        ctx.progress(0.5)
        return {"n": n}

    with Chargehand(proxy.url, retries=20) as broken, own.client() as client:
        with worker:
            tasks = [broken.submit("number", n) for n in range(TASKS // 2)]
            outputs = [task.wait(timeout=PATIENCE) for task in tasks]
            assert outputs == [{"n": n} for n in range(TASKS // 2)]
            check_all_done_once(client, tasks)
            with Chargehand(milder.url, retries=20) as reader:
                whole = [event.position for event in read_all(reader)]
            assert whole == list(range(1, len(whole) + 1))
        assert proxy.cuts > 10 and milder.cuts > 0
        # Only what was lost on the way was asked for again: no attempt was wasted, no result came late.
        assert {task.get()["attempts"] for task in tasks} == {1}
        assert client.statistics()["results_refused"] == 0
    proxy.close()
    milder.close()


def test_a_lost_lease_stops_what_ran_under_it(own: Server) -> None:
    """The worker comes back to a server that has given its task to somebody else."""
    stopped = threading.Event()
    worker = Worker("absent", url=own.url, lease=0.5)

    @worker.task("hold")
    def hold(ctx: Any, _: Any) -> Any:
        if ctx.attempt > 1:
            return ctx.attempt
        if ctx.cancelled.wait(PATIENCE):
            stopped.set()
        return "too late"

    with own.client() as client, worker:
        task = client.submit("hold")
        until(lambda: task.get()["status"] == "in_progress", "the start")
        # As if it had not been heard for longer than its lease.
        client.set_worker_status("absent", "unavailable", "not heard")
        assert stopped.wait(PATIENCE)
        assert task.wait(timeout=PATIENCE) == 2


def test_patience_with_a_stream_ends(own: Server) -> None:
    with own.client() as client:
        client.submit("one")
        events = client.events(patience=0.3)
        assert next(events).type == "task.submitted"
        own.kill()
        with pytest.raises(ServerUnreachable):
            next(events)
