"""The demo as a newcomer runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.otlp_receiver import HttpReceiver

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.ecg", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_it_shows_every_edge_one_trace_the_beats_and_what_arrived_over_otlp() -> None:
    output, errors = demo("--seconds", "5").communicate(timeout=50)
    assert errors == ""
    for text in (
        "SOURCE → FILTER",
        "FILTER → DETECTOR",
        "DETECTOR → DISPLAY",
        "publish SOURCE/OUTPUT",
        "process DETECTOR/OUTPUT",
        "found 8, reference 8 (matched 8, missed 0, extra 0): agrees",
        "each once: yes",
        "ezmsg.message.age",
    ):
        assert text in output


def test_telemetry_goes_where_the_standard_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        output, errors = demo("--seconds", "2").communicate(timeout=50)
        assert errors == ""
        assert receiver.endpoint in output
        names = {span.span.name for span in receiver.store.spans}
        assert {"publish SOURCE/OUTPUT", "process DETECTOR/OUTPUT"} <= names
        assert "ezmsg.message.age" in receiver.store.metric_names()


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_the_first_line_ends_it_cleanly(interrupt: signal.Signals) -> None:
    process = demo("--seconds", "60")
    assert process.stdout is not None
    assert process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, interrupt)
    # Two seconds are promised; the rest is for a busy machine.
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    # What serves the others, like the tracker of resources, ends when it sees that they have.
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.parametrize("seconds", ["0", "301", "soon"])
def test_a_length_that_cannot_be_played_is_refused(seconds: str) -> None:
    output, errors = demo("--seconds", seconds).communicate(timeout=20)
    assert "--seconds" in errors
    assert output == ""
