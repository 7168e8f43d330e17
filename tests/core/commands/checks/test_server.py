"""What the doctor says of the server, and above all of one that is none."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.server import look_at_server
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net.address import Address
from tests.core.conftest import StartProcess


async def look(address: Address) -> Finding:
    """What is said of a server that cannot be used."""
    server, [finding] = await look_at_server(address, "test")
    assert server is None
    assert finding.state == "problem"
    return finding


async def test_a_server_that_answers_is_known_by_process_and_version(server: GraphServer) -> None:
    found, findings = await look_at_server(server.address, "test")
    assert found is not None
    assert found.is_here
    assert found.peer.pid == os.getpid()
    assert [finding.state for finding in findings] == ["ok", "ok", "info"]


async def test_a_server_that_nobody_named_need_not_be_there(free_address: str) -> None:
    address = Address.from_string(free_address)

    server, [finding] = await look_at_server(address, None)

    assert (server, finding.state) == (None, "info")
    assert "nobody answers there" in finding.text
    assert (await look(address)).remedy == finding.remedy


async def test_another_version_is_a_warning(server: GraphServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ezmsg.core.commands.checks.server.__version__", "4.0")
    _, [_, version, _] = await look_at_server(server.address, "test")
    assert (version.state, version.facts["ours"]) == ("warning", "4.0")


async def test_a_server_with_another_key_is_said_to_have_one(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY", "quite another key")
    finding = await look(server.address)
    assert "holds another key" in finding.text
    assert str(os.getpid()) in finding.text


async def test_something_that_is_no_server_is_named() -> None:
    async def be_a_stranger(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-stranger\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(be_a_stranger, "127.0.0.1", 0) as stranger:
        finding = await look(Address(*stranger.sockets[0].getsockname()))
    assert f"process {os.getpid()}" in finding.text
    assert "is no GraphServer" in finding.text


async def test_a_stopped_server_is_named_with_what_lets_it_go_on(
    start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.control.DIAL_TIMEOUT_S", 0.2)
    worker = await start_process("serve")
    await worker.halt()
    finding = await look(Address.from_string(worker.ready))
    assert "stopped" in finding.text
    assert finding.remedy == f"kill -CONT {worker.process.pid} lets it go on"
    worker.process.send_signal(signal.SIGCONT)


async def test_without_a_usable_key_nobody_is_asked(server: GraphServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", "/dev/null")
    assert "no usable key" in (await look(server.address)).text
