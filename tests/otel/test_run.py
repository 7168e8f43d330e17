"""A run with a server of its own starts the agent with it, and both are gone with what they know when it returns."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator

import psutil
import pytest

import ezmsg.core as ez
from examples.otlp_receiver import HttpReceiver
from tests.core.rununits import Collector, Counter, CounterSettings, Forwarder

COUNT = 20


@pytest.fixture(autouse=True)
def _spawn() -> Iterator[None]:
    """The receiver brings gRPC, which does not like to be forked."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_a_run_exports_what_all_its_processes_measured_before_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", receiver.protocol)
        monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")

        class Waits(ez.Unit):
            """Ends the run when the first spans have arrived: the agent takes a second to begin."""

            @ez.task
            async def wait(self) -> None:
                await asyncio.to_thread(receiver.store.wait_for, lambda: len(receiver.store.spans) > 0)
                raise ez.NormalTermination

        source, middle, sink = Counter(CounterSettings(COUNT)), Forwarder(), Collector(CounterSettings(COUNT + 1))
        ez.run(
            {"SOURCE": source, "MIDDLE": middle, "SINK": sink, "WAITS": Waits()}, root_name="ROOT",
            connections=[(source.OUTPUT, middle.INPUT), (middle.OUTPUT, sink.INPUT)],
            process_components=[source, middle],
        )  # fmt: skip

        assert not [child for child in psutil.Process().children() if "ezmsg.otel" in child.cmdline()]
        spans, metrics = receiver.store.spans, receiver.store.points("messaging.client.consumed.messages")

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
    assert {max(point.value for point in metrics if point.resource == it.resource) for it in metrics} == {COUNT}
