"""Trace files on the command line: of the last seconds, and of those to come."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ezmsg.core.command import cmdline
from ezmsg.core.commands.trace import Capture
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.profiling import PROFILES
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.telemetry import pump
from tests.core.commands.conftest import Command

PATIENCE_S = 40.0
HOWTO = Path(__file__).parents[3] / "docs/howto/trace-file.md"


@asynccontextmanager
async def hop(server: GraphServer) -> AsyncIterator[tuple[Publisher, Subscriber]]:
    """A publisher and a subscriber of a process that is known to the graph."""
    client = ProcessControlClient(server.address)
    await client.connect()
    await client.register(["SOURCE", "SINK"])
    async with GraphContext(server.address) as context:
        publisher = await Publisher.create("TOPIC", server.address, unit="SOURCE", task="spin")
        subscriber = await Subscriber.create("TOPIC", server.address, unit="SINK", task="get")
        try:
            yield publisher, subscriber
        finally:
            publisher.close()
            subscriber.close()
            await publisher.wait_closed()
            await subscriber.wait_closed()
            del context
    await client.close()


async def pass_on(publisher: Publisher, subscriber: Subscriber, count: int) -> None:
    for number in range(count):
        await publisher.broadcast(number)
        async with subscriber.recv_zero_copy():
            pass


def slices(file: Path) -> Counter[str]:
    events: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    assert len([event for event in events if event["ph"] == "s"]) == len([it for it in events if it["ph"] == "f"])
    return Counter(event["name"] for event in events if event["ph"] == "X")


async def test_the_last_seconds_are_written(
    server: GraphServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    PROFILES.set_trace_sampling(0.0, 1.0)
    try:
        async with hop(server) as (publisher, subscriber):
            await pass_on(publisher, subscriber, 3)
            assert await asyncio.to_thread(pump.flush, PATIENCE_S)
            file = tmp_path / "trace.json"
            arguments = ["trace", "--address", str(server.address), "--output", str(file)]
            assert await asyncio.to_thread(cmdline, arguments) == 0
            assert slices(file) == {"publish TOPIC": 3, "process TOPIC": 3}
            [process] = [
                event["args"]["name"]
                for event in json.loads(file.read_text())["traceEvents"]
                if event["name"] == "process_name"
            ]
            assert process.startswith("SINK, SOURCE (pid ")
            assert capsys.readouterr().err.startswith(f"wrote 6 spans of 1 processes to {file}: ")
    finally:
        PROFILES.set_trace_sampling(1.0)


async def test_every_message_is_traced_until_an_interrupt_and_not_afterwards(
    server: GraphServer, tmp_path: Path, command: Command
) -> None:
    PROFILES.set_trace_sampling(0.0)
    try:
        async with hop(server) as (publisher, subscriber), asyncio.timeout(PATIENCE_S):
            await pass_on(publisher, subscriber, 2)
            file = tmp_path / "live.json"
            capturing = command("trace", "--address", str(server.address), "--live", "60", "--every", "-o", str(file))
            begun = PROFILES.recorder.publishers[publisher.id]
            while begun.next_root_s > 0:
                await asyncio.sleep(0.01)
            await pass_on(publisher, subscriber, 3)
            capturing.signal(signal.SIGINT)
            code, _, errors = await asyncio.to_thread(capturing.ended)
            assert (code, errors.startswith("wrote 6 spans of 1 processes")) == (0, True), errors
            assert slices(file) == {"publish TOPIC": 3, "process TOPIC": 3}
            while PROFILES.trace_enabled() or begun.next_root_s < float("inf"):
                await asyncio.sleep(0.01)
    finally:
        PROFILES.set_trace_sampling(1.0)


async def test_a_program_that_asks_for_traces_gets_them_as_the_how_to_says(server: GraphServer, tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    example = example.replace("ROOT/SOURCE/OUTPUT", "TOPIC").replace("ROOT/SOURCE", "SOURCE").replace("0.1", "1.0")
    PROFILES.set_trace_sampling(0.0)
    try:
        async with hop(server) as (publisher, subscriber), GraphContext(server.address) as context:
            asking = compile(example, HOWTO, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await eval(asking, {"context": context})
            await pass_on(publisher, subscriber, 3)
            assert await asyncio.to_thread(pump.flush, PATIENCE_S)
            file = tmp_path / "trace.json"
            assert await asyncio.to_thread(cmdline, ["trace", "--address", str(server.address), "-o", str(file)]) == 0
            assert slices(file) == {"publish TOPIC": 3, "process TOPIC": 3}
    finally:
        PROFILES.set_trace_sampling(1.0)


def test_a_graph_without_traces_says_how_to_get_some(server: GraphServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["trace", "--address", str(server.address), "-o", "-"]) == 0
    output, errors = capsys.readouterr()
    assert json.loads(output)["traceEvents"] == []
    assert "EZMSG_TRACE_RATE" in errors


async def test_what_was_captured_before_the_graph_ended_is_kept(server: GraphServer) -> None:
    PROFILES.set_trace_sampling(0.0, 1.0)
    try:
        async with hop(server) as (publisher, subscriber), asyncio.timeout(PATIENCE_S):
            await pass_on(publisher, subscriber, 3)
            async with GraphContext(server.address) as context:
                capture = Capture(context, 0)
                reading = asyncio.create_task(capture.read(PATIENCE_S, asyncio.Event()))
                while len(capture) < 6:
                    await asyncio.sleep(0.01)
                server.stop()
                await reading
                [process] = await capture.processes()
            assert Counter(span.name for span in process.spans) == {"publish TOPIC": 3, "process TOPIC": 3}
    finally:
        PROFILES.set_trace_sampling(1.0)


@pytest.mark.parametrize("arguments", [["--last", "0"], ["--live", "x"], ["--last", "1", "--live", "1"]])
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        cmdline(["trace", *arguments])


def test_past_messages_cannot_be_traced_any_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["trace", "--every"]) == 1
    assert "give --live" in capsys.readouterr().err


def test_without_a_server_that_is_said(free_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["trace", "--address", free_address]) == 1
    assert free_address in capsys.readouterr().err
