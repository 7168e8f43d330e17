"""A running GraphServer, and a session with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from tests.certificates import Authority
from tests.core.workerprocess import Worker

PROCESS_WORKER = Path(__file__).with_name("processworker.py")
StartProcess = Callable[..., Awaitable[Worker]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server() -> Iterator[GraphServer]:
    """A GraphServer on a free port of loopback."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    yield server
    server.stop()


@pytest.fixture
async def context(server: GraphServer) -> AsyncIterator[GraphContext]:
    """A session with the server."""
    async with GraphContext(server.address) as context:
        yield context


@pytest.fixture
async def start_process() -> AsyncIterator[StartProcess]:
    """Starts processes of the control plane (see `processworker.py`), and ends them with the test."""
    workers: list[Worker] = []

    async def start(role: str, *args: object, program: Path = PROCESS_WORKER) -> Worker:
        command = [sys.executable, "-W", "error", str(program), role, *map(str, args)]
        worker = Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        workers.append(worker)
        worker.ready = (await worker.line()).removeprefix("ready ")
        return worker

    yield start
    for worker in workers:
        worker.go_on()
        await worker.end()
