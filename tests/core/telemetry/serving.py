"""A GraphServer, as far as a telemetry link can see: the other end of a socket."""

import select
import socket
import threading

from ezmsg.core.errors import EzmsgError, ServerUnreachable
from ezmsg.core.wire.frames import REPLY, FrameDecoder, encode_frame
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
PATIENCE_S = 20.0


class FakeServer:
    """Hands out sockets, and reads what comes out of the last one."""

    def __init__(self, last_seq: int = -1) -> None:
        self.answer: Record = TelemetryOpened(ANCHOR, last_seq)
        self.is_up = True
        self.connected = threading.Semaphore(0)
        self.dialled = 0
        self._ours: list[socket.socket] = []
        self._decoder = FrameDecoder()
        self._records: list[Record] = []

    def dial(self, graph: str, timeout_s: float) -> socket.socket:
        """As `connect_blocking`; the answer to its hello waits in the socket already."""
        self.dialled += 1
        if not self.is_up:
            raise ServerUnreachable(graph, "it is down")
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_S)
        ours.sendall(_frame(self.answer, request_id=1, flags=REPLY))
        self._ours.append(ours)
        self._decoder, self._records = FrameDecoder(), []
        self.connected.release()
        return theirs

    def wait_connected(self) -> None:
        assert self.connected.acquire(timeout=PATIENCE_S)

    def read(self) -> Record:
        """The next record of the last connection."""
        while not self._records:
            data = self._ours[-1].recv(1 << 16)
            if not data:
                raise EOFError
            self._records += [decode_record(frame.opcode, frame.body) for frame in self._decoder.feed(data)]
        return self._records.pop(0)

    def has_more(self) -> bool:
        """Whether something was sent that was not read yet."""
        return bool(self._records or select.select([self._ours[-1]], [], [], 0)[0])

    def hello(self) -> OpenTelemetry:
        record = self.read()
        assert isinstance(record, OpenTelemetry)
        return record

    def batch(self) -> TelemetryBatch:
        record = self.read()
        assert isinstance(record, TelemetryBatch)
        return record

    def batches_to_the_end(self) -> list[TelemetryBatch]:
        """What comes until the link hangs up."""
        found: list[TelemetryBatch] = []
        try:
            while True:
                found.append(self.batch())
        except EOFError:
            return found

    def say(self, record: Record) -> None:
        self._ours[-1].sendall(_frame(record))

    def say_goodbye(self) -> None:
        self.say(Goodbye("over"))

    def hang_up(self) -> None:
        self._ours[-1].close()

    def close(self) -> None:
        for sock in self._ours:
            sock.close()


def _frame(record: Record, request_id: int = 0, flags: int = 0) -> bytes:
    return encode_frame(*encode_record(record), request_id, flags)


def refuse(error: EzmsgError) -> Record:
    from ezmsg.core.wire.frames import refusal_of

    return refusal_of(error)
