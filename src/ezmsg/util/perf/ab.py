"""`ezmsg perf ab`: the hot path of two versions of the code, run in turn, and the ratio within each pair of runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ezmsg.core.errors import ConfigError, MeasurementFailed
from ezmsg.util.perf.envinfo import environment
from ezmsg.util.perf.util import table

CURRENT = "CURRENT"
TIMEOUT_S = 600.0
"""Of one run."""


@dataclass
class Side:
    """One version of the code.

    Attributes:
        name: For the table.
        directory: Where it is.
        python: What runs it.
        variables: Environment it runs in.
    """

    name: str
    directory: Path
    python: str
    variables: dict[str, str]


def run(args: argparse.Namespace) -> int:
    """Compare, and print the ratios."""
    with _sides(args) as sides:
        for side in sides:
            for _ in range(args.prewarm):
                _measure(side, args)
        pairs: list[dict[str, dict[str, float]]] = []
        shuffled = random.Random(args.seed)
        for number in range(args.rounds):
            pair = {side.name: _measure(side, args) for side in shuffled.sample(sides, 2)}
            pairs.append(pair)
            print(f"{number + 1}/{args.rounds}", file=sys.stderr, flush=True)
    print(_report(pairs))
    if args.json_out is not None:
        facts = {side.name: str(side.directory) for side in sides}
        document = {"environment": environment(), "sides": facts, "pairs": pairs}
        args.json_out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _report(pairs: list[dict[str, dict[str, float]]]) -> str:
    rows: list[list[str]] = []
    for case in pairs[0]["A"]:
        ratios = [pair["B"][case] / pair["A"][case] for pair in pairs]
        rows.append(
            [
                case,
                *(f"{statistics.median(pair[side][case] for pair in pairs):.2f}" for side in ("A", "B")),
                f"{statistics.median(ratios):.3f}",
                f"{min(ratios):.3f}",
                f"{max(ratios):.3f}",
            ]
        )
    return table(["case", "A µs", "B µs", "B/A", "lowest", "highest"], rows)


def _measure(side: Side, args: argparse.Namespace) -> dict[str, float]:
    """Median times of all cases in µs, by name."""
    with tempfile.TemporaryDirectory(prefix="ezmsg-perf-") as scratch:
        output = Path(scratch, "hotpath.json")
        command = [side.python, "-c", "import sys; from ezmsg.util.perf.ab import child; sys.exit(child(sys.argv[1:]))"]
        command += ["--samples", "1", "--json-out", str(output), "--count", str(args.count)]
        command += ["--warmup", str(args.warmup), "--num-buffers", str(args.num_buffers), "--seed", str(args.seed)]
        for option in ("transports", "apis", "payload_sizes"):
            command += [f"--{option.replace('_', '-')}", *map(str, getattr(args, option))]
        command += ["--quiet"] * args.quiet
        run = subprocess.run(
            command, cwd=scratch, env=side.variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if run.returncode:
            raise MeasurementFailed(f"side {side.name}", _last_line(run.stderr) or f"exit code {run.returncode}")
        results: list[dict[str, Any]] = json.loads(output.read_text())["results"]
    return {f"{it['api']} {it['transport']} {it['payload_size']} B": it["median_us"] for it in results}


def child(arguments: list[str]) -> int:
    """What each side runs: `ezmsg perf hotpath` without the rest of the command line."""
    from ezmsg.util.perf.command import setup_perf_cmdline

    parser = argparse.ArgumentParser()
    setup_perf_cmdline(parser.add_subparsers())
    args = parser.parse_args(["perf", "hotpath", *arguments])
    return args._handler(args)


# -- the two sides ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _sides(args: argparse.Namespace) -> Generator[list[Side]]:
    with contextlib.ExitStack() as stack:
        sides: list[Side] = []
        for letter in ("a", "b"):
            directory: Path | None = getattr(args, f"dir_{letter}")
            if directory is None:
                ref: str = getattr(args, f"ref_{letter}")
                keeps = args.keep_worktrees
                directory = Path.cwd() if ref == CURRENT else stack.enter_context(_worktree(ref, keeps=keeps))
            sides.append(_side(letter, directory.resolve(), args))
        _check_shared(sides, args)
        yield sides


def _side(letter: str, directory: Path, args: argparse.Namespace) -> Side:
    source = directory / "src"
    if not (source / "ezmsg").is_dir():
        raise ConfigError(f"--dir-{letter}", str(directory), "a directory with src/ezmsg in it")
    python: str = getattr(args, f"python_{letter}") or sys.executable
    if args.env_mode == "existing" and not getattr(args, f"python_{letter}"):
        python = str(directory / ".venv" / "bin" / "python")
        if not Path(python).exists():
            raise ConfigError("--env-mode", "existing", f"{python}, which is not there, or --python-{letter}")
    variables = dict(os.environ) | {"PYTHONPATH": str(source)}
    for setting in (*args.env, *getattr(args, f"env_{letter}")):
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ConfigError("--env", setting, "NAME=VALUE")
        variables[name] = value
    return Side(letter.upper(), directory, python, variables)


def _check_shared(sides: list[Side], args: argparse.Namespace) -> None:
    """One interpreter for both sides is fair only if they ask for the same packages."""
    if args.env_mode != "shared" or args.force_shared_env:
        return
    asked = [path.read_bytes() if (path := side.directory / "pyproject.toml").exists() else b"" for side in sides]
    if asked[0] != asked[1]:
        raise ConfigError(
            "--env-mode", "shared", "the same pyproject.toml on both sides, or --force-shared-env, or existing"
        )


@contextlib.contextmanager
def _worktree(ref: str, *, keeps: bool) -> Generator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="ezmsg-perf-"))
    directory = parent / "worktree"
    try:
        _git("worktree", "add", "--detach", "--quiet", str(directory), ref)
        try:
            yield directory
        finally:
            if not keeps:
                _git("worktree", "remove", "--force", str(directory))
    finally:
        if keeps:
            print(f"{ref} is left in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(parent, ignore_errors=True)


def _git(*arguments: str) -> None:
    run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise MeasurementFailed(f"git {' '.join(arguments)}", _last_line(run.stderr))


def _last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])
