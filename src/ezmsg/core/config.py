"""The only place that reads `EZMSG_*` variables, when asked and never at import.

Each function answers one question and raises `ConfigError` with the variable, its value and what was expected.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ezmsg.core.errors import ConfigError, TlsIncomplete

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})

DEFAULT_HOST = "127.0.0.1"
GRAPHSERVER_ADDR_ENV = "EZMSG_GRAPHSERVER_ADDR"
GRAPHSERVER_PORT_DEFAULT = 25978
DASHBOARD_ADDR_ENV = "EZMSG_DASHBOARD_ADDR"
SERVE_IN_BACKGROUND = "EZMSG_SERVE_IN_BACKGROUND"


def flag(name: str, default: bool) -> bool:
    """A boolean variable: 1/true/yes/on or 0/false/no/off, in any case."""
    value = os.environ.get(name)
    if value is None:
        return default
    lowered = value.strip().lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise ConfigError(name, value, "1, true, yes, on or 0, false, no, off")


def integer(name: str, default: int, *, minimum: int = 0) -> int:
    """An integer variable, not smaller than `minimum`."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ConfigError(name, value, f"an integer >= {minimum}") from None
    if number < minimum:
        raise ConfigError(name, value, f"an integer >= {minimum}")
    return number


def number(name: str, default: float, *, minimum: float = 0.0) -> float:
    """A finite decimal variable, not smaller than `minimum`."""
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        parsed = float(value)
    except ValueError:
        raise ConfigError(name, value, f"a number >= {minimum:g}") from None
    if not minimum <= parsed < float("inf"):
        raise ConfigError(name, value, f"a number >= {minimum:g}")
    return parsed


def text(name: str) -> str | None:
    """A text variable; None when unset or empty."""
    return os.environ.get(name) or None


# -- addresses ----------------------------------------------------------------------------------------------------


def graph_address() -> str:
    """Where clients look for the GraphServer: `host:port`."""
    return text(GRAPHSERVER_ADDR_ENV) or f"{DEFAULT_HOST}:{GRAPHSERVER_PORT_DEFAULT}"


def graph_address_is_set() -> bool:
    """Whether the address was configured; then no server is started implicitly."""
    return text(GRAPHSERVER_ADDR_ENV) is not None


def dashboard_address() -> str | None:
    """Where the dashboard listens, when configured: `host:port`."""
    return text(DASHBOARD_ADDR_ENV)


def serve_in_background() -> bool:
    """Whether `ezmsg start` started this process to serve, and went on."""
    return flag(SERVE_IN_BACKGROUND, False)


def server_port_start() -> int:
    """First port tried by a server without an address."""
    return integer("EZMSG_SERVER_PORT_START", 10000, minimum=1)


def publisher_port_start() -> int:
    """First port tried by a publisher."""
    return integer("EZMSG_PUBLISHER_PORT_START", 25980, minimum=1)


def peer_timeout_s() -> float:
    """How long a host may be silent, asked or with data under way to it, before its connections are given up."""
    return number("EZMSG_PEER_TIMEOUT_S", 60.0, minimum=2.0)


# -- the message path ---------------------------------------------------------------------------------------------


def force_tcp() -> bool:
    """Default of a publisher's `force_tcp`."""
    return flag("EZMSG_FORCE_TCP", False)


def allow_local() -> bool:
    """Default of a publisher's `allow_local`."""
    return flag("EZMSG_ALLOW_LOCAL", True)


def max_message_bytes() -> int:
    """The largest message that is sent or accepted."""
    return integer("EZMSG_MAX_MESSAGE_BYTES", 1 << 30, minimum=1)


def max_shm_bytes() -> int:
    """How large the named shared memory of one GraphServer may be, all together."""
    return integer("EZMSG_SHM_MAX_BYTES", 16 << 30, minimum=1)


def backpressure_warning_disabled() -> bool:
    """Whether any value silences the backpressure warning."""
    return "EZMSG_DISABLE_BACKPRESSURE_WARNING" in os.environ


def subscriber_update_timeout_s() -> float:
    """How long the server waits for a subscriber to apply a routing update."""
    return number("EZMSG_SUBSCRIBER_UPDATE_TIMEOUT_SEC", 1.0)


# -- ezmsg.util ---------------------------------------------------------------------------------------------------


def log_level() -> str:
    """The level of the loggers of this package, by name."""
    return (text("EZMSG_LOGLEVEL") or "INFO").upper()


def profiler_log() -> str:
    """Name or path of the log of `ezmsg.util.profiler`."""
    return text("EZMSG_PROFILER") or "ezprofiler.log"


def fast_replace_is_disabled() -> bool:
    """Whether any value makes `ezmsg.util.messages.util.replace` the one of `dataclasses`."""
    return "EZMSG_DISABLE_FAST_REPLACE" in os.environ


# -- running ------------------------------------------------------------------------------------------------------


def strict_shutdown() -> bool:
    """Whether a run suppresses nothing and leaves nobody behind when it ends, however long that takes."""
    return flag("EZMSG_STRICT_SHUTDOWN", False)


# -- events -------------------------------------------------------------------------------------------------------


def topology_event_history_limit() -> int:
    """Topology events the server keeps for readers that come later."""
    return integer("EZMSG_TOPOLOGY_EVENT_HISTORY_LIMIT", 10000, minimum=1)


def settings_event_history_limit() -> int:
    """Settings events the server keeps for readers that come later."""
    return integer("EZMSG_SETTINGS_EVENT_HISTORY_LIMIT", 10000, minimum=1)


# -- authentication -----------------------------------------------------------------------------------------------


def authkey() -> str | None:
    """The key itself, when given in the environment."""
    return text("EZMSG_AUTHKEY")


def authkey_file() -> Path | None:
    """The configured key file, when given."""
    value = text("EZMSG_AUTHKEY_FILE")
    return Path(value) if value else None


class TlsFiles(NamedTuple):
    """Where the certificate of this process, its key, and the certificates of the CA are, in PEM."""

    cert: Path
    key: Path
    ca: Path


TLS_VARIABLES = ("EZMSG_TLS_CERT", "EZMSG_TLS_KEY", "EZMSG_TLS_CA")
"""In the order of `TlsFiles`."""


def tls_files() -> TlsFiles | None:
    """What TCP connections are encrypted with; None when they are not.

    Raises:
        TlsIncomplete: Some of the variables are set, and not all.
    """
    values = {name: text(name) for name in TLS_VARIABLES}
    given = {name: Path(value) for name, value in values.items() if value}
    if not given:
        return None
    if missing := [name for name in values if name not in given]:
        raise TlsIncomplete(list(given), missing)
    return TlsFiles(*given.values())


def user_config_dir(home: Path) -> Path:
    """Where programs of this user keep their settings."""
    directory = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    return directory if directory.is_absolute() else home / ".config"


# -- state --------------------------------------------------------------------------------------------------------


def user_state_dir() -> Path:
    """Where programs of this user keep what shall survive them.

    Raises:
        RuntimeError: HOME is not set, and the user has no home.
    """
    directory = Path(os.environ.get("XDG_STATE_HOME") or "")
    return directory if directory.is_absolute() else Path(os.environ.get("HOME") or Path.home()) / ".local" / "state"


# -- telemetry ----------------------------------------------------------------------------------------------------


def telemetry_level() -> str:
    """What the recorder records: `off` (totals only) or `metrics` (a row per message, sampled traces)."""
    value = (text("EZMSG_OTEL_LEVEL") or "metrics").lower()
    if value not in {"off", "metrics", "trace"}:
        raise ConfigError("EZMSG_OTEL_LEVEL", value, "off, metrics or trace")
    return value


def trace_rate_hz() -> float:
    """Root traces per second and source topic."""
    return number("EZMSG_TRACE_RATE", 1.0)


def trace_ratio() -> float | None:
    """Share of root messages that are traced, 0 to 1; when set it replaces the rate."""
    if text("EZMSG_TRACE_RATIO") is None:
        return None
    value = number("EZMSG_TRACE_RATIO", 0.0)
    if value > 1.0:
        raise ConfigError("EZMSG_TRACE_RATIO", value, "a number from 0 to 1")
    return value


def trace_is_detailed() -> bool:
    """Whether a traced message has spans of its delivery and its time in a queue, too, or attributes that tell."""
    value = (text("EZMSG_TRACE_DETAIL") or "compact").lower()
    if value not in {"compact", "detailed"}:
        raise ConfigError("EZMSG_TRACE_DETAIL", value, "compact or detailed")
    return value == "detailed"


def telemetry_budget() -> float | None:
    """Share of one core that telemetry may take in a process, above 0; None for as much as it needs."""
    if text("EZMSG_OTEL_BUDGET") is None:
        return None
    value = number("EZMSG_OTEL_BUDGET", 0.0)
    if not value:
        raise ConfigError("EZMSG_OTEL_BUDGET", "0", "a share of one core above 0, for example 0.02")
    return value


def trace_max_samples() -> int:
    """Samples kept per endpoint for readers of the native trace API."""
    return integer("EZMSG_PROFILE_TRACE_MAX_SAMPLES", 10000, minimum=1)


def trace_push_interval_s() -> float:
    """How often a process pushes samples while a trace is enabled."""
    return max(0.01, number("EZMSG_PROFILE_TRACE_PUSH_INTERVAL_S", 0.02))


def trace_push_max_samples() -> int:
    """Samples a process sends in one push."""
    return integer("EZMSG_PROFILE_TRACE_PUSH_MAX_SAMPLES", 5000, minimum=1)


def trace_buffer_limit() -> int:
    """Samples (and span rows) the server keeps per process."""
    return integer("EZMSG_PROFILE_TRACE_BUFFER_LIMIT", 200000, minimum=1)


def otel_mode() -> str:
    """How telemetry leaves the graph: `auto`, `off`, `agent` or `global`."""
    value = (text("EZMSG_OTEL") or "auto").lower()
    if value not in {"auto", "off", "agent", "global"}:
        raise ConfigError("EZMSG_OTEL", value, "auto, off, agent or global")
    return value


def agent_exports() -> bool:
    """Whether an agent is to export: as asked for, or (`auto`) where the OTEL variables name somewhere to export to."""
    mode = otel_mode()
    if mode != "auto":
        return mode == "agent"
    if (text("OTEL_SDK_DISABLED") or "").strip().lower() == "true":
        return False
    endpoints = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    )
    exporters = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER")
    chosen = {(text(name) or "").lower() for name in exporters} - {"", "none"}
    return any(text(name) for name in endpoints) or bool(chosen)


# -- the whole ----------------------------------------------------------------------------------------------------


def variables() -> dict[str, str]:
    """What is set of `EZMSG_*` and `OTEL_*`, sorted by name."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(("EZMSG_", "OTEL_"))}
