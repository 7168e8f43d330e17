"""One measurement of each shape that the smoke of `make bench` leaves out, as short as possible."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env=os.environ | {"EZMSG_AUTHKEY": "0" * 64},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("cell", "metric"),
    [
        ("handoff-local-ndarray-64B", "median"),
        ("relaytime5-local-ndarray-64B", "p99"),
        ("fanin4-local-ndarray-64B", "rate"),
        ("fanout4in4-shm-ndarray-64B", "rate"),
    ],
)
def test_a_worker_measures_a_cell(cell: str, metric: str) -> None:
    done = run("worker.py", "--implementation", "ours", "--cell", cell, "--seconds", "0.02", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"][metric] > 0


def test_groups_replace_the_default_cells() -> None:
    done = run("compare.py", "--list", "--group", "handoff", "--group", "fanin")
    assert done.stdout.split() == [
        "handoff-local-ndarray-64B",
        "fanin4-local-ndarray-64B",
        "fanin4-shm-ndarray-64B",
    ]


def test_an_unknown_variant_is_refused() -> None:
    done = run("compare.py", "--list", "--variants", "metrics,everything")
    assert done.returncode == 2
    assert "no variant everything" in done.stderr
