"""Where a peer is: host and port, which machine, and which process."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import time
import uuid
from typing import Any, NamedTuple

from ezmsg.core import config
from ezmsg.core._version import __version__
from ezmsg.core.errors import ConfigError
from ezmsg.core.net import forking
from ezmsg.core.wire.handshake import PeerInfo

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


class Address(NamedTuple):
    """A TCP address. Its text form is `host:port`, with an IPv6 host in brackets."""

    host: str
    port: int

    @classmethod
    def from_string(cls, text: str, source: str = "address") -> Address:
        """Read `host:port`.

        Args:
            text: The text.
            source: Where it comes from, for the error.

        Raises:
            ConfigError: The text is no such thing (a ValueError).
        """
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(source, text, "host:port with an IPv6 host in brackets, as in [::1]:25978")
        if not colon or not host:
            raise ConfigError(source, text, "host:port")
        if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
            raise ConfigError(source, text, f"host:port with a port of 0 to 65535, not {port!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def bind_socket(self) -> socket.socket:
        """A TCP socket bound here, not yet listening.

        Raises:
            OSError: The host is unknown, or the port is taken or not allowed.
        """
        resolved = resolve_now(self)[0]
        sock = unbound(resolved.family)
        try:
            sock.bind(resolved.sockaddr)
        except OSError as error:
            sock.close()
            raise type(error)(error.errno, f"cannot listen on {self}: {error.strerror}") from None
        return sock


AddressType = Address | tuple[str, int] | str
"""How programs give an address."""


class SocketAddress(NamedTuple):
    """What the system calls an address: for `socket.socket(family)` and its `connect` or `bind`."""

    family: int
    sockaddr: Any


def needs_lookup(host: str) -> bool:
    """Whether finding the host may mean asking the network."""
    if host == "localhost":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def unbound(family: int) -> socket.socket:
    """A TCP socket to be bound."""
    sock = forking.new_socket(family)
    # Else the port of a server that has just ended is refused for a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def resolve_now(address: Address) -> list[SocketAddress]:
    """The socket addresses of a host, IPv4 first. May ask the network, and blocks meanwhile: see `needs_lookup`.

    Raises:
        OSError: The host is unknown.
    """
    entries = _looked_up(address.host, address.port)
    found = [SocketAddress(entry[0], entry[4]) for entry in entries]
    # Our servers listen on 127.0.0.1 by default, also where localhost means ::1 first.
    return sorted(found, key=lambda entry: entry.family != socket.AF_INET)


def _looked_up(host: str, port: int | None) -> list[Any]:
    try:
        return socket.getaddrinfo(_plain(host), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # no name can be written like that
        raise socket.gaierror(socket.EAI_NONAME, f"{host[:100]!r} is no name of a host: {error}") from None


def _plain(host: str) -> str | bytes:
    # For text Python loads the tables of international names first, also where there is no name: some milliseconds.
    return host if needs_lookup(host) else host.encode()


def tune_tcp(sock: socket.socket) -> None:
    """Send small frames at once, and notice in time that the host of a silent peer has vanished.

    While data is under way nobody asks whether the host is there: see `peerwatch`.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    timeout_s = config.peer_timeout_s()
    # Three probes that are not answered, in the second half of the time.
    asked_s = {"TCP_KEEPIDLE": timeout_s / 2, "TCP_KEEPINTVL": timeout_s / 6}
    for name, value in (asked_s | {"TCP_KEEPCNT": 3}).items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, int(value)))


def bound_silence(sock: socket.socket) -> None:
    """End a connection also when data that is under way is not taken in time, be it that the peer is there or not.

    For those that no event loop watches (see `peerwatch`).
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(config.peer_timeout_s() * 1000))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host; a name counts if all its addresses do."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = _looked_up(host, None)
    except OSError:
        return False
    return bool(host) and all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


@functools.cache
def boot_id() -> str:
    """Names this boot of this machine: processes with the same one share CLOCK_MONOTONIC.

    It is the same in all containers and network namespaces of a machine, so it does not promise that two processes can
    reach each other.
    """
    try:
        with open(BOOT_ID_FILE) as file:
            return str(uuid.UUID(file.read().strip()))
    except (OSError, ValueError):
        # Elsewhere: the machine and the moment it was started, to a few seconds (both clocks are read apart).
        booted = round((time.time() - time.monotonic()) / 16)
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{uuid.getnode():x} {socket.gethostname()} {booted}"))


def this_process() -> PeerInfo:
    """How this process introduces itself."""
    return PeerInfo(os.getpid(), boot_id(), __version__)
