"""A server in the foreground: where it serves, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from examples.otlp_receiver import HttpReceiver
from ezmsg.core.command import cmdline
from ezmsg.core.commands import serve
from ezmsg.core.errors import ConnectionLost
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphService
from tests.core.commands.conftest import Command


def greeting(address: str, pid: int) -> str:
    ends = f"Ctrl-C or ezmsg shutdown --address {address} ends it"
    return f"GraphServer at {address} (process {pid}). {ends}.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_it_in_order_and_tells_its_clients(
    command: Command, free_address: str, number: signal.Signals
) -> None:
    serving = command("serve", "--address", free_address)
    assert await asyncio.to_thread(serving.line) == greeting(free_address, serving.process.pid)
    async with GraphContext(free_address, auto_start=False) as context:
        serving.signal(number)
        assert await asyncio.to_thread(serving.ended) == (0, "", "")
        with pytest.raises(ConnectionLost, match="the GraphServer stops"):
            await context.snapshot()


def test_it_ends_with_a_shutdown_and_a_second_one_at_its_address_is_refused_in_one_line(
    command: Command, free_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = command("serve", EZMSG_GRAPHSERVER_ADDR=free_address)
    serving.line()
    assert cmdline(["serve", "--address", free_address]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"ezmsg serve: cannot listen on {free_address}: Address already in use: ezmsg doctor")
    asyncio.run(GraphService(free_address).shutdown())
    assert serving.ended() == (0, "", "")


def test_a_signal_that_the_caller_ignores_is_ignored_and_another_ends_it(command: Command, free_address: str) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        serving = command("serve", "--address", free_address)
    finally:
        signal.signal(signal.SIGHUP, before)
    serving.line()
    serving.signal(signal.SIGHUP)
    asyncio.run(GraphService(free_address).status())
    serving.signal(signal.SIGTERM)
    assert serving.ended() == (0, "", "")


async def test_telemetry_is_exported_when_an_endpoint_is_configured(command: Command, free_address: str) -> None:
    with HttpReceiver() as receiver:
        serving = command("serve", "--address", free_address, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        await asyncio.to_thread(serving.line)
        service = GraphService(free_address)
        async with asyncio.timeout(40):
            while not (await service.status()).exporters:
                await asyncio.sleep(0.01)
        [agent] = psutil.Process(serving.process.pid).children()
        # As the terminal does: everybody in the foreground gets it.
        os.killpg(serving.process.pid, signal.SIGINT)
        code, output, errors = await asyncio.to_thread(serving.ended)
    assert (code, output) == (0, "")
    assert "Traceback" not in errors
    assert not agent.is_running()


# -- with another server and dashboard --------------------------------------------------------------------------------


class FakeServer:
    """Serves nothing, until it is stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def join(self) -> None:
        self.stopped.wait(40)

    def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """In place of a real server."""
    server = FakeServer()

    class Service:
        def __init__(self, _address: object) -> None: ...

        def create_server(self) -> FakeServer:
            return server

    monkeypatch.setattr(serve, "GraphService", Service)
    return server


def arguments(**values: Any) -> Any:
    return type("Arguments", (), {"address": "127.0.0.1:5", "dashboard": None, **values})


async def test_it_needs_of_a_server_only_to_be_joined_and_stopped(fake: FakeServer) -> None:
    serving = asyncio.create_task(serve.handle_serve(arguments()))
    await asyncio.sleep(0)
    fake.stop()
    await serving


async def test_cancelled_it_stops_the_server(fake: FakeServer) -> None:
    serving = asyncio.create_task(serve.handle_serve(arguments()))
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert fake.stopped.is_set()


@pytest.mark.parametrize("port", [True, 8123])
async def test_a_dashboard_is_started_beside_it(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, port: int | bool
) -> None:
    started: list[tuple[object, object]] = []

    def start_dashboard(graph_address: object, dashboard_port: object = None) -> None:
        started.append((graph_address, dashboard_port))
        fake.stop()

    monkeypatch.setattr(serve, "start_dashboard", start_dashboard)
    await serve.handle_serve(arguments(dashboard=port))
    assert started == [(("127.0.0.1", 5), port)]


async def test_without_the_package_of_the_dashboard_it_serves_all_the_same(
    fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    serving = asyncio.create_task(serve.handle_serve(arguments(dashboard=True)))
    await asyncio.sleep(0)
    assert "pip install ezmsg-dashboard" in caplog.text
    fake.stop()
    await serving


# -- in the background ------------------------------------------------------------------------------------------------


def test_it_lets_go_of_pipes_and_keeps_files(tmp_path: Any) -> None:
    kept = tmp_path / "log"

    def descriptors(change: Callable[[], None]) -> list[str]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writing, 0)
            os.dup2(writing, 1)
            os.dup2(os.open(kept, os.O_WRONLY | os.O_CREAT), 2)
            change()
            told = "\n".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3))
            os.write(writing, f"{told}\n{os.getsid(0) == os.getpid()}".encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            told = pipe.read().splitlines()
        os.waitpid(pid, 0)
        return told

    assert descriptors(serve.leave_the_caller_alone) == [os.devnull, os.devnull, str(kept), "True"]
