"""A transport over a real socket pair: order, memory that was lent, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from ezmsg.core.net.sockettransport import PARTS_AT_ONCE, SocketTransport
from ezmsg.core.net.tlstransport import transport_over
from tests.certificates import Authority
from tests.core.net.securing import secure

LARGE = 1 << 20


class Protocol(asyncio.BufferedProtocol):
    """Notes what it is told."""

    def __init__(self, *, stays_open: bool = False) -> None:
        self.received = bytearray()
        self.has_received = asyncio.Event()
        self.ended = asyncio.Event()
        self.is_lost = asyncio.Event()
        self.ends: list[Exception | None] = []
        self._buffer = bytearray(65536)
        self._stays_open = stays_open

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]
        self.has_received.set()

    def eof_received(self) -> bool:
        self.ended.set()
        return self._stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)
        self.is_lost.set()


def pair() -> tuple[socket.socket, socket.socket]:
    """Ours, which takes little at once, and the peer's."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


@pytest.fixture(params=["plain", "tls"])
def sockets(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = pair()
    if request.param == "tls":
        ours, theirs = secure(ours, theirs, authority.issue("localhost"))
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def connected(
    sockets: tuple[socket.socket, socket.socket],
) -> AsyncIterator[tuple[SocketTransport, Protocol, socket.socket]]:
    ours, theirs = sockets
    protocol = Protocol()
    transport = transport_over(ours, protocol)
    fd = ours.fileno()
    yield transport, protocol, theirs
    transport.abort()
    await protocol.is_lost.wait()
    await asyncio.sleep(0)
    assert ours.fileno() == -1
    assert len(protocol.ends) == 1
    loop = asyncio.get_running_loop()
    assert not loop.remove_reader(fd)
    assert not loop.remove_writer(fd)


async def take(theirs: socket.socket, size: int, step: int = 65536) -> bytes:
    """So many bytes from the peer's end."""
    got = bytearray()
    while len(got) < size:
        data = await asyncio.get_running_loop().sock_recv(theirs, min(step, size - len(got)))
        assert data, f"the end after {len(got)} of {size} bytes"
        got += data
    return bytes(got)


async def take_all(theirs: socket.socket) -> bytes:
    got = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(theirs, 65536):
        got += data
    return bytes(got)


async def take_until_cut(theirs: socket.socket) -> bytes:
    """As `take_all`; TLS tells an end that was announced from one that was not."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(theirs, 65536):
            got += data
    return bytes(got)


async def until_received(protocol: Protocol, size: int) -> None:
    while len(protocol.received) < size:
        protocol.has_received.clear()
        await protocol.has_received.wait()


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_written_and_lent_arrives_in_order_at_a_slow_reader(connected, seed) -> None:
    transport, _, theirs = connected
    rng = random.Random(seed)
    sent = bytearray()

    async def read() -> bytes:
        got = bytearray()
        while len(got) < total:
            got += await take(theirs, min(rng.choice([1, 100, 5000, 50_000]), total - len(got)))
        return bytes(got)

    plans = [
        (rng.choice(["write", "lend", "lend", "own", "turn"]), [rng.randbytes(rng.choice([0, 1, 20, 3000, 40_000]))
        for _ in range(rng.choice([1, 2, 5, 300 if number % 20 == 0 else 3]))])
        for number in range(60)
    ]  # fmt: skip
    total = sum(len(part) for kind, parts in plans if kind != "turn" for part in parts)
    reading = asyncio.create_task(read())
    for kind, parts in plans:
        if kind == "turn":
            await asyncio.sleep(0)
            continue
        sent += b"".join(parts)
        if kind == "write":
            transport.write(b"".join(parts))
        else:
            transport.lend([memoryview(part) for part in parts])
        if kind == "own":
            transport.own()
    assert await reading == sent
    await transport.settle()
    assert transport.get_write_buffer_size() == 0


async def test_more_parts_than_one_call_takes_arrive(connected) -> None:
    transport, _, theirs = connected
    parts = [bytes([number % 256]) for number in range(3 * PARTS_AT_ONCE + 1)]
    transport.lend(parts)
    assert await take(theirs, len(parts)) == b"".join(parts)
    large = [part * 1000 for part in parts]
    assert transport.lend(large)
    assert await take(theirs, 1000 * len(parts)) == b"".join(large)


@pytest.mark.parametrize("parts", [[], [b""], [b"", b"", b"x", b""]])
async def test_parts_may_be_empty(connected, parts) -> None:
    transport, _, theirs = connected
    assert not transport.lend(parts)
    transport.write(b"")
    transport.write(bytes(LARGE))
    transport.lend(parts)
    transport.write(b"")
    assert await take(theirs, LARGE + 2 * len(b"".join(parts))) == b"".join(parts) + bytes(LARGE) + b"".join(parts)


# -- memory that was lent ---------------------------------------------------------------------------------------------


async def test_what_fits_is_sent_at_once_and_lends_nothing(connected) -> None:
    transport, _, theirs = connected
    assert not transport.lend([b"one", b"two"])
    await transport.settle()
    assert transport.get_write_buffer_size() == 0
    assert await take(theirs, 6) == b"onetwo"


async def test_settling_waits_until_lent_memory_was_sent(connected) -> None:
    transport, _, theirs = connected
    memory = bytearray(b"x" * LARGE)
    assert transport.lend([memoryview(memory)])
    settling = [asyncio.create_task(transport.settle()) for _ in range(2)]
    cancelled = asyncio.create_task(transport.settle())
    got = b""
    while transport.get_write_buffer_size():
        assert not any(task.done() for task in settling)
        got += await take(theirs, 4096)
        cancelled.cancel()
    await asyncio.gather(*settling)
    memory[:] = b"y" * LARGE
    got += await take(theirs, LARGE - len(got))
    assert got == b"x" * LARGE
    assert cancelled.cancelled()


async def test_memory_that_was_owned_may_change(connected) -> None:
    transport, _, theirs = connected
    memory = bytearray(b"x" * LARGE)
    transport.write(b"first" * 10_000)
    assert transport.lend([b"head", memoryview(memory)])
    settling = asyncio.create_task(transport.settle())
    await asyncio.sleep(0)
    transport.own()
    await settling
    memory[:] = b"y" * LARGE
    assert await take(theirs, 50_000 + 4 + LARGE) == b"first" * 10_000 + b"head" + b"x" * LARGE
    transport.own()


async def test_memory_can_be_lent_again_after_it_was_owned(connected) -> None:
    transport, _, theirs = connected
    assert transport.lend([b"x" * LARGE])
    transport.own()
    await transport.settle()
    assert transport.lend([b"y" * LARGE])
    settling = asyncio.create_task(transport.settle())
    assert await take(theirs, 2 * LARGE) == b"x" * LARGE + b"y" * LARGE
    await settling


@pytest.mark.parametrize("how", ["abort", "reset"])
async def test_settling_ends_with_the_connection(connected, how) -> None:
    transport, protocol, theirs = connected
    assert transport.lend([bytes(LARGE)])
    settling = asyncio.create_task(transport.settle())
    await asyncio.sleep(0)
    if how == "abort":
        transport.abort()
    else:
        theirs.close()
    await settling
    await protocol.is_lost.wait()
    assert not transport.lend([bytes(LARGE)])
    await transport.settle()


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["write_eof", "close"])
@pytest.mark.parametrize("size", [0, 5, LARGE])
async def test_the_end_comes_after_what_waits(connected, how, size) -> None:
    transport, protocol, theirs = connected
    transport.write(b"x" * size)
    getattr(transport, how)()
    getattr(transport, how)()
    assert await take_all(theirs) == b"x" * size
    if how == "close":
        await protocol.is_lost.wait()
        assert protocol.ends == [None]
    else:
        assert not transport.is_closing()


async def test_nothing_is_sent_after_the_end_was_said(connected) -> None:
    transport, _, theirs = connected
    transport.write(b"x" * LARGE)
    transport.write_eof()
    transport.write(b"late")
    assert not transport.lend([b"late"])
    assert await take_all(theirs) == b"x" * LARGE


async def test_after_its_own_end_it_still_receives(connected) -> None:
    transport, protocol, theirs = connected
    transport.write_eof()
    assert await take_all(theirs) == b""
    theirs.sendall(b"answer")
    await until_received(protocol, 6)
    theirs.shutdown(socket.SHUT_WR)
    await protocol.is_lost.wait()
    assert (protocol.received, protocol.ends) == (b"answer", [None])


async def test_a_peer_that_ends_first_still_gets_what_waits(connected) -> None:
    transport, protocol, theirs = connected
    transport.write(b"x" * LARGE)
    theirs.shutdown(socket.SHUT_WR)
    await protocol.ended.wait()
    assert transport.is_closing()
    assert await take_all(theirs) == b"x" * LARGE
    await protocol.is_lost.wait()


async def test_a_protocol_may_keep_a_half_closed_connection(sockets) -> None:
    ours, theirs = sockets
    protocol = Protocol(stays_open=True)
    transport = transport_over(ours, protocol)
    theirs.shutdown(socket.SHUT_WR)
    await protocol.ended.wait()
    assert not transport.is_closing()
    assert not transport.is_reading()
    transport.write(b"x" * LARGE)
    transport.close()
    assert await take_all(theirs) == b"x" * LARGE
    await protocol.is_lost.wait()


async def test_an_abort_throws_away_what_waits(connected) -> None:
    transport, protocol, theirs = connected
    transport.write(b"x" * LARGE)
    transport.abort()
    transport.abort()
    transport.close()
    transport.write(b"late")
    transport.write_eof()
    assert transport.get_write_buffer_size() == 0
    await protocol.is_lost.wait()
    assert protocol.ends == [None]
    assert len(await take_until_cut(theirs)) < LARGE


@pytest.mark.parametrize("how", ["write", "lend"])
async def test_a_peer_that_goes_in_the_middle_of_a_write_ends_the_connection_with_the_error(connected, how) -> None:
    transport, protocol, theirs = connected
    if how == "write":
        transport.write(bytes(LARGE))
    else:
        transport.lend([bytes(LARGE)])
    await take(theirs, 100)
    transport.pause_reading()
    theirs.close()
    await protocol.is_lost.wait()
    assert isinstance(protocol.ends[0], ConnectionError)


@pytest.mark.parametrize("how", ["write", "lend"])
async def test_a_peer_that_is_gone_is_noticed_by_the_next_write(connected, how) -> None:
    transport, protocol, theirs = connected
    theirs.close()
    if how == "write":
        transport.write(b"x")
    else:
        assert not transport.lend([b"x"])
    await protocol.is_lost.wait()
    assert transport.is_closing()
    assert isinstance(protocol.ends[0], ConnectionError)


@pytest.mark.parametrize("how", ["write", "lend"])
async def test_what_a_peer_said_before_it_hung_up_is_heard_although_something_waits_for_it(connected, how) -> None:
    transport, protocol, theirs = connected
    said = b"goodbye" * 20_000  # more than is read at once
    if how == "write":
        transport.write(bytes(LARGE))
    else:
        transport.lend([bytes(LARGE)])
    theirs.send(said)
    theirs.close()
    await transport.settle()
    await protocol.is_lost.wait()
    assert protocol.received == said
    assert transport.get_write_buffer_size() == 0
    assert isinstance(protocol.ends[0], ConnectionError)


async def test_what_a_peer_said_before_it_hung_up_is_heard_although_it_takes_nothing_more(connected) -> None:
    transport, protocol, theirs = connected
    theirs.send(b"goodbye")
    theirs.close()
    transport.write(b"x")
    transport.write(b"y")
    await protocol.is_lost.wait()
    assert protocol.received == b"goodbye"
    assert isinstance(protocol.ends[0], ConnectionError)


async def test_a_reset_by_tcp_ends_the_connection_with_the_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        ours.setblocking(False)
        protocol = Protocol()
        transport_over(ours, protocol)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        await protocol.is_lost.wait()
        assert isinstance(protocol.ends[0], ConnectionResetError)


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_taken_while_reading_is_paused(connected) -> None:
    transport, protocol, theirs = connected
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    theirs.sendall(b"waits")
    for _ in range(5):
        await asyncio.sleep(0)
    assert protocol.received == b""
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    await until_received(protocol, 5)
    assert protocol.received == b"waits"


async def test_a_protocol_may_pause_from_the_beginning(sockets) -> None:
    class Paused(Protocol):
        def connection_made(self, transport) -> None:
            transport.pause_reading()

    ours, theirs = sockets
    protocol = Paused()
    transport = transport_over(ours, protocol)
    loop = asyncio.get_running_loop()
    assert not loop.remove_reader(ours.fileno())
    transport.resume_reading()
    theirs.sendall(b"now")
    await until_received(protocol, 3)
    transport.close()
    await protocol.is_lost.wait()


async def test_a_connection_can_be_ended_as_soon_as_it_is_made(sockets) -> None:
    class Leaving(Protocol):
        def connection_made(self, transport) -> None:
            transport.abort()

    ours, theirs = sockets
    fd = ours.fileno()
    protocol = Leaving()
    transport_over(ours, protocol)
    assert not asyncio.get_running_loop().remove_reader(fd)
    assert await take_until_cut(theirs) == b""
    assert protocol.ends == [None]


async def test_closing_while_paused_ends_all_the_same(connected) -> None:
    transport, protocol, _ = connected
    transport.pause_reading()
    transport.close()
    transport.resume_reading()
    await protocol.is_lost.wait()
    assert protocol.ends == [None]


async def test_it_tells_its_state(connected) -> None:
    transport, protocol, theirs = connected
    assert " open waiting=0" in repr(transport)
    transport.write(bytes(LARGE))
    transport.close()
    assert " closing waiting=" in repr(transport)
    await take_all(theirs)
    await protocol.is_lost.wait()
    assert " closed waiting=0" in repr(transport)
    assert transport.can_write_eof()
    assert transport.get_extra_info("socket") is transport._sock
    assert transport.get_extra_info("peername", 1) == 1
