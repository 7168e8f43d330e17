"""One telemetry link: a connection to the GraphServer of a graph, fed from the recorder by a thread."""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from ezmsg.core.errors import ConnectionLost, EzmsgError, ProtocolError
from ezmsg.core.telemetry.collect import Collector
from ezmsg.core.wire.frames import REPLY, REQUEST, Frame, FrameDecoder, encode_frame, error_of
from ezmsg.core.wire.records import (
    CancelRequest,
    ClockAnchor,
    Done,
    DrainTelemetry,
    Goodbye,
    OpenTelemetry,
    ProcessRequest,
    ProcessResponse,
    ProcessTelemetry,
    Record,
    Refusal,
    TelemetryBatch,
    TelemetryOpened,
    decode_record,
    encode_record,
)

logger = logging.getLogger("ezmsg")

CONNECT_TIMEOUT_S: Final = 2.0
BACKOFF_S: Final = 0.05
LONGEST_BACKOFF_S: Final = 2.0
COMPLAINS_AT: Final = 2
"""With which failure in a row to connect to say so: once."""
STUCK_S: Final = 0.02
"""How soon to try again when the server does not take bytes."""

Dial = Callable[[str, float], socket.socket]
"""An authenticated socket to the server at `host:port`, within so many seconds."""
Listener = Callable[[ProcessTelemetry], None]
"""Hears, within the process, what its links tell their servers."""
Answer = Callable[[ProcessRequest], ProcessResponse]
"""Does what is asked of the process."""


class TelemetryLink:
    """Connects, sends, reconnects; driven by `step`. Used by one thread.

    Bytes that the server does not take wait in one batch at most; rows wait in the recorder's bounded stores.

    Attributes:
        is_over: The server said goodbye, or everything was told to it: nothing more will be sent.
    """

    def __init__(
        self,
        graph: str,
        collector: Collector,
        hello: Callable[[str], OpenTelemetry],
        on_anchor: Callable[[ClockAnchor], None],
        answer: Answer,
        dial: Dial,
        clock: Callable[[], float] = time.monotonic,
        listener: Listener | None = None,
    ) -> None:
        self._graph, self._collector, self._listener = graph, collector, listener
        self._hello, self._on_anchor, self._answer, self._dial, self._clock = hello, on_anchor, answer, dial, clock
        self._link_id = collector.link_id
        self._socket: socket.socket | None = None
        self._decoder = FrameDecoder()
        self._outbox = memoryview(b"")
        self._anchor = ClockAnchor("", 0, 0)
        self._backoff_s = BACKOFF_S
        self._not_before_s = 0.0
        self._was_connected = False
        self._epoch = ""
        self._is_last_sent = False
        self._is_goodbye = False
        # What the server asked for, once it was told everything.
        self._replies: list[tuple[int, Record]] = []
        self._n_failed = 0
        self.is_over = False

    @property
    def socket(self) -> socket.socket | None:
        """The connection, while there is one: readable when the server says something."""
        return self._socket

    @property
    def is_stale(self) -> bool:
        """Whether the registry began anew since this link did: it can only end."""
        return self._collector.is_stale

    @property
    def is_stuck(self) -> bool:
        """Whether the server does not take what there is to send."""
        return self._socket is not None and bool(self._outbox)

    def step(self, *, rows_only: bool, is_wanted: bool) -> float:
        """Do what can be done now; returns after how many seconds there is more to do (infinity: when woken).

        Args:
            rows_only: Send rows and new endpoints only.
            is_wanted: There are endpoints; without, tell the rest, say goodbye and be over.
        """
        if self._socket is None:
            wait_s = self._not_before_s - self._clock()
            if wait_s > 0:
                return wait_s
            if not self._connect(is_wanted=is_wanted):
                return 0.0 if self.is_over else max(0.0, self._not_before_s - self._clock())
        try:
            self._receive()
            delay_s = self._talk(rows_only=rows_only, is_wanted=is_wanted and not self._is_goodbye)
            if self._is_goodbye and not self.is_over:
                # It may still take what fits into the socket, but is not waited for.
                self._end()
            return delay_s
        except (OSError, EzmsgError) as error:
            self._lose(error)
            return 0.0 if self.is_over else self._backoff_s

    def finish(self, deadline_s: float) -> None:
        """Tell the rest and say goodbye, if the server is there; wait for it until then."""
        if self._socket is None and not self._was_connected:
            self._connect(is_wanted=False, timeout_s=min(CONNECT_TIMEOUT_S, max(0.0, deadline_s - self._clock())))
        while self._socket is not None and not self.is_over:
            self.step(rows_only=False, is_wanted=False)
            left_s = deadline_s - self._clock()
            if left_s <= 0:
                break
            if self.is_stuck:
                select.select([], [self._socket], [], min(left_s, STUCK_S))
        if not self.is_over:
            self._tell_listener_rest()

    def abandon(self) -> None:
        """Be over, whatever was left to say; what is linked at this address later is another graph."""
        self._listener = None
        self._end(is_abandoned=True)
        self._collector.forget()

    def close(self) -> None:
        """Let go of the socket, without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _connect(self, *, is_wanted: bool, timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
        try:
            sock = self._dial(self._graph, timeout_s)
        except (OSError, EzmsgError) as error:
            self._fail(error, is_wanted=is_wanted)
            return False
        try:
            sock.settimeout(timeout_s)
            opened = self._introduce(sock)
        except (OSError, EzmsgError) as error:
            sock.close()
            self._fail(error, is_wanted=is_wanted)
            return False
        if self._is_goodbye:
            sock.close()
            self._end()
            return False
        sock.setblocking(False)
        self._socket = sock
        self._anchor = opened.anchor
        self._on_anchor(opened.anchor)
        is_new_server = self._was_connected and opened.epoch != self._epoch
        self._collector.begin(opened.last_seq, is_new_server=is_new_server)
        self._backoff_s, self._was_connected, self._n_failed = BACKOFF_S, True, 0
        self._epoch = opened.epoch
        return True

    def _introduce(self, sock: socket.socket) -> TelemetryOpened:
        """Say hello, and wait for the answer."""
        self._decoder, self._outbox, self._replies = FrameDecoder(), memoryview(b""), []
        sock.sendall(_frame(self._hello(self._link_id), request_id=1, flags=REQUEST))
        opened: TelemetryOpened | None = None
        while opened is None and not self._is_goodbye:
            buffer = self._decoder.get_buffer()
            size = sock.recv_into(buffer)
            if not size:
                raise ConnectionLost(self._graph)
            for frame in self._decoder.received(size):
                record = self._read(frame)
                if isinstance(record, Refusal):
                    raise error_of(record)
                if isinstance(record, TelemetryOpened):
                    opened = record
        return opened or TelemetryOpened(ClockAnchor("", 0, 0))

    def _talk(self, *, rows_only: bool, is_wanted: bool) -> float:
        rows_only = rows_only and is_wanted and not self._replies
        # Once is enough: endpoints at work have something new to tell at any time, and closed ones never again.
        is_told = has_more = False
        while self._flush():
            if self._is_last_sent:
                self._end()
                return 0.0
            batch = None if is_told else self._collector.collect(rows_only=rows_only or has_more, reads=not has_more)
            if batch is not None:
                self._outbox = self._tell(batch)
                has_more = self._collector.has_more
                is_told = not has_more
            elif self._replies:
                request_id, reply = self._replies.pop(0)
                self._outbox = memoryview(_frame(reply, request_id, REPLY))
            elif is_wanted:
                return math.inf
            else:
                self._outbox = self._tell(self._collector.last())
                self._is_last_sent = True
        return STUCK_S

    def _tell(self, batch: TelemetryBatch) -> memoryview:
        if self._listener is not None:
            anchor = self._anchor if self._was_connected else self._collector.anchor
            self._listener(ProcessTelemetry(self._link_id, anchor, self._collector.told_by_all(batch)))
        return memoryview(_frame(batch))

    def _tell_listener_rest(self) -> None:
        """Within the process all is heard, also where a short run was over, and its server gone, before they met."""
        if self._listener is None or self._is_last_sent:
            return
        has_more = False
        while batch := self._collector.collect(rows_only=has_more, reads=not has_more):
            self._tell(batch)
            has_more = self._collector.has_more
            if not has_more:
                break
        self._tell(self._collector.last())

    def _flush(self) -> bool:
        """Send what the server takes; whether nothing is left."""
        assert self._socket is not None
        while self._outbox:
            try:
                self._outbox = self._outbox[self._socket.send(self._outbox) :]
            except (BlockingIOError, InterruptedError):
                return False
        return True

    def _receive(self) -> None:
        """Read what the server said; raises when it hung up."""
        assert self._socket is not None
        while not self._is_goodbye:
            try:
                size = self._socket.recv_into(self._decoder.get_buffer())
            except (BlockingIOError, InterruptedError):
                return
            if not size:
                raise ConnectionLost(self._graph)
            for frame in self._decoder.received(size):
                self._read(frame)

    def _read(self, frame: Frame) -> Record:
        record = decode_record(frame.opcode, frame.body)
        if isinstance(record, Goodbye):
            self._is_goodbye = True
        elif isinstance(record, DrainTelemetry) and frame.flags & REQUEST:
            self._replies.append((frame.request_id, Done()))
        elif isinstance(record, ProcessRequest) and frame.flags & REQUEST:
            self._replies.append((frame.request_id, self._answer(record)))
        elif not isinstance(record, (Refusal, TelemetryOpened, CancelRequest)):
            raise ProtocolError(f"{self._graph} sent {type(record).__name__} over a telemetry link")
        return record

    def _end(self, *, is_abandoned: bool = False) -> None:
        self.is_over = True
        self.close()
        self._tell_listener_rest()
        self._collector.end(is_goodbye=self._is_goodbye, is_abandoned=is_abandoned)

    def _lose(self, error: Exception) -> None:
        """The connection broke; try again at once, then ever more slowly."""
        self.close()
        if self._is_last_sent or self._is_goodbye:
            self._end()
            return
        logger.debug("the telemetry link to %s was lost: %s", self._graph, error)
        self._not_before_s = self._clock() + self._backoff_s

    def _fail(self, error: Exception, *, is_wanted: bool) -> None:
        """No connection could be had."""
        if not is_wanted:
            # Nobody to tell, and nothing that would go on.
            self._end()
            return
        self._n_failed += 1
        # Not at once: a short run may end, and its server with it, while the connection is made.
        level = logging.WARNING if self._n_failed == COMPLAINS_AT else logging.DEBUG
        logger.log(level, "no telemetry link to %s, trying again: %s", self._graph, error)
        self._not_before_s = self._clock() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)


def _frame(record: Record, request_id: int = 0, flags: int = 0) -> bytes:
    return encode_frame(*encode_record(record), request_id, flags)
