"""A TLS connection used as a socket: blocking and not, from two threads, and how its end is told."""

from __future__ import annotations

import queue
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ezmsg.core.errors import TlsFailed
from ezmsg.core.net.tlssocket import SEND_BYTES, TlsSocket
from tests.certificates import Authority
from tests.core.net.securing import secure

LARGE = 3 << 20
Ends = tuple[TlsSocket, TlsSocket]


@pytest.fixture
def ends(authority: Authority) -> Iterator[Ends]:
    ours, theirs = secure(*socket.socketpair(), authority.issue("localhost"))
    ours.settimeout(40)
    theirs.settimeout(40)
    with ours, theirs:
        yield ours, theirs


def read(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = sock.recv(min(100_000, size - len(got)))
        assert data, "ended"
        got += data
    return bytes(got)


@pytest.fixture
def in_thread() -> Iterator[Callable[..., None]]:
    threads: list[threading.Thread] = []

    def start(work: Callable[..., object], *args: object) -> None:
        threads.append(threading.Thread(target=work, args=args))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(40)


def test_blocking_ends_exchange_everything_in_order(ends: Ends, in_thread: Callable[..., None]) -> None:
    ours, theirs = ends
    there, back = random.randbytes(LARGE), random.randbytes(LARGE)
    in_thread(ours.sendall, there)
    in_thread(theirs.sendall, back)
    assert read(theirs, LARGE) == there
    assert read(ours, LARGE) == back


def test_what_a_buffer_has_no_room_for_is_there_for_the_next(ends: Ends) -> None:
    ours, theirs = ends
    ours.sendall(b"0123456789")
    assert not theirs.has_pending
    buffer = bytearray(4)
    assert theirs.recv_into(buffer) == 4
    assert theirs.has_pending
    assert (bytes(buffer), theirs.recv(3), theirs.recv(100)) == (b"0123", b"456", b"789")
    assert not theirs.has_pending


def test_a_send_that_was_broken_off_goes_on_with_the_same_bytes(ends: Ends) -> None:
    ours, theirs = ends
    ours.setblocking(False)
    data = random.randbytes(LARGE)
    got = bytearray()
    view = memoryview(data)
    broken_off = 0
    while len(view):
        try:
            taken = ours.send(view)
        except BlockingIOError:
            broken_off += 1
            got += theirs.recv(50_000)
        else:
            assert taken <= SEND_BYTES
            view = view[taken:]
    got += read(theirs, LARGE - len(got))
    assert got == data
    assert broken_off


def test_a_timeout_is_one_of_the_socket(ends: Ends) -> None:
    ours, _ = ends
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    with pytest.raises(TimeoutError):
        ours.sendall(bytes(LARGE))


def test_one_thread_sends_while_another_receives(ends: Ends, in_thread: Callable[..., None]) -> None:
    """As the late flusher does beside a loop."""
    ours, theirs = ends
    pieces = [random.randbytes(random.choice([10, 1000, 20_000])) for _ in range(500)]
    everything = b"".join(pieces)
    received: queue.Queue[bytes] = queue.Queue()

    def send(sock: TlsSocket) -> None:
        for piece in pieces:
            sock.sendall(piece)

    in_thread(send, ours)
    in_thread(send, theirs)
    in_thread(lambda: received.put(read(theirs, len(everything))))
    assert read(ours, len(everything)) == everything
    assert received.get(timeout=40) == everything


# -- the end ----------------------------------------------------------------------------------------------------------


def test_who_said_goodbye_still_receives_what_was_on_its_way_and_what_comes(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"on its way, " * 10_000)
    assert ours.recv(12) == b"on its way, "
    assert ours.has_pending
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(10) == b""
    assert theirs.recv(10) == b""
    theirs.sendall(b"after it")
    theirs.shutdown(socket.SHUT_WR)
    assert read(ours, 12 * 9_999) == b"on its way, " * 9_999
    assert ours.recv(100) == b"after it"
    assert ours.recv(100) == b""


def test_an_end_without_goodbye_is_a_reset(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"last words")
    theirs.close()
    assert ours.recv(100) == b"last words"
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="without the goodbye of TLS"):
            ours.recv(100)


def test_an_end_without_goodbye_is_an_end_to_who_said_goodbye(ends: Ends) -> None:
    ours, theirs = ends
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(100) == b""
    theirs.close()
    assert ours.recv(100) == b""


def test_bytes_that_were_tampered_with_are_an_error_after_those_that_were_not(authority: Authority) -> None:
    raw, server_end = socket.socketpair()
    with raw:
        ours, theirs = secure(socket.socket(fileno=raw.detach()), server_end, authority.issue("localhost"))
        with ours, theirs:
            ours.sendall(b"good")
            socket.socket.send(ours, b"\x17\x03\x03\x00\x20" + bytes(32))
            assert theirs.recv(100) == b"good"
            with pytest.raises(TlsFailed, match="bad record mac"):
                theirs.recv(100)
