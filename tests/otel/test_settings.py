"""Every variable, alone and against others."""

from __future__ import annotations

import pytest

from ezmsg.core.errors import ConfigError
from ezmsg.otel.settings import NotConfigured, OtlpSettings, Settings, sdk_is_disabled

ENDPOINT = "http://collector:4318"


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def both(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[OtlpSettings, OtlpSettings]:
    """What the variables mean for traces and for metrics, with an endpoint for both."""
    found = read(monkeypatch, **{"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT} | variables)
    assert found.traces.otlp is not None
    assert found.metrics.otlp is not None
    return found.traces.otlp, found.metrics.otlp


def test_without_a_receiver_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="set OTEL_EXPORTER_OTLP_ENDPOINT to"):
        read(monkeypatch)


def test_otlp_without_an_endpoint_is_refused_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured):
        read(monkeypatch, OTEL_TRACES_EXPORTER="otlp")


def test_the_common_endpoint_gets_a_path_for_each_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in (ENDPOINT, f"{ENDPOINT}/"):
        traces, metrics = both(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        assert (traces.endpoint, metrics.endpoint) == (f"{ENDPOINT}/v1/traces", f"{ENDPOINT}/v1/metrics")


def test_an_endpoint_of_one_signal_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, metrics = both(monkeypatch, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://tempo/in")
    assert (traces.endpoint, metrics.endpoint) == ("https://tempo/in", f"{ENDPOINT}/v1/metrics")


def test_an_endpoint_for_one_signal_only_exports_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://prometheus/in")
    assert (found.traces.exporter, found.metrics.exporter) == ("none", "otlp")


def test_grpc_takes_the_endpoint_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, metrics = both(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert (traces.protocol, traces.endpoint) == ("grpc", ENDPOINT)
    assert (metrics.protocol, metrics.endpoint) == ("grpc", ENDPOINT)


def test_http_protobuf_is_the_default_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [otlp.protocol for otlp in both(monkeypatch)] == ["http/protobuf", "http/protobuf"]


def test_each_signal_may_have_its_own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, metrics = both(monkeypatch, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc")
    assert (traces.protocol, metrics.protocol) == ("grpc", "http/protobuf")


def test_timeouts_are_seconds_and_two_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [otlp.timeout_s for otlp in both(monkeypatch)] == [2.0, 2.0]
    variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": "7.5", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "3"}
    assert [otlp.timeout_s for otlp in both(monkeypatch, **variables)] == [7.5, 3.0]


def test_compression_is_none_by_default_and_may_be_chosen_by_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [otlp.compression for otlp in both(monkeypatch)] == ["none", "none"]
    variables = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"}
    assert [otlp.compression for otlp in both(monkeypatch, **variables)] == ["deflate", "gzip"]


def test_exporters_are_chosen_by_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="none")
    assert (found.traces.exporter, found.metrics.exporter) == ("console", "none")


def test_none_turns_a_signal_off_although_there_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT, OTEL_TRACES_EXPORTER="none")
    assert (found.traces.exporter, found.metrics.exporter) == ("none", "otlp")


def test_none_for_both_is_a_choice_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
    assert (found.traces.exporter, found.metrics.exporter) == ("none", "none")


def test_intervals_are_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT)
    assert (found.metric_interval_s, found.span_delay_s) == (10.0, 1.0)
    found = read(monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="2500", OTEL_BSP_SCHEDULE_DELAY="50")
    assert (found.metric_interval_s, found.span_delay_s) == (2.5, 0.05)


def test_sizes_of_span_batches_and_of_their_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=ENDPOINT)
    assert (found.span_batch, found.span_queue) == (2048, 65536)
    found = read(monkeypatch, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100", OTEL_BSP_MAX_QUEUE_SIZE="1000")
    assert (found.span_batch, found.span_queue) == (100, 1000)
    assert read(monkeypatch, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100000").span_batch == 8192


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///run/otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "smoke"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_METRICS_EXPORTER", "otlp,console"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        both(monkeypatch, **{name: value})


def test_grpc_cannot_deflate(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_COMPRESSION"):
        both(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_COMPRESSION="deflate")


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ("TIMEOUT", "PROTOCOL", "COMPRESSION", "TRACES_ENDPOINT", "TRACES_TIMEOUT")
    traces, _ = both(monkeypatch, **{f"OTEL_EXPORTER_OTLP_{name}": "" for name in empty})
    assert traces == OtlpSettings(f"{ENDPOINT}/v1/traces")
    assert read(monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="", OTEL_TRACES_EXPORTER="").metric_interval_s == 10.0


@pytest.mark.parametrize(
    ("value", "is_disabled"), [("true", True), ("TRUE", True), ("false", False), ("1", False), ("", False)]
)
def test_otel_sdk_disabled(monkeypatch: pytest.MonkeyPatch, value: str, is_disabled: bool) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)
    assert sdk_is_disabled() is is_disabled


@pytest.mark.parametrize(
    ("endpoint", "is_loopback"),
    [
        ("http://localhost:4318/v1/traces", True),
        ("http://127.0.0.1:4318/v1/traces", True),
        ("http://127.1.2.3:4317", True),
        ("https://[::1]:4317", True),
        ("localhost:4317", True),
        ("http://collector:4318/v1/traces", False),
        ("collector:4317", False),
        ("http://localhost.example.org", False),
    ],
)
def test_receivers_on_this_host_are_recognised(endpoint: str, is_loopback: bool) -> None:
    assert OtlpSettings(endpoint).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("https://user:secret@collector:4318/v1/traces", "https://collector:4318/v1/traces"),
        ("http://localhost:4317", "http://localhost:4317"),
        ("collector:4317", "collector:4317"),
    ],
)
def test_people_are_not_shown_the_password(endpoint: str, target: str) -> None:
    assert OtlpSettings(endpoint).target == target
