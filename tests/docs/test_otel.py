"""The how-tos about OpenTelemetry do what they say, with a receiver of ours in place of yours."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from examples.otlp_receiver import HttpReceiver, Tls
from tests.ports import KeptPort

HOWTO = Path(__file__).parents[2] / "docs/howto"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PATIENCE_S = 120.0


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as started:
        yield started


def blocks(page: str, language: str) -> list[str]:
    """What of a page is to be executed."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    return re.findall(rf"<!-- executed by .*?-->\n```{language}\n(.*?)```", text, re.DOTALL)


def prepare(tmp_path: Path, name: str, page: str) -> None:
    """The one program of a page, in a file."""
    (program,) = blocks(page, "python")
    (tmp_path / name).write_text(program, encoding="utf-8")


@contextlib.contextmanager
def running(tmp_path: Path, commands: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Runs commands of a page; what still runs in the end gets Ctrl-C."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        KeptPort() as unused,
        subprocess.Popen(
            ["sh", "-ec", commands],
            cwd=tmp_path,
            # Nobody is there, so a graph starts a server of its own; at the default address somebody else may have one.
            env=os.environ | {"PATH": path, "EZMSG_GRAPHSERVER_ADDR": str(unused.address)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell,
    ):
        try:
            yield shell
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGINT)
            shell.communicate(timeout=PATIENCE_S)


def test_a_graph_exports_to_a_collector(tmp_path: Path, http_receiver: HttpReceiver) -> None:
    (commands,) = blocks("otel-collector.md", "sh")
    prepare(tmp_path, "graph.py", "otel-collector.md")
    at_once = {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
    with running(tmp_path, commands.replace("http://localhost:4318", http_receiver.endpoint), **at_once):
        store = http_receiver.store
        assert store.wait_for(lambda: bool(store.spans), PATIENCE_S)
        assert store.wait_for(lambda: bool(store.points("ezmsg.message.age")), PATIENCE_S)
    assert http_receiver.store.service_names() == {"counting"}


def test_a_graph_exports_to_a_vendor(tmp_path: Path) -> None:
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    for name, pem in {
        "ca.pem": ca.cert_pem,
        "server.pem": server.cert_chain_pems[0],
        "server-key.pem": server.private_key_pem,
        "client.pem": client.cert_chain_pems[0],
        "client-key.pem": client.private_key_pem,
    }.items():
        pem.write_to_path(tmp_path / name)
    prepare(tmp_path, "graph.py", "otel-collector.md")
    with_key, with_certificates = blocks("otel-vendor.md", "sh")
    files = tmp_path / "server.pem", tmp_path / "server-key.pem"
    with contextlib.ExitStack() as stack:
        by_key = stack.enter_context(HttpReceiver(tls=Tls(*files)))
        by_certificate = stack.enter_context(HttpReceiver(tls=Tls(*files, client_ca=tmp_path / "ca.pem")))
        # The CA of the first one would be a public one, which needs no variable.
        trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem"}
        with_key = with_key.replace("https://otlp.example.com", by_key.endpoint)
        with_certificates = with_certificates.replace("https://otlp.example.com", by_certificate.endpoint)
        with running(tmp_path, with_key, **trusted), running(tmp_path, with_certificates):
            for store in (by_key.store, by_certificate.store):
                assert store.wait_for(lambda store=store: bool(store.spans), PATIENCE_S)
    headers = by_key.store.arrived[0].headers
    assert (headers["api-key"], headers["content-encoding"]) == ("0123456789abcdef", "gzip")


def test_a_program_with_an_sdk_exports_itself_and_a_trace_passes_through(
    tmp_path: Path, http_receiver: HttpReceiver
) -> None:
    (commands,) = blocks("otel-existing-program.md", "sh")
    prepare(tmp_path, "program.py", "otel-existing-program.md")
    with running(tmp_path, commands.replace("http://localhost:4318", http_receiver.endpoint)) as shell:
        printed, errors = shell.communicate(timeout=PATIENCE_S)
    assert shell.returncode == 0, errors
    (spans,) = http_receiver.store.traces().values()
    assert {span.span.name for span in spans} == {"publish REQUESTS", "process REQUESTS", "save"}
    (save,) = (span for span in spans if span.span.name == "save")
    assert printed == f"data 00-{TRACE}-{save.span_id}-01\n"
