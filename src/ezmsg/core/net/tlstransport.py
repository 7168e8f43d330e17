"""The transport of a TLS connection: what `SocketTransport` is, and what the system does not see of such a socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from ezmsg.core.net.sockettransport import SocketTransport
from ezmsg.core.net.tlssocket import TlsSocket

READS_AT_ONCE: Final = 8
"""Before others of the loop have their turn."""


class TlsTransport(SocketTransport):
    """One TLS connection, which it owns, on the running loop.

    Args:
        sock: Non-blocking.
        protocol: Gets what is received; told of the connection before this returns.
    """

    _sock: TlsSocket

    def __init__(self, sock: TlsSocket, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__(sock, protocol)
        self._read_pending()

    def _readable(self) -> None:
        for _ in range(READS_AT_ONCE):
            super()._readable()
            if not (self._sock.has_pending and self.is_reading()):
                return
        self._read_pending()

    def _read_pending(self) -> None:
        """Come back for what was received already: the loop hears nothing of it."""
        if self._sock.has_pending:
            self._loop.call_soon(self._readable)

    def resume_reading(self) -> None:
        """Take what the peer sends again."""
        super().resume_reading()
        self._read_pending()

    def _shut_down(self) -> None:
        if self._is_eof_written:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            # Not even the goodbye fits now; `_writable` comes back here.
            self._loop.add_writer(self._fd, self._writable)
            return
        except OSError:
            pass  # the peer may be gone already
        self._is_eof_written = True

    def close(self) -> None:
        """Send what waits, say goodbye, then close."""
        if not self._is_closing:
            self.write_eof()
        super().close()


def transport_over(sock: socket.socket, protocol: asyncio.BufferedProtocol) -> SocketTransport:
    """The transport for a connected socket."""
    return TlsTransport(sock, protocol) if isinstance(sock, TlsSocket) else SocketTransport(sock, protocol)
