"""What is bounded on this host."""

from __future__ import annotations

import resource

import pytest

from ezmsg.core.commands.checks import limits
from ezmsg.core.commands.checks.limits import look_at_limits
from ezmsg.core.commands.checks.server import look_at_server
from ezmsg.core.graphserver import GraphServer


@pytest.mark.parametrize(("soft", "state"), [(100, "problem"), (500, "warning"), (4096, "ok"), (-1, "ok")])
def test_few_descriptors_are_a_problem(monkeypatch: pytest.MonkeyPatch, soft: int, state: str) -> None:
    assert resource.RLIM_INFINITY == -1
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _which: (soft, -1))
    found = {finding.name: finding for finding in look_at_limits(None)}["open files"]
    assert found.state == state
    assert bool(found.remedy) == (state != "ok")


def test_memory_and_shared_memory_are_told_in_bytes() -> None:
    found = {finding.name: finding for finding in look_at_limits(None)}
    assert found["shared memory"].facts["size_bytes"] >= found["shared memory"].facts["free_bytes"] > 0
    assert found["memory"].facts["free_bytes"] > 0


def test_little_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: 1 << 20)
    found = {finding.name: finding for finding in look_at_limits(None)}["memory"]
    assert (found.state, found.text.split(",")[0]) == ("problem", "1.0 MiB free")


async def test_a_server_that_runs_out_of_descriptors_is_a_problem(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = await look_at_server(server.address, "test")
    assert {finding.name: finding for finding in look_at_limits(found)}["files of server"].state == "ok"
    monkeypatch.setattr(limits, "descriptor_limit_of", lambda _pid: 5)
    assert {finding.name: finding for finding in look_at_limits(found)}["files of server"].state == "problem"
