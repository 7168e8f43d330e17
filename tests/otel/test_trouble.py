"""Agents as servers start them, with receivers of spans that misbehave to the end.

All at once: most of what they do is to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from examples.otlp_receiver import GrpcReceiver, HttpReceiver, Receiver
from ezmsg.core.control import ControlClient
from ezmsg.core.graphserver import GraphServer
from tests.otel.feeds import first, hello, span_rows, telemetry
from tests.otel.test_accounts import last_values, recorded_and_lost
from tests.otel.test_end_to_end import agents, until
from tests.otel.test_main import Deaf

SPANS, ROOM = 600, 500
PATIENCE_S = 60.0

TROUBLES: dict[str, Any] = {
    "down": None,
    "slow": ("slow", {"seconds": PATIENCE_S}),
    "unavailable": ("status", {"status": 503}),
    "refusing": ("status", {"status": 400, "code": "INVALID_ARGUMENT"}),
    "busy": ("status", {"status": 429, "code": "RESOURCE_EXHAUSTED", "retry_after": "60"}),
    "redirect": ("redirect", {}),
    "black hole": ("black_hole", {}),
}
HTTP = [(HttpReceiver, trouble) for trouble in TROUBLES]
GRPC = [(GrpcReceiver, trouble) for trouble in ("down", "slow", "unavailable", "black hole")]


class Case:
    """A graph with its agent, a receiver of spans that misbehaves, and one of metrics that does not."""

    def __init__(
        self, kind: type[Receiver], trouble: str, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
    ) -> None:
        self.name = f"{kind.protocol} {trouble}"
        self.is_down = trouble == "down"
        self.traces, self.metrics = stack.enter_context(kind()), stack.enter_context(HttpReceiver())
        endpoint = self.traces.endpoint
        if self.is_down:
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))  # and nobody listens there
            endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        else:
            behaviour, how = TROUBLES[trouble]
            self.traces.behave(behaviour, **how)
        path = "/v1/traces" if kind is HttpReceiver else ""
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint + path)
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", kind.protocol)
        patch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{self.metrics.endpoint}/v1/metrics")
        self.server = GraphServer()
        self.server.start("127.0.0.1:0")
        stack.callback(self.server.stop)

    async def live(self) -> None:
        """A process of the graph tells what it measured, and ends in order."""
        client = await ControlClient.connect(self.server.address, Deaf(), name="test")
        await client.request(hello(str(uuid4())))
        client.notify(first(spans=span_rows(SPANS), recorded={"span": SPANS}).batch)
        await until(lambda: recorded_and_lost(self.metrics, "span")[0] == SPANS, PATIENCE_S)
        await until(lambda: self.is_down or self.traces.requests > 0, PATIENCE_S)
        client.notify(telemetry(1, recorded={"span": SPANS}, final=True).batch)
        await client.close()

    @property
    def books(self) -> tuple[int | float, int | float]:
        """Spans that were recorded, and that were exported or lost, as metrics said last."""
        recorded, lost = recorded_and_lost(self.metrics, "span")
        exported = last_values(self.metrics, "ezmsg.telemetry.exported", "span")
        return recorded, sum(exported.values()) + lost


async def test_nothing_hangs_and_every_span_is_exported_or_told_to_be_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(ROOM))
    with contextlib.ExitStack() as stack, caplog.at_level("INFO", "ezmsg"):
        cases = [Case(*case, stack, monkeypatch) for case in HTTP + GRPC]
        await asyncio.gather(*(case.live() for case in cases))
        with ThreadPoolExecutor(len(cases)) as threads:
            loop = asyncio.get_running_loop()
            ends = [loop.run_in_executor(threads, case.server.stop) for case in cases]
            await asyncio.wait_for(asyncio.gather(*ends), PATIENCE_S)
        assert not agents()
        books = {case.name: case.books for case in cases}
    assert books == dict.fromkeys(books, (SPANS, SPANS))
    report = f"0 spans were exported; others were not: queue_full {SPANS - ROOM}, "
    last_words = [line for line in caplog.messages if report in line]
    assert len(last_words) == len(cases)
