"""The command line as a whole: what it parses, and what it makes of results and errors."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core import command
from ezmsg.core.command import build_parser, cmdline, run_command
from ezmsg.core.graphserver import GraphServer

NOWHERE = "127.0.0.1:1"


def parsed(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(arguments)


def handled_by(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    """Let every command be handled by this."""
    args = argparse.Namespace(command="test", _handler=handler)

    class Parser:
        def parse_args(self, _argv: object) -> argparse.Namespace:
            return args

    monkeypatch.setattr(command, "build_parser", Parser)


# -- parsing ----------------------------------------------------------------------------------------------------------


def test_every_command_keeps_its_options_under_the_names_programs_know() -> None:
    assert build_parser().prog == "ezmsg.core"
    for name in ("serve", "start"):
        args = parsed(name)
        assert (args.command, args.address, args.dashboard) == (name, None, None)
        assert parsed(name, "--address", "h:1", "--dashboard").dashboard is True
        assert parsed(name, "--dashboard", "8001").dashboard == 8001
    assert parsed("shutdown", "--address", "h:1").address == "h:1"
    assert parsed("graphviz", "-cc").compact == 2
    mermaid = parsed("mermaid", "--target", "ink", "-n", "--compact")
    assert (mermaid.target, mermaid.nobrowser, mermaid.compact) == ("ink", True, 1)
    assert (parsed("mermaid").target, parsed("mermaid").nobrowser) == ("live", False)
    dashboard = parsed("dashboard", "--graph-address", "h:1")
    assert vars(dashboard) | {"_handler": None} == {
        "command": "dashboard", "graph_address": "h:1", "host": "127.0.0.1", "port": 8000, "open_browser": False,
        "log_level": "info", "_handler": None,
    }  # fmt: skip
    assert parsed("doctor", "--json").json is True


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("nothing",), ("serve", "--target", "ink"), ("graphviz", "--nobrowser"), ("shutdown", "--dashboard"),
        ("serve", "--address", "nowhere"), ("mermaid", "--target", "paper"), ("start", "--dashboard", "soon"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used_are_told_in_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cmdline(arguments)
    assert exit_info.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("ezmsg.core")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cmdline(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"ezmsg {ez.__version__}\n"


# -- running ----------------------------------------------------------------------------------------------------------


async def _coroutine(result: object) -> object:
    return result


@pytest.mark.parametrize("result", [None, 0, 3, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_result_of_a_handler_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, result: Any, is_async: bool) -> None:
    handled_by(monkeypatch, lambda _args: _coroutine(result) if is_async else result)
    assert cmdline([]) == int(result or 0)


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupted(_args: object) -> None:
        raise KeyboardInterrupt

    handled_by(monkeypatch, interrupted)
    assert cmdline([]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ez.graphserver.ServerUnreachable("h:1", "no"), "ezmsg test: no GraphServer answers at h:1 (no): start one"),
        (FileNotFoundError(2, "No such file", "/x"), "ezmsg test: No such file: /x\n"),
        (ValueError("two\n  lines"), "ezmsg test: two lines\n"),
        (ZeroDivisionError("a mistake of ours"), "ezmsg test: ZeroDivisionError: a mistake of ours (EZMSG_LOGLEVEL"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    def fail(_args: object) -> None:
        raise error

    handled_by(monkeypatch, fail)
    assert cmdline([]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(told)
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [("graphviz",), ("mermaid", "-n")])
def test_commands_that_cannot_work_say_why_in_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", NOWHERE)
    assert cmdline(arguments) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"ezmsg {arguments[0]}: ")
    assert errors.count("\n") == 1


def test_the_end_of_who_reads_the_output_is_no_traceback(server: GraphServer) -> None:
    code = "import sys; from ezmsg.core.command import cmdline; sys.exit(cmdline())"
    doctor = [sys.executable, "-c", code, "doctor", "--address", str(server.address)]
    process = subprocess.Popen(doctor, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == ""


async def test_run_command_runs_a_command_and_refuses_others(
    server: GraphServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert ez.run_command is run_command
    await ez.GraphService(server.address).connect("A/X", "B/Y")
    await run_command("graphviz", server.address, compact=1)
    await run_command("mermaid", str(server.address), nobrowser=True)  # type: ignore[arg-type]
    output = capsys.readouterr().out
    assert "digraph EZ" in output
    assert "flowchart LR" in output
    await run_command("shutdown", server.address)
    with caplog.at_level(logging.WARNING, "ezmsg"):
        await run_command("shutdown", server.address)
    assert "nothing to shut down" in caplog.text
    with pytest.raises(ValueError, match="'dance'"):
        await run_command("dance", None)
