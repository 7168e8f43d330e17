"""The Unix door: for this machine and user only."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from ezmsg.core.errors import AuthenticationFailed, CannotConnect
from ezmsg.core.net import dial, door
from ezmsg.core.net.address import Address
from ezmsg.core.net.dial import connect
from tests.core.net.serving import KEY

pytestmark = pytest.mark.skipif(not door.has_doors(), reason="no doors here")

# As another user, knock at the door whose name is given, and print what comes until it is shut.
KNOCK = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(b"\\0" + sys.argv[1][1:].encode())
    sys.stdout.buffer.write(sock.recv(100))
"""


def test_a_door_has_a_name_of_its_own_that_ends_with_it() -> None:
    sock, name = door.open_door()
    assert name.startswith("@ezmsg-")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(door.door_path(name))
    sock.close()
    with socket.socket(socket.AF_UNIX) as peer, pytest.raises(ConnectionRefusedError):
        peer.connect(door.door_path(name))
    other, other_name = door.open_door()
    other.close()
    assert other_name != name


def test_without_doors_there_is_none(monkeypatch) -> None:
    monkeypatch.setattr(door, "has_doors", lambda: False)
    assert door.open_door() == (None, "")


def test_where_the_system_refuses_such_sockets_there_is_none(monkeypatch) -> None:
    # As sandboxes of services do, which allow no other families than those of the network.
    def refuse(family: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(door.forking, "new_socket", refuse)
    assert door.open_door() == (None, "")


def test_a_door_whose_name_is_taken_is_not_opened() -> None:
    wanted = f"@ezmsg-test-{os.getpid()}"
    sock, name = door.open_door(wanted)
    with sock:
        assert name == wanted
        assert door.open_door(name) == (None, "")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", "@ezmsg-127.0.0.1:7"),
        ("localhost", "@ezmsg-127.0.0.1:7"),
        ("0.0.0.0", "@ezmsg-127.0.0.1:7"),
        ("::1", "@ezmsg-[::1]:7"),
        ("127.0.0.2", ""),
        ("192.0.2.1", ""),
        ("a.example", ""),
    ],
)
def test_the_door_of_a_server_is_found_by_its_address_on_loopback(host: str, name: str) -> None:
    assert door.server_door(Address(host, 7)) == name


def test_a_server_with_tls_has_no_door(monkeypatch) -> None:
    for variable in ("EZMSG_TLS_CERT", "EZMSG_TLS_KEY", "EZMSG_TLS_CA"):
        monkeypatch.setenv(variable, "some.pem")
    assert door.server_door(Address("127.0.0.1", 7)) == ""


def test_the_user_of_a_peer_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert door.credentials(ours) == (os.getpid(), os.geteuid())
        door.check_credentials(ours, "peer")


@pytest.mark.parametrize(("user", "is_let_in"), [(4242, True), (0, True), (4243, False)])
def test_only_our_user_and_root_are_let_in(user: int, is_let_in: bool, monkeypatch) -> None:
    monkeypatch.setattr(door, "credentials", lambda sock: (1, user))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with socket.socket(socket.AF_UNIX) as sock:
        if is_let_in:
            door.check_credentials(sock, "peer")
            return
        with pytest.raises(AuthenticationFailed, match="with peer failed: it runs as user 4243, this process as 4242"):
            door.check_credentials(sock, "peer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_turned_away_although_the_name_is_no_secret(serving, caplog) -> None:
    import asyncio

    knock = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KNOCK, serving.door, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, errors = await knock.communicate()
    assert (knock.returncode, errors) == (0, b"")
    assert said == b""
    assert serving.listener.refused == {"AUTHENTICATION_FAILED": 1}
    assert "it runs as user 65534" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_who_goes_at_once_is_nothing_to_warn_of(serving, caplog) -> None:
    import asyncio

    look = KNOCK.replace("sys.stdout.buffer.write(sock.recv(100))", "pass")
    knock = await asyncio.create_subprocess_exec(sys.executable, "-c", look, serving.door)
    assert await knock.wait() == 0
    async with asyncio.timeout(40):
        while not serving.listener.refused:
            await asyncio.sleep(0.01)
    assert serving.listener.refused == {"HANDSHAKE_ABANDONED": 1}
    assert caplog.text == ""


async def test_a_client_does_not_greet_a_server_of_another_user(serving, monkeypatch) -> None:
    monkeypatch.setattr(dial, "credentials", lambda sock: (1, 4243))
    with pytest.raises(CannotConnect, match="it is the door of user 4243"):
        await connect(serving.door, KEY)
