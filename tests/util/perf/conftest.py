"""The command line of `ezmsg perf`, as it stands in `ezmsg`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from ezmsg.util.perf import setup_perf_cmdline

Perf = Callable[..., int]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ezmsg")
    setup_perf_cmdline(parser.add_subparsers(dest="command", required=True))
    return parser


@pytest.fixture
def perf(parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perf:
    """Runs `ezmsg perf …` in a directory of its own; the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, *more: object) -> int:
        args = parser.parse_args(["perf", *line.split(), *map(str, more)])
        return args._handler(args)

    return run
