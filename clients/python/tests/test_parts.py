"""The parts that need no server: the reader of streams, what is generated, what the README says."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import chargehand
import pytest
from chargehand import _sse, _wire, errors
from chargehand._sse import Frame, Reader
from conftest import PATIENCE, Server

ROOT = Path(__file__).resolve().parent.parent


def frames(reader: Reader, *pieces: bytes) -> List[Frame]:
    return [frame for piece in pieces for frame in reader.feed(piece)]


def test_a_stream_reads_the_same_however_it_is_cut() -> None:
    text = (
        "\u00e9".encode()
        + b": beat\nid: 3\n\nretry: 1500\n\r\nid:4\revent: task.completed\rdata: {\r\ndata:  }\r\n\r\n"
        + b"data\n\nevent: nothing\n\ndata: unfinished\n"
    )
    expected = [
        Frame("3", "message", ""),
        Frame("4", "task.completed", "{\n }"),
        Frame(None, "message", ""),
    ]
    for size in range(1, len(text) + 1):
        reader = Reader()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert frames(reader, *pieces) == expected, size
        assert reader.retry_ms == 1500


def test_a_frame_without_an_end_is_refused() -> None:
    for piece in (b"x" * 50, b"data: " + b"x" * 43 + b"\n"):
        reader = Reader(frame_bytes_max=100)
        with pytest.raises(errors.ServerStrange):
            frames(reader, *[piece] * 3)
    reader = Reader(frame_bytes_max=100)
    assert len(frames(reader, *[b"data: " + b"x" * 43 + b"\n\n"] * 100)) == 100


def test_pauses_grow_and_are_bounded() -> None:
    low, high = _wire.PAUSE_S
    assert all(0 < _wire.pause(n) <= high for n in range(1, 100))
    assert _wire.pause(1) <= low and _wire.pause(50) >= high / 2
    assert 3 <= _wire.pause(1, 3.0) <= 3 + low
    assert _wire.pause(1, 1e9) <= _wire.RETRY_AFTER_S_MAX + low


def test_the_examples_in_the_source_run() -> None:
    for module in (chargehand, _sse, _wire, errors):
        failed, tried = doctest.testmod(module)
        assert failed == 0
    assert tried


def test_generated_files_are_what_the_generator_writes() -> None:
    if not (ROOT.parent.parent / "docs" / "openapi.json").exists():
        pytest.skip("not in the repository")
    done = subprocess.run(
        [sys.executable, str(ROOT / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_document_is_what_the_server_says(shared: Server) -> None:
    import json

    import httpx

    told = httpx.get(f"{shared.url}/openapi.json").json()
    kept = json.loads((ROOT.parent.parent / "docs" / "openapi.json").read_text("utf-8"))
    told["info"].pop("version"), kept["info"].pop("version")
    assert told == kept


def test_the_example_of_the_readme_runs(shared: Server) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    env = {**os.environ, "CHARGEHAND_SERVER": shared.url}
    done = subprocess.run(
        [sys.executable, "-c", example], env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.stdout, done.returncode) == ("Bees dance.\n", 0), done.stderr


def test_types_hold_under_mypy() -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(ROOT / "src" / "chargehand")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
