"""The loops that are timed, the same for every implementation.

`send` is a coroutine function of one message; `receive()` is an asynchronous context manager around one message,
which is released at its end. `None` is the last message of a flow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns, process_time_ns
from typing import Any

import payloads

Send = Callable[[Any], Awaitable[Any]]
Receive = Callable[[], AbstractAsyncContextManager[Any]]
Probe = Callable[[Any], Any]

NS_PER_S = 1_000_000_000


class MeasurementError(Exception):
    """A measurement that must not be believed."""


async def pump(send: Send, message: Any, stop: threading.Event) -> int:
    """Send until told to stop, then the end mark; the number of messages sent.

    `stop` is a flag of threads: a sender that never has to wait never lets its loop run anything else.
    """
    sent = 0
    while not stop.is_set():
        await send(message)
        sent += 1
    await send(None)
    return sent


async def relay(receive: Receive, send: Send) -> int:
    """Send each message on while it is held, as a unit does, and the end mark; the number of messages before it."""
    count = 0
    while True:
        async with receive() as message:
            await send(message)
            if message is None:
                return count
        count += 1


async def drain(receive: Receive, flows: int = 1) -> int:
    """Receive up to the end marks of all flows; the number of messages before them."""
    count = 0
    while True:
        async with receive() as message:
            if message is None:
                flows -= 1
                if not flows:
                    return count
                continue
        count += 1


async def _take_for(receive: Receive, probe: Probe, duration_ns: int) -> tuple[int, int]:
    """Messages received in about `duration_ns` from now, and the time it really took."""
    count = 0
    start = now = perf_counter_ns()
    end = start + duration_ns
    while now < end:
        async with receive() as message:
            probe(message)
        count += 1
        now = perf_counter_ns()
    return count, now - start


async def _take_first(receive: Receive, expected: Any) -> None:
    async with receive() as message:
        if not payloads.is_intact(message, expected):
            raise MeasurementError(f"the first message arrived as {message!r}")


async def throughput(
    receivers: list[Receive],
    stop: Callable[[], Awaitable[tuple[int, list[int]]]],
    payload: str,
    *,
    flows: int,
    warmup_s: float,
    seconds: float,
    warmup_messages: int,
    may_lose: bool = False,
) -> dict[str, float]:
    """Messages per second at the first receiver, in steady state, and ns of CPU time of its process for each.

    Args:
        receivers: Every one gets every message.
        stop: Stops the senders; how many messages they have sent, and how many passed whoever else there is.
        payload: Name of the message.
        flows: Senders, each with an end mark of its own.
        warmup_s: Time before counting starts.
        seconds: Time of counting.
        warmup_messages: Messages that pass at least before counting starts.
        may_lose: Tell how many messages were lost, instead of refusing to measure.
    """
    first, *others = receivers
    draining = [asyncio.create_task(drain(receive, flows)) for receive in others]
    probe = payloads.probe(payload)
    await _take_first(first, payloads.make(payload))
    warm, _ = await _take_for(first, probe, int(warmup_s * NS_PER_S))
    while warm < warmup_messages:
        async with first() as message:
            probe(message)
        warm += 1
    cpu_ns = process_time_ns()
    count, duration_ns = await _take_for(first, probe, int(seconds * NS_PER_S))
    cpu_ns = process_time_ns() - cpu_ns

    # The senders may wait for a slot: receive on until their end marks.
    rest = asyncio.create_task(drain(first, flows))
    sent, passed = await stop()
    received = [1 + warm + count + await rest, *[await task for task in draining], *passed]
    lost = sum(abs(sent - number) for number in received)
    if lost and not may_lose:
        raise MeasurementError(f"{sent} messages were sent, {received} received")
    return {
        "rate": count * NS_PER_S / duration_ns,
        "messages": count,
        "seconds": duration_ns / NS_PER_S,
        "cpu": cpu_ns / count,
        "lost": lost,
    }


async def roundtrip(send: Send, receive: Receive, payload: str, *, warmup_s: float, seconds: float) -> dict[str, float]:
    """Time from sending a message to receiving it from the last hop, one at a time."""
    ball = payloads.make(payload)
    await send(ball)
    await _take_first(receive, ball)

    async def play(duration_ns: int) -> list[int]:
        times = []
        end = perf_counter_ns() + duration_ns
        while True:
            start = perf_counter_ns()
            if start >= end and times:
                return times
            await send(ball)
            async with receive():
                times.append(perf_counter_ns() - start)

    await play(int(warmup_s * NS_PER_S))
    times = await play(int(seconds * NS_PER_S))
    await send(None)
    if more := await drain(receive):
        raise MeasurementError(f"{more} messages arrived that nobody waited for")
    return _durations(times)


async def handoff(send: Send, receive: Receive, payload: str, *, warmup_s: float, seconds: float) -> dict[str, float]:
    """Time from sending a message to another task of the loop having it, at one message per turn of the loop."""
    ball = payloads.make(payload)
    entered: deque[int] = deque()
    times: list[int] = []

    async def take() -> None:
        while True:
            async with receive() as message:
                if message is None:
                    return
                times.append(perf_counter_ns() - entered.popleft())

    async def hand(duration_ns: int) -> None:
        start = perf_counter_ns()
        end = start + duration_ns
        while start < end:
            entered.append(start)
            await send(ball)
            await asyncio.sleep(0)
            start = perf_counter_ns()

    await send(ball)
    await _take_first(receive, ball)
    taking = asyncio.create_task(take())
    await hand(int(warmup_s * NS_PER_S))
    warm = len(times)
    await hand(int(seconds * NS_PER_S))
    await send(None)
    await taking
    if entered:
        raise MeasurementError(f"{len(entered)} messages never arrived")
    return _durations(times[warm:])


def _durations(times_ns: list[int]) -> dict[str, float]:
    times = sorted(times_ns)
    return {
        "median": times[len(times) // 2] / 1e3,
        "p99": times[min(len(times) - 1, len(times) * 99 // 100)] / 1e3,
        "messages": len(times),
        "seconds": sum(times) / NS_PER_S,
    }
