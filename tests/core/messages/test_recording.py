"""What is recorded of messages that are handed over directly: by whoever lets go of them."""

from __future__ import annotations

import numpy as np
import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceControl
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    """A recorder for the test alone, without head sampling."""
    monkeypatch.setenv("EZMSG_TRACE_RATE", "0")
    return ProfileRegistry()


async def pair(context: GraphContext, registry: ProfileRegistry) -> tuple[Publisher, Subscriber]:
    """A publisher and its only subscriber, of one loop."""
    publisher = await context.publisher("A", profiles=registry)
    return publisher, await context.subscriber("A", profiles=registry)


async def test_a_trace_selects_no_message_that_was_published_before_it_and_received_after(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    for number in range(5):
        await publisher.broadcast(number)
    registry.set_trace_control(ProfilingTraceControl(enabled=True))
    await subscriber.recv()
    await publisher.broadcast(5)
    for _ in range(5):
        await subscriber.recv()
    (sample,) = (sample for sample in registry.trace_batch().samples if sample.metric == "publish_delta_ns")
    assert sample.sample_seq == 5
    assert sample.value >= 0
    (of_publisher, _) = registry.snapshot().edges
    assert of_publisher.histograms["publish"].count == 6


@pytest.mark.parametrize(("kind", "how"), [("SHM", {"allow_local": False}), ("TCP", {"force_tcp": True})])
async def test_bytes_that_lie_in_shared_memory_are_received_as_those_of_a_socket_are(
    context: GraphContext, registry: ProfileRegistry, kind: str, how: dict[str, bool]
) -> None:
    publisher = await context.publisher("A", profiles=registry, **how)
    subscriber = await context.subscriber("A", profiles=registry)
    await publisher.broadcast(np.zeros(1_000_000, np.uint8))
    await subscriber.recv()
    (of_publisher, of_edge) = registry.snapshot().edges
    assert of_edge.channel_kind is ProfileChannelType[kind]
    assert of_edge.counters["bytes"] == pytest.approx(of_publisher.counters["bytes"], rel=0.001)
    assert of_publisher.counters[f"bytes_by:{kind.lower()}"] == of_publisher.counters["bytes"]
