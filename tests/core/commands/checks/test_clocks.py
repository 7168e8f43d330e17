"""The clocks here, and those of the server beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ezmsg.core.commands.checks import clocks
from ezmsg.core.commands.checks.clocks import Offset, look_at_clocks
from ezmsg.core.commands.checks.server import Server, look_at_server
from ezmsg.core.graphserver import GraphServer


async def seen(server: GraphServer) -> Server:
    found, _ = await look_at_server(server.address, "test")
    assert found is not None
    return found


async def test_the_clocks_of_a_server_on_this_host_are_ours(server: GraphServer) -> None:
    [_, finding] = await look_at_clocks(await seen(server))
    assert finding.state == "ok"
    assert abs(finding.facts["wall_s"]) <= finding.facts["uncertainty_s"] + 1e-3


@pytest.mark.parametrize(
    ("is_here", "offset", "state", "said"),
    [
        (True, Offset(0.0, 5.0, 0.001), "warning", "+5.000 s ahead"),
        (False, Offset(0.005, 1e6, 0.001), "ok", "+5.0 ms ahead"),
        (False, Offset(-0.5, 1e6, 0.001), "warning", "-500.0 ms ahead"),
    ],
)
async def test_clocks_that_disagree_are_told_with_how_much(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch, is_here: bool, offset: Offset, state: str, said: str
) -> None:
    async def measured(_server: Server) -> Offset:
        return offset

    monkeypatch.setattr(clocks, "_measured", measured)
    found = await seen(server)
    if not is_here:
        found = dataclasses.replace(found, peer=found.peer._replace(boot_id="another host"))
    [_, finding] = await look_at_clocks(found)
    assert finding.state == state
    assert said in finding.text


async def test_a_slow_clock_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "current_clocksource"
    source.write_text("hpet\n")
    monkeypatch.setattr(clocks, "SOURCE_FILE", source)
    [finding] = await look_at_clocks(None)
    assert (finding.state, finding.facts["source"]) == ("warning", "hpet")
    monkeypatch.setattr(clocks, "SOURCE_FILE", tmp_path / "none")
    monkeypatch.setattr(clocks, "_cost_ns", lambda: 30)
    [finding] = await look_at_clocks(None)
    assert (finding.state, finding.facts["source"]) == ("ok", "unknown")
