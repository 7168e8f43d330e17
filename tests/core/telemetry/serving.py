"""A GraphServer, as far as a telemetry link can see: the other end of a socket."""

import contextlib
import queue
import select
import socket
from collections.abc import Callable

from ezmsg.core.errors import ServerUnreachable
from ezmsg.core.net.tlssocket import TlsSocket
from ezmsg.core.wire.frames import REPLY, REQUEST, FrameDecoder, encode_frame
from ezmsg.core.wire.records import (
    ClockAnchor,
    Goodbye,
    OpenTelemetry,
    Record,
    TelemetryBatch,
    TelemetryOpened,
    decode_record,
    encode_record,
)

GRAPH = "127.0.0.1:25978"
ANCHOR = ClockAnchor("boot", 1000, 1_700_000_000_000_000_000)
PATIENCE_S = 40.0

Secure = Callable[[socket.socket, socket.socket], tuple[socket.socket, socket.socket]]


class FakeServer:
    """Hands out sockets, and reads what comes out of them, one after the other.

    Args:
        last_seq: What it says it has.
        secure: Makes TLS connections of both ends of one.
    """

    def __init__(self, last_seq: int = -1, secure: Secure | None = None) -> None:
        self._secure = secure
        self.answer: Record = TelemetryOpened(ANCHOR, last_seq)
        self.is_up = True
        self.dialled = 0
        self._sockets: list[socket.socket] = []
        self._connected: queue.Queue[socket.socket] = queue.Queue()
        self._current: socket.socket | None = None
        self._decoder = FrameDecoder()
        self._records: list[Record] = []

    def dial(self, graph: str, timeout_s: float) -> socket.socket:
        """As `connect_blocking`; the answer to its hello waits in the socket already."""
        self.dialled += 1
        if not self.is_up:
            raise ServerUnreachable(graph, "it is down")
        ours, theirs = socket.socketpair()
        if self._secure is not None:
            ours, theirs = self._secure(ours, theirs)
        ours.settimeout(PATIENCE_S)
        ours.sendall(_frame(self.answer, request_id=1, flags=REPLY))
        self._sockets.append(ours)
        self._connected.put(ours)
        return theirs

    def hello(self) -> OpenTelemetry:
        """Turn to the next connection: what it says first."""
        self._current = self._connected.get(timeout=PATIENCE_S)
        self._decoder, self._records = FrameDecoder(), []
        record = self.read()
        assert isinstance(record, OpenTelemetry)
        return record

    def read(self) -> Record:
        """The next record of this connection."""
        while not self._records:
            self._receive()
        return self._records.pop(0)

    def has_more(self) -> bool:
        """Whether something was sent that was not read yet."""
        return bool(self._records) or self._can_receive()

    def _can_receive(self) -> bool:
        is_pending = isinstance(self._current, TlsSocket) and self._current.has_pending
        return is_pending or bool(select.select([self._current], [], [], 0)[0])

    def batch(self) -> TelemetryBatch:
        record = self.read()
        assert isinstance(record, TelemetryBatch)
        return record

    def batches_so_far(self) -> list[TelemetryBatch]:
        """The batches that have come, without waiting."""
        return [record for record in self.records_so_far() if isinstance(record, TelemetryBatch)]

    def records_so_far(self) -> list[Record]:
        """What has come, without waiting."""
        while self._can_receive():
            self._receive()
        found, self._records = self._records, []
        return found

    def batches_to_the_end(self) -> list[TelemetryBatch]:
        """What comes until the link hangs up."""
        found: list[TelemetryBatch] = []
        try:
            while True:
                found.append(self.batch())
        except EOFError:
            return found

    def say(self, record: Record) -> None:
        assert self._current is not None
        self._current.sendall(_frame(record))

    def ask(self, record: Record, request_id: int) -> None:
        assert self._current is not None
        self._current.sendall(_frame(record, request_id, REQUEST))

    def say_goodbye(self) -> None:
        self.say(Goodbye("over"))

    def hang_up(self) -> None:
        assert self._current is not None
        self._current.close()

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _receive(self) -> None:
        assert self._current is not None
        data = b""
        with contextlib.suppress(ConnectionResetError):  # without the goodbye of TLS
            data = self._current.recv(1 << 16)
        if not data:
            raise EOFError
        self._records += [decode_record(frame.opcode, frame.body) for frame in self._decoder.feed(data)]


def _frame(record: Record, request_id: int = 0, flags: int = 0) -> bytes:
    return encode_frame(*encode_record(record), request_id, flags)
