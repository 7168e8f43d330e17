"""The comparison with upstream can be made: a cell of each kind, very short, on this package alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.conftest import ROOT

WORKER = ROOT / "benchmarks" / "sigprocworker.py"


@pytest.mark.parametrize("cell", ["together-10", "apart-10"])
def test_a_cell_can_be_measured(cell: str, tmp_path: Path) -> None:
    command = [sys.executable, str(WORKER), "--cell", cell, "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, start_new_session=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["metrics"].keys() == {"cpu", "bare", "runtime", "median", "p99", "rate"}
    assert found["metrics"]["p99"] >= found["metrics"]["median"] > 0
