"""A forked child keeps nothing that hides the end of its parent."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from ezmsg.core.errors import CannotConnect, HandshakeError
from ezmsg.core.net import forking
from tests.certificates import Authority
from tests.core.forked import in_child
from tests.core.net.securing import Use
from tests.core.net.serving import KEY, Serving

# Connects to the address given, accepts one peer itself, forks under its running loop, says so, and waits to be killed.
# The child lives until its standard input ends.
PARENT = """
import asyncio, os, socket, sys
from ezmsg.core.net.address import Address
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.dial import connect
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.wire.records import Done, Pause

KEY = AuthKey(bytes.fromhex(sys.argv[2]), False)

class Handler:
    def on_request(self, connection, record):
        return Done()
    def on_notice(self, connection, record):
        pass
    def on_closed(self, connection, error):
        pass

async def main():
    where = Address.from_string(sys.argv[1]) if sys.argv[1][0] != "@" else sys.argv[1]
    accepted = asyncio.Queue()
    tcp = bind_tcp("127.0.0.1", 0, KEY)
    listener = await Listener.start([tcp], KEY, lambda sock, info, name: accepted.put_nowait((sock, info)))
    os.write(1, b"%d\\n" % tcp.getsockname()[1])
    client = await Connection.over(*await connect(where, KEY), Handler())
    server = await Connection.over(*await accepted.get(), Handler())
    if os.fork() == 0:
        os.write(1, b"forked\\n")
        sys.stdin.read()
        os._exit(0)
    # The parent's own connections do not notice.
    assert await client.request(Pause()) == Done()
    os.write(1, b"alive\\n")
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(params=["tcp", "door", "tls"])
def way(request: pytest.FixtureRequest, authority: Authority, use: Use) -> str:
    """How to connect; set up before a server is."""
    if request.param == "tls":
        use(authority.issue("localhost"))
    return request.param


async def test_a_parent_that_is_killed_is_gone_at_once_although_its_child_lives(way: str, serving: Serving) -> None:
    if way == "door" and not serving.door:
        pytest.skip("no doors here")
    where = serving.door if way == "door" else str(serving.address)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, where, KEY.secret.hex(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    port = int(await parent.stdout.readline())
    client = await serving.dial(where=("127.0.0.1", port))
    server, handler = await serving.peers.get()
    assert {await parent.stdout.readline() for _ in range(2)} == {b"forked\n", b"alive\n"}
    parent.send_signal(signal.SIGKILL)
    async with asyncio.timeout(40):
        await server.wait_closed()
        await client.wait_closed()
        await until_nobody_listens(serving, port)
        # The child did live all the time: only now its end of the pipe closes.
        assert not parent.stdout.at_eof()
        parent.stdin.close()
        assert await parent.stdout.read() == b""
        assert await parent.wait() == -signal.SIGKILL
    assert len(handler.ends) == 1


async def until_nobody_listens(serving: Serving, port: int) -> None:
    while True:
        try:
            await serving.dial(where=("127.0.0.1", port))
        except CannotConnect:
            return
        except HandshakeError:  # the kernel closes one socket of the parent after the other
            continue


def test_tracked_sockets_are_closed_in_a_child_only() -> None:
    tracked, untracked = forking.new_socket(socket.AF_INET), socket.socket()
    with tracked, untracked:
        assert in_child(lambda: tracked.fileno() == -1 and untracked.fileno() >= 0)
        assert tracked.fileno() >= 0


def test_accepted_sockets_are_tracked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = forking.accept(listening)
        with accepted:
            assert in_child(lambda: accepted.fileno() == -1)


def test_a_socket_that_is_closed_is_forgotten() -> None:
    sock = forking.new_socket(socket.AF_INET)
    sock.close()
    before = len(forking._tracked)
    del sock
    assert len(forking._tracked) == before - 1


def test_callbacks_run_in_the_child_in_order_after_the_sockets_are_closed(monkeypatch, caplog) -> None:
    monkeypatch.setattr(forking, "_callbacks", [])
    seen: list[object] = []
    with forking.new_socket(socket.AF_INET) as sock:

        def fail() -> None:
            raise RuntimeError("a callback that fails does not keep the others from running")

        forking.on_fork(lambda: seen.append(sock.fileno()))
        forking.on_fork(fail)
        forking.on_fork(lambda: seen.append("second"))
        assert in_child(lambda: seen == [-1, "second"])
        assert seen == []


def test_no_thread_forks_while_a_socket_is_made() -> None:
    entered, leave = threading.Event(), threading.Event()

    def make() -> None:
        with forking.no_fork():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=make)
    thread.start()
    entered.wait()
    forked = threading.Event()

    def fork() -> None:
        assert in_child(lambda: forking._guard.acquire(blocking=False))
        forked.set()

    forking_thread = threading.Thread(target=fork)
    forking_thread.start()
    assert not forked.wait(0.05)
    leave.set()
    thread.join()
    forking_thread.join()
    assert forked.is_set()


def test_a_child_can_fork_and_make_sockets_itself() -> None:
    def check() -> bool:
        with forking.new_socket(socket.AF_INET) as sock:
            return sock.fileno() >= 0 and in_child(lambda: sock.fileno() == -1)

    assert in_child(check)


def test_a_signal_that_another_thread_gets_is_held_back_nevertheless() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno())
    has_ended = False
    try:
        with pytest.raises(KeyboardInterrupt), heard, told, forking.held_back():
            os.kill(os.getpid(), signal.SIGINT)
            heard.recv(1)  # it was taken
            has_ended = True
    finally:
        signal.set_wakeup_fd(before)
        end.set()
        other.join()
    assert has_ended


def test_what_another_thread_forks_while_signals_are_held_back_has_the_handlers_of_the_program() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    found: list[bool] = []
    go = threading.Event()

    def fork() -> None:
        go.wait()
        found.append(in_child(lambda: (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before))

    other = threading.Thread(target=fork)
    other.start()
    with forking.put_off(), forking.held_back():
        go.set()
        other.join()
    assert found == [True]


def test_an_event_loop_hears_once_of_a_signal_that_was_held_back() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    calls: list[int] = []
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = (
        signal.signal(signal.SIGINT, lambda number, _frame: calls.append(number)),
        signal.set_wakeup_fd(told.fileno()),
    )
    try:
        with heard, told:
            with forking.held_back():
                os.kill(os.getpid(), signal.SIGINT)
                heard.recv(1)  # as a loop does
            heard.setblocking(False)
            with pytest.raises(BlockingIOError):
                heard.recv(1)
    finally:
        signal.set_wakeup_fd(before[1])
        signal.signal(signal.SIGINT, before[0])
        end.set()
        other.join()
    assert calls == [signal.SIGINT]
