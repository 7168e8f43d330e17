"""Listening TCP sockets, at a port that is given or at the first that is free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from weakref import WeakValueDictionary

from ezmsg.core.net.address import Address, resolve_now, unbound
from ezmsg.core.wire.limits import ACCEPT_BACKLOG

# Ports tried by a search before it gives up.
SEARCHED_PORTS = 4096
TAKEN = (errno.EADDRINUSE, errno.EACCES)
# What a search of this process has found and still listens: a graph of hundreds of publishers need not try them again.
_found: WeakValueDictionary[Address, socket.socket] = WeakValueDictionary()


def listen(address: Address) -> socket.socket:
    """Listen at a port; 0 takes any free one.

    Raises:
        OSError: The address cannot be bound.
    """
    return _listening(address.bind_socket(), address)


def listen_from(host: str, first: int, skip: Collection[int] = ()) -> socket.socket:
    """Listen at the first free port from `first`, except those to skip.

    Raises:
        OSError: The host cannot be bound, or no port is free.
    """
    family, sockaddr = resolve_now(Address(host, first))[0]
    sock: socket.socket | None = None
    for port in range(first, min(first + SEARCHED_PORTS, 1 << 16)):
        address = Address(host, port)
        if port in skip or ((own := _found.get(address)) is not None and own.fileno() >= 0):
            continue
        # One socket for all ports that are taken: hundreds are where many graphs run.
        sock = sock or unbound(family)
        try:
            sock.bind((sockaddr[0], port, *sockaddr[2:]))
        except OSError as error:
            if error.errno in TAKEN:
                continue
            sock.close()
            raise type(error)(error.errno, f"cannot listen on {address}: {error.strerror}") from None
        try:
            _found[address] = _listening(sock, address)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            sock = None
        else:
            return sock
    if sock is not None:
        sock.close()
    raise OSError(errno.EADDRINUSE, f"no port is free on {host} from {first}")


def _listening(sock: socket.socket, address: Address) -> socket.socket:
    try:
        # Two sockets may be bound to one port, but only one may listen: only now the port is ours.
        sock.listen(ACCEPT_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    return sock
