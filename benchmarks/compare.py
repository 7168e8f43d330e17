"""Compare this package with upstream ezmsg, pyzmq and others: the same messages, in turn, on the same machine.

A figure of one moment says little; the ratio of two runs that follow each other says more. Every round measures each
cell with each implementation; reported are medians, lowest and highest of the rounds, and ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cells
import certificates
import environments
import machine
import summary
from cells import Cell
from summary import Run

WORKER = Path(__file__).with_name("worker.py")
VARIANTS = {
    "off": {"EZMSG_OTEL_LEVEL": "off"},
    "metrics": {"EZMSG_OTEL_LEVEL": "metrics"},
    "trace": {"EZMSG_OTEL_LEVEL": "trace"},
    "trace-all": {"EZMSG_OTEL_LEVEL": "trace", "EZMSG_TRACE_RATIO": "1"},
    "tls": {"EZMSG_OTEL_LEVEL": "metrics"},
}
"""How ours may be set up."""
# More than a worker allows itself.
WORKER_TIMEOUT_S = 240.0
GRACE_S = 1.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="counted time of one measurement")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it")
    parser.add_argument("--only", action="append", default=[], metavar="CELL", help="part of a name, or a pattern")
    parser.add_argument(
        "--group", action="append", default=[], choices=list(cells.GROUPS), help="its cells instead of the default ones"
    )
    parser.add_argument("--all", action="store_true", help="the cells of all groups")
    parser.add_argument("--smoke", action="store_true", help="one very short round of two cells")
    parser.add_argument("--list", action="store_true", help="print the names of the cells and leave")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    parser.add_argument(
        "--variants",
        "--profile-level",
        default="metrics",
        metavar="NAME,...",
        help=f"telemetry of ours, or TLS: {', '.join(VARIANTS)}; the first is `ours`, the others are compared with it",
    )
    for name in cells.IMPLEMENTATIONS:
        parser.add_argument(f"--no-{name}", action="store_true")
    parser.add_argument(
        "--with", action="append", default=[], choices=cells.RIVALS, dest="rivals", help="this one, too"
    )
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.seconds, options.warmup = 1, 0.1, 0.05
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    names = options.variants.split(",")
    if unknown := set(names) - VARIANTS.keys():
        parser.error(f"there is no variant {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    options.variants = variants(names)
    options.implementations = _implementations_of(options)
    if not options.implementations:
        parser.error("nothing is left to measure")
    chosen = cells.select(_cells_of(options), options.only)
    options.cells = tuple(cell for cell in chosen if any(map(cell.is_for, options.implementations)))
    if not options.cells:
        parser.error(f"no cell of these is for {' or '.join(options.implementations)}; --list prints their names")
    return options


def variants(names: list[str]) -> dict[str, dict[str, str]]:
    """Environment of each variant of ours, by the name of its column: the first one is what is compared with others."""
    chosen = {name: VARIANTS[name] | (certificates.variables() if name == "tls" else {}) for name in names}
    first, *others = chosen
    return {"ours": chosen[first]} | {f"ours:{name}": chosen[name] for name in others}


def _implementations_of(options: argparse.Namespace) -> list[str]:
    ours = [] if options.no_ours else list(options.variants)
    others = [name for name in cells.IMPLEMENTATIONS[1:] if not getattr(options, f"no_{name}")]
    return ours + others + list(dict.fromkeys(options.rivals))


def _cells_of(options: argparse.Namespace) -> tuple[Cell, ...]:
    if options.smoke:
        return cells.SMOKE
    if options.all:
        return cells.ALL
    groups = dict.fromkeys(options.group or ["default"])
    return tuple(cell for group in groups for cell in cells.GROUPS[group])


def environment(variant: dict[str, str]) -> dict[str, str]:
    """The variables of a worker: nothing of the caller's configuration."""
    foreign = ("EZMSG_", "OTEL_", "PYTHON", "ZENOH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "EZMSG_LOGLEVEL": "WARNING",
        "EZMSG_DISABLE_BACKPRESSURE_WARNING": "1",
        "EZMSG_AUTHKEY": secrets.token_hex(32),
        **variant,
    }


class Workers:
    """Starts one worker after the other and remembers what they ran with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._pythons = {
            name: environments.ensure(packages)
            for name, packages in environments.PACKAGES.items()
            if name in options.implementations
        }
        self.versions: dict[str, dict[str, str]] = {}

    def run(self, number: int, cell: Cell, implementation: str) -> Run:
        load = os.getloadavg()[0]
        # The same for all, but for variants of ours.
        variables = environment(self._options.variants.get(implementation, {}))
        command = [self._pythons.get(implementation, sys.executable), str(WORKER)]
        command += ["--implementation", implementation.partition(":")[0], "--cell", cell.name]
        command += ["--seconds", str(self._options.seconds), "--warmup", str(self._options.warmup)]
        limit = WORKER_TIMEOUT_S + self._options.seconds + self._options.warmup
        code, out, err = finish(command, variables, limit)
        error = "" if code == 0 else f"{summary.tail_of(err)}\n{code}".strip()
        metrics = None
        if not error:
            answer = json.loads(out.splitlines()[-1])
            metrics = answer["metrics"]
            error = self._check(implementation, answer["versions"])
        return Run(number, cell.name, implementation, None if error else metrics, error, load)

    def _check(self, implementation: str, versions: dict[str, str]) -> str:
        """Whether it was what it should be; comparing a package with itself would look very good."""
        self.versions[implementation] = versions
        if "ezmsg" in versions and (versions["ezmsg"] == environments.PEER_VERSION) != (implementation == "peer"):
            return f"{implementation} ran ezmsg {versions['ezmsg']}"
        return ""


def finish(command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int | str, str, str]:
    """Run a command to its end: exit code (or why there is none), standard output and standard error.

    When it takes too long, it and everything it has started are killed.
    """
    # A session of its own is a process group whose id is the worker's.
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        out, err = _kill(process)
        return f"killed after {timeout_s:g} s", out, err
    except BaseException:
        _kill(process)
        raise
    return process.returncode if process.returncode == 0 else f"exit code {process.returncode}", out, err


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.kill()
    time.sleep(GRACE_S)  # a second process and a keeper of shared memory see its death and tidy up
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def report(options: argparse.Namespace, runs: list[Run], workers: Workers, started: datetime) -> dict[str, Any]:
    """Everything, for a file."""
    rows = summary.summarise(runs, options.cells, options.implementations)
    return {
        "date": started.isoformat(timespec="seconds"),
        "revision": machine.revision(),
        "machine": machine.describe(),
        "versions": workers.versions,
        "load_average": os.getloadavg(),
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warmup_s": options.warmup,
            "num_buffers": cells.NUM_BUFFERS,
            "variants": options.variants,
        },
        "rows": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in runs],
    }


def progress(run: Run, done: int, total: int) -> None:
    if run.metrics is None:
        figures = "failed"
    else:
        metrics = cells.BY_NAME[run.cell].metrics
        figures = ", ".join(f"{summary.number(run.metrics[metric.name])} {metric.unit}" for metric in metrics)
        if run.metrics.get("lost"):
            figures += f", {run.metrics['lost']:,} lost"
    print(f"{done:>4}/{total}  {run.cell:<37} {run.implementation:<8} {figures}", file=sys.stderr, flush=True)


def compare(options: argparse.Namespace) -> int:
    """Run the rounds and print the table; the exit code."""
    started = datetime.now(UTC)
    try:
        workers = Workers(options)
    except environments.NotInstalled as error:
        print(f"{error}; leave out --with, or use --no-peer, to go without it", file=sys.stderr)
        return 1
    jobs = list(cells.schedule(options.cells, options.implementations, options.rounds))
    runs: list[Run] = []
    for job in jobs:
        runs.append(workers.run(*job))
        progress(runs[-1], len(runs), len(jobs))
    print(summary.table(summary.summarise(runs, options.cells, options.implementations)), end="")
    failures = [run for run in runs if run.metrics is None]
    for run in failures:
        print(f"\nfailed: {run.cell} {run.implementation}, round {run.round}\n{run.error}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps(report(options, runs, workers, started), indent=1) + "\n")
    return 1 if failures else 0


def main() -> int:
    options = parse()
    if options.list:
        print("\n".join(cell.name for cell in options.cells))
        return 0
    try:
        return compare(options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
