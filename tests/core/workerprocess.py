"""A process that tests start, listen to, and kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess


class Worker:
    """One process of the graph.

    Not asyncio's: its `wait` waits for the pipes too, which a forked child of the process holds open.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.ready = ""

    async def line(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 40)
        assert line, f"the worker ended with {self.process.poll()}"
        return line.strip()

    async def halt(self) -> None:
        """Let it stand still, until `go_on`."""
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        await asyncio.to_thread(self.process.stdin.write, f"{line}\n")
        await asyncio.to_thread(self.process.stdin.flush)

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 10)

    async def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            return await asyncio.to_thread(self.process.wait, 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait, 10)
        finally:
            self.process.stdout.close()
