"""The programs of the how-to record, replay, and compare."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

HOWTO = Path(__file__).parents[2] / "docs/howto/record-and-replay.md"


def test_a_run_is_recorded_replayed_and_compared_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    programs = re.findall(r"<!-- executed by .*?-->\n```python\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        names: dict[str, Any] = {"__name__": "program"}
        exec(compile(program, HOWTO, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("median age, ms: ") for line in printed) == 1
    assert len(printed) == 10 + 1 + 10
