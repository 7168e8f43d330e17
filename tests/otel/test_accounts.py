"""Nothing is lost uncounted: what a process recorded is what its readers got and what is said to be lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from examples.otlp_receiver import HttpReceiver
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingStreamControl, TraceSpan
from ezmsg.core.graphserver import GraphServer
from tests import proofs
from tests.otel.accountant import UNIT, WINDOW
from tests.otel.test_end_to_end import until

ACCOUNTANT = Path(__file__).with_name("accountant.py")
PATIENCE_S = 120.0

MESSAGES = proofs.size(12_000, 100_000)
TURN = 4_000
"""Messages at once; the next ones when both readers have these."""
SPANS_PER_MESSAGE = 2
HISTOGRAMS = ("messaging.client.operation.duration", "messaging.process.duration", "ezmsg.task.span.duration")
"""Each row is counted in one of them."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
        yield receiver


@contextlib.contextmanager
def serving() -> Iterator[GraphServer]:
    """A server, and the agent that it starts."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        server.stop()


class Accountant:
    """A process that sends what it is told to."""

    def __init__(self, server: GraphServer) -> None:
        self._command = [sys.executable, str(ACCOUNTANT), str(server.address)]

    async def __aenter__(self) -> Accountant:
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert await self._line() == "ready"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.process.communicate, timeout=PATIENCE_S)

    async def send(self, count: int, what: str = "send") -> None:
        self._order(f"{what} {count}")
        assert await self._line() == "sent"

    async def send_and_die(self, count: int) -> None:
        self._order(f"die {count}")
        assert await asyncio.to_thread(self.process.wait, PATIENCE_S) < 0

    def _order(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    async def _line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), PATIENCE_S)).strip()


class Ids:
    """Span ids, each once, and what is said to be lost."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.dropped: dict[str, int] = {}

    def take(self, spans: list[TraceSpan], dropped: dict[str, int]) -> None:
        self.seen.update(span.span_id for span in spans)
        self.dropped = {reason: count for reason, count in dropped.items() if reason.startswith("span:")}

    @property
    def lost(self) -> int:
        return sum(self.dropped.values())


@contextlib.asynccontextmanager
async def following(context: GraphContext) -> AsyncIterator[Ids]:
    """A stream of spans that is read as they come."""
    ids = Ids()

    async def follow() -> None:
        stream = context.subscribe_profiling_trace(
            ProfilingStreamControl(interval=0.02, max_samples=20_000, include_spans=True)
        )
        async with contextlib.aclosing(stream):
            async for delivery in stream:
                for batch in delivery.batches.values():
                    ids.take(batch.spans, batch.dropped)

    task = asyncio.create_task(follow())
    yield ids
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def read_to_the_end(context: GraphContext, ids: Ids) -> None:
    """Read what a reader has not had yet."""
    while True:
        batch = await context.process_profiling_trace_batch(UNIT, max_samples=5_000, timeout=PATIENCE_S)
        ids.take(batch.spans, batch.dropped)
        if not batch.spans:
            return


def exported(receiver: HttpReceiver) -> Counter[str]:
    return Counter(span.span_id for span in receiver.store.spans)


def last_values(receiver: HttpReceiver, metric: str, kind: str) -> dict[tuple[str, str], int | float]:
    """The last value of each series of a kind, by process and reason."""
    points = receiver.store.points(metric, ezmsg__telemetry__kind=kind)
    return {
        (point.resource["service.instance.id"], point.attributes.get("ezmsg.telemetry.reason", "")): point.value
        for point in points
    }


def counted(receiver: HttpReceiver) -> int:
    """How many values there are in the histograms of rows."""
    last = {
        (name, *sorted(point.attributes.items())): int(point.value)
        for name in HISTOGRAMS
        for point in receiver.store.points(name)
    }
    return sum(last.values())


def recorded_and_lost(receiver: HttpReceiver, kind: str) -> tuple[int | float, int | float]:
    recorded = last_values(receiver, "ezmsg.telemetry.recorded", kind)
    return sum(recorded.values()), sum(last_values(receiver, "ezmsg.telemetry.dropped", kind).values())


def is_balanced(receiver: HttpReceiver, at_least: int) -> bool:
    """Whether every span that is said to be recorded has come, or is said to be lost."""
    recorded, lost = recorded_and_lost(receiver, "span")
    return at_least <= recorded == spans_so_far(receiver) + lost


def spans_so_far(receiver: HttpReceiver) -> int:
    """Without making an object of each."""
    return sum(map(len, span_lists(receiver)))


def raw_spans(receiver: HttpReceiver) -> Iterator[Span]:
    """As they arrived."""
    return itertools.chain.from_iterable(span_lists(receiver))


def span_lists(receiver: HttpReceiver) -> Iterator[Sequence[Span]]:
    return (
        scope.spans
        for arrived in receiver.store.arrived
        if arrived.signal == "traces"
        for resource in arrived.request.resource_spans  # type: ignore[union-attr]
        for scope in resource.scope_spans
    )


async def test_a_stream_and_a_receiver_hold_the_same_spans_whoever_falls_behind(receiver: HttpReceiver) -> None:
    with serving() as server:
        async with GraphContext(server.address) as context, GraphContext(server.address) as behind:
            slow = Ids()
            async with Accountant(server) as accountant, following(context) as native:
                await read_to_the_end(behind, slow)
                for sent in range(TURN, MESSAGES + 1, TURN):
                    await accountant.send(TURN)
                    count = sent * SPANS_PER_MESSAGE
                    await until(lambda count=count: native.seen.total() >= count, PATIENCE_S)
                    await until(lambda count=count: spans_so_far(receiver) >= count, PATIENCE_S)
                await read_to_the_end(behind, slow)
    spans = MESSAGES * SPANS_PER_MESSAGE
    assert exported(receiver) == native.seen
    assert (len(native.seen), native.seen.total(), native.lost) == (spans, spans, 0)
    assert slow.lost > 0
    assert slow.seen.total() + slow.lost == spans
    assert slow.seen.keys() <= native.seen.keys()
    assert recorded_and_lost(receiver, "span") == (spans, 0)


async def test_after_an_orderly_exit_the_accounts_balance_for_each_kind(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too little room everywhere.
    monkeypatch.setenv("EZMSG_PROFILE_TRACE_BUFFER_LIMIT", "3000")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    receiver.behave("slow", seconds=0.3)
    count = proofs.size(20_000, 60_000)
    with serving() as server:
        async with GraphContext(server.address) as context, following(context) as native:
            async with Accountant(server) as accountant:
                await until(lambda: receiver.requests > 0, PATIENCE_S)
                await accountant.send(count)
                receiver.behave("ok")
            await until(lambda: is_balanced(receiver, count * SPANS_PER_MESSAGE), PATIENCE_S)
            await until(lambda: native.seen.total() + native.lost >= count * SPANS_PER_MESSAGE, PATIENCE_S)
    assert native.seen.total() + native.lost == count * SPANS_PER_MESSAGE
    recorded, lost = recorded_and_lost(receiver, "span")
    assert recorded == count * SPANS_PER_MESSAGE
    assert lost > 0
    assert exported(receiver).total() + lost == recorded
    rows, lost_rows = recorded_and_lost(receiver, "row")
    assert counted(receiver) + lost_rows == rows
    assert not last_values(receiver, "ezmsg.telemetry.dropped", "link")


async def test_a_span_counts_once_in_all_accounts_whatever_rows_its_links_and_attributes_take(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_PROFILE_TRACE_BUFFER_LIMIT", "400")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    receiver.behave("slow", seconds=0.2)
    count = 60
    spans = count * (3 * WINDOW + 2)
    with serving() as server:
        async with GraphContext(server.address) as context, following(context) as native:
            async with Accountant(server) as accountant:
                await until(lambda: receiver.requests > 0, PATIENCE_S)
                await accountant.send(count, "window")
                asked = Ids()
                await read_to_the_end(context, asked)
                receiver.behave("ok")
            await until(lambda: is_balanced(receiver, spans), PATIENCE_S)
            await until(lambda: native.seen.total() + native.lost >= spans, PATIENCE_S)
    recorded, lost = recorded_and_lost(receiver, "span")
    got = exported(receiver).total()
    assert recorded == spans == got + lost == native.seen.total() + native.lost == asked.seen.total() + asked.lost
    assert got == sum(last_values(receiver, "ezmsg.telemetry.exported", "span").values())
    assert lost > 0
    rows, lost_rows = recorded_and_lost(receiver, "row")
    assert counted(receiver) + lost_rows == rows == spans
    # The last input of a window has its own publish, and the other inputs.
    assert max(len(span.links) for span in raw_spans(receiver)) == WINDOW
    assert any("number" in span.attributes for span in receiver.store.spans)


async def test_of_a_process_that_is_killed_only_the_last_interval_is_lost_and_that_is_said(
    receiver: HttpReceiver,
) -> None:
    with serving() as server:
        async with Accountant(server) as accountant:
            await accountant.send(1000)
            await until(lambda: spans_so_far(receiver) >= 2000, PATIENCE_S)
            await accountant.send_and_die(100)
        await until(lambda: bool(last_values(receiver, "ezmsg.telemetry.dropped", "link")), PATIENCE_S)
        await until(lambda: is_balanced(receiver, 2000), PATIENCE_S)
    assert 2000 <= exported(receiver).total() <= 2200
    assert 1000 <= receiver.store.points("messaging.client.consumed.messages")[-1].value <= 1100
    [((_, reason), number)] = last_values(receiver, "ezmsg.telemetry.dropped", "link").items()
    assert (reason, number) == ("no_goodbye", 1)
    recorded, lost = recorded_and_lost(receiver, "span")
    assert exported(receiver).total() == recorded
    assert lost == 0
