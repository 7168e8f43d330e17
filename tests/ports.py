"""Ports of loopback that stay ours while nobody listens there."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from ezmsg.core.net.address import Address


class KeptPort:
    """A port that the system gives to nobody else until `close`, also while servers of a test come and go at it.

    It is bound and not listened on: whoever connects is refused, and a server of ours, which reuses addresses, may
    listen there. A port that is free by chance could meanwhile become somebody's end of a connection.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.address = Address(*self._socket.getsockname())

    def close(self) -> None:
        """Give it back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
