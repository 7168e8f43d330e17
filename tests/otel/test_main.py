"""`python -m ezmsg.otel` as a process: what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from examples.otlp_receiver import HttpReceiver
from ezmsg.core.control import ControlClient
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.wire.records import Record
from ezmsg.otel.__main__ import Exit
from tests.otel.feeds import first, hello, span_rows
from tests.ports import KeptPort

CONNECTED = "exporting the telemetry of the graph at"
END_LIMIT_S = START_LIMIT_S = 40.0

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts agents; those that still run in the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ezmsg.otel", *arguments],
            env=os.environ | environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def server() -> Iterator[GraphServer]:
    """A server without an agent of its own."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    yield server
    server.stop()


def ended(process: subprocess.Popen[str], timeout_s: float = START_LIMIT_S) -> tuple[int, str]:
    """Exit code, and what was written to standard error."""
    _, errors = process.communicate(timeout=timeout_s)
    return process.returncode, errors


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the agent ended with {process.wait()} before it wrote {text!r}")


def endpoint(receiver: HttpReceiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nonsense"], "unrecognized arguments"),
        (["--graph", "nowhere"], "expected host:port"),
        (["--graph", "127.0.0.1:99999"], "a port of 0 to 65535"),
        (["--wait", "soon"], "invalid float value"),
    ],
)
def test_bad_arguments_are_refused(run: Run, arguments: list[str], complaint: str) -> None:
    code, errors = ended(run(*arguments))
    assert code == Exit.MISCONFIGURED
    assert complaint in errors


def test_without_a_receiver_the_variable_to_set_is_named(run: Run) -> None:
    code, errors = ended(run("--graph", "127.0.0.1:1"))
    assert code == Exit.MISCONFIGURED
    assert "set OTEL_EXPORTER_OTLP_ENDPOINT to your collector" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke"), ("EZMSG_OTEL", "global"), ("EZMSG_OTEL", "maybe")]
)
def test_variables_that_cannot_be_used_are_named(run: Run, name: str, value: str) -> None:
    code, errors = ended(run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **{name: value}))
    assert code == Exit.MISCONFIGURED
    assert name in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"EZMSG_OTEL": "off"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_nothing_to_do_is_no_failure(run: Run, variables: dict[str, str]) -> None:
    code, errors = ended(run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **variables))
    assert code == Exit.OK
    assert "nothing is exported" in errors


def test_a_graph_that_cannot_be_reached_is_named(run: Run) -> None:
    with KeptPort() as unused:
        address = str(unused.address)
        process = run("--graph", address, "--wait", "0.1", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
        code, errors = ended(process)
    assert code == Exit.UNREACHABLE
    assert address in errors
    assert "Traceback" not in errors


def test_a_server_with_another_key_does_not_let_it_in(run: Run, server: GraphServer) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "EZMSG_AUTHKEY": "a key of its own"}
    code, errors = ended(run("--graph", str(server.address), **variables))
    assert code == Exit.UNREACHABLE
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(run: Run, server: GraphServer, http_receiver: HttpReceiver, number: int) -> None:
    process = run("--graph", str(server.address), **endpoint(http_receiver))
    wait_for_line(process, CONNECTED)
    process.send_signal(number)
    code, errors = ended(process, END_LIMIT_S)
    assert (code, "Traceback" in errors) == (Exit.OK, False)


@pytest.mark.parametrize("arguments", [[], ["--child"]], ids=["by hand", "child"])
async def test_an_export_that_hangs_does_not_hold_it(
    run: Run, server: GraphServer, http_receiver: HttpReceiver, arguments: list[str]
) -> None:
    http_receiver.behave("black_hole")
    patient = endpoint(http_receiver) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "600", "OTEL_METRIC_EXPORT_INTERVAL": "1"}
    process = run("--graph", str(server.address), *arguments, stdin=subprocess.PIPE, **patient)
    await asyncio.to_thread(wait_for_line, process, CONNECTED)
    async with measured_process(server, spans=span_rows(7)):
        assert await asyncio.to_thread(http_receiver.wait_for_requests, 1)
        tell_to_end(process, arguments)
        code, errors = await asyncio.to_thread(ended, process, END_LIMIT_S)
    assert (code, "Traceback" in errors) == (Exit.OK, False)
    assert "0 spans were exported; others were not: shutdown 7" in errors


def tell_to_end(process: subprocess.Popen[str], arguments: list[str]) -> None:
    """A child ends with its standard input, others when they are told to."""
    if arguments:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # `communicate` would flush it
    else:
        process.terminate()


@pytest.mark.parametrize("arguments", [[], ["--child"]], ids=["by hand", "child"])
async def test_the_console_is_standard_output_or_for_a_child_standard_error(
    run: Run, server: GraphServer, arguments: list[str]
) -> None:
    console = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "1"}
    process = run("--graph", str(server.address), *arguments, stdin=subprocess.PIPE, **console)
    await asyncio.to_thread(wait_for_line, process, CONNECTED)
    async with measured_process(server, spans=span_rows(1)):
        wanted, other = (process.stderr, process.stdout) if arguments else (process.stdout, process.stderr)
        assert wanted is not None
        assert other is not None
        assert await asyncio.to_thread(lambda: any("publish ROOT/SOURCE/OUT" in line for line in wanted))
        tell_to_end(process, arguments)
        rest = await asyncio.to_thread(lambda: (wanted.read(), other.read()))
    assert "messaging.client.sent.messages" in rest[0]
    assert "messaging" not in rest[1]


@contextlib.asynccontextmanager
async def measured_process(server: GraphServer, **what: Any) -> AsyncIterator[None]:
    """A process that delivered its first telemetry to the server."""
    client = await ControlClient.connect(server.address, Deaf(), name="test")
    await client.request(hello(str(uuid4())))
    client.notify(first(**what).batch)
    yield
    await client.close()


class Deaf:
    """Answers nothing, heeds nothing."""

    def on_request(self, connection: object, record: Record) -> Record:
        raise NotImplementedError

    def on_notice(self, connection: object, record: Record) -> None: ...

    def on_closed(self, connection: object, error: Exception | None) -> None: ...


def test_a_signal_ends_it_while_it_waits_for_the_graph(run: Run) -> None:
    process = run(
        "--graph", "127.0.0.1:1", "--wait", "1000", "--verbose", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"
    )
    wait_for_line(process, "waiting for the graph")
    process.send_signal(signal.SIGTERM)
    assert ended(process, END_LIMIT_S)[0] == Exit.OK


def test_it_ends_when_the_server_ends_in_order(run: Run, server: GraphServer, http_receiver: HttpReceiver) -> None:
    process = run("--graph", str(server.address), **endpoint(http_receiver))
    wait_for_line(process, CONNECTED)
    server.stop()
    code, errors = ended(process, END_LIMIT_S)
    assert (code, "Traceback" in errors) == (Exit.OK, False)


def test_a_child_ignores_ctrl_c_and_ends_with_its_standard_input(
    run: Run, server: GraphServer, http_receiver: HttpReceiver
) -> None:
    process = run("--graph", str(server.address), "--child", stdin=subprocess.PIPE, **endpoint(http_receiver))
    wait_for_line(process, CONNECTED)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(END_LIMIT_S) == Exit.OK


async def test_a_child_exports_what_comes_after_sigterm_to_all_processes_of_a_program(
    run: Run, server: GraphServer, http_receiver: HttpReceiver
) -> None:
    process = run("--graph", str(server.address), "--child", stdin=subprocess.PIPE, **endpoint(http_receiver))
    await asyncio.to_thread(wait_for_line, process, CONNECTED)
    process.terminate()
    async with measured_process(server, spans=span_rows(1)):
        pass
    await asyncio.to_thread(server.stop)
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.to_thread(process.wait, END_LIMIT_S) == Exit.OK
    assert "publish ROOT/SOURCE/OUT" in {span.span.name for span in http_receiver.store.spans}


def test_a_child_whose_graph_goes_on_ends_at_the_second_sigterm(
    run: Run, server: GraphServer, http_receiver: HttpReceiver
) -> None:
    process = run("--graph", str(server.address), "--child", stdin=subprocess.PIPE, **endpoint(http_receiver))
    wait_for_line(process, CONNECTED)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.terminate()
    assert process.wait(END_LIMIT_S) == Exit.OK


def test_a_second_agent_of_a_graph_is_refused(run: Run, server: GraphServer, http_receiver: HttpReceiver) -> None:
    first = run("--graph", str(server.address), **endpoint(http_receiver))
    wait_for_line(first, CONNECTED)
    code, errors = ended(run("--graph", str(server.address), **endpoint(http_receiver)))
    assert (code, "Traceback" in errors) == (Exit.LEASED, False)
    assert first.poll() is None
    first.terminate()
    assert ended(first, END_LIMIT_S)[0] == Exit.OK
    again = run("--graph", str(server.address), **endpoint(http_receiver))
    wait_for_line(again, CONNECTED)


def test_every_line_is_written_once(run: Run, server: GraphServer, http_receiver: HttpReceiver) -> None:
    process = run("--graph", str(server.address), **endpoint(http_receiver))
    wait_for_line(process, CONNECTED)
    process.terminate()
    _, errors = ended(process, END_LIMIT_S)
    assert errors.count("told to stop") == 1
    assert CONNECTED not in errors
