"""What GraphServers know: one, as an agent hears it, or all that run or ran in a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable
from typing import Final

from ezmsg.core.recorder.merging import Histogram
from ezmsg.core.recorder.rows import SEPARATOR
from ezmsg.core.wire.records import GraphState, ServerTelemetry

LABELS: Final = 4000
"""Values kept apart of servers that ended; more than have series of their own."""


class Graphs:
    """The last word of each server, and the sums of those that ended: what was counted once may never fall."""

    def __init__(self) -> None:
        self._states: dict[Hashable, GraphState] = {}
        self._servers: dict[Hashable, ServerTelemetry] = {}
        self._ended = ServerTelemetry()
        self._is_known = False

    def set_state(self, server: Hashable, state: GraphState) -> None:
        """A server told of its nodes, edges and processes."""
        self._states[server] = state
        self._is_known = True

    def set_server(self, server: Hashable, telemetry: ServerTelemetry) -> None:
        """A server told what it measured of its own work."""
        self._servers[server] = telemetry

    def end(self, server: Hashable) -> None:
        """A server ended: its graph is no more, what it counted stays."""
        self._states.pop(server, None)
        self.begin_anew(server)

    def begin_anew(self, server: Hashable) -> None:
        """Another server took the place of one, and counts from 0: it goes on from what that one counted."""
        if (telemetry := self._servers.pop(server, None)) is not None:
            self._ended = _sum(self._ended, telemetry)

    @property
    def state(self) -> GraphState | None:
        """All graphs together; None before anything was told of one."""
        if not self._is_known:
            return None
        states = self._states.values()
        nodes = dict.fromkeys(node for state in states for node in state.nodes)
        edges = dict.fromkeys(edge for state in states for edge in state.edges)
        processes = dict.fromkeys(process for state in states for process in state.processes)
        return GraphState(list(nodes), list(edges), list(processes))

    @property
    def servers(self) -> list[ServerTelemetry]:
        """What servers measured; together it is what was measured ever."""
        return [self._ended, *self._servers.values()]


def _sum(one: ServerTelemetry, other: ServerTelemetry) -> ServerTelemetry:
    merged: dict[tuple[str, str], Histogram] = {}
    for state in (*one.histograms, *other.histograms):
        merged.setdefault(_place(merged, state.name, state.label), Histogram()).merge(state)
    histograms = [of.state(0, name, label) for (name, label), of in merged.items()]
    counts: Counter[tuple[str, str]] = Counter()
    for full_name, count in (*one.counters.items(), *other.counters.items()):
        name, _, label = full_name.partition(":")
        counts[_place(counts, name, label)] += count
    return ServerTelemetry(histograms, {f"{name}:{label}": count for (name, label), count in counts.items()})


def _place(known: Collection[tuple[str, str]], name: str, label: str) -> tuple[str, str]:
    """Where a value is kept: what is one too many is kept with others."""
    if (name, label) in known or len(known) < LABELS:
        return name, label
    return name, SEPARATOR.join("other" if part else "" for part in label.split(SEPARATOR))
