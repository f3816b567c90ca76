"""A real server for every test: the program that `CHARGEHAND_BIN` names, with a store of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, Optional

import pytest
from chargehand import Chargehand

BINARY = os.environ.get("CHARGEHAND_BIN", "")
# What an environment says about proxies and servers is not for these.
for name in ("CHARGEHAND_SERVER", "CHARGEHAND_KEY", "CHARGEHAND_STORE"):
    os.environ.pop(name, None)
os.environ["NO_PROXY"] = "127.0.0.1"

PATIENCE = 30.0
"""Seconds after which something that should happen counts as not happening."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Server:
    """A server that can be killed and started again, at one address and with one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        with open(self.folder / "stderr", "ab") as told:
            begin = told.tell()
            self.process = subprocess.Popen(
                [BINARY, "serve", "--store", str(self.folder / "store")]
                + ["--listen", f"127.0.0.1:{self.port}"],
                stdout=subprocess.DEVNULL,
                stderr=told,
                cwd=self.folder,
            )
        until = time.monotonic() + PATIENCE
        while b"Chargehand serves at" not in self.told()[begin:]:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(self.told()[begin:].decode())
            time.sleep(0.02)

    def told(self) -> bytes:
        return (self.folder / "stderr").read_bytes()

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def client(self, key: Optional[str] = None) -> Chargehand:
        return Chargehand(self.url, key)


@pytest.fixture(scope="session")
def _binary() -> None:
    if not BINARY:
        pytest.exit("set CHARGEHAND_BIN to the `chargehand` program", returncode=2)


@pytest.fixture(scope="session")
def shared(_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for everything that leaves it alive."""
    server = Server(tmp_path_factory.mktemp("shared"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own(_binary: None, tmp_path: Path) -> Iterator[Server]:
    """A server that the test may do anything to."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(shared: Server) -> Iterator[Chargehand]:
    with shared.client() as client:
        yield client


def until(holds: Callable[[], object], what: str = "it") -> None:
    """Waits until something is so."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{what} does not happen"
        time.sleep(0.02)
