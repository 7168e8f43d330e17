"""The control plane is measured as its users see it: every cell once, as short as possible, without upstream."""

import json
import subprocess
import sys
from pathlib import Path

CONTROL = Path(__file__).parents[2] / "benchmarks" / "control.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CONTROL), *arguments], capture_output=True, text=True, timeout=55)


def test_every_cell_of_the_control_plane_can_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    done = run("--smoke", "--no-peer", "--json", str(path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    assert [row["cell"] for row in rows] == run("--list").stdout.split()
    assert all(row["values"]["ours"]["median"] > 0 for row in rows)


def test_an_unknown_cell_is_refused() -> None:
    done = run("--only", "nothing-of-this-name")
    assert done.returncode == 2
    assert "no such cell" in done.stderr
