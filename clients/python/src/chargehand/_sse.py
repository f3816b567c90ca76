"""Reading server-sent events: bytes in, frames out.

A reader of our own, because what matters here is small and exact: the `id` of a frame without data counts
too (the server sends one with each sign of life, so that a client goes on after what did not pass its
filter), and a server that never ends a frame must not fill the memory. No IO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Optional

from .errors import ServerStrange

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Bytes in one frame at most; an event holds at most a few MiB."""


@dataclass(frozen=True)
class Frame:
    """One frame that had data, an id, or both."""

    id: Optional[str]
    event: str
    data: str


class Reader:
    """Gathers bytes into frames.

    >>> reader = Reader()
    >>> list(reader.feed(b"id: 7\\nevent: task.completed\\nda"))
    []
    >>> list(reader.feed(b"ta: {}\\n\\n"))
    [Frame(id='7', event='task.completed', data='{}')]
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._max = frame_bytes_max
        self._rest = bytearray()
        self._size = 0
        self._id: Optional[str] = None
        self._event = ""
        self._data: List[str] = []
        self.retry_ms: Optional[int] = None
        """Milliseconds that the server asks to wait before connecting again."""

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that are whole with this piece."""
        scan, begin = len(self._rest), 0
        self._rest += piece
        if scan and self._rest[scan - 1] == 0x0D:
            scan -= 1
        while True:
            end, width = self._line_end(scan)
            if end < 0:
                break
            line = bytes(self._rest[begin:end])
            begin = scan = end + width
            self._bound(len(line))
            if line:
                self._size += len(line)
                self._line(line.decode("utf-8", "replace"))
                continue
            frame = Frame(self._id, self._event or "message", "\n".join(self._data))
            told = self._id is not None or bool(self._data)
            self._id, self._event, self._data, self._size = None, "", [], 0
            if told:
                yield frame
        del self._rest[:begin]
        self._bound(len(self._rest))

    def _line_end(self, scan: int) -> "tuple[int, int]":
        # Lines end with LF, CR LF or CR; a CR that is the last byte may be half of a CR LF.
        feed = self._rest.find(b"\n", scan)
        back = self._rest.find(b"\r", scan, feed if feed >= 0 else len(self._rest))
        if back < 0:
            return feed, 1
        if back + 1 == len(self._rest):
            return -1, 0
        return back, 2 if back + 1 == feed else 1

    def _bound(self, more: int) -> None:
        if self._size + more > self._max:
            raise ServerStrange(
                "server.strange",
                f"a frame of the stream is longer than {self._max} bytes",
                hint="Check that the address is a Chargehand server's.",
            )

    def _line(self, line: str) -> None:
        if line.startswith(":"):
            return
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
