"""Accepts connections, and lets in those that hold the key. Strangers cost little, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ezmsg.core import config
from ezmsg.core.errors import (
    AuthenticationFailed,
    EzmsgError,
    HandshakeAbandoned,
    HandshakeError,
    HandshakeTimeout,
    InsecureBind,
    TlsFailed,
)
from ezmsg.core.net import forking
from ezmsg.core.net.address import Address, is_loopback, this_process, tune_tcp
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.door import check_credentials, credentials
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.net.ports import listen, listen_from
from ezmsg.core.net.tls import load_credentials
from ezmsg.core.net.tlshandshake import ServerTls
from ezmsg.core.wire.handshake import PeerInfo, ServerHandshake
from ezmsg.core.wire.limits import HANDSHAKE_TIMEOUT_S, UNAUTHENTICATED_PEERS

logger = logging.getLogger("ezmsg")

OnPeer = Callable[[socket.socket, PeerInfo, str], None]

# Until accepting is tried again where the process or the system has no descriptors left.
EXHAUSTED_PAUSE_S = 0.2
# How long a peer of another user, which goes at once when it sees who we are, may take for that.
KNOCK_S = 0.2
# Of the strangers that may be there at once, so many may come through each of several sockets, whoever is at others.
KEPT_FOR_A_GATE = 8
# What a peer may still have sent when it was sent away; it is read and thrown away.
PARTING_BYTES = 16384
# The peer of a connection is gone again, or some such: the next one may be fine.
_PEER_ERRORS = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM})


def bind_tcp(
    host: str,
    port: int | None,
    key: AuthKey,
    *,
    search_from: int = 0,
    skip: Collection[int] = (),
) -> socket.socket:
    """A listening TCP socket: connections are queued from now on.

    Args:
        host: Interface to listen on.
        port: The port; 0 takes any free one, None the first free one from `search_from`.
        key: The key of the graph; beyond loopback it must be explicit.
        search_from: First port of a search.
        skip: Ports that a search leaves alone.

    Raises:
        InsecureBind: Others than this machine could connect, and the key is no explicit one.
        OSError: The address cannot be bound, or no port is free.
        TlsIncomplete, TlsFileError, ConfigError: What is configured cannot be used.
    """
    # What cannot be used is said now, not when the first peer comes.
    config.peer_timeout_s()
    tls_files = config.tls_files()
    if tls_files is not None:
        load_credentials(tls_files)
    if not is_loopback(host):
        if not key.explicit:
            raise InsecureBind(host)
        if tls_files is None:
            _warn_of_plain_text(host)
    if port is not None:
        return listen(Address(host, port))
    return listen_from(host, search_from, skip)


@functools.cache
def _warn_of_plain_text(host: str) -> None:
    # Once per process, not per publisher.
    logger.warning(
        "listening on %s: peers of other hosts are authenticated, but nothing is encrypted: set EZMSG_TLS_CERT, "
        "EZMSG_TLS_KEY and EZMSG_TLS_CA, or keep this inside a network you trust, or a tunnel",
        host,
    )


class Listener:
    """Accepts peers for one event loop, from one or several listening sockets, which it owns.

    Start it with `await Listener.start(...)`, end it with `await close()`.
    """

    def __init__(self, sockets: Iterable[socket.socket], key: AuthKey, on_peer: OnPeer, name: str) -> None:
        sockets = list(sockets)
        # Some room is kept for each: who floods one does not shut the others.
        most = UNAUTHENTICATED_PEERS - KEPT_FOR_A_GATE * (len(sockets) - 1)
        self._gates = [_Gate(self, sock, most) for sock in sockets]
        self._key = key
        self._tls_files = config.tls_files()
        self._on_peer = on_peer
        self._me = this_process()
        self.log = LogLimiter()
        self.name = name
        # Refused peers, by the code of the error.
        self.refused: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Listener {self.name} unauthenticated={self.unauthenticated} refused={self.refused.total()}>"

    @classmethod
    async def start(
        cls, sockets: Iterable[socket.socket], key: AuthKey, on_peer: OnPeer, *, name: str = "listener"
    ) -> Listener:
        """Begin to accept.

        Args:
            sockets: Listening sockets (`bind_tcp`, `open_door`).
            key: What peers must hold.
            on_peer: Called with the socket of each authenticated peer, who it is, and its address as text. The
                socket is then the callback's, at the first byte after the handshake.
            name: How the listener is called in the log.
        """
        self = cls(sockets, key, on_peer, name)
        for gate in self._gates:
            gate.open()
        return self

    @property
    def unauthenticated(self) -> int:
        """Peers that are in the middle of their handshake."""
        return sum(len(gate.greeting) for gate in self._gates)

    def has_room(self) -> bool:
        """Whether one more may begin."""
        return self.unauthenticated < UNAUTHENTICATED_PEERS

    def made_room(self) -> None:
        """One that began is done."""
        for gate in self._gates:
            gate.resume()

    async def close(self) -> None:
        """Accept nobody any more; handshakes that are under way end now."""
        for gate in self._gates:
            gate.close()
        if pending := [task for gate in self._gates for task in gate.greeting]:
            await asyncio.wait(pending)
        self.log.flush()

    async def greet(self, sock: socket.socket, peer: str) -> None:
        """Run the handshakes with one peer, and hand it over or send it away."""
        stranger = _Stranger(sock, peer)
        deadline_s = asyncio.get_running_loop().time() + HANDSHAKE_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline_s):
                info = await self._shake_hands(stranger)
        except (EzmsgError, TimeoutError) as error:
            with stranger.sock:
                self._refuse(stranger, error)
                if isinstance(error, TlsFailed):
                    await stranger.part(deadline_s)
        except BaseException:
            stranger.sock.close()
            raise
        else:
            self._hand_over(stranger.sock, info, peer)

    async def _shake_hands(self, stranger: _Stranger) -> PeerInfo:
        binding = b""
        if stranger.sock.family == socket.AF_UNIX:
            await stranger.identify()
        else:
            tune_tcp(stranger.sock)
            if self._tls_files is not None:
                tls = ServerTls(load_credentials(self._tls_files), stranger.name)
                await stranger.converse(tls)
                stranger.sock, binding = tls.secured(stranger.sock), tls.binding
        handshake = ServerHandshake(self._key.secret, self._me, stranger.name, binding=binding)
        await stranger.converse(handshake)
        return handshake.peer

    def _refuse(self, stranger: _Stranger, error: EzmsgError | TimeoutError) -> None:
        if not isinstance(error, EzmsgError):
            error = HandshakeTimeout(stranger.name, f"it did not finish within {HANDSHAKE_TIMEOUT_S:g} s")
        self.refused[error.code] += 1
        if isinstance(error, HandshakeAbandoned):
            logger.debug("%s: %s", self.name, error)
        else:
            self.log.warning(error.code, f"{self.name}: {error}")

    def _hand_over(self, sock: socket.socket, info: PeerInfo, peer: str) -> None:
        try:
            self._on_peer(sock, info, peer)
        except Exception:
            logger.exception("%s: %s was let in, but could not be served", self.name, peer)
            sock.close()


class _Stranger:
    """A peer that is not authenticated yet; its socket may become another one on the way."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.sock = sock
        self.name = name

    async def converse(self, handshake: ServerHandshake | ServerTls) -> None:
        """Run one handshake."""
        loop = asyncio.get_running_loop()
        try:
            while not handshake.done:
                data = await loop.sock_recv(self.sock, handshake.wanted)
                if not data:
                    raise handshake.hung_up()
                if answer := handshake.receive(data):
                    try:
                        await loop.sock_sendall(self.sock, answer)
                    except BrokenPipeError:
                        if handshake.done:
                            raise
                        # It went, but what it said last can still be read: perhaps that it gave up.
        except HandshakeError:
            with contextlib.suppress(OSError):
                self.sock.send(handshake.farewell)
            raise
        except TimeoutError:
            raise
        except OSError:
            raise handshake.hung_up() from None

    async def identify(self) -> None:
        """Make sure that who is at the door may come in.

        Raises:
            HandshakeAbandoned: It is somebody else's, saw that we are not of its user, and went: TCP is its way.
            AuthenticationFailed: It is somebody else's, and stays.
        """
        try:
            check_credentials(self.sock, self.name)
        except AuthenticationFailed:
            said = b"?"
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(KNOCK_S):
                    said = await asyncio.get_running_loop().sock_recv(self.sock, 1)
            if said:
                raise
            raise HandshakeAbandoned(self.name, "it is of another user, and hung up") from None

    async def part(self, deadline_s: float) -> None:
        """Let the peer read why it is sent away: closing with bytes unread would discard what it was told."""
        loop = asyncio.get_running_loop()
        left = PARTING_BYTES
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout_at(deadline_s):
                while left > 0 and (data := await loop.sock_recv(self.sock, left)):
                    left -= len(data)


class _Gate:
    """One listening socket, and the peers that came through it and are not authenticated yet: `most` at most."""

    def __init__(self, listener: Listener, sock: socket.socket, most: int) -> None:
        self._listener = listener
        self._sock = sock
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._is_accepting = False
        self._pause: asyncio.TimerHandle | None = None
        self.greeting: dict[asyncio.Task[None], socket.socket] = {}

    def open(self) -> None:
        self._sock.setblocking(False)
        self._resume()

    def close(self) -> None:
        self._stop_accepting()
        if self._pause is not None:
            self._pause.cancel()
        self._sock.close()
        for task in self.greeting:
            task.cancel()

    def resume(self) -> None:
        """Accept again, unless that is tried later."""
        if self._pause is None:
            self._resume()

    def _resume(self) -> None:
        self._pause = None
        if not self._is_accepting and self._sock.fileno() >= 0:
            self._is_accepting = True
            self._loop.add_reader(self._sock, self._accept)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        # asyncio's own accept would hold sockets that a fork does not know of yet.
        while len(self.greeting) < self._most and self._listener.has_room():
            try:
                sock, address = forking.accept(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            sock.setblocking(False)
            name = self._name_of(sock, address)
            task = self._loop.create_task(self._listener.greet(sock, name), name=f"handshake with {name}")
            self.greeting[task] = sock
            task.add_done_callback(self._greeted)
        # More wait in the kernel; one that is done makes room.
        self._stop_accepting()

    def _greeted(self, task: asyncio.Task[None]) -> None:
        sock = self.greeting.pop(task)
        if task.cancelled():
            sock.close()
        elif (error := task.exception()) is not None:
            sock.close()
            logger.error("%s: a handshake failed", self._listener.name, exc_info=error)
        self._listener.made_room()

    def _accept_failed(self, error: OSError) -> None:
        if error.errno in _PEER_ERRORS:
            return
        self._stop_accepting()
        self._pause = self._loop.call_later(EXHAUSTED_PAUSE_S, self._resume)
        reason = errno.errorcode.get(error.errno or 0, "OSError")
        self._listener.refused[reason] += 1
        self._listener.log.warning(
            reason,
            f"{self._listener.name}: cannot accept connections: {error.strerror}; "
            f"trying again every {EXHAUSTED_PAUSE_S:g} s",
        )

    def _name_of(self, sock: socket.socket, address: Any) -> str:
        if sock.family == socket.AF_UNIX:
            return f"process {credentials(sock)[0]} at the door"
        return str(Address(*address[:2]))
