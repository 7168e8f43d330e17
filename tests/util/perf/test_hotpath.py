"""`ezmsg perf hotpath`, for a very short time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.util.perf.conftest import Perf


def test_all_transports_are_measured(perf: Perf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = "hotpath --count 5 --warmup 1 --samples 2 --payload-sizes 64 10000 --quiet"
    assert perf(short, "--json-out", tmp_path / "out.json") == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["environment"]["ezmsg"]
    assert document["settings"]["count"] == 5
    cases = {(it["api"], it["transport"], it["payload_size"]) for it in document["results"]}
    assert cases == {("async", transport, size) for transport in ("local", "shm", "tcp") for size in (64, 10000)}
    assert all(len(it["samples_us"]) == 2 and it["median_us"] > 0 for it in document["results"])
    assert "async shm 10000 B" in capsys.readouterr().out


def test_the_synchronous_api_is_measured(perf: Perf, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ezmsg.core.sync")
    line = "hotpath --count 5 --warmup 1 --samples 1 --payload-sizes 64 --apis sync --transports local shm --quiet"
    assert perf(line) == 0
    assert "sync local 64 B" in capsys.readouterr().out
