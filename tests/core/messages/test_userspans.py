"""Spans of user code within the messages it handles."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingTraceControl, TraceSpan
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    return ProfileRegistry()


@pytest.fixture
async def publisher(context: GraphContext, registry: ProfileRegistry) -> Publisher:
    return await context.publisher("T", profiles=registry)


@pytest.fixture
async def subscriber(context: GraphContext, registry: ProfileRegistry) -> Subscriber:
    return await context.subscriber("T", profiles=registry)


def spans(registry: ProfileRegistry) -> dict[str, TraceSpan]:
    return {span.name: span for span in registry.trace_batch(1000).spans}


async def test_a_block_is_a_span_within_the_processing_of_its_message(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile("fft"):
            await asyncio.sleep(0)
        with subscriber.profile("fit"):
            pass
    found = spans(registry)
    for name in ("fft", "fit"):
        assert found[name].parent_span_id == found["process T"].span_id
        assert found[name].trace_id == found["process T"].trace_id
        assert (found[name].kind, found[name].error) == ("INTERNAL", None)
        assert found[name].attributes["ezmsg.span.label"] == name
        assert found["process T"].start_unix_ns <= found[name].start_unix_ns <= found[name].end_unix_ns
        assert found[name].end_unix_ns <= found["process T"].end_unix_ns


async def test_an_exception_is_told_by_the_span_and_goes_on(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    await publisher.broadcast(1)
    with pytest.raises(KeyError):
        async with subscriber.recv_zero_copy():
            with ez.profile("look up"):
                raise KeyError(3)
    found = spans(registry)
    assert (found["look up"].error, found["process T"].error) == ("KeyError", "KeyError")


async def test_attributes_of_a_block_are_those_of_its_span(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    given = {"window": "hann", "bins": -512, "loss": 1.5, "is_last": True, "long": "x" * 300, "huge": 1 << 70}
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile("fft", given) as span:
            span.set("peak", np.int32(3))
            span.set("ezmsg.span.label", "not this")
        with ez.profile("plain"):
            pass
    found = spans(registry)
    own = found["plain"].attributes | {"ezmsg.span.label": "fft"}
    told = {"window": "hann", "bins": -512, "loss": 1.5, "is_last": True, "long": "x" * 256, "huge": str(1 << 70)}
    assert found["fft"].attributes == {**own, **told, "peak": 3}
    assert {name: type(value) for name, value in found["fft"].attributes.items() if name in told} == {
        "window": str, "bins": int, "loss": float, "is_last": bool, "long": str, "huge": str,
    }  # fmt: skip


async def test_attributes_beyond_sixteen_are_counted_and_left_out(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile("fft", {f"a{number}": number for number in range(20)}):
            pass
    own = {f"a{number}": number for number in range(16)}
    attributes = spans(registry)["fft"].attributes
    assert {name: value for name, value in attributes.items() if name.startswith("a")} == own
    snapshot = registry.snapshot()
    assert (snapshot.recorded["attribute"], snapshot.dropped["attribute:limit"]) == (20, 4)
    assert snapshot.recorded["span"] == 2 + 1


class Shy:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Long(int):
    """A whole number of more bits than one has."""


class Name(str):
    def __str__(self) -> Name:  # type: ignore[override]
        return self


async def test_whatever_is_told_of_a_block_is_told_somehow_and_fails_nothing(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    given = {"shy": Shy(), "long": Long(1 << 70), "name": Name("n"), "": "unnamed", 5: [1, None]}
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile(7, given):  # type: ignore[arg-type]
            pass
    found = spans(registry)["7"].attributes
    told = {"shy": "<Shy>", "long": str(1 << 70), "name": "n", "5": "[1, None]"}
    assert found == {**found, "ezmsg.span.label": "7", **told}
    assert "" not in found
    snapshot = registry.snapshot()
    assert (snapshot.recorded["attribute"], snapshot.dropped["attribute:limit"]) == (5, 1)


async def test_a_block_is_a_sample_of_a_native_trace(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    registry.set_trace_sampling(0.0)
    registry.set_trace_control(ProfilingTraceControl(True, metrics=["user_span_ns"]))
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile("fft"):
            pass
    (sample,) = registry.trace_batch().samples
    assert (sample.metric, sample.topic) == ("user_span_ns", "T:fft")


async def test_without_a_sampled_message_nothing_is_recorded(
    publisher: Publisher, subscriber: Subscriber, registry: ProfileRegistry
) -> None:
    with ez.profile("outside"):
        pass
    registry.set_trace_sampling(0.0)
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with ez.profile("inside"):
            pass
    assert spans(registry) == {}


async def test_a_block_of_another_subscriber_and_one_that_outlives_its_message_are_not_recorded(
    publisher: Publisher, subscriber: Subscriber, context: GraphContext, registry: ProfileRegistry
) -> None:
    other = await context.subscriber("ELSEWHERE", profiles=registry)
    late = ez.profile("late")
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with other.profile("other"):
            pass
        late.__enter__()
    late.__exit__(None, None, None)
    assert spans(registry).keys() == {"publish T", "process T"}
