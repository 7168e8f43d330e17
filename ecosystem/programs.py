"""A program in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

TIMEOUT_S = 90.0


class Program:
    """A process that writes to a log.

    Args:
        process: It.
        log: Both its outputs.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has written something."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while text not in self.output:
            assert self.process.poll() is None, f"it ended, and has not written {text!r}:\n{self.output}"
            assert time.monotonic() < deadline_s, f"it has not written {text!r}:\n{self.output}"
            time.sleep(0.05)

    def ended(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(TIMEOUT_S)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Start(Protocol):
    """Starts `python -m` with these arguments."""

    def __call__(self, *arguments: str, **environment: str) -> Program: ...
