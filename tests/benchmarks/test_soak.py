"""The soak runs, and sees what it is there to see."""

import argparse
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.soak import Soak, Watched, slope, verdict

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
GOOD = {"received": 5, "lost": 0, "repeated": 0, "sessions": 1, "failures": []}
READER = {"name": "reader", "read": 5, "missed": 3, "wrong": 0, "failures": []}


def soak_of(*results: dict, readers: list[dict] | None = None) -> Soak:
    soak = Soak(argparse.Namespace(seconds=300.0, stable=1, churning=1, topics=1))
    soak.results, soak.readers = list(results), [READER] if readers is None else readers
    return soak


def watched(rss_kib_per_s: float) -> Watched:
    one = Watched("server", psutil.Process())
    one.times_s = [float(second) for second in range(300)]
    one.rss_kib = [50_000 + rss_kib_per_s * second for second in range(300)]
    one.descriptors = [10.0] * 300
    one.threads = [3.0] * 300
    return one


def test_the_slope_is_that_of_the_line_that_fits_best() -> None:
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == 2.0
    assert slope([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0]) == 0.2
    assert slope([1.0], [5.0]) == slope([], []) == 0.0


def test_what_is_lost_repeated_or_untold_is_a_problem() -> None:
    assert verdict(soak_of(GOOD), 300) == []
    assert verdict(soak_of(GOOD, GOOD | {"lost": 2}), 300) == ["stable 1: 2 messages lost"]
    assert verdict(soak_of(GOOD | {"repeated": 1}), 300) == ["stable 0: 1 messages repeated"]
    assert "gaps" in verdict(soak_of(GOOD, readers=[READER | {"wrong": 1}]), 300)[0]


def test_growth_is_a_problem_where_the_time_was_long_enough() -> None:
    flat, growing = soak_of(GOOD), soak_of(GOOD)
    flat.watched, growing.watched = [watched(1.0)], [watched(50.0)]
    flat.kills = growing.kills = 100
    assert verdict(flat, 300) == []
    assert verdict(growing, 300) == ["server: resident memory grows by 10,500 KiB in 210 s"]
    growing.kills = 10
    assert verdict(growing, 300) == []


def test_what_is_more_at_rest_than_it_was_is_a_problem() -> None:
    soak = soak_of(GOOD)
    soak.rest_before = {"server": {"descriptors": 50, "threads": 3}, "reader": {"descriptors": 7, "threads": 2}}
    soak.rest_after = {"server": {"descriptors": 55, "threads": 3}, "reader": {"descriptors": 7, "threads": 2}}
    assert verdict(soak, 5) == ["server: 55 descriptors at rest, and 50 before anything came and went"]


@pytest.mark.timeout(600)
def test_a_short_soak_of_few_processes_passes() -> None:
    command = [sys.executable, str(SOAK), "--seconds", "2", "--stable", "2", "--churning", "1", "--topics", "4"]
    command += ["--age", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("passed\n")
    assert "too short to judge growth" in done.stdout
