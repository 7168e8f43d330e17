"""What telemetry costs a graph: by level and transport, beside upstream's and OpenTelemetry by hand, and a 1 kHz loop.

    python benchmarks/overhead.py [--rounds 5] [--only local] [--no-peer] [--smoke]

Every round measures a graph of one hop in each way, one after the other, and then the loop; what is added and lost is
compared within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cells
import compare
import environments
import machine
import summary
from cells import Cell, Metric
from costs import Cost, Spread, costs, verdicts
from summary import Run

HERE = Path(__file__).parent
WORKER_TIMEOUT_S = 240.0
SPANS_PER_S = 5000

LATENESS = (
    Metric("p99", "µs", higher_is_better=False),
    Metric("p50", "µs", higher_is_better=False),
    Metric("spans", "spans", higher_is_better=True),
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to measure a hop, and the one without that it is compared with."""

    name: str
    about: str
    base: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def implementation(self) -> str:
        return "peer" if self.base == "upstream" else "ours"


OFF = {"EZMSG_OTEL_LEVEL": "off"}
WAYS = (
    Way("off", "totals only", "off", OFF),
    Way("metrics", "a row at each end of every message, no traces", "off", {"EZMSG_TRACE_RATE": "0"}),
    Way("trace", "and one trace a second", "off", {"EZMSG_TRACE_RATE": "1"}),
    Way("trace-all", "and a trace for every message", "off", {"EZMSG_TRACE_RATIO": "1"}),
    Way("native", "the native trace of every message", "off", OFF | {"BENCH_INSTRUMENT": "native-trace"}),
    Way("by-hand", "off, with spans, counters, histograms of the SDK", "off", OFF | {"BENCH_INSTRUMENT": "by-hand"}),
    Way("upstream", "upstream, with what it measures always", "upstream"),
    Way("upstream-trace", "its trace of every message", "upstream", {"BENCH_INSTRUMENT": "native-trace"}),
)
BY_NAME = {way.name: way for way in WAYS}
LOOP_WAYS = ("quiet", "agent", "thread")
HOPS = tuple(Cell("throughput", transport, "ndarray-64B") for transport in cells.TRANSPORTS)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that wakes every millisecond."""

    name: str = f"loop-1kHz-{SPANS_PER_S}-spans"
    metrics: tuple[Metric, ...] = LATENESS

    def is_for(self, way: str) -> bool:
        return way in LOOP_WAYS


LOOP = Loop()


# -- what was found ---------------------------------------------------------------------------------------------------


def hop_costs(runs: Sequence[Run], hops: Sequence[Cell], ways: Sequence[Way]) -> list[Cost]:
    """What each way costs at each transport."""
    bases = {way.name: way.base for way in ways}
    found: list[Cost] = []
    for cell in hops:
        rates, cpu_ns = (
            {way: summary.by_round(runs, cell.name, way, name) for way in bases} for name in ("rate", "cpu")
        )
        found += costs(cell.transport, rates, cpu_ns, bases)
    return found


def table(found: Sequence[Cost]) -> list[str]:
    """Text for people."""
    lines = [
        ["transport", "telemetry", "msgs/s", "ns a hop", "added", "lost of the rate", "CPU ns at the receiver", "added"]
    ]
    lines += [
        [
            cost.transport,
            cost.way,
            _spread(cost.rate, "{:,.0f}"),
            _spread(cost.hop_ns, "{:,.0f}"),
            _spread(cost.added_ns, "{:,.0f}"),
            _spread(cost.lost, "{:.1%}"),
            _spread(cost.cpu_ns, "{:,.0f}"),
            _spread(cost.added_cpu_ns, "{:,.0f}"),
        ]
        for cost in found
    ]
    return summary.aligned(lines)


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "-"
    middle, low, high = (form.format(value) for value in (spread.median, spread.low, spread.high))
    return middle if low == high else f"{middle} ({low}..{high})"


def loop_rows(runs: Sequence[Run]) -> list[summary.Row]:
    """Lateness by way, and each way divided by the quiet one."""
    rows = summary.summarise(runs, [LOOP], LOOP_WAYS)
    compared: list[summary.Row] = []
    for row in rows:
        measured = {way: summary.by_round(runs, LOOP.name, way, row.metric) for way in LOOP_WAYS}
        is_time = row.unit == "µs"
        ratios = {
            f"{way}/quiet": summary.Spread.of(summary.ratios(measured[way], measured["quiet"]) if is_time else ())
            for way in LOOP_WAYS[1:]
        }
        compared.append(summary.Row(row.cell, row.metric, row.unit, row.higher_is_better, row.values, ratios))
    return compared


# -- measuring --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, Any]]:
    """An OTLP receiver in a process of its own: where it is, and how many spans came so far."""
    command = [sys.executable, "-m", "benchmarks.agent", "--receive", "--protocol", "http/protobuf"]
    with subprocess.Popen(
        command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def count() -> int:
            stdin.write("\n")
            stdin.flush()
            return int(stdout.readline())

        try:
            yield stdout.readline().strip(), count
        finally:
            stdin.close()


def run_worker(command: list[str], variables: dict[str, str], number: int, cell: str, way: str, limit_s: float) -> Run:
    load = os.getloadavg()[0]
    code, out, err = compare.finish(command, compare.environment(variables), limit_s)
    if code != 0:
        return Run(number, cell, way, None, f"{summary.tail_of(err)}\n{code}".strip(), load)
    answer = json.loads(out.splitlines()[-1])
    ezmsg = answer["versions"]["ezmsg"]
    # Comparing a package with itself would look very good.
    is_peer = way in BY_NAME and BY_NAME[way].implementation == "peer"
    if (ezmsg == environments.PEER_VERSION) != is_peer:
        return Run(number, cell, way, None, f"{way} ran ezmsg {ezmsg}", load)
    return Run(number, cell, way, answer["metrics"], load=load)


def measure_hops(options: argparse.Namespace, pythons: dict[str, str]) -> Iterator[Run]:
    for number, cell, name in cells.schedule(options.hops, [way.name for way in options.ways], options.rounds):
        way = BY_NAME[name]
        command = [pythons[way.implementation], str(HERE / "worker.py"), "--implementation", way.implementation]
        command += ["--cell", cell.name, "--seconds", str(options.seconds), "--warmup", str(options.warmup)]
        yield run_worker(command, way.variables, number, cell.name, name, WORKER_TIMEOUT_S + options.seconds)


def measure_loop(options: argparse.Namespace) -> Iterator[Run]:
    with receiver() as (endpoint, count):
        for number, _, way in cells.schedule((LOOP,), list(LOOP_WAYS), options.rounds):
            already = count()
            command = [sys.executable, str(HERE / "wakeworker.py"), "--way", way, "--endpoint", endpoint]
            command += ["--seconds", str(options.loop_seconds), "--rate", str(SPANS_PER_S)]
            variables = {"EZMSG_TRACE_RATIO": "1"} if way == "agent" else OFF
            run = run_worker(command, variables, number, LOOP.name, way, WORKER_TIMEOUT_S + options.loop_seconds)
            yield replace(run, metrics=run.metrics and {**run.metrics, "spans": count() - already})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="counted time of one measurement of a hop")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it")
    parser.add_argument("--loop-seconds", type=float, default=5.0, help="of one measurement of the loop")
    parser.add_argument("--only", action="append", default=[], choices=[*cells.TRANSPORTS, "loop"])
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="one very short round, shared memory and the loop")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.seconds, options.warmup, options.loop_seconds = 1, 0.1, 0.05, 0.2
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    wanted = options.only or (["shm", "loop"] if options.smoke else [*cells.TRANSPORTS, "loop"])
    options.hops = tuple(cell for cell in HOPS if cell.transport in wanted)
    options.ways = tuple(way for way in WAYS if way.implementation == "ours" or not options.no_peer)
    options.has_loop = "loop" in wanted
    return options


def main() -> int:
    options = parse()
    started = datetime.now(UTC)
    pythons = {"ours": sys.executable}
    if not options.no_peer:
        try:
            pythons["peer"] = environments.ensure(environments.PACKAGES["peer"])
        except environments.NotInstalled as error:
            print(f"{error}; use --no-peer to go without it", file=sys.stderr)
            return 1
    runs: list[Run] = []
    try:
        for measured in (measure_hops(options, pythons), *([measure_loop(options)] if options.has_loop else [])):
            for run in measured:
                runs.append(run)
                print(_line(run), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return 130
    found = hop_costs(runs, options.hops, options.ways)
    loop = loop_rows(runs) if options.has_loop else []
    if found:
        print(*table(found), sep="\n")
        print("\nadded and lost against `off`, or `upstream` for its trace; median (lowest..highest) of the rounds\n")
    if loop:
        print(summary.table(loop))
    if not options.smoke:
        late = {way: summary.by_round(runs, LOOP.name, way, "p99") for way in LOOP_WAYS}
        print(*verdicts(found, late), sep="\n")
    failures = [run for run in runs if run.metrics is None]
    for run in failures:
        print(f"\nfailed: {run.cell} {run.implementation}, round {run.round}\n{run.error}", file=sys.stderr)
    if options.json is not None:
        report = {
            "date": started.isoformat(timespec="seconds"),
            "revision": machine.revision(),
            "machine": machine.describe(),
            "ways": {way.name: asdict(way) for way in options.ways},
            "costs": [cost._asdict() for cost in found],
            "loop": [asdict(row) for row in loop],
            "runs": [asdict(run) for run in runs],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failures else 0


def _line(run: Run) -> str:
    if run.metrics is None:
        return f"{run.cell:<28} {run.implementation:<15} failed"
    figures = ", ".join(
        f"{summary.number(run.metrics[name])} {name}" for name in ("rate", "p99", "spans") if name in run.metrics
    )
    return f"{run.cell:<28} {run.implementation:<15} {figures}"


if __name__ == "__main__":
    sys.exit(main())
