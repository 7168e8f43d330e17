"""`ezmsg perf ab`, with one version of the code on both sides, for a very short time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ezmsg.core.errors import ConfigError, MeasurementFailed
from tests.util.perf.conftest import Perf

ROOT = Path(__file__).parents[3]
SHORT = "ab --rounds 1 --prewarm 0 --count 5 --warmup 0 --payload-sizes 64 --transports local --quiet"


def test_two_directories_are_compared(perf: Perf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.json"
    assert perf(SHORT, "--dir-a", ROOT, "--dir-b", ROOT, "--env-a", "EZMSG_OTEL_LEVEL=off", "--json-out", output) == 0
    (pair,) = json.loads(output.read_text())["pairs"]
    assert pair.keys() == {"A", "B"}
    assert pair["A"]["async local 64 B"] > 0
    assert "async local 64 B" in capsys.readouterr().out


def test_a_revision_is_checked_out_and_removed(perf: Perf, tmp_path: Path) -> None:
    """It is a repository without our code: what fails is what comes after."""
    for command in ("init -q", "-c user.name=T -c user.email=t@t commit -q --allow-empty -m empty"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    with pytest.raises(ConfigError, match="src/ezmsg"):
        perf(SHORT, "--ref-a", "HEAD")
    run = subprocess.run(["git", "worktree", "list"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert len(run.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--dir-a", "/"], "src/ezmsg"),
        (["--dir-a", ROOT, "--env", "NAME"], "NAME=VALUE"),
        (["--dir-a", ROOT, "--env-mode", "existing", "--dir-b", "/"], "src/ezmsg"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(perf: Perf, arguments: list[object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        perf(SHORT, *arguments)


def test_a_side_that_fails_says_why(perf: Perf, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho no such module >&2\nexit 3\n")
    python.chmod(0o700)
    with pytest.raises(MeasurementFailed, match=r"side [AB] failed: no such module"):
        perf(SHORT, "--dir-a", ROOT, "--dir-b", ROOT, "--python-a", python, "--python-b", python)
