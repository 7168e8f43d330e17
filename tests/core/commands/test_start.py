"""A server in the background: started once, found at once, and in nobody's way."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from ezmsg.core.command import cmdline
from ezmsg.core.commands import start
from ezmsg.core.errors import ConfigError, DashboardDependencyError, ServerDidNotStart
from ezmsg.core.graphserver import GraphServer
from tests.core.commands.conftest import Command, wait_until_gone


def test_it_returns_when_the_server_answers_though_its_output_is_read_to_the_end(
    command: Command, free_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, errors = command("start", "--address", free_address).ended()
    assert (code, errors) == (0, "")
    told = re.fullmatch(
        rf"GraphServer at {free_address} \(process (\d+)\), in the background. "
        rf"ezmsg shutdown --address {free_address} ends it.\n",
        output,
    )
    assert told
    pid = int(told[1])
    assert os.getsid(pid) == pid  # the terminal of who started it may go
    assert cmdline(["start", "--address", free_address]) == 0
    assert capsys.readouterr() == (f"A GraphServer is at {free_address} already.\n", "")
    assert cmdline(["shutdown", "--address", free_address]) == 0
    assert capsys.readouterr() == (f"The GraphServer at {free_address} has ended.\n", "")
    wait_until_gone(pid)


def test_something_else_at_the_address_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(cmdline, ["start", "--address", f"127.0.0.1:{stranger.getsockname()[1]}"])
        stranger.settimeout(40)
        caller, _ = stranger.accept()
        caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert starting.result() == 1
        caller.close()
    output, errors = capsys.readouterr()
    assert output == ""
    assert "not this protocol" in errors
    assert errors.count("\n") == 1


def test_a_server_that_cannot_start_is_told_and_why(
    free_address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EZMSG_OTEL", "nonsense")
    assert cmdline(["start", "--address", free_address]) == 1
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.startswith("ezmsg serve: EZMSG_OTEL='nonsense' cannot be used")
    assert errors.count("\n") == 1


# -- with another process and service ---------------------------------------------------------------------------------


class Spawned:
    """What was run in place of a server, and the connections that were made."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.closed: list[object] = []
        self.pid = 4_000_000_000  # nobody's
        self.error: OSError | None = None


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Spawned:
    """In place of real processes and connections."""
    spawned = Spawned()

    def popen(command: list[str]) -> SimpleNamespace:
        spawned.commands.append(command)
        return SimpleNamespace(pid=spawned.pid)

    class Service:
        def __init__(self, _address: object) -> None: ...

        async def open_connection(self) -> tuple[str, str]:
            if spawned.error is not None:
                raise spawned.error
            return "reader", "writer"

    async def close(writer: object) -> None:
        spawned.closed.append(writer)

    monkeypatch.setattr(start, "subprocess", SimpleNamespace(Popen=popen))
    monkeypatch.setattr(start, "GraphService", Service)
    monkeypatch.setattr(start, "close_stream_writer", close)
    monkeypatch.setattr(start, "require_dashboard_dependency", lambda: None)
    return spawned


@pytest.mark.parametrize(("dashboard", "added"), [(None, []), (True, ["--dashboard"]), (8123, ["--dashboard", "8123"])])
async def test_it_spawns_serve_with_the_same_options(
    spawned: Spawned, free_address: str, dashboard: Any, added: list[str]
) -> None:
    await start.handle_start(SimpleNamespace(address=free_address, dashboard=dashboard))  # type: ignore[arg-type]
    serve = [sys.executable, "-m", "ezmsg.core", "serve", f"--address={free_address}"]
    assert spawned.commands == [serve + added]
    assert spawned.closed == ["writer"]


async def test_without_the_package_of_the_dashboard_nothing_is_spawned(
    spawned: Spawned, free_address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise DashboardDependencyError("pip install ezmsg-dashboard")

    monkeypatch.setattr(start, "require_dashboard_dependency", missing)
    assert await start.handle_start(SimpleNamespace(address=free_address, dashboard=True))  # type: ignore[arg-type]
    assert "pip install ezmsg-dashboard" in caplog.text
    assert spawned.commands == []


async def test_a_port_that_nobody_could_find_is_refused(spawned: Spawned) -> None:
    with pytest.raises(ConfigError, match="port other than 0"):
        await start.handle_start(SimpleNamespace(address="127.0.0.1:0", dashboard=None))  # type: ignore[arg-type]
    assert spawned.commands == []


async def test_a_server_that_never_answers_is_killed(
    spawned: Spawned, free_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(start, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(start.os, "kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr(start, "_ended_with", lambda _pid: None)
    spawned.error = ConnectionRefusedError()
    with pytest.raises(ServerDidNotStart, match="does not answer"):
        await start.handle_start(SimpleNamespace(address=free_address, dashboard=None))  # type: ignore[arg-type]
    assert killed == [(spawned.pid, signal.SIGKILL)]


async def test_where_a_server_is_nothing_is_spawned(spawned: Spawned, server: GraphServer) -> None:
    assert await start.handle_start(SimpleNamespace(address=server.address, dashboard=None)) == 0  # type: ignore[arg-type]
    assert spawned.commands == []
