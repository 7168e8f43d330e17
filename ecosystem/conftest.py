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

# A shell that runs the tests in the background, or nohup, has one ignored, which every program of a test would inherit.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


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
def free_port() -> Iterator[int]:
    """A port, and the next one, that nobody listens on, and that the system gives to nobody else during the test."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):
                # Whoever reuses addresses may listen there.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            yield port
            return
