"""What telemetry adds to a hop and takes of a rate, and whether that is as wanted. Pure: no clock, no process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

Rounds = Mapping[int, float]
"""What was measured in each round that did not fail."""

NS_PER_S = 1e9
FEWER = 10
"""By hand, so many times as much must be added to a hop as by ours."""
LATER = 1.1
"""The p99 of the loop may become so many times as late."""


class Spread(NamedTuple):
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of nothing there is none."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


class Cost(NamedTuple):
    """Of one way at one transport; what is compared is None for the base itself."""

    transport: str
    way: str
    rate: Spread | None
    hop_ns: Spread | None
    added_ns: Spread | None
    lost: Spread | None
    cpu_ns: Spread | None
    """CPU time of the receiving process, with all its threads; over `local` that is all there is."""
    added_cpu_ns: Spread | None


def costs(
    transport: str, rates: Mapping[str, Rounds], cpu_ns: Mapping[str, Rounds], bases: Mapping[str, str]
) -> list[Cost]:
    """What each way adds to a hop and takes of the rate of its base, within the rounds.

    Args:
        transport: Where it was measured.
        rates: Messages per second, by way.
        cpu_ns: CPU time a message, by way.
        bases: By way, the one without it.
    """
    found: list[Cost] = []
    for way, base in bases.items():
        own, of_base = rates.get(way, {}), rates.get(base, {})
        cpu, cpu_of_base = cpu_ns.get(way, {}), cpu_ns.get(base, {})
        both = [] if way == base else sorted(own.keys() & of_base.keys())
        found.append(
            Cost(
                transport,
                way,
                Spread.of(own.values()),
                Spread.of(NS_PER_S / rate for rate in own.values()),
                Spread.of(NS_PER_S / own[number] - NS_PER_S / of_base[number] for number in both),
                Spread.of(1 - own[number] / of_base[number] for number in both),
                Spread.of(cpu.values()),
                Spread.of(cpu[number] - cpu_of_base[number] for number in both),
            )
        )
    return found


def verdicts(found: Sequence[Cost], late: Mapping[str, Rounds]) -> list[str]:
    """What is wanted, and whether it is so.

    Args:
        found: Of all transports.
        late: The p99 of the loop, by way.
    """
    lines: list[str] = []
    by_name = {(cost.transport, cost.way): cost for cost in found}

    def judge(what: str, value: str, wanted: str, is_met: bool) -> None:
        lines.append(f"{what:<44} {value:>9}  {wanted:<22} {'met' if is_met else 'MISSED'}")

    for transport in dict.fromkeys(cost.transport for cost in found):
        ours, theirs, by_hand = (by_name.get((transport, way)) for way in ("trace-all", "upstream-trace", "by-hand"))
        if ours is None or ours.lost is None or ours.added_cpu_ns is None:
            continue
        lost, added_ns = ours.lost.median, ours.added_cpu_ns.median
        if theirs is not None and theirs.lost is not None and theirs.added_cpu_ns is not None:
            share, ns = theirs.lost.median, theirs.added_cpu_ns.median
            judge(f"{transport}: all traced, lost of the rate", f"{lost:.1%}", f"less than {share:.1%}", lost < share)
            judge(
                f"{transport}: all traced, added CPU", f"{added_ns:,.0f} ns", f"less than {ns:,.0f} ns", added_ns < ns
            )
        if by_hand is not None and by_hand.added_cpu_ns is not None:
            times = by_hand.added_cpu_ns.median / max(1.0, added_ns)
            judge(f"{transport}: added CPU by hand / by trace-all", f"{times:.1f}", f"at least {FEWER}", times >= FEWER)
    quiet, exporting = late.get("quiet", {}), late.get("agent", {})
    ratio = Spread.of(exporting[number] / quiet[number] for number in sorted(quiet.keys() & exporting.keys()))
    if ratio is not None:
        judge(
            "loop: p99 while an agent exports / quiet",
            f"{ratio.median:.2f}",
            f"less than {LATER}",
            ratio.median < LATER,
        )
    return lines
