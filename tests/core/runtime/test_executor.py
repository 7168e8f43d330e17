"""Blocking calls in threads that keep nobody from leaving."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from ezmsg.core.runtime.executor import DaemonExecutor

DEADLINE_S = 40


@pytest.fixture
def executor() -> Iterator[DaemonExecutor]:
    executor = DaemonExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


def test_calls_run_in_daemon_threads_and_give_results_and_errors(executor: DaemonExecutor) -> None:
    def fail() -> None:
        raise ValueError("no")

    assert executor.submit(lambda: threading.current_thread().daemon).result(DEADLINE_S)
    assert executor.submit(divmod, 7, 2).result(DEADLINE_S) == (3, 1)
    assert list(executor.map(abs, [-1, -2])) == [1, 2]
    with pytest.raises(ValueError, match="no"):
        executor.submit(fail).result(DEADLINE_S)


def test_calls_beyond_the_threads_wait_and_are_counted(executor: DaemonExecutor) -> None:
    gate = threading.Event()
    names = [executor.submit(lambda: (gate.wait(DEADLINE_S), threading.current_thread().name)) for _ in range(5)]
    assert executor.unfinished == 5
    gate.set()
    assert len({future.result(DEADLINE_S)[1] for future in names}) <= 2
    executor.shutdown()
    assert executor.unfinished == 0


def test_shutdown_can_cancel_what_has_not_begun(executor: DaemonExecutor) -> None:
    gate, began = threading.Event(), threading.Event()
    running = [executor.submit(lambda: (began.set(), gate.wait(DEADLINE_S))[1]) for _ in range(2)]
    waiting = executor.submit(print)
    assert began.wait(DEADLINE_S)

    executor.shutdown(wait=False, cancel_futures=True)

    with pytest.raises(CancelledError):
        waiting.result(DEADLINE_S)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(print)
    assert not executor.join(0.01)
    gate.set()
    assert [future.result(DEADLINE_S) for future in running] == [True, True]
    assert executor.join(DEADLINE_S)


async def test_a_loop_takes_it_and_context_comes_along() -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")
    executor = DaemonExecutor()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    mark.set("ours")
    assert await loop.run_in_executor(None, mark.get) == "ours"
    assert await asyncio.to_thread(mark.get) == "ours"


def test_a_call_that_never_ends_does_not_keep_the_interpreter() -> None:
    program = (
        "import threading\n"
        "from ezmsg.core.runtime.executor import DaemonExecutor\n"
        "began = threading.Event()\n"
        "DaemonExecutor().submit(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=DEADLINE_S, check=False).returncode == 0
