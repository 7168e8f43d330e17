"""Each graph of units runs to its end, as its first lines say."""

from __future__ import annotations

import importlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ezmsg.core.graphserver import GraphServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ("counting", "generators", "relays", "leaky", "metronome", "attach")
WITHIN_S = 60


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("EZMSG_LOGLEVEL", "WARNING")
    programs: list[subprocess.Popen[str]] = []

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", f"examples.{name}"]
        program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def output_of(program: subprocess.Popen[str]) -> list[str]:
    output, errors = program.communicate(timeout=WITHIN_S)
    assert (errors, program.returncode) == ("", 0)
    return output.splitlines()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GraphServer]:
    server = GraphServer()
    server.start("127.0.0.1:0")
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", str(server.address))
    yield server
    server.stop()


def test_the_graphs_run_to_their_ends(started: Start) -> None:
    # At the same time: most of what they take is waiting for interpreters to start.
    counting, generators, relays, leaky = map(started, EXAMPLES[:4])
    assert output_of(counting)[-1] == "10 received, together 55"
    assert output_of(generators) == ["250 samples, mean 0.100"] * 4
    assert output_of(relays) == ["a", "gRAPH", "oF", "uNITS"]
    every, newest = sorted(output_of(leaky))
    assert every == "every: received 30 of 30"
    found = re.fullmatch(r"newest: received (\d+) of 30, the last of them too", newest)
    assert found is not None
    assert int(found[1]) < 30


@pytest.mark.usefixtures("server")
def test_attaching_changes_the_tempo_of_a_graph_which_goes_on_afterwards(started: Start) -> None:
    metronome = started("metronome")
    assert metronome.stdout is not None
    assert metronome.stdout.readline() == "beating\n"
    for before, after in ((240, 480), (480, 960)):
        process, beats = output_of(started("attach"))
        assert process == f"process {metronome.pid} runs METRONOME"
        assert re.fullmatch(rf"\d+ beats heard, then {after} per minute instead of {before}", beats)
    metronome.send_signal(signal.SIGINT)
    assert output_of(metronome) == [f"now {tempo} beats per minute" for tempo in (480, 960)]


@pytest.mark.usefixtures("server")
def test_attach_says_in_one_line_that_there_is_nothing_to_attach_to(started: Start) -> None:
    attach = started("attach")
    assert attach.communicate(timeout=WITHIN_S) == ("", "there is no metronome: python -m examples.metronome\n")
    assert attach.returncode == 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_is_short_and_says_how_to_run_it(name: str) -> None:
    module = importlib.import_module(f"examples.{name}")
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) < 120
    assert "python -m examples." in (module.__doc__ or "")
