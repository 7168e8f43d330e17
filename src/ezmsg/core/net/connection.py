"""Records over one authenticated connection: requests in both directions, many at once, and notices."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, Self

from ezmsg.core.errors import (
    BacklogFull,
    ConnectionLost,
    FrameTooLarge,
    InvalidRecord,
    ProtocolError,
    Refused,
    RequestTimeout,
    TooManyRequests,
    Unanswerable,
)
from ezmsg.core.net.attention import attention_of
from ezmsg.core.net.controlstream import ControlStream
from ezmsg.core.net.deadlines import Deadline, Deadlines
from ezmsg.core.net.guard import Guard
from ezmsg.core.net.latereply import LateReply
from ezmsg.core.wire.frames import (
    INTERNAL,
    REPLY,
    REQUEST,
    REQUEST_ID_MAX,
    Frame,
    encode_frame,
    error_of,
    refusal_of,
)
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.limits import (
    CONTROL_FRAME_BYTES,
    REQUESTS_AT_ONCE,
    WRITE_BUFFER_BYTES,
)
from ezmsg.core.wire.records import (
    CancelRequest,
    Record,
    Refusal,
    decode_record,
    encode_record,
    name_of,
)

logger = logging.getLogger("ezmsg")

Heard = Callable[[Record | Exception], None]
"""Gets the answer to a request, or why there is none."""

# Of a refusal that is too long to be sent, so many characters are.
SHORT_TEXT = 1000


class Handler(Protocol):
    """What one side does with what the other sends."""

    def on_request(self, connection: Any, record: Record, /) -> Record | Awaitable[Record] | LateReply:
        """Answer: at once with a record, or later: with an awaitable, which then runs as a task of the connection.

        Any error raised refuses the request; only those of `EzmsgError` are expected.
        """
        ...

    def on_notice(self, connection: Any, record: Record, /) -> None:
        """Take note; nobody waits for an answer."""
        ...

    def on_closed(self, connection: Any, error: Exception | None, /) -> None:
        """The connection is gone, in order (None) or for this reason. Called once."""
        ...


class _Nobody:
    """The handler of what ended: the one that was is not kept by it."""

    def on_request(self, connection: Any, record: Record, /) -> Record:
        raise ConnectionLost(str(connection))

    def on_notice(self, connection: Any, record: Record, /) -> None: ...

    def on_closed(self, connection: Any, error: Exception | None, /) -> None: ...


NOBODY: Final = _Nobody()


class Connection(ControlStream):
    """One authenticated connection that carries records.

    Args:
        peer: Who is at the other end.
        handler: What to do with what it sends.
        name: How it is called in errors and in the log.
        frame_limit: The largest record, in bytes, in both directions.
        write_limit: How many bytes may wait for the peer before it is dropped.
        guard: The rules of a server for its peers; clients have none for their server.

    Attributes:
        deadlines: Of what the peer is asked.
    """

    def __init__(
        self,
        peer: PeerInfo,
        handler: Handler,
        name: str,
        *,
        frame_limit: int = CONTROL_FRAME_BYTES,
        write_limit: int = WRITE_BUFFER_BYTES,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(name, frame_limit, write_limit, guard)
        self.peer = peer
        self._handler = handler
        self._last_id = 0
        self._waiting: dict[int, Heard] = {}
        self.deadlines = Deadlines(self._loop)
        self._answering: dict[asyncio.Future[Record] | LateReply, int] = {}
        # Another loop of this process needs the interpreter, rather than somebody who is awake.
        self._attention = None if peer.pid == os.getpid() else attention_of(self._loop)

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        peer: PeerInfo,
        handler: Handler,
        *,
        name: str = "",
        frame_limit: int = CONTROL_FRAME_BYTES,
        write_limit: int = WRITE_BUFFER_BYTES,
        guard: Guard | None = None,
    ) -> Self:
        """A connection over an authenticated socket, which it owns from now on, also if this fails.

        The handler may be called before this returns.
        """
        named = name or f"process {peer.pid}"
        self = cls(peer, handler, named, frame_limit=frame_limit, write_limit=write_limit, guard=guard)
        await self.attach(sock)
        return self

    # -- asking ---------------------------------------------------------------------------------------------------

    async def request(self, record: Record, timeout_s: float | None = None, *, revocable: bool = False) -> Record:
        """Ask the peer, and wait for its answer. May be cancelled; an answer that comes later is ignored.

        Args:
            record: What is asked.
            timeout_s: How long to wait; None waits as long as the connection lives.
            revocable: When cancelled, tell the peer to stop working on it. And do not send what a slow peer has no
                room for, where that would end the connection.

        Raises:
            EzmsgError: The refusal of the peer, as the class it was there.
            RequestTimeout: There was no answer in time.
            ConnectionLost: The connection is gone, or went before the answer came.
            BacklogFull: It is revocable, and too much waits for the peer already.
        """
        future, request_id, timer = self._asked(record, timeout_s, revocable)
        try:
            return await future
        finally:
            self._forget(request_id, timer, revocable, future)

    def request_nowait(
        self, record: Record, timeout_s: float | None = None, *, revocable: bool = False
    ) -> asyncio.Future[Record]:
        """As `request`, but sent before this returns; the answer is awaited later, or not at all by cancelling it.

        Raises:
            ConnectionLost: The connection is gone.
            FrameTooLarge: The record is larger than a frame may be.
            BacklogFull: It is revocable, and too much waits for the peer already.
        """
        future, request_id, timer = self._asked(record, timeout_s, revocable)
        future.add_done_callback(partial(self._forget, request_id, timer, revocable))
        return future

    def _asked(
        self, record: Record, timeout_s: float | None, revocable: bool
    ) -> tuple[asyncio.Future[Record], int, Deadline | None]:
        future: asyncio.Future[Record] = self._loop.create_future()
        request_id = self.ask(record, partial(_settle, future), revocable=revocable)
        timer = None
        if timeout_s is not None:
            timer = self.deadlines.after(timeout_s, self._expire, future, type(record).__name__, timeout_s)
        return future, request_id, timer

    def ask(self, record: Record, heard: Heard, *, revocable: bool = False) -> int:
        """As `request`, without a future: `heard` is called as soon as there is an answer, or can be none.

        Returns:
            The id of the request, for `take_back`.

        Raises:
            ConnectionLost: The connection is gone.
            FrameTooLarge: The record is larger than a frame may be.
            BacklogFull: It is revocable, and too much waits for the peer already.
        """
        if self._is_closing:
            raise self._lost_error()
        request_id = self._next_id()
        frame = self._frame(record, request_id, REQUEST)
        if revocable:
            self._require_room(len(frame))
        self._waiting[request_id] = heard
        self.write(frame)
        return request_id

    def take_back(self, request_id: int) -> None:
        """Wait no longer for an answer, which is ignored, and tell the peer to stop working on it."""
        self._waiting.pop(request_id, None)
        self.notify(CancelRequest(request_id))

    def notify(self, record: Record) -> None:
        """Tell the peer; does nothing once the connection is gone.

        Raises:
            FrameTooLarge: The record is larger than a frame may be.
        """
        self.write(self._frame(record))

    def _next_id(self) -> int:
        request_id = self._last_id
        while True:
            request_id = request_id % REQUEST_ID_MAX + 1
            if request_id not in self._waiting:
                self._last_id = request_id
                return request_id

    def _frame(self, record: Record, request_id: int = 0, flags: int = 0) -> bytes:
        opcode, body = encode_record(record)
        if len(body) > (limit := self.limit_of(opcode)):
            raise FrameTooLarge(opcode, len(body), limit)
        return encode_frame(opcode, body, request_id, flags)

    def _expire(self, future: asyncio.Future[Record], request: str, timeout_s: float) -> None:
        if not future.done():
            future.set_exception(RequestTimeout(request, self.name, timeout_s))

    def _forget(self, request_id: int, timer: Deadline | None, revocable: bool, future: asyncio.Future[Record]) -> None:
        if timer is not None:
            timer.cancel()
        if revocable and future.cancelled():
            self.take_back(request_id)
        else:
            self._waiting.pop(request_id, None)

    def _require_room(self, size: int) -> None:
        # What fits a frame may always be sent to a peer that has read everything.
        waiting = self.write_buffer_size
        if waiting and waiting + size > self._write_limit:
            raise BacklogFull(self.name, size, waiting, self._write_limit)

    def _lost_error(self) -> ConnectionLost:
        if isinstance(self._error, ConnectionLost):
            return ConnectionLost(self.name, self._error.reason)
        return ConnectionLost(self.name, str(self._error)) if self._error else ConnectionLost(self.name)

    # -- answering ------------------------------------------------------------------------------------------------

    def frame_received(self, frame: Frame) -> None:
        """Dispatch a record: an answer, a request or a notice. What nobody wants is not even decoded."""
        if self._attention is not None:
            self._attention.heard(self._loop)
        opcode, flags, request_id = frame.opcode, frame.flags, frame.request_id
        if flags == REPLY:
            if request_id not in self._waiting:
                self._count("ignored:REPLY")  # nobody waits any more, or nobody ever did
                return
            record = decode_record(opcode, frame.body)
            self._waiting.pop(request_id)(error_of(record) if isinstance(record, Refusal) else record)
            return
        if flags == REPLY | REQUEST:
            raise ProtocolError(f"{name_of(opcode)} is a request and a reply at once")
        try:
            if self._guard is not None and opcode not in self._guard.accepts:
                raise Unanswerable(name_of(opcode))
            record = decode_record(opcode, frame.body)
        except (InvalidRecord, Unanswerable) as error:
            self._on_invalid(frame, error)
            return
        if flags == REQUEST:
            self._on_request(request_id, record)
        else:
            self._on_notice(record)

    def _on_invalid(self, frame: Frame, error: ProtocolError) -> None:
        if frame.flags == REQUEST:
            self._refuse(frame.request_id, name_of(frame.opcode), error)
        elif isinstance(error, Unanswerable):
            self._count("ignored:NOTICE")
        else:
            raise error  # nobody would be told

    def _on_notice(self, record: Record) -> None:
        if isinstance(record, CancelRequest):
            self._revoke(record.request_id)
            return
        try:
            self._handler.on_notice(self, record)
        except ProtocolError:
            raise  # it cannot be refused: nobody would be told
        except Exception:
            logger.exception("%s: a notice of %s failed", self.name, type(record).__name__)

    def _revoke(self, request_id: int) -> None:
        for work, answered_id in self._answering.items():
            if answered_id == request_id:
                work.cancel()
                return

    def _on_request(self, request_id: int, record: Record) -> None:
        name = type(record).__name__
        if len(self._answering) >= REQUESTS_AT_ONCE:
            self._refuse(request_id, name, TooManyRequests(REQUESTS_AT_ONCE))
            return
        try:
            answer = self._handler.on_request(self, record)
            if isinstance(answer, Record):
                self._reply(request_id, name, answer)
                return
            if isinstance(answer, LateReply):
                self._answering[answer] = request_id
                answer.begin(partial(self._on_late_reply, name))
                return
            future = self._start(answer, name)
        except Exception as error:
            self._refuse(request_id, name, error)
            return
        self._answering[future] = request_id
        future.add_done_callback(partial(self._on_answer, name))

    def _start(self, answer: Awaitable[Record], name: str) -> asyncio.Future[Record]:
        if asyncio.iscoroutine(answer):
            return self._loop.create_task(answer, name=f"{name} of {self.name}")
        return asyncio.ensure_future(answer, loop=self._loop)

    def _on_answer(self, name: str, future: asyncio.Future[Record]) -> None:
        request_id = self._answering.pop(future)
        if future.cancelled():
            self._refuse(request_id, name, Refused(f"{name} was cancelled", "CANCELLED"))
        elif (error := future.exception()) is not None:
            self._refuse(request_id, name, error)
        else:
            self._reply(request_id, name, future.result())

    def _on_late_reply(self, name: str, late: LateReply, record: Record | None) -> None:
        request_id = self._answering.pop(late)
        if record is None:
            self._refuse(request_id, name, Refused(f"{name} was cancelled", "CANCELLED"))
        else:
            self._reply(request_id, name, record)

    def _reply(self, request_id: int, name: str, record: Record) -> None:
        try:
            frame = self._frame(record, request_id, REPLY)
            self._require_room(len(frame))
        except Exception as error:
            self._refuse(request_id, name, error)
        else:
            self.write(frame)

    def _refuse(self, request_id: int, name: str, error: BaseException) -> None:
        refusal = refusal_of(error)
        self._count(f"refused:{refusal.code}")
        if refusal.code == INTERNAL:
            logger.error("%s: %s failed", self.name, name, exc_info=error)
        try:
            frame = self._frame(refusal, request_id, REPLY)
        except FrameTooLarge:
            shortened = Refusal(refusal.code, f"{refusal.message[:SHORT_TEXT]} …")
            frame = self._frame(shortened, request_id, REPLY)
        self.write(frame)

    # -- the end --------------------------------------------------------------------------------------------------

    def stream_ended(self, error: Exception | None) -> None:
        """Fail what waits for the peer, end what works for it, tell the handler."""
        while self._waiting:
            self._waiting.popitem()[1](self._lost_error())
        self.deadlines.close()
        for work in list(self._answering):
            work.cancel()
        try:
            self._handler.on_closed(self, error)
        except Exception:
            logger.exception("%s: on_closed failed", self.name)
        self._handler = NOBODY

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, and all work for the peer has ended."""
        await super().wait_closed()
        current = asyncio.current_task()
        # A request may close the connection it came on: it cannot wait for itself.
        if working := [work for work in self._answering if isinstance(work, asyncio.Future) and work is not current]:
            await asyncio.wait(working)


def _settle(future: asyncio.Future[Record], answer: Record | Exception) -> None:
    if future.done():
        return  # it timed out, or was cancelled
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
