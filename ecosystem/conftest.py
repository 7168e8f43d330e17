"""Programs in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecosystem.programs import Program, Start

ROOT = Path(__file__).parent.parent


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start `python -m …` of this environment; what still runs at the end of the test is ended.

    They have a home of their own, and one key, which the test has, too.
    """
    programs: list[Program] = []
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith(("EZMSG_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EZMSG_AUTHKEY", secrets.token_hex(32))

    def begin(*arguments: str, **environment: str) -> Program:
        log = tmp_path / f"program{len(programs)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "HOME": str(home), **environment},
            )  # fmt: skip
        programs.append(Program(process, log))
        return programs[-1]

    yield begin
    for program in reversed(programs):
        program.end(signal.SIGTERM)


@pytest.fixture
def free_port() -> int:
    """A port, and the next one, that nobody listens on."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
