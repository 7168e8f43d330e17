"""What the environment asks for: the standard `OTEL_*` variables.

Headers and certificates are left to the exporters, which read them themselves. Everything else is read here,
when the agent starts, and a value that cannot be used is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ezmsg.core import config
from ezmsg.core.errors import ConfigError, EzmsgError

Signal = Literal["traces", "metrics"]
ExporterKind = Literal["otlp", "console", "none"]
Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]

# The SDK waits 10 s; with less, a receiver that hangs is noticed before the queue of spans is full.
DEFAULT_TIMEOUT_S = 2.0
DEFAULT_METRIC_INTERVAL_S = 10.0
DEFAULT_SPAN_DELAY_S = 1.0
DEFAULT_SPAN_BATCH = 2048
MAX_SPAN_BATCH = 8192
DEFAULT_SPAN_QUEUE = 65536


class NotConfigured(EzmsgError, ValueError):
    """Nothing says where telemetry should go, and we do not guess."""

    code = "OTEL_NOT_CONFIGURED"

    def __init__(self, variable: str) -> None:
        super().__init__(
            f"no receiver is configured: set {variable} to your collector, for example http://localhost:4318 "
            "(or http://localhost:4317 with OTEL_EXPORTER_OTLP_PROTOCOL=grpc), "
            "or set OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER to console"
        )
        self.variable = variable


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """How one signal reaches its receiver; with http/protobuf `endpoint` is the whole URL."""

    endpoint: str
    protocol: Protocol = "http/protobuf"
    timeout_s: float = DEFAULT_TIMEOUT_S
    compression: Compression = "none"

    @property
    def target(self) -> str:
        """The endpoint for people: without a user and a password."""
        before, slashes, rest = self.endpoint.rpartition("//")
        authority, slash, path = rest.partition("/")
        return before + slashes + authority.rpartition("@")[2] + slash + path

    @property
    def host(self) -> str:
        """The host of the receiver."""
        return urlsplit(self.endpoint if "//" in self.endpoint else f"//{self.endpoint}").hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether the receiver is on this host, where no proxy belongs in between."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """Whether and how one signal is exported; `otlp` is there when `exporter` is `otlp`."""

    signal: Signal
    exporter: ExporterKind
    otlp: OtlpSettings | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the agent needs to know."""

    traces: SignalSettings
    metrics: SignalSettings
    metric_interval_s: float = DEFAULT_METRIC_INTERVAL_S
    span_delay_s: float = DEFAULT_SPAN_DELAY_S
    span_batch: int = DEFAULT_SPAN_BATCH
    span_queue: int = DEFAULT_SPAN_QUEUE

    @classmethod
    def from_environment(cls) -> Settings:
        """What the variables say now.

        Raises:
            NotConfigured: No receiver is named at all (and `none` was not asked for), or none for a signal that
                was asked for.
            ConfigError: A variable has a value that cannot be used.
        """
        traces, metrics = signal_settings("traces"), signal_settings("metrics")
        if traces.exporter == metrics.exporter == "none" and not (_exporter("traces") and _exporter("metrics")):
            raise NotConfigured("OTEL_EXPORTER_OTLP_ENDPOINT")
        return cls(
            traces=traces,
            metrics=metrics,
            metric_interval_s=_milliseconds("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_METRIC_INTERVAL_S),
            span_delay_s=_milliseconds("OTEL_BSP_SCHEDULE_DELAY", DEFAULT_SPAN_DELAY_S),
            span_batch=min(MAX_SPAN_BATCH, _count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", DEFAULT_SPAN_BATCH)),
            span_queue=_count("OTEL_BSP_MAX_QUEUE_SIZE", DEFAULT_SPAN_QUEUE),
        )


def sdk_is_disabled() -> bool:
    """`OTEL_SDK_DISABLED`, which exporters that are used directly do not look at."""
    return (config.text("OTEL_SDK_DISABLED") or "").strip().lower() == "true"


def signal_settings(signal: Signal) -> SignalSettings:
    """Where one signal goes: as asked for, else to the OTLP endpoint if there is one, else nowhere."""
    asked = _exporter(signal)
    endpoint_variable, endpoint = _of_signal(signal, "ENDPOINT")
    match asked or ("otlp" if endpoint else "none"):
        case "console":
            return SignalSettings(signal, "console")
        case "none":
            return SignalSettings(signal, "none")
        case "otlp" if endpoint:
            return SignalSettings(signal, "otlp", _otlp(signal, endpoint_variable, endpoint))
        case "otlp":
            raise NotConfigured(endpoint_variable)
        case other:
            raise ConfigError(f"OTEL_{signal.upper()}_EXPORTER", other, "otlp, console or none")


def _otlp(signal: Signal, endpoint_variable: str, endpoint: str) -> OtlpSettings:
    variable, protocol = _of_signal(signal, "PROTOCOL")
    timeout_s = _number(_of_signal(signal, "TIMEOUT")[0], DEFAULT_TIMEOUT_S, minimum=0.001)
    match protocol or "http/protobuf":
        case "grpc":
            # grpcio could deflate, the SDK's exporter refuses to.
            return OtlpSettings(endpoint, "grpc", timeout_s, _compression(signal, ("none", "gzip")))
        case "http/protobuf":
            parts = urlsplit(endpoint)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ConfigError(endpoint_variable, endpoint, "a URL like http://localhost:4318")
            if endpoint_variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
                endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
            compression = _compression(signal, ("none", "gzip", "deflate"))
            return OtlpSettings(endpoint, "http/protobuf", timeout_s, compression)
        case other:
            raise ConfigError(variable, other, "http/protobuf or grpc")


def _compression(signal: Signal, allowed: tuple[Compression, ...]) -> Compression:
    variable, value = _of_signal(signal, "COMPRESSION")
    for compression in allowed:
        if compression == (value.lower() or "none"):
            return compression
    raise ConfigError(variable, value, " or ".join(allowed))


def _exporter(signal: Signal) -> str:
    return (config.text(f"OTEL_{signal.upper()}_EXPORTER") or "").strip().lower()


def _of_signal(signal: Signal, what: str) -> tuple[str, str]:
    """The variable that decides for a signal, and its value: its own if set, else the common one."""
    own, common = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    variable = own if config.text(own) else common
    return variable, (config.text(variable) or "").strip()


def _number(variable: str, default: float, *, minimum: float) -> float:
    # An empty OTEL variable counts as unset.
    return config.number(variable, default, minimum=minimum) if config.text(variable) else default


def _milliseconds(variable: str, default_s: float) -> float:
    return _number(variable, default_s * 1000, minimum=1) / 1000


def _count(variable: str, default: int) -> int:
    return config.integer(variable, default, minimum=1) if config.text(variable) else default
