"""Strangers are told apart, logged once, and cost nobody else anything."""

import asyncio
import contextlib
import errno
import logging
import os
import re
import resource
import socket
from collections.abc import Iterator

import pytest

from ezmsg.core.errors import ConfigError, HandshakeError, InsecureBind
from ezmsg.core.net import listener
from ezmsg.core.net.address import Address, SocketAddress, resolve_now, this_process
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.dial import connect
from ezmsg.core.net.door import door_path
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.wire.handshake import ClientHandshake, PeerInfo
from ezmsg.core.wire.limits import UNAUTHENTICATED_PEERS
from ezmsg.core.wire.records import Done, Pause
from tests import hostile
from tests.core.net.serving import KEY

PATIENCE_S = 40.0
EXPLICIT = AuthKey(b"k" * 32, explicit=True)

REASONS = {
    "wrong_key": "AUTHENTICATION_FAILED",
    "wrong_proof": "AUTHENTICATION_FAILED",
    "wrong_version": "VERSION_MISMATCH",
    "garbage": "FOREIGN_PEER",
    "silent": "HANDSHAKE_TIMEOUT",
    "hangup_in_handshake": "HANDSHAKE",
}
LINES = {
    "wrong_key": "it holds another key",
    "wrong_proof": "it holds another key",
    "wrong_version": "it speaks version 65535 of the protocol, this process version 4",
    "garbage": "it sent b'GET / HTTP/1'",
    "silent": "it did not finish within 0.05 s",
    "hangup_in_handshake": "it hung up in the middle of the handshake",
}


@pytest.fixture(params=["tcp", "door"])
def where(request, serving) -> Address | str:
    if request.param == "door" and not serving.door:
        pytest.skip("no doors here")
    return serving.address if request.param == "tcp" else serving.door


async def assert_serves(serving, where) -> None:
    sock, info = await connect(where, KEY)
    assert info.boot_id
    connection, _ = await serving.peers.get()
    sock.close()
    await connection.wait_closed()


@pytest.mark.parametrize("kind", REASONS)
async def test_a_stranger_is_logged_counted_and_forgotten(serving, where, kind, caplog, monkeypatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 0.05 if kind == "silent" else PATIENCE_S)
    said = await hostile.attack(where, kind, KEY)
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", PATIENCE_S)
    await assert_serves(serving, where)
    assert serving.listener.refused == {REASONS[kind]: 1}
    assert serving.listener.unauthenticated == 0
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.name == "ezmsg"
    assert line.message.startswith("test: handshake with ")
    assert LINES[kind] in line.message
    # A stranger learns a version, and nothing that a key went into but the challenge it asked for.
    assert len(said) <= 165


async def test_a_peer_that_loses_interest_is_counted_and_nothing_to_warn_of(serving, where, caplog) -> None:
    resolved = SocketAddress(socket.AF_UNIX, door_path(where)) if isinstance(where, str) else resolve_now(where)[0]
    silent = socket.socket(resolved.family)
    silent.connect(resolved.sockaddr)
    silent.close()
    with socket.socket(resolved.family) as undecided:
        undecided.connect(resolved.sockaddr)
        handshake = ClientHandshake(KEY.secret, this_process())
        undecided.sendall(handshake.hello)
        undecided.sendall(handshake.excuse)
        await read_end(undecided)
    with socket.socket(resolved.family) as hasty:
        hasty.connect(resolved.sockaddr)
        handshake = ClientHandshake(KEY.secret, this_process())
        hasty.sendall(handshake.hello + handshake.excuse)
    await assert_serves(serving, where)
    assert serving.listener.refused == {"HANDSHAKE_ABANDONED": 3}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_peer_of_another_version_is_told_ours(serving, where) -> None:
    assert await hostile.attack(where, "wrong_version", KEY) == b"\x93EZMSG\r\n\x04\x00\x01\x00\x02"


async def test_many_strangers_make_one_line_for_each_reason(serving, where, caplog, monkeypatch) -> None:
    serving.listener.log = LogLimiter(interval_s=3600)  # on a busy machine it may take longer than the interval
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", PATIENCE_S)
    kinds = ["wrong_key", "wrong_version", "garbage", "hangup_in_handshake"] * 25
    await asyncio.gather(*(hostile.attack(where, kind, KEY) for kind in kinds), assert_serves(serving, where))
    assert serving.listener.refused.total() == 100
    assert len(caplog.records) == 4
    await serving.listener.close()
    assert len(caplog.records) == 8
    assert all(record.message.endswith("one of 24 not logged)") for record in caplog.records[4:])


async def test_silent_peers_beyond_the_limit_of_their_gate_wait_and_a_closing_listener_ends_all(serving) -> None:
    sockets = [socket.create_connection(serving.address) for _ in range(UNAUTHENTICATED_PEERS + 20)]
    while serving.listener.unauthenticated < serving.strangers_at_a_gate:
        await asyncio.sleep(0)
    # The door is another gate: who floods the one does not shut the other.
    if serving.door:
        await assert_serves(serving, serving.door)
    assert serving.listener.unauthenticated == serving.strangers_at_a_gate
    if serving.door:
        for _ in range(20):
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].connect(door_path(serving.door))
        while serving.listener.unauthenticated < UNAUTHENTICATED_PEERS:
            await asyncio.sleep(0)
    # The loop is not woken for those that have to wait.
    assert [gate._is_accepting for gate in serving.listener._gates] == [False] * len(serving.listener._gates)
    await serving.listener.close()
    assert serving.listener.unauthenticated == 0
    for sock in sockets:
        with sock:
            assert await read_end(sock) == b""


async def read_end(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    return await hostile.read_to_end(sock)


async def test_who_waited_behind_silent_peers_is_served(serving, monkeypatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 0.1)
    silent = [hostile.attack(serving.address, "silent", KEY) for _ in range(3 * UNAUTHENTICATED_PEERS)]

    async def be_served() -> None:
        while True:
            with contextlib.suppress(HandshakeError):  # a busy machine took longer than that short patience
                return await assert_serves(serving, serving.address)

    await asyncio.gather(*silent, be_served())
    assert serving.listener.refused.keys() == {"HANDSHAKE_TIMEOUT"}
    assert serving.listener.refused["HANDSHAKE_TIMEOUT"] >= 3 * UNAUTHENTICATED_PEERS


async def test_an_open_connection_does_not_mind(serving) -> None:
    async with serving.both() as (client, _):
        for kind in hostile.QUICK_KINDS:
            attack = asyncio.ensure_future(hostile.attack(serving.address, kind, KEY))
            while not attack.done():
                assert await client.request(Pause(), PATIENCE_S) == Done()
            await attack


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_it_says_so_and_goes_on_when_there_are_some(
    serving, few_descriptors, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(listener, "EXHAUSTED_PAUSE_S", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sock = socket.socket()
    with sock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, serving.address)
        while not serving.listener.refused:
            await asyncio.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await assert_serves(serving, serving.address)
    assert serving.listener.refused["EMFILE"] > 0
    assert "cannot accept connections" in caplog.records[0].message


async def test_a_callback_that_fails_costs_its_peer_only(caplog) -> None:
    def fail(sock: socket.socket, info: PeerInfo, name: str) -> None:
        raise RuntimeError("no room")

    tcp = bind_tcp("127.0.0.1", 0, KEY)
    address = Address(*tcp.getsockname())
    serving = await Listener.start([tcp], KEY, fail, name="test")
    for _ in range(2):
        sock, _ = await connect(address, KEY)
        with sock:
            assert await hostile.read_to_end(sock) == b""
    await serving.close()
    assert [record.message for record in caplog.records] == [
        f"test: {name} was let in, but could not be served" for name in re.findall(r"127\.0\.0\.1:\d+", caplog.text)
    ]


# -- binding --------------------------------------------------------------------------------------------------------


def test_others_than_this_machine_need_an_explicit_key(no_such_host, caplog) -> None:
    for host in ("0.0.0.0", "", "192.0.2.1", "::", no_such_host):
        with pytest.raises(InsecureBind, match="EZMSG_AUTHKEY"):
            bind_tcp(host, 0, KEY)
    listener._warn_of_plain_text.cache_clear()
    for _ in range(2):
        with bind_tcp("0.0.0.0", 0, EXPLICIT) as sock:
            assert sock.getsockname()[0] == "0.0.0.0"
    (line,) = caplog.messages
    assert "nothing is encrypted" in line
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        bind_tcp(host, 0, KEY).close()


def test_a_search_takes_the_first_free_port_that_is_not_to_be_skipped() -> None:
    with bind_tcp("127.0.0.1", 0, KEY) as taken:
        start = taken.getsockname()[1]
        with bind_tcp("127.0.0.1", None, KEY, search_from=start, skip={start + 1}) as found:
            assert found.getsockname()[1] > start + 1


def test_a_search_finds_ports_again_that_were_given_back() -> None:
    # Beyond those that the system hands out, nobody takes or gives back others meanwhile.
    start = 61_000 + os.getpid() % 400 * 10
    with bind_tcp("127.0.0.1", start, KEY) as taken:
        first, second = (bind_tcp("127.0.0.1", None, KEY, search_from=start) for _ in range(2))
        with first, second:
            first_name = first.getsockname()
            assert taken.getsockname() < first_name < second.getsockname()
        with bind_tcp("127.0.0.1", None, KEY, search_from=start) as again:
            assert again.getsockname() == first_name


def test_a_search_that_finds_nothing_says_where_it_looked() -> None:
    with bind_tcp("127.0.0.1", 0, KEY) as taken:
        start = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"no port is free on 127.0.0.1 from {start}") as error:
            bind_tcp("127.0.0.1", None, KEY, search_from=start, skip=range(start + 1, 1 << 16))
    assert error.value.errno == errno.EADDRINUSE


def test_a_port_that_is_taken_is_named() -> None:
    with bind_tcp("127.0.0.1", 0, KEY) as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(OSError, match=re.escape(f"cannot listen on {address}: Address already in use")) as error:
            bind_tcp("127.0.0.1", address.port, KEY)
    assert error.value.errno == errno.EADDRINUSE


async def test_a_port_can_be_used_again_at_once(serving) -> None:
    async with serving.both() as (_, server):
        await server.close()  # the server's end closes first: its port stays in TIME_WAIT
    await serving.listener.close()
    bind_tcp(serving.address.host, serving.address.port, KEY).close()


def test_connections_queue_before_anybody_accepts() -> None:
    with bind_tcp("127.0.0.1", 0, KEY) as sock:
        waiting = [socket.create_connection(sock.getsockname(), timeout=40) for _ in range(600)]
        for connection in waiting:
            connection.close()


def test_a_time_that_cannot_be_used_is_refused_before_anybody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_PEER_TIMEOUT_S", "soon")
    with pytest.raises(ConfigError, match="EZMSG_PEER_TIMEOUT_S='soon' cannot be used: expected a number >= 2"):
        bind_tcp("127.0.0.1", 0, KEY)
