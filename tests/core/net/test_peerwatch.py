"""A host that vanished is told from one that only takes nothing; `messages/test_twohosts.py` makes one vanish."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from ezmsg.core.net.peerwatch import LOOKS, PeerWatch, can_watch

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system tells nothing of a connection")
TIMEOUT_S = 0.3
_BACKOFF, _SILENT = struct.Struct("4xB"), struct.Struct("56xI")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            ours.setblocking(False)
            yield ours, theirs


def info(sock: socket.socket, field: struct.Struct) -> int:
    return field.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, field.size))[0]


def fill(sock: socket.socket) -> None:
    """Send until the peer's window is closed."""
    while True:
        try:
            sock.send(bytes(1 << 16))
        except BlockingIOError:
            return


async def test_a_peer_that_is_there_and_takes_nothing_is_not_given_up(ends) -> None:
    """The system asks it ever more seldom, at last less often than a host may be silent."""
    ours, _ = ends
    vanished: list[OSError] = []
    watch = PeerWatch(ours, TIMEOUT_S, vanished.append)
    fill(ours)
    async with asyncio.timeout(40):
        # Three questions of which each was answered, with more than the time allowed between them.
        while info(ours, _BACKOFF) < 3 or info(ours, _SILENT) < TIMEOUT_S * 1000:
            await asyncio.sleep(TIMEOUT_S / LOOKS)
    watch.cancel()
    assert vanished == []


async def test_a_peer_that_owes_no_answer_may_be_silent(ends) -> None:
    ours, _ = ends
    vanished: list[OSError] = []
    watch = PeerWatch(ours, TIMEOUT_S, vanished.append)
    ours.send(b"x")
    async with asyncio.timeout(40):
        while info(ours, _SILENT) < 2 * TIMEOUT_S * 1000:
            await asyncio.sleep(TIMEOUT_S / LOOKS)
    watch.cancel()
    assert vanished == []


async def test_a_watch_outlives_its_socket(ends) -> None:
    ours, _ = ends
    watch = PeerWatch(ours, TIMEOUT_S, pytest.fail)
    ours.close()
    timer = watch._timer
    while watch._timer is timer:
        await asyncio.sleep(0.01)
    watch.cancel()


def test_only_tcp_is_watched(ends) -> None:
    ours, _ = ends
    assert can_watch(ours)
    for end in socket.socketpair():
        with end:
            assert not can_watch(end)
