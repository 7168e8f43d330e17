"""Commands as a user runs them, in a process of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.ports import KeptPort

Command = Callable[..., "Running"]
PATIENCE_S = 60.0


class Running:
    """A command that runs."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "ezmsg.core", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "it says nothing"
        return self.process.stdout.readline()

    def ended(self, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """Its exit code, and what it printed and complained of."""
        output, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output, errors

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@pytest.fixture
def command() -> Iterator[Command]:
    """Runs commands, and kills what a failing test leaves."""
    started: list[Running] = []

    def run(*arguments: str, **environment: str) -> Running:
        started.append(Running(arguments, environment))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


@pytest.fixture
def free_address() -> Iterator[str]:
    """An address nobody listens on."""
    with KeptPort() as port:
        yield str(port.address)


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    deadline_s = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline_s, f"process {pid} goes on"
        time.sleep(0.01)
