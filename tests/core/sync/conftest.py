"""A SyncContext on a running server, and how to wait for something in another thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ezmsg.core.graphserver import GraphServer
from ezmsg.core.sync import SyncContext


@pytest.fixture
def context(server: GraphServer) -> Iterator[SyncContext]:
    """A context on the server."""
    with SyncContext(server.address) as context:
        yield context


class Background:
    """Runs functions in threads, and waits for all at the end; what they raise is raised there."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def run(self, function: Callable[[], object]) -> threading.Thread:
        def call() -> None:
            try:
                function()
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=call)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive(), "it hangs"
        if self._errors:
            raise self._errors[0]


@pytest.fixture
def background() -> Iterator[Background]:
    """Other threads."""
    background = Background()
    yield background
    background.join()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look until it is so, where nothing tells."""
    deadline_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.001)


def somebody_spins(context: SyncContext) -> bool:
    """Whether a thread waits in `spin` or `spin_once`."""
    return bool(context._spinner._waiting)


def press_ctrl_c() -> None:
    """Interrupt the main thread, as the terminal does."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)
