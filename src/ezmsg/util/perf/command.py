"""The options of `ezmsg perf`. What runs the commands is imported only then."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

TRANSPORTS = ("local", "shm", "tcp")
APIS = ("async", "sync")
COMMS = ("local", "shm", "tcp", "shm_spread", "tcp_spread")
CONFIGS = ("fanin", "fanout", "relay")


def setup_perf_cmdline(subparsers: Any) -> None:
    """Add `perf` and its commands to the parser of `ezmsg`; which one goes to `perf_command`."""
    perf = subparsers.add_parser("perf", help="measure how fast messages are", allow_abbrev=False)
    commands = perf.add_subparsers(dest="perf_command", required=True)
    _benchmark(commands)
    _report(commands)
    _compare(commands)
    _hotpath(commands)
    _ab(commands)


def _benchmark(commands: Any) -> None:
    parser = commands.add_parser("benchmark", help="run a matrix of graphs and write what they did to a file")
    add = parser.add_argument
    add("--max-duration", type=_positive_float, default=5.0, help="seconds of one test at most (default: 5)")
    add("--num-msgs", type=_positive, default=1000, help="messages of each publisher (default: 1000)")
    add("--num-buffers", type=_positive, default=1, help="messages of a publisher on their way (default: 1)")
    add("-i", "--iters", type=_positive, default=5, help="runs of each test, one after the other (default: 5)")
    add("-r", "--repeats", type=_positive, default=10, help="runs of the whole matrix (default: 10)")
    add("--msg-sizes", type=_positive, nargs="*", default=[16, 1 << 20], help="bytes of a message")
    add("--n-clients", type=_positive, nargs="*", default=[1, 16], help="publishers, relays or subscribers")
    add("--comms", nargs="*", default=list(COMMS), choices=COMMS, metavar="COMM", help=f"of {', '.join(COMMS)}")
    add(
        "--configs",
        nargs="*",
        default=list(CONFIGS),
        choices=CONFIGS,
        metavar="CONFIG",
        help=f"of {', '.join(CONFIGS)}",
    )
    add("--warmup", type=_float, default=60.0, help="seconds to keep the processor busy before (default: 60)")
    add("--name", help="of perf_NAME.txt and report_NAME.html, which are written here; default: the time")
    add("--no-browser", action="store_true", help="do not open the report")
    parser.set_defaults(_handler=_run_benchmark)


def _report(commands: Any) -> None:
    parser = commands.add_parser("report", help="make a report of a file that benchmark has written")
    parser.add_argument("perf", type=Path, help="the file")
    _add_output(parser)
    parser.set_defaults(_handler=_run_report)


def _compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="compare two files that benchmark has written")
    parser.add_argument("perf", type=Path, help="the file of the newer one")
    parser.add_argument("-b", "--baseline", type=Path, required=True, help="the file of the older one")
    _add_output(parser)
    parser.set_defaults(_handler=_run_report)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="the report (default: report_… beside the file)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the report")


def _hotpath(commands: Any) -> None:
    parser = commands.add_parser("hotpath", help="time a broadcast and its reception in one process")
    _add_hotpath(parser, count=5000, warmup=500)
    parser.add_argument("--samples", type=_positive, default=5, help="timed rounds of each case (default: 5)")
    parser.set_defaults(_handler=_run_hotpath)


def _add_hotpath(parser: argparse.ArgumentParser, count: int, warmup: int) -> None:
    add = parser.add_argument
    add("--count", type=_positive, default=count, help=f"messages of a round (default: {count})")
    add("--warmup", type=_count, default=warmup, help=f"messages before it (default: {warmup})")
    add(
        "--apis",
        nargs="*",
        default=["async"],
        choices=APIS,
        metavar="API",
        help=f"of {', '.join(APIS)} (default: async)",
    )
    add("--transports", nargs="*", default=list(TRANSPORTS), choices=TRANSPORTS, metavar="TRANSPORT",
        help=f"of {', '.join(TRANSPORTS)} (default: all)")  # fmt: skip
    add("--payload-sizes", type=_positive, nargs="*", default=[64, 4096], help="bytes of a message (default: 64 4096)")
    add("--num-buffers", type=_positive, default=1, help="messages on their way (default: 1)")
    add("--seed", type=int, default=0, help="of the order of the cases (default: 0)")
    add("--json-out", type=Path, help="write the results there, too")
    add("--quiet", action="store_true", help="log errors only")


def _ab(commands: Any) -> None:
    parser = commands.add_parser("ab", help="compare the hot path of two versions of the code, in turn")
    _add_hotpath(parser, count=2000, warmup=200)
    add = parser.add_argument
    for side, default in (("a", "dev"), ("b", "CURRENT")):
        add(f"--ref-{side}", default=default, help=f"a revision of git, or CURRENT for this directory ({default})")
        add(f"--dir-{side}", type=Path, help="a directory with the code, in place of a revision")
        add(f"--python-{side}", help="the interpreter")
        add(f"--env-{side}", action="append", default=[], metavar="NAME=VALUE", help="a variable of this side")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of both sides")
    add("--env-mode", choices=("shared", "existing"), default="shared",
        help="this interpreter for both sides, or the .venv of each (default: shared)")  # fmt: skip
    add("--force-shared-env", action="store_true", help="although the sides ask for different packages")
    add("--rounds", type=_positive, default=6, help="pairs of runs (default: 6)")
    add("--prewarm", type=_count, default=1, help="runs of each side before that (default: 1)")
    add("--keep-worktrees", action="store_true", help="leave the directories of the revisions")
    parser.set_defaults(_handler=_run_ab)


# -- numbers ------------------------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _float(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{number:g} is no number of seconds")
    return number


def _positive_float(text: str) -> float:
    if not (number := _float(text)):
        raise argparse.ArgumentTypeError("it must be above 0")
    return number


# -- what runs them -----------------------------------------------------------------------------------------------


def _run_benchmark(args: argparse.Namespace) -> int:
    from ezmsg.util.perf import run

    return run.benchmark(args)


def _run_report(args: argparse.Namespace) -> int:
    from ezmsg.util.perf import analysis

    return analysis.report(args)


def _run_hotpath(args: argparse.Namespace) -> int:
    from ezmsg.util.perf import hotpath

    return hotpath.run(args)


def _run_ab(args: argparse.Namespace) -> int:
    from ezmsg.util.perf import ab

    return ab.run(args)
