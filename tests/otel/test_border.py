"""One trace from an HTTP service through the graph to another: each with an exporter of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from examples.otlp_receiver import HttpReceiver

HERE = Path(__file__).parent
TIMEOUT_S = 120.0
CHAIN = ["call", "publish WEB/OUT", "process WEB/OUT", "result"]


@contextlib.contextmanager
def program(receiver: HttpReceiver, name: str, *arguments: str, **variables: str) -> Iterator[str]:
    """Runs a program that prints its URL and ends with its standard input."""
    known = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_SERVICE_NAME": name}
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    with subprocess.Popen(
        command, env=os.environ | known | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=TIMEOUT_S)


def test_a_trace_passes_through_the_graph(http_receiver: HttpReceiver) -> None:
    """Also where no trace would begin in the graph: the service before it decided."""
    store = http_receiver.store
    variables = {"EZMSG_OTEL": "agent", "EZMSG_TRACE_RATE": "0"}
    with (
        program(http_receiver, "webservice") as back,
        program(http_receiver, "gateway", f"{back}/result", **variables) as door,
        program(http_receiver, "webservice") as front,
    ):
        for _ in range(3):
            urllib.request.urlopen(f"{front}/call", door.encode(), TIMEOUT_S).close()
        urllib.request.urlopen(door, b"no trace", TIMEOUT_S).close()
        # The last result has a trace of its own: nothing was sampled before it.
        assert store.wait_for(lambda: len(store.spans) >= 3 * len(CHAIN) + 1)
    traces = [spans for spans in store.traces().values() if len(spans) > 1]
    assert len(traces) == 3
    for spans in traces:
        by_parent = {span.parent_span_id: span for span in spans}
        span, names = by_parent.get(""), []
        while span is not None:
            names.append(span.span.name)
            span = by_parent.get(span.span_id)
        assert names == CHAIN
    (alone,) = (spans for spans in store.traces().values() if len(spans) == 1)
    assert [span.span.name for span in alone] == ["result"]
