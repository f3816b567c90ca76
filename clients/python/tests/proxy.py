"""A TCP proxy that breaks connections: after so many bytes of an answer it closes both ends."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes everything on to `port`, and cuts every connection after at most so many bytes that came
    back: mostly in the middle of an answer, so that the request was done and its answer is lost."""

    def __init__(self, port: int, bytes_max: int, seed: int = 7) -> None:
        self._to, self._max, self._chance = port, bytes_max, random.Random(seed)
        self._lock = threading.Lock()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _budget(self) -> int:
        with self._lock:
            return self._chance.randrange(self._max)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                if self._listener.fileno() < 0:
                    return
                near.close()
                continue
            budget = self._budget()
            threading.Thread(target=self._pass, args=(near, far, 1 << 60), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, budget), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, budget: int) -> None:
        with suppress(OSError):
            while True:
                piece = source.recv(65536)
                if len(piece) >= budget:
                    sink.sendall(piece[:budget])
                    with self._lock:
                        self.cuts += 1
                    break
                if not piece:
                    break
                budget -= len(piece)
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
