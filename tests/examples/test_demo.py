"""The demo as a newcomer runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from examples.ecg.demo import parse_arguments
from examples.otlp_receiver import HttpReceiver

ROOT = Path(__file__).parents[2]
# A busy machine may take long, but they end.
PATIENTLY = {"EZMSG_STRICT_SHUTDOWN": "1"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def demo(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.ecg", *arguments],
        cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


class Played(NamedTuple):
    """What demos printed, by themselves and with a receiver that was there, and that receiver."""

    alone: str
    with_receiver: str
    receiver: HttpReceiver


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    """Both at the same time: most of it is waiting for the music to end."""
    with HttpReceiver() as receiver:
        demos = demo("--seconds", "3"), demo("--seconds", "2", **{ENDPOINT: receiver.endpoint})
        outputs: list[str] = []
        for process in demos:
            output, errors = process.communicate(timeout=120)
            assert errors == ""
            outputs.append(output)
        yield Played(*outputs, receiver)


def test_it_shows_every_edge_one_trace_the_beats_and_what_arrived_over_otlp(played: Played) -> None:
    for text in (
        "SOURCE → FILTER",
        "FILTER → DETECTOR",
        "DETECTOR → DISPLAY",
        "publish SOURCE/OUTPUT",
        "process DETECTOR/OUTPUT",
        "found 4, reference 4 (matched 4, missed 0, extra 0): agrees",
        "each once: yes",
        "ezmsg.message.age",
    ):
        assert text in played.alone


def test_telemetry_goes_where_the_standard_variable_says(played: Played) -> None:
    store = played.receiver.store
    assert played.receiver.endpoint in played.with_receiver
    assert {"publish SOURCE/OUTPUT", "process DETECTOR/OUTPUT"} <= {span.span.name for span in store.spans}
    assert "ezmsg.message.age" in store.metric_names()


def test_ctrl_c_after_the_first_line_ends_it_cleanly() -> None:
    processes = {interrupt: demo("--seconds", "60", **PATIENTLY) for interrupt in (signal.SIGINT, signal.SIGTERM)}
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline()
    children: list[psutil.Process] = []
    for interrupt, process in processes.items():
        children += psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, interrupt)
    for process in processes.values():
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in output + errors
    # What serves the others, like the tracker of resources, ends when it sees that they have.
    assert not psutil.wait_procs(children, timeout=40)[1]


@pytest.mark.parametrize("seconds", ["0", "301", "soon"])
def test_a_length_that_cannot_be_played_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ecg", "--seconds", seconds])
    with pytest.raises(SystemExit):
        parse_arguments()
    assert "--seconds" in capsys.readouterr().err
