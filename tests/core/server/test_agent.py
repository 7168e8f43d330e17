"""What the agent of a server says."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest

from ezmsg.core.server.agent import AgentProcess
from tests.core.forked import in_child

LONG = "x" * 300_000
LINES = ["INFO: exporting", "{", LONG, '    "name": "publish: A"', "}", "WARNING: traces do not reach it: HTTP 503"]
TEXT = "\n".join([*LINES, ""])
# An argument of a program may not be as long.
SAYS = f"import sys; sys.stderr.write({TEXT.replace(LONG, '@')!r}.replace('@', 'x' * {len(LONG)}))"
PATIENCE_S = 60.0


class NoExporter:
    """A desk that nobody reads."""

    has_exporter = False

    def __init__(self, unexported: int) -> None:
        self.unexported = unexported

    async def drain(self) -> None: ...


async def test_its_log_goes_into_ours_at_its_level_and_what_a_console_exporter_writes_to_standard_error(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    desk: Any = NoExporter(0)
    caplog.set_level(logging.INFO, "ezmsg")
    agent = AgentProcess([sys.executable, "-IS", "-c", SAYS])
    async with asyncio.timeout(PATIENCE_S):
        while len(caplog.records) < 2:
            await asyncio.sleep(0.001)
    await agent.stop(desk)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "telemetry agent: exporting"),
        ("WARNING", "telemetry agent: traces do not reach it: HTTP 503"),
    ]
    assert [line for line in capsys.readouterr().err.splitlines() if "telemetry agent" not in line] == LINES[1:5]


async def test_a_forked_child_does_not_hide_the_end_of_the_server_from_it(caplog: pytest.LogCaptureFixture) -> None:
    desk: Any = NoExporter(7)
    agent = AgentProcess([sys.executable, "-IS", "-c", "import sys; sys.stdin.read()"])
    process = agent._process
    assert process is not None
    pipes = [pipe for pipe in (process.stdin, process.stderr) if pipe is not None]
    assert len(pipes) == 2
    assert in_child(lambda: all(pipe.closed for pipe in pipes))
    assert not any(pipe.closed for pipe in pipes)
    await agent.stop(desk)
    assert process.returncode == 0
    assert "the graph ended before its telemetry agent was there: 7 spans are not exported" in caplog.text


async def test_when_it_has_to_be_killed_it_is_said_how_many_spans_may_be_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.server.agent.DRAIN_TIMEOUT_S", 0.05)
    desk: Any = NoExporter(7)
    agent = AgentProcess([sys.executable, "-IS", "-c", "import time; time.sleep(3600)"])
    await agent.stop(desk)
    assert "what became of 7 spans is not known" in caplog.text
