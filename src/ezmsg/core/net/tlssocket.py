"""A connected socket whose bytes are encrypted, used as any other: blocking, or with `BlockingIOError`.

`ssl.SSLSocket` would not do: asyncio refuses it, it cannot say goodbye to a peer that still sends, and two threads must
not use one at once. This one works on buffers in memory, at a system call for many records.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ezmsg.core.net import forking

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

RECEIVE_BYTES = 1 << 17
# So much is encrypted at once, before the next look at whether the socket takes it.
SEND_BYTES = 1 << 18
# Shorter parts are joined: every record costs its own encryption.
_SHORT_BYTES = 4096


class TlsSocket(socket.socket):
    """A TLS connection whose handshake is done.

    Only what is defined here is encrypted. Sending may be broken off by `BlockingIOError` (or `TimeoutError`); then it
    has to be called again with the same bytes, as they may be encrypted already.

    Args:
        sock: The connection, taken over.
        tls: Its state, over the two buffers.
        incoming: Encrypted, from the peer.
        outgoing: Encrypted, to the peer.
        explain: Makes our error of one of OpenSSL's.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        explain: Callable[[ssl.SSLError], OSError],
    ) -> None:
        timeout_s = sock.gettimeout()
        with forking.no_fork():
            super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
            forking.track(self)
        self.settimeout(timeout_s)
        self._tls, self._incoming, self._outgoing = tls, incoming, outgoing
        self._explain = explain
        # The late flusher of a stream sends in a thread of its own, and one TLS state bears only one thread at a time.
        self._lock = threading.Lock()
        # Held also while bytes are handed to the system: they must go in the order in which they were encrypted.
        self._sending = threading.Lock()
        # Used again: new memory of this size comes from the system each time.
        self._encrypted = memoryview(bytearray(RECEIVE_BYTES))
        self._unsent = memoryview(b"")
        # How many bytes of the caller's are in there: told once all of it is sent.
        self._taken = 0
        # Decrypted already, because we said goodbye.
        self._ahead = b""
        self._error: OSError | None = None
        self._is_ended = self._has_said_goodbye = False

    # -- receiving ----------------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether there is something to receive that the system does not know of."""
        return bool(self._ahead or self._incoming.pending or self._tls.pending() or self._is_ended or self._error)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As for any socket."""
        buffer = bytearray(bufsize)
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As for any socket; a connection that ends without the goodbye of TLS was reset."""
        view = memoryview(buffer)[: nbytes or None]
        while True:
            with self._lock:
                size = self._take_ahead(view) or self._decrypt(view)
            if size or self._is_ended:
                return size
            if self._error is not None:
                raise self._error
            received = super().recv_into(self._encrypted)
            with self._lock:
                if received:
                    self._incoming.write(self._encrypted[:received])
                else:
                    self._incoming.write_eof()

    def _take_ahead(self, view: memoryview) -> int:
        if not self._ahead:
            return 0
        size = min(len(view), len(self._ahead))
        view[:size] = self._ahead[:size]
        self._ahead = self._ahead[size:]
        return size

    def _decrypt(self, view: memoryview) -> int:
        """Fill the view, as far as what came from the peer goes."""
        tls, incoming = self._tls, self._incoming
        size = 0
        while size < len(view) and (incoming.pending or tls.pending() or incoming.eof):
            try:
                got: Any = tls.read(len(view) - size, view[size:])  # pyright: ignore[reportArgumentType] - any buffer
            except ssl.SSLWantReadError:
                break  # the rest of a record is still to come
            except ssl.SSLZeroReturnError:
                got = 0
            except ssl.SSLEOFError:
                if not self._has_said_goodbye:
                    self._error = ConnectionResetError("it ended without the goodbye of TLS: killed, or cut off")
                    break
                got = 0
            except ssl.SSLError as error:
                self._error = self._explain(error)
                break
            if not got:
                self._is_ended = True
                break
            size += got
        return size

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """As for any socket; after `BlockingIOError` with the same bytes."""
        return self.sendmsg((data,))

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """As for any socket that blocks; a timeout is one for each part."""
        view = memoryview(data)
        while len(view):
            view = view[self.send(view) :]

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """As for any socket; after `BlockingIOError` with the same bytes."""
        with self._sending:
            if not self._taken:
                with self._lock:
                    self._taken = self._encrypt(buffers)
            self._flush()
            taken, self._taken = self._taken, 0
            return taken

    def _encrypt(self, buffers: Iterable[ReadableBuffer]) -> int:
        taken = 0
        short = b""
        for buffer in buffers:
            part = memoryview(buffer)[: SEND_BYTES - taken]
            taken += len(part)
            if len(part) < _SHORT_BYTES:
                short += part
            else:
                self._write(short)
                short = b""
                self._write(part)
            if taken == SEND_BYTES:
                break
        self._write(short)
        self._take_outgoing()
        return taken

    def _write(self, part: bytes | memoryview) -> None:
        if len(part):
            try:
                self._tls.write(part)
            except ssl.SSLError as error:
                raise self._explain(error) from error

    def _take_outgoing(self) -> None:
        encrypted = self._outgoing.read()
        self._unsent = memoryview(b"".join((self._unsent, encrypted)) if self._unsent else encrypted)

    def _flush(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[super().send(self._unsent) :]

    # -- the end ------------------------------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """As for any socket, with the goodbye of TLS before. After `BlockingIOError` call it again."""
        if how != socket.SHUT_RD:
            with self._sending:
                with self._lock:
                    self._say_goodbye()
                self._flush()
        super().shutdown(how)

    def _say_goodbye(self) -> None:
        if self._has_said_goodbye:
            return
        # OpenSSL looks at once for the peer's goodbye, and data that it finds instead is an error to it.
        while self._incoming.pending or self._tls.pending():
            buffer = bytearray(RECEIVE_BYTES)
            size = self._decrypt(memoryview(buffer))
            self._ahead += buffer[:size]
            if not size:
                break
        self._has_said_goodbye = True
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._take_outgoing()
