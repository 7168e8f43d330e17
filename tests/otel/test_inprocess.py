"""`EZMSG_OTEL=global`, with programs that have an SDK: built by hand, or set up by `opentelemetry-instrument`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.otlp_receiver import HttpReceiver
from examples.otlp_store import SeenPoint, SeenSpan
from ezmsg.otel import semconv

PROGRAM = str(Path(__file__).with_name("program.py"))
UNITS = str(Path(__file__).with_name("units.py"))
INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
MESSAGES = 50
TIMEOUT_S = 120.0


def start(
    receiver: HttpReceiver, mode: str, *options: str, instrumented: bool = False, **more: str
) -> subprocess.Popen[str]:
    """Start the program."""
    variables = {
        "EZMSG_OTEL": mode,
        "EZMSG_TRACE_RATIO": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
    }
    return subprocess.Popen(
        [*([INSTRUMENT] if instrumented else []), sys.executable, PROGRAM, str(MESSAGES), *options],
        env=os.environ | variables | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(program: subprocess.Popen[str]) -> dict[str, Any]:
    """Let it run to its end; returns what it printed."""
    with program:
        out, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, errors
    assert "Traceback" not in errors
    return json.loads(out)


def run(receiver: HttpReceiver, mode: str, *options: str, **more: Any) -> dict[str, Any]:
    """Let the program run from the beginning to its end."""
    return ended(start(receiver, mode, *options, **more))


def ours(receiver: HttpReceiver) -> list[SeenSpan]:
    return [span for span in receiver.store.spans if span.scope == "ezmsg.core"]


def own(receiver: HttpReceiver) -> list[SeenSpan]:
    return [span for span in receiver.store.spans if span.scope == "program"]


def edges(receiver: HttpReceiver, source: str = "OUT", target: str = "IN") -> list[SeenPoint]:
    points = receiver.store.points("ezmsg.graph.edge.info")
    ends = {"ezmsg.graph.edge.source": source, "ezmsg.graph.edge.target": target}
    return [point for point in points if ends.items() <= point.attributes.items()]


def assert_joined(seen: dict[str, Any]) -> None:
    """Each span of the program is a child of the processing of its message."""
    processed = [[trace_id, span_id] for trace_id, span_id, name in seen["native"] if name.startswith("process")]
    assert sorted(seen["own"]) == sorted(processed)


def assert_all_arrived(receiver: HttpReceiver, seen: dict[str, Any]) -> None:
    """Native spans id for id, exact counters, whole histograms, all under the resource of the program."""
    arrived = sorted([span.trace_id, span.span_id, span.span.name] for span in ours(receiver))
    assert arrived == sorted(seen["native"])
    assert len(arrived) == 2 * MESSAGES
    assert {span.resource["service.name"] for span in receiver.store.spans} == {"mine"}
    for name in ("messaging.client.sent.messages", "messaging.client.consumed.messages"):
        assert receiver.store.points(name)[-1].value == MESSAGES
    queue = [receiver.store.points(f"ezmsg.telemetry.queue.{name}")[-1].value for name in ("usage", "limit")]
    assert 0 <= queue[0] <= queue[1]
    for name in ("ezmsg.message.age", "messaging.process.duration", "messaging.client.operation.duration"):
        point = receiver.store.points(name)[-1]
        assert (point.value, point.metric.WhichOneof("data")) == (MESSAGES, "exponential_histogram")
        assert point.resource["service.name"] == "mine"


@pytest.mark.parametrize(
    "options",
    [("sdk",), ("late",), ("sdk", "shutdown"), ("sdk", "fork")],
    ids=["built first", "built last", "shut down by hand", "in a forked child"],
)
def test_an_sdk_that_was_built_by_hand_gets_everything(http_receiver: HttpReceiver, options: tuple[str, ...]) -> None:
    assert_all_arrived(http_receiver, run(http_receiver, "global", *options))


def test_an_instrumented_program_exports_everything_itself(http_receiver: HttpReceiver) -> None:
    program = start(http_receiver, "global", "wait", "graphs", instrumented=True, OTEL_METRIC_EXPORT_INTERVAL="200")
    # The GraphServers are in this process: two at once, and one that ended before.
    ends = [("OUT", "IN"), ("BESIDE", "THAT")]
    assert http_receiver.store.wait_for(
        lambda: all(edges(http_receiver, *pair) and edges(http_receiver, *pair)[-1].value == 1 for pair in ends)
    )
    seen = ended(program)
    assert_all_arrived(http_receiver, seen)
    assert_joined(seen)
    assert len(own(http_receiver)) == MESSAGES
    assert [edges(http_receiver, *pair)[-1].value for pair in ends] == [0, 0]
    operations = http_receiver.store.points("ezmsg.graph.operation.duration")
    connects = [point for point in operations if point.attributes["ezmsg.control.operation"] == "Connect"]
    assert connects[-1].value == 3
    # Whom to blame in the end takes all processes to know, and no settings have changed.
    assert http_receiver.store.metric_names() & {*semconv.OF_SERVER, semconv.CULPRIT.name} == {
        "ezmsg.graph.edge.info",
        "ezmsg.graph.node.info",
        "ezmsg.graph.operation.duration",
        "ezmsg.graph.process.count",
    }


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_of_a_run_exports_what_is_its_own(http_receiver: HttpReceiver, method: str) -> None:
    variables = {
        "EZMSG_OTEL": "global",
        "EZMSG_TRACE_RATIO": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": http_receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": http_receiver.protocol,
    }
    ran = subprocess.run(
        [INSTRUMENT, sys.executable, UNITS, method],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    names = Counter((span.span.name, span.resource["service.instance.id"]) for span in ours(http_receiver))
    assert sorted((name, count) for (name, _), count in names.items()) == [
        ("process COUNT/OUTPUT", 3),
        ("publish COUNT/OUTPUT", 3),
    ]
    assert len({process for _, process in names}) == 2
    for name in ("messaging.client.sent.messages", "messaging.client.consumed.messages", "ezmsg.message.age"):
        assert http_receiver.store.points(name)[-1].value == 3


def test_a_disabled_sdk_gets_nothing(http_receiver: HttpReceiver) -> None:
    run(http_receiver, "global", "sdk", OTEL_SDK_DISABLED="true")
    assert http_receiver.store.arrived == []


def test_without_a_provider_the_program_runs_all_the_same(http_receiver: HttpReceiver) -> None:
    run(http_receiver, "global")
    assert http_receiver.store.arrived == []


def test_auto_leaves_the_provider_of_the_program_alone_and_exports_with_an_agent(http_receiver: HttpReceiver) -> None:
    program = start(http_receiver, "auto", "wait", instrumented=True)
    assert http_receiver.store.wait_for(lambda: len(ours(http_receiver)) == 2 * MESSAGES)
    seen = ended(program)
    assert sorted([span.trace_id, span.span_id, span.span.name] for span in ours(http_receiver)) == sorted(
        seen["native"]
    )
    assert_joined(seen)
    assert all("ezmsg.process.name" in span.resource for span in ours(http_receiver))
    assert len(own(http_receiver)) == MESSAGES
    assert not any("ezmsg.process.name" in span.resource for span in own(http_receiver))
    assert all("ezmsg.process.name" in point.resource for point in http_receiver.store.points("ezmsg.message.age"))


def test_an_imported_package_joins_traces_whatever_the_mode(http_receiver: HttpReceiver) -> None:
    seen = run(http_receiver, "off", "sdk", "import")
    assert_joined(seen)


def test_off_leaves_the_provider_of_the_program_alone(http_receiver: HttpReceiver) -> None:
    seen = run(http_receiver, "off", instrumented=True)
    assert {parent for _, parent in seen["own"]} == {None}
    assert (len(own(http_receiver)), ours(http_receiver)) == (MESSAGES, [])
    assert not any(name.startswith(("ezmsg.", "messaging.")) for name in http_receiver.store.metric_names())
