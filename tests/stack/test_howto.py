"""The how-tos about observability that one has already do what they say, with the real collector and Prometheus."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from deploy.testing.binaries import Binaries
from deploy.testing.promql import Prometheus
from deploy.testing.stack import Daemon, StackError, kept_ports, substituted, wait_until
from examples.otlp_receiver import HttpReceiver, Tls
from tests.docs.test_otel import PATIENCE_S, blocks, prepare, running

AT_ONCE = {"OTEL_METRIC_EXPORT_INTERVAL": "500"}
BESIDE = """\
extensions: {{health_check: {{endpoint: "127.0.0.1:{port}"}}}}
service: {{extensions: [health_check], telemetry: {{metrics: {{level: none}}}}}}
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where a daemon takes what graphs send."""
    with kept_ports(1) as (one,):
        yield one


@pytest.fixture
def health_port() -> Iterator[int]:
    """Where a collector says that it is ready."""
    with kept_ports(1) as (one,):
        yield one


def collector(binaries: Binaries, directory: Path, config: str, health_port: int) -> Daemon:
    """A collector with a configuration of a page; only that it is ready, and its own metrics, are ours."""
    file, beside = directory / "collector.yaml", directory / "beside.yaml"
    file.write_text(config, encoding="utf-8")
    beside.write_text(BESIDE.format(port=health_port), encoding="utf-8")
    command = [str(binaries.otelcol), f"--config={file}", f"--config={beside}"]
    return Daemon(command, directory / "collector.log", f"http://127.0.0.1:{health_port}/")


def both_arrive(receiver: HttpReceiver) -> bool:
    store = receiver.store
    return store.wait_for(lambda: bool(store.spans), PATIENCE_S) and store.wait_for(
        lambda: bool(store.points("ezmsg.message.age")), PATIENCE_S
    )


@pytest.mark.parametrize(("page", "service"), [("otel-collector.md", "counting"), ("stack.md", "mygraph")])
def test_a_collector_that_one_has_sends_on(
    binaries: Binaries, tmp_path: Path, port: int, health_port: int, page: str, service: str
) -> None:
    (config,) = blocks("otel-collector.md", "yaml")
    (commands,) = blocks(page, "sh")
    prepare(tmp_path, "graph.py", "otel-collector.md")
    with HttpReceiver() as receiver:
        addresses = {"0.0.0.0:4318": f"127.0.0.1:{port}", "http://backend.example.com:4318": receiver.endpoint}
        daemon = collector(binaries, tmp_path, substituted(config, addresses), health_port)
        daemon.start()
        try:
            with running(tmp_path, commands.replace("localhost:4318", f"127.0.0.1:{port}"), **AT_ONCE):
                assert both_arrive(receiver)
        finally:
            daemon.stop()
    assert receiver.store.service_names() == {service}


def test_a_collector_sends_to_a_vendor_with_a_key_over_tls_compressed(
    binaries: Binaries, tmp_path: Path, port: int, health_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    server.private_key_pem.write_to_path(tmp_path / "server-key.pem")
    (config,) = blocks("otel-vendor.md", "yaml")
    (commands,) = blocks("otel-collector.md", "sh")
    prepare(tmp_path, "graph.py", "otel-collector.md")
    monkeypatch.setenv("API_KEY", "0123456789abcdef")
    with HttpReceiver(tls=Tls(tmp_path / "server.pem", tmp_path / "server-key.pem")) as receiver:
        addresses = {"127.0.0.1:4318": f"127.0.0.1:{port}", "https://otlp.example.com": receiver.endpoint}
        addresses["ca_file: ca.pem"] = f"ca_file: {tmp_path / 'ca.pem'}"
        daemon = collector(binaries, tmp_path, substituted(config, addresses), health_port)
        daemon.start()
        try:
            with running(tmp_path, commands.replace("localhost:4318", f"127.0.0.1:{port}"), **AT_ONCE):
                assert both_arrive(receiver)
        finally:
            daemon.stop()
    for arrived in receiver.store.arrived:
        assert (arrived.headers["api-key"], arrived.headers["content-encoding"]) == ("0123456789abcdef", "gzip")


def test_prometheus_takes_metrics_without_a_collector(binaries: Binaries, tmp_path: Path, port: int) -> None:
    start, commands = blocks("otel-prometheus.md", "sh")
    (config,) = blocks("otel-prometheus.md", "yaml")
    (promql,) = blocks("otel-prometheus.md", "promql")
    prepare(tmp_path, "graph.py", "otel-collector.md")
    (tmp_path / "prometheus.yml").write_text(config, encoding="utf-8")
    words = start.replace("\\\n", " ").replace("9090", str(port)).split()
    words = [re.sub(r"=prometheus.yml$", f"={tmp_path / 'prometheus.yml'}", word) for word in words]
    command = [str(binaries.prometheus), *words[1:], f"--storage.tsdb.path={tmp_path / 'data'}"]
    daemon = Daemon(command, tmp_path / "prometheus.log", f"http://127.0.0.1:{port}/-/ready")
    daemon.start()
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        with running(tmp_path, commands.replace("9090", str(port)), **AT_ONCE):
            wait_until(lambda: prometheus.number(promql), "Prometheus has an answer", PATIENCE_S)
        (series,) = prometheus.query('messaging_client_sent_messages_total{job="counting"}')
        assert series["metric"]["ezmsg_process_name"] == "graph.py"
    finally:
        daemon.stop()


def test_a_daemon_that_does_not_begin_says_why(binaries: Binaries, tmp_path: Path, health_port: int) -> None:
    daemon = collector(binaries, tmp_path, "receivers: {nonsense: {}}\n", health_port)
    with pytest.raises(StackError, match="nonsense"):
        daemon.start()
    assert os.path.exists(tmp_path / "collector.log")
