"""Writes docs/reference/telemetry.md from the tables in `ezmsg.otel.semconv`: `python tools/telemetry_reference.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill

from ezmsg.otel.semconv import ATTRIBUTES, CULPRIT, METRICS, OF_SERVER, SCHEMA_URL, SCOPE_NAME, SPANS, MetricSpec

WIDTH = 120
PAGE = Path(__file__).parents[1] / "docs/reference/telemetry.md"

HEAD = f"""\
<!-- Made by tools/telemetry_reference.py from src/ezmsg/otel/semconv.py; a test compares them. -->

# Telemetry: spans, metrics and attributes

What leaves a graph over OTLP, by name. Names follow the semantic conventions for messaging 1.44, which are still in
development; the scope is `{SCOPE_NAME}`, with the schema {SCHEMA_URL}.

The resource of a process has `service.name` (`OTEL_SERVICE_NAME`, else the root of the addresses of its units),
`service.instance.id` (its id on the control plane), `host.name`, `process.pid`, `process.runtime.name`,
`process.runtime.version`, `ezmsg.process.name` (`EZMSG_PROCESS_NAME`, else the program), and what
`OTEL_RESOURCE_ATTRIBUTES` says.
"""

SPANS_HEAD = """\
## Spans

Of sampled messages: `EZMSG_TRACE_RATE` traces a second and source topic (default 1; the publishers of a topic share
them, each process has its own), or the share `EZMSG_TRACE_RATIO` of messages. One trace runs through all hops. Spans
have the ids that the native profiling API tells. A failure has the status `ERROR`, `error.type`, and an `exception`
event. Spans of user code also have up to 16 attributes of their own.

Requests to processes and settings have spans where they are asked for within a trace, and else begin one at the same
rate, each kind of request for itself.
"""

METRICS_HEAD = f"""\
## Metrics

All are cumulative; histograms are exponential, of scale 3 or less, with exemplars of traced messages. In PromQL dots
become `_`, `s` becomes `_seconds`, `By` becomes `_bytes`, and counters end in `_total`. Beyond 2000 attribute sets of a
metric and process, the rest is one series with `otel.metric.overflow`.

With `EZMSG_OTEL=global` each process exports what it knows itself, and that of the GraphServer what that knows:
{fill(", ".join(f"`{name}`" for name in OF_SERVER), WIDTH)}.
There the kinds of nodes are known of its own process alone. `{CULPRIT.name}` takes what all processes
know, which an agent alone does.
"""


def page() -> str:
    """The whole page."""
    spans = ((f"`{spec.name}`", spec.kind, spec.description, _names(spec.attributes)) for spec in SPANS)
    metrics = (
        (f"`{name}`", specs[0].kind, specs[0].unit, specs[0].description, _names(_attributes_of(specs)))
        for name, specs in _by_name().items()
    )
    attributes = ((f"`{name}`", kind, text) for name, (kind, text) in ATTRIBUTES.items())
    parts = (
        HEAD,
        SPANS_HEAD,
        _table(("span", "kind", "what it is", "attributes"), spans),
        METRICS_HEAD,
        _table(("metric", "type", "unit", "what it is", "attributes"), metrics),
        "## Attributes\n",
        _table(("attribute", "type", "what it is"), attributes),
    )
    return "\n".join(parts)


def _by_name() -> dict[str, list[MetricSpec]]:
    """A metric may be fed by several counters."""
    found: dict[str, list[MetricSpec]] = {}
    for spec in METRICS:
        found.setdefault(spec.name, []).append(spec)
    return found


def _attributes_of(specs: Iterable[MetricSpec]) -> list[str]:
    names: dict[str, None] = {}
    for spec in specs:
        names.update(dict.fromkeys((*dict(spec.constants), *spec.attributes, *([spec.label] if spec.label else []))))
    return list(names)


def _names(attributes: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in attributes) or "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
