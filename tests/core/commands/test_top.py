"""`ezmsg top`: the table that is printed once, and the program as a person runs it on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import ezmsg.core as ez
from ezmsg.core.command import build_parser, cmdline
from ezmsg.core.commands.top import INSTALL_HINT, handle_top
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient

NOWHERE = "127.0.0.1:1"
DEADLINE_S = 40
LEAVES_SCREEN = b"\x1b[?1049l"


def parsed(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["top", *arguments])


async def test_once_prints_the_edges_of_the_graph_without_textual(
    server: GraphServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    process = ProcessControlClient(server.address)
    await process.connect()
    async with ez.GraphContext(server.address) as context:
        await context.connect("A/OUT", "B/IN")
        subscriber, publisher = await context.subscriber("B/IN"), await context.publisher("A/OUT")
        await publisher.broadcast(1)
        await subscriber.recv()
        assert await handle_top(parsed("--address", str(server.address), "--once", "--interval", "0.1")) == 0
    await process.close()
    output = capsys.readouterr().out
    assert output.startswith("edge")
    assert "A → B" in output
    assert "nobody waits" in output


def test_without_textual_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert cmdline(["top", "--address", NOWHERE]) == 1
    assert capsys.readouterr().err == f"ezmsg top: {INSTALL_HINT}\n"


def test_without_a_server_once_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["top", "--once", "--address", NOWHERE]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"ezmsg top: no GraphServer answers at {NOWHERE}")


def test_without_a_terminal_it_does_not_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["top", "--address", NOWHERE]) == 1
    assert "must be a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "soon", "nan", "1e9"])
def test_an_interval_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--interval", seconds)
    assert "expected 0.1 to 3600 seconds" in capsys.readouterr().err


class Terminal:
    """`ezmsg top` on a terminal of 80 by 24."""

    def __init__(self, address: str) -> None:
        self._master, slave = pty.openpty()
        code = "import sys; from ezmsg.core.command import cmdline; sys.exit(cmdline())"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, "top", "--address", address],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "LINES": "24", "COLUMNS": "80"},
        )  # fmt: skip
        os.close(slave)
        self.shown = b""

    def wait_for(self, what: bytes) -> None:
        """Read until this was shown."""
        deadline_s = time.monotonic() + DEADLINE_S
        while what not in self.shown:
            assert time.monotonic() < deadline_s, self.shown[-500:]
            self._read(0.1)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def ended(self) -> int:
        """Its exit code."""
        deadline_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.shown[-500:]
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def _read(self, timeout_s: float) -> None:
        while select.select([self._master], [], [], timeout_s)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # its end, on Linux
                return
            if not data:
                return
            self.shown += data

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminals(address: str, count: int) -> Iterator[list[Terminal]]:
    opened = [Terminal(address) for _ in range(count)]
    try:
        yield opened
    finally:
        for terminal in opened:
            terminal.close()


def test_q_and_ctrl_c_and_an_interrupt_end_it_and_leave_the_terminal_as_it_was(server: GraphServer) -> None:
    endings = {
        "q": lambda terminal: terminal.type(b"q"),
        "Ctrl-C": lambda terminal: terminal.type(b"\x03"),
        "SIGINT": lambda terminal: terminal.process.send_signal(signal.SIGINT),
    }

    def played(terminal: Terminal, end: object) -> int:
        terminal.wait_for(b"connected")
        end(terminal)  # type: ignore[operator]
        return terminal.ended()

    with terminals(str(server.address), len(endings)) as opened, ThreadPoolExecutor(len(endings)) as pool:
        codes = dict(zip(endings, pool.map(played, opened, endings.values()), strict=True))
        assert codes == {"q": 0, "Ctrl-C": 0, "SIGINT": 0}
        for terminal in opened:
            assert LEAVES_SCREEN in terminal.shown
            assert b"Traceback" not in terminal.shown
