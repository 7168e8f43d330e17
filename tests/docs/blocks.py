"""Finds the code blocks of a page, and runs them as a reader would.

What stands in a comment on the line before a block decides:

- `<!-- executed by PATH -->`: another file of this repository runs it.
- `<!-- not run: REASON -->`: nobody does.
- `<!-- goes on -->`: a program that runs until the page is over; the next block waits for its output.
- `<!-- after Ctrl-C in: TEXT -->`: programs that go on and have TEXT in their block are interrupted before.
- `<!-- again until it prints this -->`: it is run until its output is as shown.
- `<!-- in a terminal until it shows TEXT -->`: in a terminal of 80 by 24; gets `q` once TEXT is there, and ends.
- `<!-- fails -->`: it ends with an exit code other than 0, and what it prints includes its errors.

A Python block with a title is saved under that name for the blocks below, one without is run. A block `output` says
what the block before it prints to standard output: a line with `...` matches whatever stands there, one that is `...`
matches any number of lines. After `<!-- a GraphServer of its own -->` the default address is one where nobody else is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.docs.terminal import Terminal
from tests.ports import KeptPort

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 150.0
OWN_SERVER = "<!-- a GraphServer of its own -->"
FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?"
    r"^ *```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
RUNNABLE = ("python", "sh")
IN_TERMINAL = "in a terminal until it shows "


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    code: str
    mark: str = ""
    title: str = ""
    own_server: bool = False

    @property
    def command(self) -> str:
        """What its mark asks for, without what it is about."""
        return IN_TERMINAL if self.mark.startswith(IN_TERMINAL) else self.mark.partition(":")[0]

    @property
    def is_ours(self) -> bool:
        """Whether the tests of pages run it."""
        return self.language in RUNNABLE and not self.mark.startswith(("executed by ", "not run: "))


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks, in order."""
    own_server = text.find(OWN_SERVER)
    return [
        Block(
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            found["code"],
            found["mark"] or "",
            found["title"] or "",
            -1 < own_server < found.start(),
        )
        for found in FENCE.finditer(text)
    ]


def matches(expected: str, printed: str, *, begins: bool = False) -> bool:
    """Whether it is what the page says, or (with `begins`) begins with that."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(re.escape("..."), ".*") + r"\n"
        for line in expected.splitlines()
    )
    printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return (re.match if begins else re.fullmatch)(pattern, printed) is not None


class Reader:
    """Types what pages say, in one directory, one page after the other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Where `examples` is, too: readers are told to be in the clone.
        modules = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)]))
        here = {"PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}
        self._environment = os.environ | here
        # What `make setup` has made.
        (directory / ".venv").symlink_to(sys.prefix)
        self._kept = [KeptPort() for _ in range(3)]
        self._port, grpc_port, http_port = (kept.address.port for kept in self._kept)
        self._address = {"EZMSG_GRAPHSERVER_ADDR": f"127.0.0.1:{self._port}"}
        # Of OTLP receivers.
        self._ports = {
            "otlp_receiver": f"otlp_receiver --http-port 4318 --grpc-port {grpc_port}",
            "4318": str(http_port),
        }
        self._running: list[_Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._interrupt("")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
            self._run(Block(0, "sh", "ezmsg shutdown", own_server=True), "at the end", None)
        for kept in self._kept:
            kept.close()

    def read(self, page: str, blocks: Iterable[Block]) -> None:
        """Run the blocks of a page."""
        todo = list(blocks)
        for block, after in zip(todo, [*todo[1:], None], strict=True):
            if block.is_ours:
                expected = after.code if after is not None and after.language == "output" else None
                self._read(block, f"{page}:{block.line}", expected)

    def _read(self, block: Block, where: str, expected: str | None) -> None:
        mark, _, text = block.mark.partition(": ")
        if mark == "after Ctrl-C in":
            self._interrupt(text)
        if block.title:
            (self._directory / block.title).write_text(block.code, encoding="utf-8")
        elif mark == "goes on":
            self._running.append(_Program(block, self._start(block), where, self._here(expected or "")))
        elif mark.startswith(IN_TERMINAL):
            self._show(block, where, mark.removeprefix(IN_TERMINAL))
        elif mark == "again until it prints this":
            self._repeat(block, where, expected)
        else:
            self._run(block, where, expected)

    def _interrupt(self, text: str) -> None:
        """Ctrl-C in all terminals with such a program, the last one first."""
        for program in reversed([program for program in self._running if text in program.block.code]):
            self._running.remove(program)
            program.interrupt()

    def _repeat(self, block: Block, where: str, expected: str | None) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._run(block, where, expected)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def _here(self, text: str) -> str:
        """With ports that nobody else uses."""
        for port, ours in self._ports.items():
            text = text.replace(port, ours)
        return text

    def _start(self, block: Block) -> subprocess.Popen[str]:
        command = (
            ["sh", "-ec", self._here(block.code)]
            if block.language == "sh"
            else [sys.executable, str(self._saved(block))]
        )
        return subprocess.Popen(
            command,
            cwd=self._directory,
            env=self._environment | (self._address if block.own_server else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _show(self, block: Block, where: str, text: str) -> None:
        """Start it in a terminal, wait for a text on the screen, and type `q`."""
        with Terminal(["sh", "-ec", block.code], self._directory, self._environment | self._address) as terminal:
            assert terminal.shows(text, PATIENCE_S), f"{where} does not show {text!r}\n{terminal.shown}"
            terminal.type("q")
            assert terminal.ended(PATIENCE_S) == 0, f"{where}: {terminal.shown}"

    def _saved(self, block: Block) -> Path:
        """A program of a file, so that processes it makes find what it defines."""
        path = self._directory / f"block_{block.line}.py"
        path.write_text(self._here(block.code), encoding="utf-8")
        return path

    def _run(self, block: Block, where: str, expected: str | None) -> None:
        program = self._start(block)
        try:
            printed, errors = program.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            _interrupt(program)
            printed, errors = program.communicate(timeout=PATIENCE_S)
            raise AssertionError(f"{where} does not end\n{printed}\n{errors}") from None
        assert (program.returncode != 0) == (block.mark == "fails"), (
            f"{where}: {program.returncode}\n{printed}\n{errors}"
        )
        if block.mark == "fails":
            printed += errors
        if expected is not None:
            assert matches(expected, printed), f"{where} printed\n{printed}\ninstead of\n{expected}\n{errors}"


class _Program:
    """One that goes on; constructed when it has printed what the page shows."""

    def __init__(self, block: Block, process: subprocess.Popen[str], where: str, expected: str) -> None:
        self.block = block
        self._process = process
        self._printed = ""
        self._errors = ""
        self._changed = threading.Condition()
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not matches(expected, self._printed, begins=True):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or process.poll() is not None or not self._changed.wait(left_s):
                    break
            else:
                return
        self.interrupt()
        raise AssertionError(f"{where} printed\n{self._printed}\ninstead of\n{expected}\n{self._errors}")

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._changed:
                self._printed += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr
        self._errors = self._process.stderr.read()

    def interrupt(self) -> None:
        """Ctrl-C, as a reader would when done."""
        _interrupt(self._process)
        for reader in self._readers:
            reader.join()
        self._process.wait(PATIENCE_S)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()


def _interrupt(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def pages() -> Iterator[Path]:
    """Everything a reader may find code in."""
    yield from sorted((REPOSITORY / "docs").rglob("*.md"))
    yield from (REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))
    yield REPOSITORY / "benchmarks/README.md"
