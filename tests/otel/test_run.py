"""A run with a server of its own starts the agent with it, and both are gone with what they know when it returns."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import ezmsg.core as ez
from examples.otlp_receiver import HttpReceiver
from ezmsg.otel import semconv
from tests.core.rununits import Collector, Counter, CounterSettings, Forwarder

COUNT = 20
NODE_INFO = "ezmsg.graph.node.info"
UNITS = str(Path(__file__).with_name("units.py"))
TIMEOUT_S = 120.0


@pytest.fixture(autouse=True)
def _spawn() -> Iterator[None]:
    """The receiver brings gRPC, which does not like to be forked."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


class Troubled(ez.Unit):
    """Keeps the newest messages, is slow with them, and fails with each."""

    INPUT = ez.InputStream(int, leaky=True)

    @ez.subscriber(INPUT)
    async def take(self, number: int) -> None:
        with ez.profile("worry"):
            await asyncio.sleep(0.01)
        raise ValueError(number)


def is_agent(process: psutil.Process) -> bool:
    try:
        return "ezmsg.otel" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


NOT_HERE = {
    # Nobody waits for a slot, no process is asked, no message is logged, and all clocks are the same.
    "ezmsg.publisher.backpressure.blame",
    "ezmsg.publisher.backpressure.duration",
    "ezmsg.graph.backpressure.culprit",
    "ezmsg.process.control.duration",
    "ezmsg.channel.clock.anomalies",
    "ezmsg.logger.dropped.messages",
}


def test_a_run_exports_what_all_its_processes_measured_before_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", receiver.protocol)
        monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")

        def missing() -> set[str]:
            return {spec.name for spec in semconv.METRICS} - receiver.store.metric_names()

        def has_arrived() -> bool:
            named = {point.attributes.get("ezmsg.process.name") for point in receiver.store.points(NODE_INFO)}
            return bool(receiver.store.spans) and {"ROOT", "ROOT/MIDDLE"} <= named and missing() <= NOT_HERE

        class Waits(ez.Unit):
            """Ends the run when the first spans, the graph and what takes a second to measure have arrived."""

            @ez.task
            async def wait(self) -> None:
                await asyncio.to_thread(receiver.store.wait_for, has_arrived)
                raise ez.NormalTermination

        source, middle, sink = Counter(CounterSettings(COUNT)), Forwarder(), Collector(CounterSettings(COUNT + 1))
        troubled = Troubled()
        ez.run(
            {"SOURCE": source, "MIDDLE": middle, "SINK": sink, "WAITS": Waits(), "TROUBLED": troubled},
            root_name="ROOT",
            connections=[
                (source.OUTPUT, middle.INPUT), (middle.OUTPUT, sink.INPUT), (middle.OUTPUT, troubled.INPUT)
            ],
            process_components=[source, middle],
        )  # fmt: skip

        assert not [child for child in psutil.Process().children() if is_agent(child)]
        spans, metrics = receiver.store.spans, receiver.store.points("messaging.client.consumed.messages")
        is_missing = missing()
        nodes = receiver.store.points(NODE_INFO)
        edges = receiver.store.points("ezmsg.graph.edge.info")
        failures = [point for point in receiver.store.points("ezmsg.task.errors") if point.value]

    tasks = [
        ("publish ROOT/SOURCE/OUTPUT", "ROOT/SOURCE", "publish"),
        ("process ROOT/SOURCE/OUTPUT", "ROOT/MIDDLE", "forward"),
        ("publish ROOT/MIDDLE/OUTPUT", "ROOT/MIDDLE", "forward"),
        ("process ROOT/MIDDLE/OUTPUT", "ROOT/SINK", "receive"),
    ]
    found = [
        (span.span.name, span.attributes.get("ezmsg.unit.address"), span.attributes.get("ezmsg.task.name"))
        for span in spans
    ]
    assert {task: found.count(task) for task in tasks} == dict.fromkeys(tasks, COUNT)
    names = {span.resource["ezmsg.process.name"] for span in spans}
    assert names == {"ROOT", "ROOT/SOURCE", "ROOT/MIDDLE"}
    assert {span.resource["service.name"] for span in spans} == {"ROOT"}
    # This process may have lost messages of loggers before, and failed in other graphs.
    assert is_missing | {"ezmsg.logger.dropped.messages"} == NOT_HERE
    places = {tuple(node.attributes.values()) for node in nodes}
    assert {
        ("ROOT/SINK/INPUT", "subscriber", "ROOT"),
        ("ROOT/MIDDLE/OUTPUT", "publisher", "ROOT/MIDDLE"),
    } <= places
    assert {("ROOT/SOURCE/OUTPUT", "ROOT/MIDDLE/INPUT"), ("ROOT/MIDDLE/OUTPUT", "ROOT/SINK/INPUT")} <= {
        (edge.attributes["ezmsg.graph.edge.source"], edge.attributes["ezmsg.graph.edge.target"]) for edge in edges
    }
    kinds = ("ezmsg.unit.address", "ezmsg.task.name", "error.type")
    assert ("ROOT/TROUBLED", "take", "ValueError") in {tuple(it.attributes[kind] for kind in kinds) for it in failures}
    assert {max(point.value for point in metrics if point.resource == it.resource) for it in metrics} == {COUNT}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_deliver_to_the_agent_however_they_were_started(http_receiver: HttpReceiver, method: str) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": http_receiver.endpoint, "EZMSG_TRACE_RATIO": "1"}
    with subprocess.Popen(
        [sys.executable, UNITS, method], env=os.environ | variables, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert http_receiver.store.wait_for(lambda: len(http_receiver.store.spans) == 5, TIMEOUT_S)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, errors
    names = Tally((span.span.name, span.resource["process.pid"]) for span in http_receiver.store.spans)
    assert sorted((name, count) for (name, _), count in names.items()) == [
        ("process COUNT/OUTPUT", 3),
        ("publish COUNT/OUTPUT", 3),
    ]
    assert len({pid for _, pid in names}) == 2
    assert len({span.span_id for span in http_receiver.store.spans}) == 6
    for name in ("messaging.client.sent.messages", "messaging.client.consumed.messages"):
        assert http_receiver.store.points(name)[-1].value == 3
    assert not [point for point in http_receiver.store.points("ezmsg.telemetry.dropped") if point.value]
