"""What a forked child must not keep: every socket and descriptor of ours is closed in it, and globals are reset.

A child that held a copy of a socket would hide the death of its parent from the peer. Only the objects themselves are
closed there: a transport or loop call in the child would reach into the epoll instance it shares with its parent.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

logger = logging.getLogger("ezmsg")


class Closable(Protocol):
    """A socket, or something else with a descriptor; it can be referenced weakly."""

    def close(self) -> None:
        """Close the descriptor; safe to call twice."""
        ...


C = TypeVar("C", bound=Closable)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Those that ask a process to end; from a terminal or a supervisor they reach all processes of a program."""

_tracked: WeakSet[Closable] = WeakSet()
_callbacks: list[Callable[[], None]] = []
# Of signals that are put off now; blocks that do so may be nested.
_handlers: list[tuple[int, Any]] = []
# Held while a descriptor is made but not yet known here, and by a thread that forks.
_guard = threading.RLock()


@contextlib.contextmanager
def no_fork() -> Generator[None]:
    """Let no other thread fork within this block. Nothing in it may block."""
    with _guard:
        yield


def track(closable: C) -> C:
    """Close this in every forked child; call it before another thread can fork (see `no_fork`)."""
    with _guard:
        _tracked.add(closable)
    return closable


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


@contextlib.contextmanager
def held_back() -> Generator[None]:
    """Processes started in this block do not get SIGINT and SIGTERM before they are prepared for it.

    Nor is the start of one interrupted half-way: what this process is sent meanwhile has its effect after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with put_off():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def put_off() -> Generator[None]:
    """SIGINT and SIGTERM have their effect on this process after the block.

    To block them would not do: another thread may get them, and then their handlers run in this one all the same.
    Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: set[int] = set()
    with contextlib.ExitStack() as stack:  # whatever a handler raises half-way
        for number in ENDING_SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                _handlers.append((number, handler))
                stack.callback(_put_back, number, handler, came)
                signal.signal(number, lambda number, _frame: came.add(number))
        yield


def _put_back(number: int, handler: Any, came: set[int]) -> None:
    signal.signal(number, handler)
    with contextlib.suppress(ValueError):  # in a child
        _handlers.remove((number, handler))
    if number not in came:
        return
    if callable(handler):
        # Not raised once more: an event loop that handles it heard of it already, when it came.
        handler(number, inspect.currentframe())
    else:
        signal.raise_signal(number)


def on_fork(callback: Callable[[], None]) -> None:
    """Call this in every forked child, after what it inherited is closed, in the order of registration."""
    _callbacks.append(callback)


def _before_fork() -> None:
    _guard.acquire()


def _after_in_parent() -> None:
    _guard.release()


def _after_in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for closable in list(_tracked):
        with contextlib.suppress(OSError):
            closable.close()
    _tracked.clear()
    # Forked by another thread meanwhile: nobody here puts them back.
    for number, handler in reversed(_handlers):
        signal.signal(number, handler)
    _handlers.clear()
    for callback in _callbacks:
        try:
            callback()
        except Exception:
            logger.exception("resetting a forked child failed in %r", callback)


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
