"""The clocks that times are taken from: how they are read, and whether the server's agree with ours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.server import Server
from ezmsg.core.graphserver import GraphService

TOPIC = "clocks"
SOURCE_FILE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
# These are read by a system call or from a slow device: microseconds, for each of the four reads a message takes.
SLOW_SOURCES = frozenset({"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies", "xen"})
SLOW_READ_NS = 500
READS = 2000
PROBES = 5
WALL_TOLERANCE_S = 0.01


class Offset(NamedTuple):
    """How far the server's clocks are ahead of ours, in s, give or take `uncertainty_s`."""

    wall_s: float
    monotonic_s: float
    uncertainty_s: float


async def look_at_clocks(server: Server | None) -> list[Finding]:
    """The clock here, and that of the server beside it."""
    findings = [_source()]
    if server is not None:
        findings.append(_offset(server, await _measured(server)))
    return findings


def _source() -> Finding:
    try:
        source = SOURCE_FILE.read_text().strip()
    except OSError:
        source = "unknown"
    read_ns = _cost_ns()
    facts = {"source": source, "read_ns": read_ns, "resolution_s": time.get_clock_info("monotonic").resolution}
    text = f"{source}, {read_ns} ns to read"
    if source not in SLOW_SOURCES and read_ns < SLOW_READ_NS:
        return Finding(TOPIC, "source", "ok", text, facts=facts)
    return Finding(
        TOPIC, "source", "warning", f"{text}: recording takes four reads a message",
        "see /sys/devices/system/clocksource for a faster one, or set EZMSG_OTEL_LEVEL=off", facts,
    )  # fmt: skip


def _cost_ns() -> int:
    """The cheapest of a few rounds: what it takes when nothing interrupts."""
    rounds: list[int] = []
    for _ in range(5):
        began_ns = time.perf_counter_ns()
        for _ in range(READS // 5):
            time.perf_counter()
        rounds.append((time.perf_counter_ns() - began_ns) // (READS // 5))
    return min(rounds)


async def _measured(server: Server) -> Offset:
    """The offset seen by the quickest of a few questions."""
    service = GraphService(server.address)
    seen: list[Offset] = []
    for _ in range(PROBES):
        wall_ns, before_ns = time.time_ns(), time.monotonic_ns()
        status = await service.status()
        took_ns = time.monotonic_ns() - before_ns
        seen.append(
            Offset(
                (status.unix_ns - wall_ns - took_ns / 2) / 1e9,
                (status.mono_ns - before_ns - took_ns / 2) / 1e9,
                took_ns / 2e9,
            )
        )
    return min(seen, key=lambda offset: offset.uncertainty_s)


def _offset(server: Server, offset: Offset) -> Finding:
    facts = {"same_host": server.is_here, **{name: round(value, 6) for name, value in offset._asdict().items()}}
    if server.is_here:
        if abs(offset.monotonic_s) <= offset.uncertainty_s:
            return Finding(TOPIC, "server", "ok", "on this host, with the same clocks", facts=facts)
        text = f"on this host, but its CLOCK_MONOTONIC is {offset.monotonic_s:+.3f} s ahead: ages of messages are wrong"
        return Finding(TOPIC, "server", "warning", text, "run both in one time namespace", facts)
    wall_ms, uncertainty_ms = offset.wall_s * 1e3, offset.uncertainty_s * 1e3
    text = f"on another host, its wall clock {wall_ms:+.1f} ms ahead (± {uncertainty_ms:.1f} ms)"
    if abs(offset.wall_s) - offset.uncertainty_s <= WALL_TOLERANCE_S:
        return Finding(TOPIC, "server", "ok", text, facts=facts)
    remedy = "let NTP or PTP set both clocks: times between the two hosts are off by this much"
    return Finding(TOPIC, "server", "warning", text, remedy, facts)
