"""How long one publisher waited, for whom, and whose message was being handled meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ezmsg.core.recorder.past import OTHERS
from ezmsg.core.recorder.rows import clock

CHAIN_SEPARATOR: Final = "\0"
"""Between the two topics of a counter `chain_ns`: whose message was handled while waiting, and who made it wait."""

HOLDERS: Final = 100
"""Holders of slots, and chains, counted apart; further ones are counted as `OTHERS`: a link takes 256 counters."""

_NOT: Final = float("inf")


class Waits:
    """Counted where a wait ends, and, of one that is on, by whoever reads: what is behind of it.

    Attributes:
        holder: Tells, in any thread, the topic of the subscriber that holds a slot; set by the publisher.
    """

    __slots__ = ("_began_s", "_by_chain", "_by_holder", "_lock", "_slot", "_told_ns", "_total_ns", "_within", "holder")

    def __init__(self) -> None:
        """Nobody has waited."""
        self.holder: Callable[[int], str] = _nobody
        self._total_ns = 0
        self._by_holder: dict[str, int] = {}
        self._by_chain: dict[str, int] = {}
        # The wait that is on, and how much of it was counted.
        self._began_s, self._slot, self._within, self._told_ns = _NOT, 0, "", 0
        self._lock = threading.Lock()

    def began(self, began_s: float, slot: int, within: str) -> None:
        """A broadcast waits for a slot: one at a time.

        Args:
            began_s: Since when.
            slot: Which.
            within: The topic of the subscriber whose message is handled, and so holds up others, meanwhile.
        """
        self._slot, self._within, self._told_ns = slot, within, 0
        # Last: from here on, readers look at the others.
        self._began_s = began_s

    def ended(self, wait_ns: int, holder: str) -> None:
        """It took so long; `holder` is the topic of the subscriber that held the slot last."""
        with self._lock:
            self._began_s = _NOT
            self._count(wait_ns, holder)

    def add(self, wait_ns: int) -> None:
        """Count a wait of which nothing else is known."""
        with self._lock:
            self._total_ns += wait_ns

    def counters(self) -> dict[str, int]:
        """Totals up to now, by the names of the wire."""
        with self._lock:
            if (began_s := self._began_s) < _NOT:
                self._count(round((clock() - began_s) * 1e9), self.holder(self._slot))
            values = {"backpressure_ns": self._total_ns}
            for holder, wait_ns in self._by_holder.items():
                values[f"blame_ns:{holder}"] = wait_ns
            for chain, wait_ns in self._by_chain.items():
                values[f"chain_ns:{chain}"] = wait_ns
        return values

    def _count(self, wait_ns: int, holder: str) -> None:
        """Count the wait that is on up to now; what was told of it before stays with who held the slot then."""
        more_ns = max(0, wait_ns - self._told_ns)
        self._told_ns += more_ns
        self._total_ns += more_ns
        _add_bounded(self._by_holder, holder, more_ns)
        if self._within:
            _add_bounded(self._by_chain, f"{self._within}{CHAIN_SEPARATOR}{holder}", more_ns)


def _nobody(slot: int) -> str:
    return ""


def _add_bounded(counts: dict[str, int], name: str, wait_ns: int) -> None:
    if name not in counts and len(counts) >= HOLDERS:
        name = OTHERS
    counts[name] = counts.get(name, 0) + wait_ns
