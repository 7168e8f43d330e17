"""The Unix door: a second way into a process for peers of the same machine and user, cheaper than TCP.

An abstract socket (Linux): its name vanishes with the process. Written `@name`, as the system's tools show it; `""`
means no door. A door is a shortcut, never a condition: containers of one machine may not see each other's.

Publishers tell the names of theirs. That of a GraphServer follows from its address: names of doors and ports of
loopback belong to the same network namespace, so whoever finds the door has found what listens at the port.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import uuid

from ezmsg.core import config
from ezmsg.core.errors import AuthenticationFailed
from ezmsg.core.net import forking
from ezmsg.core.net.address import Address
from ezmsg.core.wire.limits import ACCEPT_BACKLOG

NO_DOOR = ""
# How hosts are called that have a door, and by which name a client finds it.
LOOPBACK = {"127.0.0.1": "127.0.0.1", "::1": "::1", "localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1"}
_UCRED = struct.Struct("3i")


def has_doors() -> bool:
    """Whether this system has sockets with names that vanish with their process."""
    return sys.platform == "linux"


def server_door(address: Address) -> str:
    """What the door of a GraphServer at this address is called; `""` if it has none.

    It has one where only this machine can reach it, or every interface can, and TLS is not asked for.
    """
    host = LOOPBACK.get(address.host, address.host)
    return f"@ezmsg-{Address(host, address.port)}" if host in LOOPBACK and config.tls_files() is None else NO_DOOR


def open_door(name: str = "") -> tuple[socket.socket | None, str]:
    """A listening socket and its name, a new one if none is given; (None, "") where it is taken, or none exist."""
    if not has_doors():
        return None, NO_DOOR
    name = name or f"@ezmsg-{uuid.uuid4()}"
    try:
        sock = forking.new_socket(socket.AF_UNIX)
    except OSError:
        return None, NO_DOOR  # a sandbox may have no such sockets
    try:
        sock.bind(door_path(name))
        sock.listen(ACCEPT_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None, NO_DOOR
    return sock, name


def door_path(name: str) -> bytes:
    """What the system calls a door."""
    return b"\0" + name.removeprefix("@").encode()


def credentials(sock: socket.socket) -> tuple[int, int]:
    """The process (0 if it is in a container of its own) and the user at the other end of a door."""
    assert sys.platform == "linux", "only Linux has doors"
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def check_credentials(sock: socket.socket, peer: str) -> None:
    """Make sure that the process at the other end of a door runs as our user, or as root.

    Raises:
        AuthenticationFailed: It does not.
    """
    _, uid = credentials(sock)
    if uid not in (0, os.geteuid()):
        raise AuthenticationFailed(peer, f"it runs as user {uid}, this process as {os.geteuid()}")
