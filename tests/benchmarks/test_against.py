"""The control plane and runs are measured as users see them: every cell once, very short, without upstream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def started(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cells_of(name: str) -> list[str]:
    output, _ = started(name, "--list").communicate(timeout=120)
    return output.split()


def measured(files: list[Path]) -> list[dict[str, Any]]:
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


@pytest.mark.parametrize("name", ["control.py", "run.py"])
def test_every_cell_can_be_measured(tmp_path: Path, name: str) -> None:
    cells = cells_of(name)
    # Two at a time: speed does not matter here, and most of it is waiting for processes to start.
    halves = [cells[::2], cells[1::2]]
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    programs = [
        started(
            name, "--smoke", "--no-peer", "--json", str(file), *(word for cell in half for word in ("--only", cell))
        )
        for half, file in zip(halves, files, strict=True)
    ]
    for program in programs:
        _, errors = program.communicate(timeout=120)
        assert program.returncode == 0, errors
    rows = measured(files)
    assert {row["cell"] for row in rows} == set(cells)
    assert all(row["values"]["ours"]["median"] > 0 for row in rows)


def test_an_unknown_cell_is_refused() -> None:
    program = started("control.py", "--only", "nothing-of-this-name")
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 2
    assert "no such cell" in errors
