"""Programs of a graph that are started beside the stack: ended in order, or killed with all they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deploy.testing.stack import PATIENCE_S, StackError

ROOT = Path(__file__).parents[2]
INTERVAL_MS = 1000
STEP_S = INTERVAL_MS / 2000
"""Of a query about a range: every value that was exported is seen."""


def exporting(endpoint: str, service: str, **more: str) -> dict[str, str]:
    """The environment of a program whose graph exports."""
    return os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": str(INTERVAL_MS),
        "OTEL_SERVICE_NAME": service,
        **more,
    }


class Program:
    """A module that runs with a pipe at both ends; its process group is its own."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], log: IO[str], before: tuple[str, ...]
    ) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        command = [*before, sys.executable, "-m", *arguments]
        self._process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            command, cwd=ROOT, env=environment, start_new_session=True, **pipes
        )

    def said(self) -> str:
        """The next line that it writes; waits for it.

        Raises:
            StackError: It ended instead.
        """
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line.strip()
        raise StackError(f"{self._process.args} ended with {self._process.wait()}")

    def end_in_order(self) -> None:
        """End its standard input and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if code := self._process.wait(PATIENCE_S):
            raise StackError(f"{self._process.args} ended with {code}")

    def stop(self) -> None:
        """Let it stand still, with all that it started; waits until it does."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # threads that run at this moment go on for another one

    def kill(self) -> None:
        """End it at once, and all that it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def program(
    arguments: list[str], environment: dict[str, str], log: IO[str], before: tuple[str, ...] = ()
) -> Iterator[Program]:
    """Run a module; `before` are words in front of the command."""
    with contextlib.closing(Program(arguments, environment, log, before)) as started:
        yield started
