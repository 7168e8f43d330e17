"""The graphs that `ezmsg perf benchmark` runs.

fanout: one publisher, n subscribers. fanin: n publishers, one subscriber. relay: one publisher, n units that hand
messages on one after the other, one subscriber.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

import ezmsg.core as ez

OPTIONS: dict[str, dict[str, bool]] = {
    "local": {"allow_local": True, "force_tcp": False},
    "shm": {"allow_local": False, "force_tcp": False},
    "tcp": {"allow_local": False, "force_tcp": True},
}
"""How publishers take a transport; with `_spread` each client is in a process of its own."""


@dataclass(frozen=True)
class Scenario:
    """What to run.

    Attributes:
        config: fanin, fanout or relay.
        comms: A key of OPTIONS, perhaps with `_spread`.
        n_clients: Publishers, subscribers or relays.
        msg_size: Bytes of a message.
        num_msgs: Messages of each publisher.
        num_buffers: Of each publisher.
        max_duration_s: Publishers stop after this time.
    """

    config: str
    comms: str
    n_clients: int
    msg_size: int
    num_msgs: int
    num_buffers: int
    max_duration_s: float


@dataclass
class Load:
    """A message; the last one of a publisher has no data."""

    sent_ns: int
    data: Any


@dataclass
class Tally:
    """What one subscriber has seen.

    Attributes:
        received: Messages.
        seconds: From the first to the last.
        latency_s: Mean time from sending to receiving.
        latency_median_s: Its median.
    """

    received: int
    seconds: float
    latency_s: float
    latency_median_s: float


class EndpointSettings(ez.Settings):
    """Settings of all units."""

    scenario: Scenario
    ends: int = 1
    """Last messages that have to come."""


class _Publishing(ez.Unit):
    SETTINGS = EndpointSettings
    OUTPUT = ez.OutputStream(Load)

    async def initialize(self) -> None:
        """Take the transport and the buffers of the scenario."""
        scenario: Scenario = self.SETTINGS.scenario
        options = OPTIONS[scenario.comms.removesuffix("_spread")]
        self.OUTPUT.num_buffers = scenario.num_buffers
        self.OUTPUT.allow_local, self.OUTPUT.force_tcp = options["allow_local"], options["force_tcp"]


class Sender(_Publishing):
    """Publishes the messages of a scenario, and one that says that they were all."""

    @ez.publisher(_Publishing.OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        """Publish as fast as messages are taken."""
        scenario: Scenario = self.SETTINGS.scenario
        data = np.zeros(scenario.msg_size, np.uint8)
        until_ns = time.perf_counter_ns() + round(scenario.max_duration_s * 1e9)
        for _ in range(scenario.num_msgs):
            now_ns = time.perf_counter_ns()
            if now_ns > until_ns:
                break
            yield self.OUTPUT, Load(now_ns, data)
        yield self.OUTPUT, Load(0, None)


class Relay(_Publishing):
    """Publishes what it receives."""

    INPUT = ez.InputStream(Load)

    @ez.subscriber(INPUT)
    @ez.publisher(_Publishing.OUTPUT)
    async def relay(self, message: Load) -> AsyncIterator[Any]:
        """Hand a message on."""
        yield self.OUTPUT, message
        if message.data is None:
            raise ez.Complete


class ReceiverState(ez.State):
    """State of a Receiver."""

    latencies_ns: list[int] = field(default_factory=list[int])
    first_ns: int = 0
    last_ns: int = 0
    ends: int = 0


class Receiver(ez.Unit):
    """Receives messages until all publishers are done, and publishes what it has seen."""

    SETTINGS = EndpointSettings
    STATE = ReceiverState

    INPUT = ez.InputStream(Load)
    OUTPUT = ez.OutputStream(Tally)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def receive(self, message: Load) -> AsyncIterator[Any]:
        """Count a message, or publish the result."""
        state = self.STATE
        if message.data is not None:
            state.last_ns = time.perf_counter_ns()
            state.first_ns = state.first_ns or state.last_ns
            state.latencies_ns.append(state.last_ns - message.sent_ns)
            return
        state.ends += 1
        if state.ends < self.SETTINGS.ends:
            return
        latencies: list[int] = state.latencies_ns or [0]
        yield (
            self.OUTPUT,
            Tally(
                len(state.latencies_ns),
                (state.last_ns - state.first_ns) / 1e9,
                statistics.fmean(latencies) / 1e9,
                statistics.median(latencies) / 1e9,
            ),
        )
        raise ez.Complete


class Collector(ez.Unit):
    """Keeps what the receivers have seen."""

    SETTINGS = EndpointSettings
    INPUT = ez.InputStream(Tally)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tallies: list[Tally] = []

    @ez.subscriber(INPUT)
    async def collect(self, message: Tally) -> None:
        """Keep a result; with the last one the run ends."""
        self.tallies.append(message)
        if len(self.tallies) == self.SETTINGS.ends:
            raise ez.NormalTermination


def perform(scenario: Scenario) -> list[Tally]:
    """Run a scenario; what its subscribers have seen."""
    senders = [Sender(scenario) for _ in range(scenario.n_clients if scenario.config == "fanin" else 1)]
    relays = [Relay(scenario) for _ in range(scenario.n_clients if scenario.config == "relay" else 0)]
    receivers = [
        Receiver(scenario, len(senders)) for _ in range(scenario.n_clients if scenario.config == "fanout" else 1)
    ]
    collector = Collector(scenario, len(receivers))
    lanes: list[list[Any]] = [senders, *([relay] for relay in relays), receivers]
    connections = [
        (source.OUTPUT, target.INPUT)
        for sources, targets in pairwise(lanes)
        for source in sources
        for target in targets
    ]
    connections += [(receiver.OUTPUT, collector.INPUT) for receiver in receivers]
    units: list[ez.Unit] = [unit for lane in lanes for unit in lane]
    components = {f"{type(unit).__name__.upper()}_{number}": unit for number, unit in enumerate(units)}
    is_spread = scenario.comms.endswith("_spread")
    ez.run(
        components={**components, "COLLECTOR": collector},
        connections=connections,
        process_components=units if is_spread else None,
        force_single_process=not is_spread,
    )
    return collector.tallies
