"""What a forked child must not keep: every socket of ours is closed in it, and globals are reset.

A child that held a copy of a socket would hide the death of its parent from the peer. Only the socket objects are
closed there: a transport or loop call in the child would reach into the epoll instance it shares with its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakSet

logger = logging.getLogger("ezmsg")

_sockets: WeakSet[socket.socket] = WeakSet()
_callbacks: list[Callable[[], None]] = []
# Held while a socket is made but not yet known here, and by a thread that forks.
_guard = threading.RLock()


@contextlib.contextmanager
def no_fork() -> Generator[None]:
    """Let no other thread fork within this block. Nothing in it may block."""
    with _guard:
        yield


def track(sock: socket.socket) -> socket.socket:
    """Close this socket in every forked child; call it before another thread can fork (see `no_fork`)."""
    with _guard:
        _sockets.add(sock)
    return sock


def new_socket(family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A tracked socket."""
    with _guard:
        return track(socket.socket(family, kind))


def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
    """Accept one connection of a non-blocking socket, tracked.

    Raises:
        OSError: As `socket.accept`.
    """
    with _guard:
        accepted, address = sock.accept()
        return track(accepted), address


def on_fork(callback: Callable[[], None]) -> None:
    """Call this in every forked child, after its inherited sockets are closed, in the order of registration."""
    _callbacks.append(callback)


def _before_fork() -> None:
    _guard.acquire()


def _after_in_parent() -> None:
    _guard.release()


def _after_in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for sock in list(_sockets):
        with contextlib.suppress(OSError):
            sock.close()
    _sockets.clear()
    for callback in _callbacks:
        try:
            callback()
        except Exception:
            logger.exception("resetting a forked child failed in %r", callback)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
