"""Who holds up a graph: from who waited for whom to who is to blame in the end. Pure.

A publisher that waits blames the subscriber that held its slot. That subscriber may itself have been waiting: its task
handled the message, published, and was held up by the next. So blame is passed on, in the proportion in which the time
that messages were held was spent waiting, until it arrives at those who spent it themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ezmsg.core.graphmeta import (
    BackpressureCulprit,
    BackpressureReport,
    BackpressureWait,
    ProcessProfilingSnapshot,
)
from ezmsg.core.recorder.waits import CHAIN_SEPARATOR

# Blame is passed on so many times; units may form a circle.
HOPS = 256
# Less than this share of all waiting is no longer passed on.
LEAST = 1e-6


@dataclass
class Waits:
    """Seconds, since the start or within a window.

    Attributes:
        blame: By publisher's topic and subscriber's topic.
        chains: By the topic of the subscriber that was handling a message, and that of who was waited for meanwhile.
        held: By subscriber's topic, how long it held messages.
    """

    blame: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict[tuple[str, str], float](float))
    chains: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict[tuple[str, str], float](float))
    held: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))

    @classmethod
    def of(cls, snapshots: Iterable[ProcessProfilingSnapshot]) -> Waits:
        """What these processes measured since the start."""
        self = cls()
        for snapshot in snapshots:
            for edge in snapshot.edges:
                self.count(edge.topic, edge.counters)
                if edge.subscription is None:
                    continue
                self.held[edge.subscription] += edge.counters.get("holding_ns", 0) / 1e9
                for name, histogram in edge.histograms.items():
                    if name.partition(":")[0] == "process":
                        self.held[edge.subscription] += histogram.sum
        return self

    def count(self, topic: str, counters: Mapping[str, int]) -> None:
        """Add what a publisher on a topic waited."""
        for name, value in counters.items():
            kind, _, topics = name.partition(":")
            if kind == "blame_ns":
                self.blame[topic, topics] += value / 1e9
            elif kind == "chain_ns":
                within, _, holder = topics.partition(CHAIN_SEPARATOR)
                self.chains[within, holder] += value / 1e9

    def add(self, more: Waits) -> None:
        """Add what others waited."""
        for edge, wait_s in more.blame.items():
            self.blame[edge] += wait_s
        for chain, wait_s in more.chains.items():
            self.chains[chain] += wait_s
        for topic, held_s in more.held.items():
            self.held[topic] += held_s

    def since(self, before: Waits) -> Waits:
        """What was added."""
        return Waits(
            {key: value - before.blame.get(key, 0.0) for key, value in self.blame.items()},
            {key: value - before.chains.get(key, 0.0) for key, value in self.chains.items()},
            {key: value - before.held.get(key, 0.0) for key, value in self.held.items()},
        )


def report(waits: Waits, window_s: float) -> BackpressureReport:
    """Who waited for whom, and who is to blame."""
    edges = [BackpressureWait(*edge, wait_s) for edge, wait_s in waits.blame.items() if wait_s > 0]
    edges.sort(key=lambda edge: -edge.wait_seconds)
    total_s = sum(edge.wait_seconds for edge in edges)
    culprits = [BackpressureCulprit(topic, own_s, own_s / total_s) for topic, own_s in _own(waits).items() if own_s > 0]
    culprits.sort(key=lambda culprit: -culprit.wait_seconds)
    return BackpressureReport(window_s, edges, culprits)


def _own(waits: Waits) -> dict[str, float]:
    """How much of all the waiting each subscriber has caused itself."""
    passed: dict[str, dict[str, float]] = defaultdict(dict)
    for (within, holder), wait_s in waits.chains.items():
        if wait_s > 0 and holder:
            passed[within][holder] = wait_s
    arriving: dict[str, float] = defaultdict(float)
    for (_, holder), wait_s in waits.blame.items():
        arriving[holder] += max(0.0, wait_s)
    least_s = LEAST * sum(arriving.values())
    own: dict[str, float] = defaultdict(float)
    for _ in range(HOPS):
        if not arriving:
            break
        following: dict[str, float] = defaultdict(float)
        for topic, blame_s in arriving.items():
            onward = passed.get(topic, {})
            # What is not measured is not more than what is: a message can be held by several tasks at once.
            held_s = max(waits.held.get(topic, 0.0), sum(onward.values()))
            own_s = blame_s
            for holder, wait_s in onward.items():
                # The quotient first: it is 1 at most, also of the smallest numbers there are.
                share_s = blame_s * (wait_s / held_s)
                if share_s > least_s:
                    following[holder] += share_s
                    own_s -= share_s
            own[topic] += own_s
        arriving = following
    for topic, left_s in arriving.items():
        own[topic] += left_s
    return own
