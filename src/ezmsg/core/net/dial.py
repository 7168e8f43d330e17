"""Opens a connection, with the client's side of the handshakes on the raw socket; for event loops and for threads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time

from ezmsg.core import config
from ezmsg.core.errors import CannotConnect, HandshakeError, HandshakeTimeout
from ezmsg.core.net import forking
from ezmsg.core.net.address import (
    Address,
    SocketAddress,
    bound_silence,
    needs_lookup,
    resolve_now,
    this_process,
    tune_tcp,
)
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.door import credentials, door_path
from ezmsg.core.net.tls import load_credentials
from ezmsg.core.net.tlshandshake import ClientTls
from ezmsg.core.wire.handshake import ClientHandshake, PeerInfo

CONNECT_TIMEOUT_S = 5.0


async def connect(
    where: Address | str,
    key: AuthKey,
    timeout_s: float = CONNECT_TIMEOUT_S,
    *,
    me: PeerInfo | None = None,
    name: str = "",
) -> tuple[socket.socket, PeerInfo]:
    """An authenticated connection: a non-blocking socket of the caller's, at the first byte after the handshake.

    Args:
        where: A TCP address, or a door (`@name`).
        key: The key of the graph.
        timeout_s: For everything together.
        me: How to introduce oneself; this process when None.
        name: What errors call it; `where` when empty.

    Raises:
        CannotConnect: Nothing accepts connections there, or it is the door of another user.
        HandshakeError: Something does, but it is no peer of ours; see the subclasses.
        TlsIncomplete, TlsFileError: What is set up for TLS cannot be used.
    """
    name = name or str(where)
    tls = _client_tls(where)
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout_s):
            sock = await _open(await _resolve(where), name)
            if tls is not None:
                await _shake_hands(sock, tls)
                sock = tls.secured(sock)
            handshake = ClientHandshake(key.secret, me or this_process(), name, binding=tls.binding if tls else b"")
            await _shake_hands(sock, handshake)
            connected, sock = sock, None
            return connected, handshake.peer
    except TimeoutError:
        raise _timed_out(name, timeout_s, is_connected=sock is not None) from None
    except OSError as error:
        raise _named(error, name) from error
    finally:
        if sock is not None:
            sock.close()


def _client_tls(where: Address | str) -> ClientTls | None:
    """The TLS handshake to begin with; a door needs none: who is behind it is known to the system."""
    if isinstance(where, str) or (files := config.tls_files()) is None:
        return None
    return ClientTls(load_credentials(files), where.host, str(where))


async def _resolve(where: Address | str) -> list[SocketAddress]:
    if isinstance(where, str):
        return _door_address(where)
    if needs_lookup(where.host):
        return await asyncio.get_running_loop().run_in_executor(None, resolve_now, where)
    return resolve_now(where)


async def _open(candidates: list[SocketAddress], name: str) -> socket.socket:
    """Connect to the first that answers."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, sockaddr in candidates:
        sock = None
        try:
            sock = forking.new_socket(family)
            sock.setblocking(False)
            await loop.sock_connect(sock, sockaddr)
            _check(sock, name)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            failure = failure or error
        else:
            return sock
    raise failure or CannotConnect(name, "the name has no address")


async def _shake_hands(sock: socket.socket, handshake: ClientHandshake | ClientTls) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, handshake.hello)
        while not handshake.done:
            data = await loop.sock_recv(sock, handshake.wanted)
            if not data:
                raise handshake.hung_up()
            if answer := handshake.receive(data):
                await loop.sock_sendall(sock, answer)
    except (ConnectionResetError, BrokenPipeError):
        raise handshake.hung_up() from None
    except HandshakeError:
        with contextlib.suppress(OSError):
            sock.send(handshake.farewell)
        raise
    except asyncio.CancelledError:
        if isinstance(handshake, ClientHandshake):
            with contextlib.suppress(OSError):
                sock.send(handshake.excuse)
        raise


def connect_blocking(
    where: Address | str, key: AuthKey, timeout_s: float = CONNECT_TIMEOUT_S, *, me: PeerInfo | None = None
) -> tuple[socket.socket, PeerInfo]:
    """As `connect`, for a thread without an event loop: gives a blocking socket.

    The system ends the connection when what is sent is not taken for `config.peer_timeout_s`.

    Raises:
        CannotConnect: Nothing accepts connections there.
        HandshakeError: Something does, but it is no peer of ours; see the subclasses.
        TlsIncomplete, TlsFileError: What is set up for TLS cannot be used.
    """
    name = str(where)
    tls = _client_tls(where)
    deadline_s = time.monotonic() + timeout_s
    sock: socket.socket | None = None
    try:
        candidates = _door_address(where) if isinstance(where, str) else resolve_now(where)
        sock = _open_blocking(candidates, name, deadline_s)
        if tls is not None:
            _shake_hands_blocking(sock, tls, deadline_s)
            sock = tls.secured(sock)
        handshake = ClientHandshake(key.secret, me or this_process(), name, binding=tls.binding if tls else b"")
        _shake_hands_blocking(sock, handshake, deadline_s)
        sock.settimeout(None)
        if not isinstance(where, str):
            bound_silence(sock)
        connected, sock = sock, None
        return connected, handshake.peer
    except TimeoutError as error:
        if isinstance(error, HandshakeTimeout):
            raise
        raise _timed_out(name, timeout_s, is_connected=sock is not None) from None
    except OSError as error:
        raise _named(error, name) from error
    finally:
        if sock is not None:
            sock.close()


def _open_blocking(candidates: list[SocketAddress], name: str, deadline_s: float) -> socket.socket:
    failure: OSError | None = None
    for family, sockaddr in candidates:
        sock = None
        try:
            sock = forking.new_socket(family)
            _set_deadline(sock, deadline_s)
            sock.connect(sockaddr)
            _check(sock, name)
        except OSError as error:
            if sock is not None:
                sock.close()
            failure = failure or error
        else:
            return sock
    raise failure or CannotConnect(name, "the name has no address")


def _shake_hands_blocking(sock: socket.socket, handshake: ClientHandshake | ClientTls, deadline_s: float) -> None:
    try:
        sock.sendall(handshake.hello)
        while not handshake.done:
            _set_deadline(sock, deadline_s)
            data = sock.recv(handshake.wanted)
            if not data:
                raise handshake.hung_up()
            if answer := handshake.receive(data):
                sock.sendall(answer)
    except (ConnectionResetError, BrokenPipeError):
        raise handshake.hung_up() from None
    except HandshakeError:
        with contextlib.suppress(OSError):
            sock.send(handshake.farewell)
        raise


def _set_deadline(sock: socket.socket, deadline_s: float) -> None:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)


def _door_address(door: str) -> list[SocketAddress]:
    if not hasattr(socket, "AF_UNIX") or not door.startswith("@"):
        raise CannotConnect(door, "it is no door")
    return [SocketAddress(socket.AF_UNIX, door_path(door))]


def _check(sock: socket.socket, name: str) -> None:
    """Look at who answered, before anything is said."""
    if sock.family == socket.AF_UNIX:
        _, uid = credentials(sock)
        if uid != os.geteuid():
            # It would not let us in, or we not trust it: over TCP, the key alone decides.
            raise CannotConnect(name, f"it is the door of user {uid}, this process runs as {os.geteuid()}")
        return
    if sock.getsockname() == sock.getpeername():
        # A free port of the ephemeral range can be given to our own end: TCP then connects to itself.
        raise CannotConnect(name, os.strerror(errno.ECONNREFUSED))
    tune_tcp(sock)


def _timed_out(name: str, timeout_s: float, *, is_connected: bool) -> CannotConnect | HandshakeTimeout:
    if is_connected:
        return HandshakeTimeout(name, f"it did not answer within {timeout_s:g} s")
    return CannotConnect(name, f"no answer within {timeout_s:g} s")


def _named(error: OSError, name: str) -> OSError:
    if isinstance(error, (CannotConnect, HandshakeError)):
        return error
    if error.errno is None or error.errno < 0:  # the resolver has numbers and texts of its own
        return CannotConnect(name, error.strerror or str(error))
    return CannotConnect(name, os.strerror(error.errno))
