"""How a program ends that runs a graph: by itself, by signals, and when it or one of its processes is killed.

See `tests/shutdown_runner.py` for the scenarios.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

RUNNER = Path(__file__).parents[2] / "shutdown_runner.py"
DEADLINE_S = 40
METHODS = ("single", "fork", "spawn")
SOURCE, SINK = "SYSTEM/SOURCE", "SYSTEM/SINK"

# Scenarios that a program gives up.
ENDLESS = ("works", "ignores", "blocks", "starts")

# What a shell or a supervisor sees of a process that died of SIGINT.
OF_SIGINT = (-signal.SIGINT, 130)


class Program:
    """A program in a process group of its own, as if started from a terminal."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(RUNNER), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | ({} if arguments[0] in ENDLESS else {"PATIENT": "1"}) | (env or {}),
        )  # fmt: skip
        self.lines: list[str] = []
        self.errors = ""

    def wait_for(self, line: str) -> str:
        """The next line that ends so."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            self.lines.append(said.strip())
            if said.strip().endswith(line):
                return said.strip()
        raise AssertionError(f"it ended without saying {line!r}: {self.lines}\n{self.process.communicate()[1]}")

    def pid_of(self, unit: str) -> int:
        return int(self.wait_for(unit).split()[0])

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Its exit code; nothing of its process group may be left."""
        out, self.errors = self.process.communicate(timeout=DEADLINE_S)
        self.lines += out.splitlines()
        assert not (left := self.survivors()), f"{left} are left\n{self.errors}"
        return self.process.returncode

    def survivors(self) -> list[str]:
        deadline_s = time.monotonic() + DEADLINE_S
        while (left := list(self._group())) and time.monotonic() < deadline_s:
            threading.Event().wait(0.02)
        return left

    def _group(self) -> Iterator[str]:
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    yield repr(process)
            except (psutil.Error, ProcessLookupError):
                continue

    def said_goodbye(self) -> set[str]:
        return {line.removeprefix("bye ") for line in self.lines if line.startswith("bye ")}


@pytest.fixture
def start() -> Iterator[type[Program]]:
    """Starts programs, and kills what is left of them."""
    programs: list[Program] = []

    def begin(*arguments: str, env: dict[str, str] | None = None) -> Program:
        programs.append(Program(*arguments, env=env))
        return programs[-1]

    yield begin  # pyright: ignore[reportReturnType]
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            program.signal_group(signal.SIGKILL)
        program.process.communicate()


# -- by itself --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("scenario", ["completes", "terminates", "thread"])
def test_a_program_ends_when_its_units_do(start: type[Program], scenario: str, method: str) -> None:
    program = start(scenario, method)

    assert program.end() == 0, program.errors
    assert "returned MainThread" in program.lines
    assert program.said_goodbye() == {SOURCE, SINK}
    if scenario == "completes":
        assert "received 100" in program.lines


def test_processes_of_a_fork_server_end_as_others_do(start: type[Program]) -> None:
    program = start("completes", "forkserver")

    assert program.end() == 0, program.errors
    assert "received 100" in program.lines


@pytest.mark.parametrize("method", ["single", "spawn"])
def test_an_exception_in_setup_is_the_end_of_the_program(start: type[Program], method: str) -> None:
    program = start("fails-in-setup", method)

    assert program.end() == 1
    assert "ValueError: no such device" in program.errors
    assert "returned" not in " ".join(program.lines)


def test_an_exception_in_shutdown_is_logged_and_others_shut_down(start: type[Program]) -> None:
    program = start("terminates-and-fails", "fork")

    assert program.end() == 0
    assert f"Exception in shutdown of {SOURCE}" in program.errors
    assert program.said_goodbye() == {SINK}


def test_a_task_may_exit_the_program(start: type[Program]) -> None:
    program = start("exits", "fork")

    assert program.end() == 7
    assert program.said_goodbye() == {SOURCE, SINK}


def test_a_program_that_leaves_its_runner_alone_ends_it(start: type[Program]) -> None:
    program = start("publishes", "fork", "left")

    assert program.end() == 0, program.errors
    assert "the GraphServer" not in program.errors.replace("no GraphServer answers", "")  # it ends last
    assert program.said_goodbye() == {SOURCE, SINK}


def test_strictly_a_program_waits_for_what_blocks(start: type[Program]) -> None:
    program = start("works", "single", env={"EZMSG_STRICT_SHUTDOWN": "1"})
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)
    program.wait_for(f"bye {SINK}")
    threading.Event().wait(0.2)  # one that comes at once counts as the same
    assert program.process.poll() is None
    program.signal_group(signal.SIGINT)
    threading.Event().wait(0.2)
    assert program.process.poll() is None
    while program.process.poll() is None:  # two are enough, but a busy machine may hear them as one
        program.signal_group(signal.SIGINT)
        threading.Event().wait(0.2)

    assert program.end() in OF_SIGINT


# -- by SIGINT to the process group -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_sigint_ends_a_healthy_graph_in_order(start: type[Program], method: str) -> None:
    program = start("publishes", method)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)

    assert program.end() == 0, program.errors
    assert "returned MainThread" in program.lines
    assert program.said_goodbye() == {SOURCE, SINK}
    assert "Traceback" not in program.errors


@pytest.mark.parametrize("method", ["single", "fork"])
def test_sigint_is_heard_from_running_on(start: type[Program], method: str) -> None:
    program = start("publishes", method)
    program.wait_for("running")
    program.signal_group(signal.SIGINT)

    assert program.end() == 0, program.errors
    assert "Traceback" not in program.errors


@pytest.mark.parametrize("method", ["single", "spawn"])
def test_sigint_cancels_a_setup(start: type[Program], method: str) -> None:
    program = start("sets-up", method)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)

    assert program.end() == 0, program.errors
    assert SOURCE in program.said_goodbye()
    assert "Traceback" not in program.errors


def test_sigint_does_not_wait_for_processes_that_are_still_starting(start: type[Program]) -> None:
    program = start("starts", "spawn")
    program.wait_for("starts")
    program.signal_group(signal.SIGINT)

    assert program.end() == 0, program.errors
    assert "returned MainThread" in program.lines
    assert "WARNING" not in program.errors
    assert "Traceback" not in program.errors


@pytest.mark.parametrize("method", ["single", "spawn"])
def test_sigint_interrupts_a_main_function(start: type[Program], method: str) -> None:
    program = start("main", method)
    program.wait_for(SOURCE)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)

    assert program.end() == 0, program.errors
    assert "main ended" in program.lines


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("scenario", ["works", "raises"])
def test_sigint_kills_a_program_that_does_not_end_cleanly(start: type[Program], scenario: str, method: str) -> None:
    program = start(scenario, method)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)

    assert program.end() in OF_SIGINT
    assert program.said_goodbye() == {SOURCE, SINK}
    assert "EZMSG_STRICT_SHUTDOWN" in program.errors


@pytest.mark.parametrize("method", ["single", "fork"])
def test_sigint_does_not_wait_for_a_blocked_loop(start: type[Program], method: str) -> None:
    program = start("blocks", method)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)

    assert program.end() in OF_SIGINT
    assert "does not react" in program.errors
    assert SOURCE in program.errors


def test_sigint_after_an_exception_in_a_task_is_not_clean(start: type[Program]) -> None:
    program = start("fails-in-task", "fork")
    program.wait_for(SOURCE)
    assert program.process.stderr is not None
    program.process.stderr.readline()  # "Exception in Task"
    program.signal_group(signal.SIGINT)

    assert program.end() in OF_SIGINT
    assert program.said_goodbye() == {SOURCE, SINK}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_second_sigint_ends_what_ignored_the_first(start: type[Program], method: str) -> None:
    program = start("ignores", method)
    program.wait_for(SOURCE)
    program.signal_group(signal.SIGINT)
    program.wait_for("ignored")
    threading.Event().wait(0.2)  # one that comes at once counts as the same
    program.signal_group(signal.SIGINT)

    assert program.end() in OF_SIGINT


# -- by other signals -------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_graph_in_order(start: type[Program]) -> None:
    program = start("publishes", "fork")
    program.wait_for(SOURCE)
    program.process.terminate()

    assert program.end() == 0, program.errors
    assert program.said_goodbye() == {SOURCE, SINK}


def test_sigterm_to_a_backend_process_ends_the_whole_graph_in_order(start: type[Program]) -> None:
    program = start("publishes", "fork")
    os.kill(program.pid_of(SOURCE), signal.SIGTERM)

    assert program.end() == 0, program.errors
    assert program.said_goodbye() == {SOURCE, SINK}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_end_of_a_backend_process_ends_the_program_and_names_it(start: type[Program], method: str) -> None:
    program = start("publishes", method)
    pid = program.pid_of(SOURCE)
    os.kill(pid, signal.SIGKILL)

    assert program.end() == 1
    assert f"backend process 1 (pid {pid}), with units {SOURCE} was killed by SIGKILL" in program.errors
    assert program.said_goodbye() == {SINK}


@pytest.mark.parametrize(("scenario", "method"), [("publishes", "spawn"), ("blocks", "fork")])
def test_backend_processes_end_when_the_program_is_killed(start: type[Program], scenario: str, method: str) -> None:
    program = start(scenario, method)
    program.wait_for(SOURCE)
    program.process.kill()

    assert program.end() == -signal.SIGKILL
