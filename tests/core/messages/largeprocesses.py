"""Processes with large messages, and how tests talk to them; see `largeworker`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil

WORKER = Path(__file__).with_name("largeworker.py")


class Process:
    """One process of the graph."""

    def __init__(self, pid: int, lines: asyncio.Queue[str]) -> None:
        self.pid = pid
        self._lines = lines
        self._commands: IO[str] | None = None

    async def open(self, commands: Path) -> None:
        """Have a way to tell it something."""
        self._commands = await asyncio.to_thread(commands.open, "w")

    async def line(self) -> str:
        """What it says next."""
        return await asyncio.wait_for(self._lines.get(), 40)

    async def expect(self, line: str) -> None:
        said = await self.line()
        assert said == line, f"process {self.pid} said {said!r} instead of {line!r}"

    def command(self, text: str) -> None:
        """Tell it something."""
        assert self._commands is not None
        self._commands.write(f"{text}\n")
        self._commands.flush()

    async def do(self, text: str) -> str:
        """Tell it something, and wait until that is done."""
        self.command(text)
        word, answer = (await self.line()).split(" ", 1)
        assert word == text.split()[0], f"process {self.pid} said {word} {answer!r} to {text!r}"
        return answer

    def kill(self) -> None:
        """Kill it; it may take a moment until it is gone."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """No more commands: it leaves the graph in order."""
        self.close()
        await self.expect("ended")

    def close(self) -> None:
        if self._commands is not None:
            self._commands.close()
            self._commands = None


class Processes:
    """Starts processes, and ends them with the test."""

    def __init__(self, address: str, directory: Path) -> None:
        self._directory = directory
        self._address = address
        self._errors = directory / "errors"
        self._all: dict[int, Process] = {}
        self._lines: dict[int, asyncio.Queue[str]] = {}
        self._starting = asyncio.Lock()
        self._new: asyncio.Queue[int] = asyncio.Queue()
        self._buffer = b""

    async def open(self) -> None:
        with open(self._errors, "wb") as errors:
            self._root = subprocess.Popen(
                [sys.executable, "-W", "error", str(WORKER), self._address],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self._root.stdout is not None
        os.set_blocking(self._root.stdout.fileno(), False)
        asyncio.get_running_loop().add_reader(self._root.stdout, self._read)

    @property
    def errors(self) -> list[str]:
        """What they wrote to standard error."""
        return self._errors.read_text().splitlines()

    def _read(self) -> None:
        assert self._root.stdout is not None
        *lines, self._buffer = (self._buffer + (self._root.stdout.read() or b"")).split(b"\n")
        for line in lines:
            pid, text = line.decode().strip().split(" ", 1)
            if int(pid) not in self._lines:
                self._lines[int(pid)] = asyncio.Queue()
                self._new.put_nowait(int(pid))
            self._lines[int(pid)].put_nowait(text)

    async def start(self, role: str, *options: str, topic: str = "T", commands: bool = False) -> Process:
        """Start one, and wait until it is part of the graph."""
        async with self._starting:
            fifo = self._directory / f"commands{len(self._all)}" if commands else None
            if fifo is not None:
                os.mkfifo(fifo)
                options = (*options, f"commands={fifo}")
            assert self._root.stdin is not None
            self._root.stdin.write(" ".join((role, topic, *options)).encode() + b"\n")
            self._root.stdin.flush()
            pid = await asyncio.wait_for(self._new.get(), 40)
            process = Process(pid, self._lines[pid])
            while (line := await process.line()) != "ready":
                assert not line.startswith("failed"), line
                self._lines.setdefault(-pid, asyncio.Queue()).put_nowait(line)
            if fifo is not None:
                await process.open(fifo)
            self._all[pid] = process
            return process

    def child_of(self, process: Process) -> int:
        """The child that a process said it forked before it was ready."""
        return int(self._lines[-process.pid].get_nowait().split()[1])

    async def close(self) -> None:
        """Kill what is left."""
        asyncio.get_running_loop().remove_reader(self._root.stdout)
        for process in self._all.values():
            process.kill()
        assert self._root.stdin is not None
        assert self._root.stdout is not None
        self._root.stdin.close()
        await asyncio.to_thread(self._root.wait, 10)
        self._root.stdout.close()
        await asyncio.to_thread(psutil.wait_procs, [psutil.Process(pid) for pid in self._all if psutil.pid_exists(pid)])
