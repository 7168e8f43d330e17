"""What is left of processes that stand still or are gone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ezmsg.core.commands.checks import stale
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.server import look_at_server
from ezmsg.core.commands.checks.stale import look_for_stale
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.net.address import Address
from ezmsg.core.server.journal import Journal, journal_path
from tests.core.conftest import StartProcess


async def look(server: GraphServer) -> list[Finding]:
    found, _ = await look_at_server(server.address, "test")
    return await look_for_stale(server.address, found)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for the files of shared memory that only this test uses."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(stale, "memory_directory", lambda: directory)
        yield Path(directory)


async def test_a_stopped_process_is_found_by_its_units_and_by_its_sockets(
    server: GraphServer, start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale, "PING_TIMEOUT_S", 40.0)  # of one that is well, however busy the machine is
    worker = await start_process("own", server.address, "UNIT")
    await start_process("own", server.address, "ALIVE")
    pid = worker.process.pid
    assert not [finding for finding in await look(server) if finding.facts.get("pid") == pid]
    await worker.halt()
    monkeypatch.setattr(stale, "PING_TIMEOUT_S", 0.3)
    by_sockets, by_units = (finding for finding in await look(server) if finding.facts.get("pid") == pid)
    assert by_sockets.facts == {"pid": pid, "publishers": 1, "state": "stopped"}
    assert by_units.facts["units"] == ["UNIT"]
    assert by_units.facts["process_id"] == worker.ready
    for finding in (by_sockets, by_units):
        assert finding.state == "problem"
        assert f"kill -CONT {pid}" in finding.remedy


async def test_shared_memory_that_nobody_has_open_is_found(server: GraphServer, memory: Path) -> None:
    left, used = memory / "ezmsg-left", memory / "ezmsg-used"
    left.write_bytes(bytes(100))
    with used.open("wb"):
        [finding] = [finding for finding in await look(server) if finding.name == "shared memory"]
    assert (finding.state, finding.facts) == ("warning", {"paths": [str(left)], "bytes": 100})
    assert finding.remedy == f"rm {left}"


async def test_shared_memory_in_use_is_left_alone(server: GraphServer, memory: Path) -> None:
    shared = await GraphService(server.address).create_shm(2, 4096)
    assert not [finding for finding in await look(server) if finding.name == "shared memory"]
    shared.close()
    await shared.wait_closed()


async def test_a_server_that_cannot_be_asked_is_told_of(server: GraphServer) -> None:
    found, _ = await look_at_server(server.address, "test")
    server.stop()
    [finding] = [finding for finding in await look_for_stale(server.address, found) if finding.name == "units"]
    assert "could not be asked" in finding.text


async def test_the_journal_of_a_killed_server_is_told_of_until_its_successor_ended_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_address: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    address = Address.from_string(free_address)
    Journal.open(address).connected("A", "B")
    [finding] = [finding for finding in await look_for_stale(address, None) if finding.name == "journal"]
    assert (finding.state, finding.facts) == ("warning", {"path": str(journal_path(address))})
    server = GraphServer()
    server.start(address)
    server.stop()
    assert not [finding for finding in await look_for_stale(address, None) if finding.name == "journal"]


def test_processes_of_this_host_are_known_by_what_keeps_them() -> None:
    assert stale.state_of(os.getpid()) == ""
    assert stale.state_of(4_000_000) == "gone"
