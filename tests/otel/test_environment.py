"""Every `OTEL_*` variable, alone and by signal, as a real receiver sees it. `test_settings.py` has the corner cases."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from examples.otlp_receiver import GrpcReceiver, HttpReceiver, Receiver, Tls
from examples.otlp_store import SeenPoint, SeenSpan
from ezmsg.otel.agent import AgentCore
from ezmsg.otel.settings import Settings
from tests.otel.feeds import counters, first, hello, histogram, span_rows
from tests.otel.relay import Relay

LOOPBACK = "127.0.0.1"
KINDS = pytest.mark.parametrize("kind", [HttpReceiver, GrpcReceiver], ids=["http", "grpc"])
PATIENCE_S = 40.0

Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Sets variables, `TRACES_ENDPOINT=…` for `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and so on."""

    def set_all(receiver: Receiver | None = None, **variables: str | Path) -> None:
        if receiver is not None:
            variables = {"ENDPOINT": receiver.endpoint, "PROTOCOL": receiver.protocol} | variables
        for name, value in variables.items():
            known = name if name.startswith("OTEL_") else f"OTEL_EXPORTER_OTLP_{name}"
            monkeypatch.setenv(known, str(value))

    return set_all


@contextlib.contextmanager
def agent() -> Iterator[AgentCore]:
    """An agent as the variables say, with something to export."""
    core = AgentCore(Settings.from_environment())
    core.start()
    core.feed(first(spans=span_rows(3)))
    try:
        yield core
    finally:
        core.stop()


def export() -> bool:
    """Start an agent and let it export; whether everything was taken."""
    with agent() as core:
        return core.drain(PATIENCE_S)


def signals(receiver: Receiver) -> set[str]:
    return {arrived.signal for arrived in receiver.store.arrived}


def everything(receiver: Receiver) -> list[SeenSpan | SeenPoint]:
    return [*receiver.store.spans, *receiver.store.points()]


# -- endpoint, protocol -----------------------------------------------------------------------------------------------


def test_one_endpoint_for_both_signals(receiver: Receiver, use: Use) -> None:
    use(receiver)
    assert export()
    assert signals(receiver) == {"traces", "metrics"}


@KINDS
def test_an_endpoint_for_each_signal(kind: type[Receiver], use: Use) -> None:
    with kind() as general, kind() as traces, kind() as metrics:
        paths = ("/v1/traces", "/v1/metrics") if kind is HttpReceiver else ("", "")
        use(general, TRACES_ENDPOINT=traces.endpoint + paths[0])
        assert export()
        use(METRICS_ENDPOINT=metrics.endpoint + paths[1])
        assert export()
        assert (signals(general), signals(traces), signals(metrics)) == ({"metrics"}, {"traces"}, {"metrics"})


def test_a_protocol_for_each_signal(use: Use) -> None:
    with HttpReceiver() as http, GrpcReceiver() as grpc:
        use(http, TRACES_PROTOCOL="grpc", TRACES_ENDPOINT=grpc.endpoint)
        assert export()
        assert (signals(http), signals(grpc)) == ({"metrics"}, {"traces"})


def test_http_is_the_default_protocol(http_receiver: HttpReceiver, use: Use) -> None:
    use(ENDPOINT=http_receiver.endpoint)
    assert export()


@pytest.mark.parametrize("name", ["INSECURE", "TRACES_INSECURE"])
def test_grpc_without_a_scheme_is_encrypted_unless_told_otherwise(use: Use, name: str) -> None:
    with GrpcReceiver() as receiver:
        use(receiver, ENDPOINT=f"{LOOPBACK}:{receiver.port}", OTEL_METRICS_EXPORTER="none")
        assert not export()
        use(**{name: "true"})
        assert export()


# -- headers, compression, timeout ------------------------------------------------------------------------------------


def test_headers_for_both_signals_and_for_each(receiver: Receiver, use: Use) -> None:
    use(receiver, HEADERS="x-tenant=lab,authorization=Bearer%20secret")
    assert export()
    use(TRACES_HEADERS="x-tenant=traces", METRICS_HEADERS="x-tenant=metrics")
    assert export()
    seen = {(arrived.signal, arrived.headers["x-tenant"]) for arrived in receiver.store.arrived}
    assert seen == {("traces", "lab"), ("metrics", "lab"), ("traces", "traces"), ("metrics", "metrics")}
    assert receiver.store.arrived[0].headers["authorization"] == "Bearer secret"


@KINDS
@pytest.mark.parametrize("name", ["COMPRESSION", "TRACES_COMPRESSION"])
def test_gzip_makes_requests_smaller(kind: type[Receiver], use: Use, name: str) -> None:
    with kind() as receiver, Relay(receiver.port) as plain, Relay(receiver.port) as compressed:
        for relay in (plain, compressed):
            if relay is compressed:
                use(**{name: "gzip"})
            use(receiver, ENDPOINT=f"http://{LOOPBACK}:{relay.port}", OTEL_METRICS_EXPORTER="none")
            core = AgentCore(Settings.from_environment())
            core.start()
            core.feed(first(spans=span_rows(1000)))
            assert core.drain(PATIENCE_S)
            core.stop()
        assert len(receiver.store.spans) == 2000
        assert compressed.sent < plain.sent / 3


def test_a_timeout_for_each_signal(receiver: Receiver, use: Use) -> None:
    """The general one is so long that the test would end by it."""
    receiver.behave("black_hole")
    use(receiver, TIMEOUT="600", TRACES_TIMEOUT="0.3")
    with agent() as core:
        draining = threading.Thread(target=core.drain, args=[PATIENCE_S])
        draining.start()
        assert receiver.wait_for_requests(2)  # metrics follow when spans were given up
        assert core.totals.dropped["span", "timeout"] == 3
        receiver.behave("ok")
        draining.join()


def test_a_timeout_for_both_signals(receiver: Receiver, use: Use) -> None:
    receiver.behave("black_hole")
    use(receiver, TIMEOUT="0.3")
    with agent() as core:
        assert not core.drain(PATIENCE_S)
        assert set(core.totals.durations) == {"traces", "metrics"}
        assert core.totals.dropped["span", "timeout"] == 3
        receiver.behave("ok")


# -- certificates -----------------------------------------------------------------------------------------------------


class Authority:
    """A CA, and PEM files of what it issues."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca, self._directory, self._name = trustme.CA(), directory, name
        self.file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, identity: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        issued = self._ca.issue_cert(identity)
        certificate, key = (self._directory / f"{self._name}-{identity}.{kind}" for kind in ("pem", "key"))
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


@KINDS
@pytest.mark.parametrize("name", ["CERTIFICATE", "TRACES_CERTIFICATE"])
def test_only_a_receiver_with_a_certificate_of_the_authority_is_trusted(
    kind: type[Receiver], use: Use, authority: Authority, stranger: Authority, name: str
) -> None:
    with kind(tls=Tls(*authority.issue(LOOPBACK))) as receiver:
        use(receiver, OTEL_METRICS_EXPORTER="none")
        assert not export()
        use(**{name: stranger.file})
        assert not export()
        assert receiver.store.arrived == []
        use(**{name: authority.file})
        assert export()
        assert len(receiver.store.spans) == 3


@KINDS
@pytest.mark.parametrize("signal", ["", "TRACES_"])
def test_a_receiver_that_wants_a_certificate_gets_one(
    kind: type[Receiver], use: Use, authority: Authority, signal: str
) -> None:
    certificate, key = authority.issue("client@example.org")
    with kind(tls=Tls(*authority.issue(LOOPBACK), client_ca=authority.file)) as receiver:
        use(receiver, OTEL_METRICS_EXPORTER="none", **{f"{signal}CERTIFICATE": authority.file})
        assert not export()
        assert receiver.store.arrived == []
        use(**{f"{signal}CLIENT_CERTIFICATE": certificate, f"{signal}CLIENT_KEY": key})
        assert export()
        assert len(receiver.store.spans) == 3


@KINDS
def test_metrics_may_have_certificates_of_their_own(kind: type[Receiver], use: Use, authority: Authority) -> None:
    certificate, key = authority.issue("client@example.org")
    with kind(tls=Tls(*authority.issue(LOOPBACK), client_ca=authority.file)) as receiver:
        use(receiver, OTEL_TRACES_EXPORTER="none", METRICS_CERTIFICATE=authority.file)
        use(METRICS_CLIENT_CERTIFICATE=certificate, METRICS_CLIENT_KEY=key)
        assert export()
        assert signals(receiver) == {"metrics"}


# -- who sends, what and when -----------------------------------------------------------------------------------------


def test_the_name_of_the_service(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_SERVICE_NAME="decoder", OTEL_RESOURCE_ATTRIBUTES="service.name=not this one")
    assert export()
    assert receiver.store.service_names() == {"decoder"}


def test_attributes_of_the_resource(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_RESOURCE_ATTRIBUTES="service.namespace=lab,deployment.environment.name=bench%202,process.pid=1")
    assert export()
    for seen in everything(receiver):
        assert seen.resource["service.namespace"] == "lab"
        assert seen.resource["deployment.environment.name"] == "bench 2"
        assert seen.resource["service.name"] in {"ROOT", "ezmsg.otel"}
        assert seen.resource["process.pid"] in {hello().pid, os.getpid()}  # what tells processes apart is theirs to say


def test_the_interval_of_metrics(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_METRIC_EXPORT_INTERVAL="20")
    with agent():
        assert receiver.store.wait_for(lambda: len(receiver.store.points("messaging.client.sent.messages")) >= 3)


def test_the_delay_of_spans(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_BSP_SCHEDULE_DELAY="20", OTEL_METRICS_EXPORTER="none")
    with agent():
        assert receiver.store.wait_for(lambda: len(receiver.store.spans) == 3)


def test_the_size_of_batches(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", OTEL_METRICS_EXPORTER="none")
    assert export()
    assert [len(arrived.request.resource_spans[0].scope_spans[0].spans) for arrived in receiver.store.arrived] == [2, 1]


@pytest.mark.parametrize(("off", "left"), [("TRACES", {"metrics"}), ("METRICS", {"traces"})])
def test_none_for_one_signal(receiver: Receiver, use: Use, off: str, left: set[str]) -> None:
    use(receiver, **{f"OTEL_{off}_EXPORTER": "none"})
    assert export()
    assert signals(receiver) == left


@pytest.mark.parametrize(("on_console", "left"), [("TRACES", {"metrics"}), ("METRICS", {"traces"})])
def test_console_for_one_signal(
    receiver: Receiver, use: Use, capsys: pytest.CaptureFixture[str], on_console: str, left: set[str]
) -> None:
    use(receiver, **{f"OTEL_{on_console}_EXPORTER": "console"})
    assert export()
    assert signals(receiver) == left
    printed = capsys.readouterr().out
    assert ("publish ROOT/SOURCE/OUT" in printed) == (on_console == "TRACES")
    assert ("messaging.client.sent.messages" in printed) == (on_console == "METRICS")


def test_otlp_by_name(receiver: Receiver, use: Use) -> None:
    use(receiver, OTEL_TRACES_EXPORTER="otlp", OTEL_METRICS_EXPORTER="otlp")
    assert export()
    assert signals(receiver) == {"traces", "metrics"}


# -- traps ------------------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_arrive_as_whole_numbers(receiver: Receiver, use: Use) -> None:
    """The encoder would make doubles of them, and refuse an array of counts."""
    use(receiver)
    state: Any = histogram(2, "age", np.array([2, 0, 5]))
    with agent() as core:
        core.feed(first(counters=[counters(1, sent=np.int64(7))], histograms=[state]))
        assert core.drain(PATIENCE_S)
    sent = receiver.store.points("messaging.client.sent.messages")[-1]
    assert (sent.point.WhichOneof("value"), sent.value) == ("as_int", 7)
    assert list(receiver.store.points("ezmsg.message.age")[-1].point.positive.bucket_counts) == [2, 0, 5]


def test_nothing_is_a_delta(receiver: Receiver, use: Use) -> None:
    """Whatever the exporter would prefer: Prometheus drops deltas."""
    use(receiver, METRICS_TEMPORALITY_PREFERENCE="delta")
    assert export()
    for seen in receiver.store.points():
        data: Any = getattr(seen.metric, seen.metric.WhichOneof("data") or "")
        assert getattr(data, "aggregation_temporality", 2) == 2
