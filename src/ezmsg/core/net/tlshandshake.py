"""The TLS handshake of a connection, before the one of `wire.handshake`: bytes in, bytes out.

Each side reads `wanted` bytes at most and gives them to `receive`, as for the handshakes of `wire`. Whoever does not
use TLS is told apart by the first byte, and told so in our own protocol.
"""

from __future__ import annotations

import hashlib
import socket
import ssl

from ezmsg.core.errors import ForeignPeer, HandshakeError, TlsNotSpoken
from ezmsg.core.net.address import this_process
from ezmsg.core.net.tls import Credentials, check_address, named_error
from ezmsg.core.net.tlssocket import TlsSocket
from ezmsg.core.wire.handshake import MAGIC, SET_UP_TLS, SHOWN_BYTES, ServerHandshake
from ezmsg.core.wire.limits import HANDSHAKE_BYTES, TLS_HANDSHAKE_BYTES

_READ_BYTES = 4096
_HANDSHAKE_RECORD = 22
_RECORDS = range(20, 24)


class _TlsHandshake:
    """What both sides share."""

    def __init__(self, credentials: Credentials, name: str, host: str, limit: int) -> None:
        self._credentials = credentials
        self._name = name
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = 0
        self._limit = limit
        self._is_done = False
        self._tls = self._begin()

    def _begin(self) -> ssl.SSLObject:
        raise NotImplementedError

    @property
    def wanted(self) -> int:
        """How many bytes to read at most before the next `receive`; 0 when done."""
        return 0 if self._is_done else _READ_BYTES

    @property
    def done(self) -> bool:
        """Whether both certificates were accepted; the server's view of ours comes later."""
        return self._is_done

    @property
    def farewell(self) -> bytes:
        """What to send to a peer after `receive` raised."""
        return self._outgoing.read()

    @property
    def binding(self) -> bytes:
        """What both sides know of this channel, and somebody in between does not: the server's certificate."""
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes:
        """Take what was read, and return what to send (maybe nothing).

        Raises:
            HandshakeError: The handshake failed; see its subclasses. Send `farewell` and close.
        """
        self._received += len(data)
        if self._received > self._limit:
            raise HandshakeError(self._name, "it sent more than a TLS handshake takes")
        self._incoming.write(data)
        return self._advance()

    def _advance(self) -> bytes:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise self._named(error) from error
        else:
            self._is_done = True
        return self._outgoing.read()

    def hung_up(self) -> HandshakeError:
        """The error of a peer that closed the connection before the handshake was done."""
        if self._received:
            return HandshakeError(self._name, "it hung up in the middle of the TLS handshake")
        return HandshakeError(self._name, "it hung up when TLS began: does it use TLS?")

    def secured(self, sock: socket.socket) -> TlsSocket:
        """The connection, once done: takes the socket over."""
        return TlsSocket(sock, self._tls, self._incoming, self._outgoing, self._named)

    def _named(self, error: ssl.SSLError) -> HandshakeError:
        return named_error(error, self._name, self._credentials, self._host)


class ClientTls(_TlsHandshake):
    """The side that opened the connection. Send `hello` first.

    Args:
        credentials: Those of this process.
        host: What was dialled.
        name: How the peer is called in errors.
    """

    def __init__(self, credentials: Credentials, host: str, name: str) -> None:
        super().__init__(credentials, name, host, TLS_HANDSHAKE_BYTES)
        self.hello = self._advance()

    def _begin(self) -> ssl.SSLObject:
        context, server_hostname = self._credentials.client(self._host)
        return context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    @property
    def binding(self) -> bytes:
        """The hash of the certificate that the server has shown."""
        return hashlib.sha256(self._tls.getpeercert(binary_form=True) or b"").digest()

    def receive(self, data: bytes) -> bytes:
        """As for any."""
        if not self._received and data[0] not in _RECORDS:
            if MAGIC.startswith(data[: len(MAGIC)]):
                raise TlsNotSpoken(self._name, f"it does not use TLS, this process does: {SET_UP_TLS} there as well")
            raise ForeignPeer(
                self._name, f"it sent {data[:SHOWN_BYTES]!r}, which is not TLS: something else lives there"
            )
        answer = super().receive(data)
        if self._is_done:
            check_address(self._tls, self._host, self._name)
        return answer


class ServerTls(_TlsHandshake):
    """The side that accepted the connection.

    Args:
        credentials: Those of this process.
        name: How the peer is called in errors.
    """

    def __init__(self, credentials: Credentials, name: str) -> None:
        super().__init__(credentials, name, "", HANDSHAKE_BYTES)
        # Until the first byte came: it may be a peer that knows nothing of TLS, and is to be told.
        self._plain: ServerHandshake | None = ServerHandshake(b"", this_process(), name, tls_only=True)

    def _begin(self) -> ssl.SSLObject:
        return self._credentials.server.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def wanted(self) -> int:
        """As for any."""
        return super().wanted if self._plain is None else self._plain.wanted

    @property
    def farewell(self) -> bytes:
        """As for any."""
        return super().farewell if self._plain is None else self._plain.farewell

    @property
    def binding(self) -> bytes:
        """The hash of our certificate."""
        return self._credentials.fingerprint

    def receive(self, data: bytes) -> bytes:
        """As for any."""
        if self._plain is not None:
            if self._received or data[0] != _HANDSHAKE_RECORD:
                self._received += len(data)
                return self._plain.receive(data)
            self._plain = None
        answer = super().receive(data)
        if answer:
            # It said hello; its certificates may take more.
            self._limit = TLS_HANDSHAKE_BYTES
        return answer
