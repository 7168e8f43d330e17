"""How late event loops are."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.telemetry.looplag import INTERVAL_S, LoopLag, _Meter

GRAPH = "127.0.0.1:25978"
PATIENCE_S = 40.0


@pytest.fixture
def measured(registry: ProfileRegistry) -> ProfileRegistry:
    registry.set_endpoint_hook(LoopLag(registry).endpoint_changed)
    return registry


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


def lags(registry: ProfileRegistry) -> dict[str, tuple[int, float]]:
    return {name: (lag.count, lag.max) for name, lag in registry.snapshot().process.loop_lag.items()}


def timers() -> list[Any]:
    """Those of meters that the running loop has."""
    scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [timer for timer in scheduled if isinstance(getattr(timer._callback, "__self__", None), _Meter)]


async def test_a_loop_that_is_held_up_is_as_late_as_that(measured: ProfileRegistry) -> None:
    measured.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
    await until(lambda: "main" in lags(measured))
    time.sleep(3 * INTERVAL_S)  # what a unit should not do
    await until(lambda: lags(measured)["main"][1] > INTERVAL_S)


async def test_a_loop_without_endpoints_is_not_measured(measured: ProfileRegistry) -> None:
    publisher, subscriber = uuid4(), uuid4()
    measured.register_publisher(publisher, "OUT", 8, graph_address=GRAPH)
    measured.register_subscriber(subscriber, "IN", graph_address=GRAPH)
    measured.unregister_publisher(publisher)
    assert len(timers()) == 1
    measured.unregister_subscriber(subscriber)
    await until(lambda: not timers())


async def test_an_endpoint_of_no_graph_is_not_measured(measured: ProfileRegistry) -> None:
    measured.register_publisher(uuid4(), "OUT", 8)
    assert not timers()


async def test_at_level_off_nothing_is_measured(measured: ProfileRegistry) -> None:
    measured.set_level("off")
    measured.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
    await asyncio.sleep(2 * INTERVAL_S)
    assert lags(measured) == {}


def test_loops_are_called_as_their_threads_and_not_kept_alive(measured: ProfileRegistry) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def measure() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        # Left open, as by a program that forgot it.
        measured.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
        await until(lambda: bool(lags(measured)))

    thread = threading.Thread(target=lambda: asyncio.run(measure()), name="worker-17")
    thread.start()
    thread.join()
    assert lags(measured).keys() == {"worker"}
    gc.collect()
    assert loops[0]() is None
