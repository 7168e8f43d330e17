"""Connecting: whatever is at the other end, the caller gets a socket or a named error."""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from ezmsg.core.errors import (
    AuthenticationFailed,
    CannotConnect,
    ForeignPeer,
    HandshakeAbandoned,
    HandshakeTimeout,
    VersionMismatch,
)
from ezmsg.core.net import dial
from ezmsg.core.net.address import Address, this_process
from ezmsg.core.net.dial import connect, connect_blocking
from ezmsg.core.net.listener import bind_tcp
from ezmsg.core.wire import handshake
from tests import hostile
from tests.core.net.serving import KEY


async def connect_in_a_thread(where, key, timeout_s=5.0):
    """`connect_blocking`, from a thread that ends with the test."""
    outcome = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        try:
            result = connect_blocking(where, key, timeout_s)
        except BaseException as error:
            loop.call_soon_threadsafe(outcome.set_exception, error)
        else:
            loop.call_soon_threadsafe(outcome.set_result, result)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return await outcome
    finally:
        thread.join()


@pytest.fixture(params=[connect, connect_in_a_thread], ids=["loop", "thread"])
def dialled(request):
    return request.param


@pytest.fixture(params=["tcp", "door"])
def where(request, serving) -> Address | str:
    if request.param == "door" and not serving.door:
        pytest.skip("no doors here")
    return serving.address if request.param == "tcp" else serving.door


async def test_a_socket_stands_at_the_first_byte_after_the_handshake(serving, where, dialled) -> None:
    sock, info = await dialled(where, KEY)
    with sock:
        assert info == this_process()
        server, _ = await serving.peers.get()
        assert server.peer == this_process()
        assert sock.getblocking() is (dialled is connect_in_a_thread)
        if sock.family == socket.AF_INET:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # A loop watches its connections itself.
                bound = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert bound == (60_000 if dialled is connect_in_a_thread else 0)
        sock.setblocking(False)
        server.write(b"0123456789")
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"0123456789"


async def test_another_key_is_named(serving, where, dialled) -> None:
    with pytest.raises(AuthenticationFailed, match=rf"handshake with {re.escape(str(where))} failed: it holds another"):
        await dialled(where, hostile.WRONG_KEY)
    # Both sides know why.
    while not serving.listener.refused:
        await asyncio.sleep(0)
    assert serving.listener.refused == {"AUTHENTICATION_FAILED": 1}


async def test_another_version_is_named(serving, where, monkeypatch) -> None:
    hello = handshake.ClientHandshake

    class Newer(hello):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            self.hello = self.hello[:8] + b"\x05\x00" + self.hello[10:]

        def _take_prefix(self, version: int, length: int) -> None:
            raise VersionMismatch(self._name, 5, version)

    monkeypatch.setattr(dial, "ClientHandshake", Newer)
    with pytest.raises(VersionMismatch, match="it speaks version 4 of the protocol, this process version 5"):
        await connect(where, KEY)
    while not serving.listener.refused:
        await asyncio.sleep(0)
    assert serving.listener.refused == {"VERSION_MISMATCH": 1}


# -- nothing, and other things ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def something_that_says(said: bytes | None) -> AsyncIterator[Address]:
    """A server that says this and no more, or that says nothing at all (None)."""
    loop = asyncio.get_running_loop()

    talking: set[asyncio.Task[None]] = set()

    def accept() -> None:
        # Not `sock_accept`: cancelled at the wrong moment it drops what it has just accepted.
        with contextlib.suppress(BlockingIOError):
            sock, _ = listening.accept()
            stack.push(sock)
            sock.setblocking(False)
            if said is not None:
                talking.add(asyncio.create_task(talk(sock, said)))

    async def talk(sock: socket.socket, said: bytes) -> None:
        await hostile.send(sock, said)
        sock.shutdown(socket.SHUT_WR)

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)
        loop.add_reader(listening, accept)
        try:
            yield Address(*listening.getsockname())
        finally:
            loop.remove_reader(listening)
            for task in talking:
                task.cancel()
            if talking:
                await asyncio.wait(talking)


async def test_something_else_at_the_address_is_named(dialled) -> None:
    async with something_that_says(b"220 mail.example ESMTP\r\n") as address:
        with pytest.raises(ForeignPeer, match=r"it sent b'220 mail\.exa"):
            await dialled(address, KEY)


async def test_one_that_hangs_up_is_named(dialled) -> None:
    async with something_that_says(b"") as address:
        with pytest.raises(dial.HandshakeError, match=f"handshake with {address} failed: it hung up"):
            await dialled(address, KEY)


async def test_who_is_cancelled_says_so_instead_of_just_hanging_up() -> None:
    with bind_tcp("127.0.0.1", 0, KEY) as listening:
        address = Address(*listening.getsockname())
        dialling = asyncio.create_task(dial.connect(address, KEY))
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(listening)
        with peer:
            peer.setblocking(False)
            server = handshake.ServerHandshake(KEY.secret, this_process())
            while not server.receive(await loop.sock_recv(peer, server.wanted)):
                pass
            dialling.cancel()
            await asyncio.wait([dialling])
            with pytest.raises(HandshakeAbandoned, match="it gave up"):
                server.receive(await loop.sock_recv(peer, server.wanted))


async def test_one_that_says_nothing_is_given_up(dialled) -> None:
    async with something_that_says(None) as address:
        with pytest.raises(HandshakeTimeout, match=rf"{address} failed: it did not answer within 0\.05 s"):
            await dialled(address, KEY, 0.05)


async def test_one_that_talks_on_and_on_is_given_up(dialled) -> None:
    async with something_that_says(handshake.MAGIC + b"\x04\x00\xff\xff" + bytes(100_000)) as address:
        with pytest.raises(dial.HandshakeError, match="announces a message of 65535 bytes"):
            await dialled(address, KEY)


async def test_nobody_at_the_address_is_named(dialled) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = Address(*unused.getsockname())
        with pytest.raises(CannotConnect, match=f"cannot connect to {address}: .*[Rr]efused") as error:
            await dialled(address, KEY)
    assert isinstance(error.value, ConnectionError)
    assert error.value.peer == str(address)


async def test_nobody_at_the_door_is_named(dialled) -> None:
    with pytest.raises(CannotConnect, match="cannot connect to @ezmsg-nobody"):
        await dialled("@ezmsg-nobody", KEY)
    with pytest.raises(CannotConnect, match="it is no door"):
        await dialled("/tmp/ezmsg", KEY)


async def test_a_backlog_that_is_full_is_given_up(dialled) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = Address(*full.getsockname())
        with socket.create_connection(address), pytest.raises(CannotConnect, match=r"no answer within 0\.05 s"):
            await dialled(address, KEY, 0.05)


async def test_a_connection_to_oneself_is_nobody(dialled, monkeypatch) -> None:
    """A free port of the ephemeral range may be our own end's."""

    class Narcissus(socket.socket):
        def getpeername(self):
            return self.getsockname()

    async with something_that_says(None) as address:
        monkeypatch.setattr(dial.forking, "new_socket", lambda family: Narcissus(family))
        with pytest.raises(CannotConnect, match="refused"):
            await dialled(address, KEY)


async def test_dialling_can_be_cancelled_at_any_point(serving) -> None:
    turns, is_done = 0, False
    while not is_done:
        task = asyncio.create_task(connect(serving.address, KEY))
        for _ in range(turns):
            await asyncio.sleep(0)
        is_done = task.done()
        task.cancel()
        try:
            sock, _ = await task
            sock.close()
        except asyncio.CancelledError:
            pass
        turns += 1


async def test_a_name_is_looked_up_without_blocking_the_loop(serving, monkeypatch) -> None:
    monkeypatch.setattr(dial, "needs_lookup", lambda host: True)
    try:
        sock, _ = await connect(Address("localhost", serving.address.port), KEY)
        sock.close()
    finally:
        await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_name_that_does_not_exist_is_named(monkeypatch, dialled, no_such_host) -> None:
    monkeypatch.setattr(dial, "needs_lookup", lambda host: False)
    with pytest.raises(CannotConnect, match=f"cannot connect to {no_such_host}:1: Name or service not known"):
        await dialled(Address(no_such_host, 1), KEY)
