"""A program in a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

ROWS, COLUMNS = 24, 80
CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[PX^_][^\x1b]*\x1b\\\\|[@-_])")


class Terminal:
    """Runs a program in a pseudo-terminal of 80 by 24, and reads what it draws."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._program = subprocess.Popen(
            command, cwd=directory, env={**environment, "TERM": "xterm-256color"},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._drawn = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._program.poll() is None:
            self._program.kill()
        self._program.wait()
        os.close(self._master)

    @property
    def shown(self) -> str:
        """Everything that was drawn so far, without colours and positions."""
        return CONTROL.sub("", self._drawn.decode(errors="replace"))

    def shows(self, text: str, within_s: float) -> bool:
        """Wait for a text."""
        return self._until(lambda: text in self.shown, within_s)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def ended(self, within_s: float) -> int | None:
        """Wait for the end; the exit code."""
        self._until(lambda: self._program.poll() is not None, within_s)
        return self._program.poll()

    def _until(self, is_so: Callable[[], bool], within_s: float) -> bool:
        deadline_s = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > deadline_s:
                return False
            # Who draws waits until it is read.
            if select.select([self._master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the program has ended
                    self._drawn += os.read(self._master, 65536)
        return True
