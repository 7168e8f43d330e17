"""The late flusher and the loop, each at the moment that is worst for the other."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ezmsg.core.net.framestream import FrameStream
from ezmsg.core.net.lateflush import LateFlusher
from ezmsg.core.wire.frames import Frame, encode_frame


class HeldSocket(socket.socket):
    """Holds the late flusher up in `send`, until the loop waits for it, or does what it must not do meanwhile."""

    loop_thread: int
    reached: threading.Event
    opened: threading.Event
    is_late_sending = False
    was_closed_under_it = False

    def send(self, data: Any, *args: Any) -> int:
        if threading.get_ident() == self.loop_thread:
            return super().send(data, *args)
        self.is_late_sending = True
        self.reached.set()
        self.opened.wait()
        try:
            return super().send(data, *args)
        finally:
            self.is_late_sending = False

    def shutdown(self, how: int) -> None:
        super().shutdown(how)
        self.opened.set()

    def close(self) -> None:
        self.was_closed_under_it |= self.is_late_sending
        super().close()
        self.opened.set()


class Sending:
    """The lock of a stream, which lets the late flusher go on once the loop waits for it."""

    def __init__(self, sock: HeldSocket) -> None:
        self._lock = threading.Lock()
        self._sock = sock

    def __enter__(self) -> None:
        if self._sock.reached.is_set():
            self._sock.opened.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Stream(FrameStream):
    """Keeps what it receives."""

    def __init__(self, **options: Any) -> None:
        super().__init__("the other", **options)
        self.bodies: list[bytes] = []

    def frame_received(self, frame: Frame) -> None:
        self.bodies.append(bytes(frame.body))

    def stream_ended(self, error: Exception | None) -> None:
        pass


@pytest.fixture
def held() -> Iterator[tuple[HeldSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    sock = HeldSocket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    sock.loop_thread, sock.reached, sock.opened = threading.get_ident(), threading.Event(), threading.Event()
    with sock, theirs:
        yield sock, theirs


@pytest.fixture
async def streams(held: tuple[HeldSocket, socket.socket]) -> AsyncIterator[tuple[Stream, Stream]]:
    """A sender, of which the late flusher has taken the second frame but not sent it, and a receiver."""
    sender, receiver = Stream(gather=16), Stream(gather=16)
    sender._sending = Sending(held[0])  # type: ignore[assignment]
    await sender.attach(held[0])
    await receiver.attach(held[1])
    sender.write(encode_frame(1, b"first"))
    sender.write(encode_frame(1, b"second"))
    assert held[0].reached.wait(40)
    yield sender, receiver
    await sender.close()
    await receiver.close()


async def test_a_stream_that_closes_lets_the_late_flusher_send_what_it_has_taken(
    streams: tuple[Stream, Stream],
) -> None:
    sender, receiver = streams
    await sender.close()
    await receiver.wait_closed()
    assert receiver.bodies == [b"first", b"second"]


async def test_a_socket_is_not_closed_while_the_late_flusher_writes_to_it(
    held: tuple[HeldSocket, socket.socket], streams: tuple[Stream, Stream]
) -> None:
    sender, _ = streams
    sender.abort()
    await sender.wait_closed()
    await streams[1].wait_closed()
    assert not held[0].was_closed_under_it


class Gathered:
    """A stream that has nothing to send."""

    gathered = 0

    def flush_late(self) -> None:
        raise AssertionError("there is nothing to send")


def test_streams_are_looked_through_only_while_none_can_be_added() -> None:
    flusher = LateFlusher()
    unguarded: list[str] = []

    class Guarded(weakref.WeakKeyDictionary[Any, int]):
        def __iter__(self) -> Iterator[Any]:
            if not flusher._lock.locked():
                unguarded.append("iterated")
            return super().__iter__()

    flusher._streams = Guarded()
    stream = Gathered()
    flusher.watch(stream)
    idle = threading.Event()

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:
                idle.set()
            return super().wait(timeout)

    flusher._wake = Wake()
    assert idle.wait(40)
    flusher.forget(stream)
    assert unguarded == []


def test_a_thread_that_could_not_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    flusher = LateFlusher()
    stream, later = Gathered(), Gathered()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("no more threads")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="no more threads"):
            flusher.watch(stream)
        flusher.forget(stream)
    flusher.watch(later)
    assert flusher._thread is not None
    assert flusher._thread.is_alive()
    flusher.forget(later)
