"""Compare one part of the runtime with that of upstream ezmsg: cells with targets, measured by a worker each time.

As `compare.py` does it: every round measures each cell with each implementation, and ratios are those within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
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

IMPLEMENTATIONS = ("ours", "peer")
WORKER_TIMEOUT_S = 240.0
PYTHONS: Mapping[str, Callable[[], str]] = {
    "ours": lambda: sys.executable,
    "peer": lambda: environments.ensure(environments.PACKAGES["peer"]),
}


@dataclass(frozen=True, slots=True)
class Target:
    metric: Metric
    wanted: float
    """The ratio ours/peer that is wanted: at least this where more is better, at most this where less is."""

    def __str__(self) -> str:
        return f"{'at least' if self.metric.higher_is_better else 'at most'} {self.wanted:g}"

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.wanted if self.metric.higher_is_better else ratio <= self.wanted


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    targets: tuple[Target, ...]
    is_only_ours: bool = False
    """The peer would take too long for it."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(target.metric for target in self.targets)

    def is_for(self, implementation: str) -> bool:
        return implementation == "ours" or not self.is_only_ours


def rate(unit: str, wanted: float) -> tuple[Target, ...]:
    """A cell that measures how many a second."""
    return (Target(Metric("rate", unit, higher_is_better=True), wanted),)


def time(wanted: float, *names: str) -> tuple[Target, ...]:
    """A cell that measures how long things take."""
    return tuple(Target(Metric(name, "ms", higher_is_better=False), wanted) for name in names or ("time",))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared.

    Args:
        about: One line for the help.
        worker: The script that measures one cell.
        cells: The cells.
        smoke: Options of a very short run.
        scales: Whether the sizes of its cells can be scaled.
        pythons: What gives the interpreter of each implementation.
        seconds: Of one measurement, if nothing else is asked for.
    """

    about: str
    worker: Path
    cells: tuple[Cell, ...]
    smoke: dict[str, float]
    scales: bool = False
    pythons: Mapping[str, Callable[[], str]] = field(default_factory=lambda: PYTHONS)
    seconds: float = 1.0

    def main(self, arguments: list[str] | None = None) -> int:
        """The exit code."""
        options = self.parse(arguments)
        if options.list:
            print("\n".join(cell.name for cell in options.cells))
            return 0
        try:
            return self.measure(options)
        except KeyboardInterrupt:
            return 130

    def parse(self, arguments: list[str] | None = None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.about)
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--seconds", type=float, default=self.seconds, help="of one measurement")
        if self.scales:
            parser.add_argument("--scale", type=float, default=1.0, help="of edges, components and events")
        parser.add_argument("--only", action="append", default=[], metavar="CELL", help="part of a name, or a pattern")
        parser.add_argument("--no-peer", action="store_true")
        parser.add_argument("--smoke", action="store_true", help="one very short round, all sizes small")
        parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
        parser.add_argument("--list", action="store_true", help="print the names of the cells and leave")
        options = parser.parse_args(arguments)
        if options.smoke:
            vars(options).update(self.smoke, rounds=1)
        if options.rounds < 1:
            parser.error("--rounds must be at least 1")
        options.implementations = IMPLEMENTATIONS[:1] if options.no_peer else IMPLEMENTATIONS
        options.cells = cells.select(self.cells, options.only)
        if not options.cells:
            parser.error("there is no such cell; --list prints their names")
        return options

    def measure(self, options: argparse.Namespace) -> int:
        """Run the rounds and print the table; the exit code."""
        started = datetime.now(UTC)
        try:
            pythons = {name: self.pythons[name]() for name in options.implementations}
        except environments.NotInstalled as error:
            print(f"{error}; use --no-peer to go without it", file=sys.stderr)
            return 1
        except subprocess.SubprocessError as error:
            print(f"the environment cannot be made: {error}", file=sys.stderr)
            return 1
        jobs = list(cells.schedule(options.cells, list(options.implementations), options.rounds))
        runs: list[Run] = []
        for number, cell, implementation in jobs:
            run = self.run(options, pythons, number, cell, implementation)
            runs.append(run)
            print(f"{len(runs):>4}/{len(jobs)}  {_line(cell, run)}", file=sys.stderr, flush=True)
        rows = summary.summarise(runs, options.cells, options.implementations)
        print(summary.table(rows), end="")
        if not options.smoke:
            print(self.verdicts(rows), end="")
        failures = [run for run in runs if run.metrics is None]
        for failed in failures:
            where = f"{failed.cell} {failed.implementation}, round {failed.round}"
            print(f"\nfailed: {where}\n{failed.error}", file=sys.stderr)
        if options.json is not None:
            options.json.write_text(json.dumps(self.report(options, rows, runs, started), indent=1) + "\n")
        return 1 if failures else 0

    def run(
        self, options: argparse.Namespace, pythons: dict[str, str], number: int, cell: Cell, implementation: str
    ) -> Run:
        load = os.getloadavg()[0]
        command = [pythons[implementation], str(self.worker), "--cell", cell.name, "--seconds", str(options.seconds)]
        if self.scales:
            command += ["--scale", str(options.scale)]
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

    def verdicts(self, rows: list[summary.Row]) -> str:
        """Which ratios are as wanted."""
        targets = {(cell.name, target.metric.name): target for cell in self.cells for target in cell.targets}
        lines: list[str] = []
        for row in rows:
            target, ratio = targets[row.cell, row.metric], row.ratios.get("ours/peer")
            if ratio is not None:
                verdict = "met" if target.is_met_by(ratio.median) else "MISSED"
                lines.append(f"{row.cell:<24} {row.metric:<9} {ratio.median:>6.2f}  {target!s:<14} {verdict}\n")
        return "".join(["\ntargets for ours/peer\n", *lines]) if lines else ""

    def report(
        self, options: argparse.Namespace, rows: list[summary.Row], runs: list[Run], started: datetime
    ) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "date": started.isoformat(timespec="seconds"),
            "revision": machine.revision(),
            "machine": machine.describe(),
            "load_average": os.getloadavg(),
            "settings": {name: vars(options).get(name) for name in ("rounds", "seconds", "scale")},
            "rows": [asdict(row) for row in rows],
            "runs": [asdict(run) for run in runs],
        }


def _line(cell: Cell, run: Run) -> str:
    found = run.metrics
    figures = ["failed"] if found is None else [f"{summary.number(found[m.name])} {m.unit}" for m in cell.metrics]
    return f"{cell.name:<24} {run.implementation:<5} {', '.join(figures)}"
