"""The control plane and runs are measured as users see them: every cell once, very short, without upstream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments], capture_output=True, text=True, timeout=55
    )


@pytest.mark.parametrize("name", ["control.py", "run.py"])
def test_every_cell_can_be_measured(tmp_path: Path, name: str) -> None:
    path = tmp_path / "found.json"
    done = run(name, "--smoke", "--no-peer", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    assert list(dict.fromkeys(row["cell"] for row in rows)) == run(name, "--list").stdout.split()
    assert all(row["values"]["ours"]["median"] > 0 for row in rows)


def test_an_unknown_cell_is_refused() -> None:
    done = run("control.py", "--only", "nothing-of-this-name")
    assert done.returncode == 2
    assert "no such cell" in done.stderr
