"""What becomes of a batch is told by real receivers, over both protocols."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import MetricsData

from examples.otlp_receiver import GrpcReceiver, HttpReceiver, Receiver
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.otlp import metric_sender, span_route
from ezmsg.otel.outcome import Outcome
from ezmsg.otel.overhttp import seconds_of
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.settings import Settings
from ezmsg.otel.spanencoder import SpanEncoder
from ezmsg.otel.spanrows import SpanRows
from tests.otel.feeds import ANCHOR, first, settings, span_ids, span_rows

SETTINGS, HEADERS, END = 4, 1, 5
"""Frames of HTTP/2, and the flags of one that is all there is."""
PATIENCE_S = 40.0


def spans(encoder: SpanEncoder[Any], count: int = 3) -> Any:
    registry = Registry(ResourceFactory())
    return encoder.encode([SpanRows.of(registry.apply(first()), ANCHOR, span_rows(count))], registry.resource)


def metrics() -> MetricsData:
    registry = Registry(ResourceFactory())
    registry.apply(first())
    return Collector(registry, Ledger(), dict, ANCHOR.unix_ns).collect(ANCHOR.unix_ns + 1).data


class Exit:
    """A sender, with something to send."""

    def __init__(self, kind: str, chosen: Settings) -> None:
        if kind == "traces":
            route = span_route(chosen.traces)
            assert route is not None
            self._sender, encoder = route
            self._batch = spans(encoder)
        else:
            sender = metric_sender(chosen.metrics)
            assert sender is not None
            self._sender, self._batch = sender, metrics()

    def send(self) -> Outcome:
        return self._sender.send(self._batch)

    def close(self) -> None:
        self._sender.close()


@contextmanager
def exit_of(kind: str, chosen: Settings) -> Iterator[Exit]:
    made = Exit(kind, chosen)
    try:
        yield made
    finally:
        made.close()


def send(receiver: Receiver, kind: str = "traces", **more: Any) -> Outcome:
    with exit_of(kind, settings(receiver.protocol, receiver.endpoint, **more)) as way:
        return way.send()


@pytest.mark.parametrize("kind", ["traces", "metrics"])
def test_what_is_taken_arrives(receiver: Receiver, kind: str) -> None:
    assert send(receiver, kind).verdict == "taken"
    if kind == "traces":
        assert [span.span_id for span in receiver.store.spans] == span_ids(3)
    else:
        assert "messaging.client.sent.messages" in receiver.store.metric_names()


@pytest.mark.parametrize("kind", ["traces", "metrics"])
def test_what_a_receiver_rejects_is_counted(receiver: Receiver, kind: str) -> None:
    receiver.behave("ok", rejected=2)
    assert send(receiver, kind) == Outcome("taken", "rejected", "asked to reject", 2)


def test_unavailable_is_to_be_tried_again_and_not_by_the_exporter(receiver: Receiver) -> None:
    receiver.behave("status", status=503)
    outcome = send(receiver)
    assert (outcome.verdict, outcome.reason) == ("retry", "unavailable")
    assert receiver.requests == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_http_status_codes_that_ask_for_another_try(http_receiver: HttpReceiver, status: int) -> None:
    http_receiver.behave("status", status=status)
    assert (send(http_receiver).verdict, http_receiver.requests) == ("retry", 1)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("UNAVAILABLE", "retry"),
        ("ABORTED", "retry"),
        ("CANCELLED", "retry"),
        ("OUT_OF_RANGE", "retry"),
        ("DATA_LOSS", "retry"),
        ("RESOURCE_EXHAUSTED", "lost"),
        ("INVALID_ARGUMENT", "lost"),
        ("UNAUTHENTICATED", "lost"),
        ("UNIMPLEMENTED", "lost"),
    ],
)
def test_grpc_status_codes(code: str, verdict: str) -> None:
    with GrpcReceiver() as receiver:
        receiver.behave("status", code=code)
        outcome = send(receiver)
        assert (outcome.verdict, receiver.requests) == (verdict, 1)
        assert code in outcome.detail


def test_a_receiver_may_say_when_to_try_again(receiver: Receiver) -> None:
    receiver.behave("status", status=429, code="RESOURCE_EXHAUSTED", retry_after="17")
    outcome = send(receiver)
    assert (outcome.verdict, outcome.retry_after_s, receiver.requests) == ("retry", 17.0, 1)


def test_the_time_to_try_again_may_be_a_date(http_receiver: HttpReceiver) -> None:
    http_receiver.behave("status", retry_after=formatdate(time.time() + 1000, usegmt=True))
    assert 900 < send(http_receiver).retry_after_s <= 1000


@pytest.mark.parametrize("text", ["", "soon", "-3", "Thu, 01 Jan 1970 00:00:00 GMT", "1e400", "nan"])
def test_a_time_that_makes_no_sense_is_none(text: str) -> None:
    assert seconds_of(text) == 0.0


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_a_refusal_is_final(http_receiver: HttpReceiver, status: int) -> None:
    http_receiver.behave("status", status=status)
    outcome = send(http_receiver)
    assert (outcome.verdict, outcome.reason) == ("lost", "rejected")
    assert str(status) in outcome.detail
    assert http_receiver.requests == 1


def test_a_redirect_is_no_success(http_receiver: HttpReceiver) -> None:
    http_receiver.behave("redirect")
    outcome = send(http_receiver)
    assert (outcome.verdict, outcome.reason) == ("lost", "rejected")
    assert "http://elsewhere.invalid/" in outcome.detail


def redirect_over_http2(listening: socket.socket) -> None:
    """Answer one request as a gateway does that redirects."""
    peer, _ = listening.accept()
    peer.settimeout(PATIENCE_S)
    with peer, peer.makefile("rb") as frames:
        frames.read(24)  # the preface
        peer.sendall(bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        head = bytes(9)
        while head[3] != HEADERS:
            head = frames.read(9)
            frames.read(int.from_bytes(head[:3], "big"))
        status = b"\x08\x03302"  # ":status", as it is
        peer.sendall(bytes([0, 0, len(status), HEADERS, END]) + head[5:] + status)
        frames.read()


def test_nor_is_a_redirect_over_grpc() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gateway:
        answering = threading.Thread(target=redirect_over_http2, args=[gateway])
        answering.start()
        with exit_of("traces", settings("grpc", f"http://127.0.0.1:{gateway.getsockname()[1]}")) as way:
            outcome = way.send()
        answering.join(PATIENCE_S)
    assert (outcome.verdict, outcome.reason) == ("lost", "rejected")
    assert "302" in outcome.detail


def test_a_receiver_that_is_down_can_be_tried_again(receiver: Receiver) -> None:
    receiver.stop()
    outcome = send(receiver)
    assert outcome.verdict == "retry"
    receiver.start()
    assert send(receiver).verdict == "taken"


@pytest.mark.parametrize("behaviour", ["black_hole", "slow"])
def test_no_answer_in_time_is_a_loss_because_the_batch_may_have_arrived(receiver: Receiver, behaviour: Any) -> None:
    receiver.behave(behaviour, seconds=60.0)
    outcome = send(receiver, timeout_s=1.0)
    assert (outcome.verdict, outcome.reason) == ("lost", "timeout")
    assert receiver.requests == 1


def test_the_rest_of_a_batch_is_not_tried_when_its_first_part_was_not_taken(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.otlp.MAX_POINTS", 2)
    receiver.behave("status")
    assert send(receiver, "metrics").verdict == "retry"
    assert receiver.requests == 1


def test_a_receiver_that_accepts_and_says_nothing_at_all_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for protocol in ("http/protobuf", "grpc"):
            with exit_of("traces", settings(protocol, endpoint, timeout_s=0.2)) as way:
                assert way.send().verdict != "taken"


def test_a_sender_works_again_when_its_receiver_was_restarted(receiver: Receiver) -> None:
    with exit_of("traces", settings(receiver.protocol, receiver.endpoint)) as way:
        assert way.send().verdict == "taken"
        receiver.stop()
        assert way.send().verdict == "retry"
        receiver.start()
        assert way.send().verdict == "taken"


def test_closing_a_sender_ends_a_call_over_grpc_that_hangs() -> None:
    with GrpcReceiver() as receiver:
        receiver.behave("black_hole")
        with exit_of("traces", settings("grpc", receiver.endpoint, timeout_s=50.0)) as way:
            outcomes: list[Outcome] = []
            thread = threading.Thread(target=lambda: outcomes.append(way.send()))
            thread.start()
            assert receiver.wait_for_requests(1)
        thread.join()
    assert outcomes[0].verdict == "retry"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "grpc_proxy"])
def test_a_proxy_is_not_asked_for_a_receiver_on_this_host(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert send(receiver).verdict == "taken"
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_headers_of_the_environment_are_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lab,authorization=Bearer%20secret")
    send(receiver)
    headers = receiver.store.arrived[0].headers
    assert (headers["x-tenant"], headers["authorization"]) == ("lab", "Bearer secret")


def test_headers_of_one_signal_win(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lab")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=other")
    send(receiver, "traces")
    send(receiver, "metrics")
    assert [arrived.headers["x-tenant"] for arrived in receiver.store.arrived] == ["lab", "other"]


@pytest.mark.parametrize(("compression", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_batches_are_compressed_on_request(
    http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch, compression: str, unpack: Any
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    with exit_of("traces", Settings.from_environment()) as way:
        assert way.send().verdict == "taken"
    assert http_receiver.store.arrived[0].headers["content-encoding"] == compression
    assert len(http_receiver.store.spans) == 3


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_grpc_takes_the_same_words_for_compression(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """The exporter's own reading of the variable fails on `none`."""
    with GrpcReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        for kind in ("traces", "metrics"):
            with exit_of(kind, Settings.from_environment()) as way:
                assert way.send().verdict == "taken"


def test_a_certificate_that_cannot_be_read_is_a_failure_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))  # must not stand in for it
    with exit_of("traces", Settings.from_environment()) as way:
        outcome = way.send()
    assert outcome.verdict == "lost"
    assert "/nowhere/ca.pem" in outcome.detail


def test_the_console_takes_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    for kind in ("traces", "metrics"):
        with exit_of(kind, Settings.from_environment()) as way:
            assert way.send().verdict == "taken"
    printed = capsys.readouterr().out
    assert "publish ROOT/SOURCE/OUT" in printed
    assert "messaging.client.sent.messages" in printed


def test_none_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    chosen = Settings.from_environment()
    assert (span_route(chosen.traces), metric_sender(chosen.metrics)) == (None, None)
