"""Compare the control plane with that of upstream ezmsg: requests, edges, snapshots, events and first messages.

As `compare.py` does it: every round measures each cell with each implementation, and ratios are those within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cells
import compare
import environments
import machine
import summary
from cells import Metric
from summary import Run

WORKER = Path(__file__).with_name("controlworker.py")
IMPLEMENTATIONS = ("ours", "peer")
WORKER_TIMEOUT_S = 120.0
SMOKE = {"seconds": 0.02, "scale": 0.02, "rounds": 1}


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    metric: Metric
    target: float
    """The ratio ours/peer that is wanted: at least this where more is better, at most this where less is."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric,)

    def is_for(self, implementation: str) -> bool:
        # The peer copies the graph for every edge: setting up takes it half a minute.
        return implementation == "ours" or self.name != "snapshot-10000-edges"

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.target if self.metric.higher_is_better else ratio <= self.target


def rate(unit: str) -> Metric:
    return Metric("rate", unit, higher_is_better=True)


TIME = Metric("time", "ms", higher_is_better=False)
CELLS = (
    Cell("ping-sequential", rate("requests/s"), 3.0),
    Cell("ping-32-in-flight", rate("requests/s"), 3.0),
    Cell("connect-500-pairs", TIME, 0.2),
    Cell("connect-500-chain", TIME, 0.2),
    Cell("snapshot-1000-edges", TIME, 1.0),
    Cell("snapshot-10000-edges", TIME, 1.0),
    Cell("fanout-50-live", rate("events/s"), 1.0),
    Cell("fanout-50-replay", rate("events/s"), 1.0),
    Cell("first-local", TIME, 1.0),
    Cell("first-new-subscriber", TIME, 1.0),
    Cell("first-new-publisher", TIME, 1.0),
)
BY_NAME = {cell.name: cell for cell in CELLS}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement that can be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="of edges, components and events")
    parser.add_argument("--only", action="append", default=[], metavar="CELL", help="part of a name, or a pattern")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="one very short round, all sizes small")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    parser.add_argument("--list", action="store_true", help="print the names of the cells and leave")
    options = parser.parse_args(arguments)
    if options.smoke:
        vars(options).update(SMOKE)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.implementations = IMPLEMENTATIONS[:1] if options.no_peer else IMPLEMENTATIONS
    options.cells = cells.select(CELLS, options.only)
    if not options.cells:
        parser.error("there is no such cell; --list prints their names")
    return options


def run(options: argparse.Namespace, pythons: dict[str, str], number: int, cell: Cell, implementation: str) -> Run:
    load = os.getloadavg()[0]
    command = [pythons[implementation], str(WORKER), "--cell", cell.name]
    command += ["--seconds", str(options.seconds), "--scale", str(options.scale)]
    limit_s = WORKER_TIMEOUT_S + options.seconds
    code, out, err = compare.finish(command, compare.environment({}), limit_s)
    if code != 0:
        return Run(number, cell.name, implementation, None, f"{summary.tail_of(err)}\n{code}".strip(), load)
    answer = json.loads(out.splitlines()[-1])
    # Comparing a package with itself would look very good.
    ezmsg = answer["versions"]["ezmsg"]
    if (ezmsg == environments.PEER_VERSION) != (implementation == "peer"):
        return Run(number, cell.name, implementation, None, f"{implementation} ran ezmsg {ezmsg}", load)
    return Run(number, cell.name, implementation, answer["metrics"], load=load)


def targets(rows: list[summary.Row]) -> str:
    """Which ratios are as wanted."""
    lines = []
    for row in rows:
        cell, ratio = BY_NAME[row.cell], row.ratios.get("ours/peer")
        if ratio is not None:
            wanted = f"{'at least' if row.higher_is_better else 'at most'} {cell.target:g}"
            verdict = "met" if cell.is_met_by(ratio.median) else "MISSED"
            lines.append(f"{row.cell:<22} {ratio.median:>6.2f}  {wanted:<14} {verdict}\n")
    return "".join(["\ntargets for ours/peer\n", *lines]) if lines else ""


def measure(options: argparse.Namespace) -> int:
    """Run the rounds and print the table; the exit code."""
    started = datetime.now(UTC)
    pythons = {"ours": sys.executable}
    if "peer" in options.implementations:
        try:
            pythons["peer"] = environments.ensure(environments.PACKAGES["peer"])
        except environments.NotInstalled as error:
            print(f"{error}; use --no-peer to go without it", file=sys.stderr)
            return 1
    jobs = list(cells.schedule(options.cells, list(options.implementations), options.rounds))
    runs: list[Run] = []
    for number, cell, implementation in jobs:
        runs.append(run(options, pythons, number, cell, implementation))
        metrics = runs[-1].metrics
        figure = "failed" if metrics is None else f"{summary.number(metrics[cell.metric.name])} {cell.metric.unit}"
        print(f"{len(runs):>4}/{len(jobs)}  {cell.name:<22} {implementation:<5} {figure}", file=sys.stderr, flush=True)
    rows = summary.summarise(runs, options.cells, options.implementations)
    print(summary.table(rows), end="")
    if not options.smoke:
        print(targets(rows), end="")
    failures = [run for run in runs if run.metrics is None]
    for failed in failures:
        print(f"\nfailed: {failed.cell} {failed.implementation}, round {failed.round}\n{failed.error}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps(report(options, rows, runs, started), indent=1) + "\n")
    return 1 if failures else 0


def report(options: argparse.Namespace, rows: list[summary.Row], runs: list[Run], started: datetime) -> dict[str, Any]:
    """Everything, for a file."""
    return {
        "date": started.isoformat(timespec="seconds"),
        "revision": machine.revision(),
        "machine": machine.describe(),
        "load_average": os.getloadavg(),
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "scale": options.scale},
        "rows": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in runs],
    }


def main() -> int:
    options = parse()
    if options.list:
        print("\n".join(cell.name for cell in options.cells))
        return 0
    try:
        return measure(options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
