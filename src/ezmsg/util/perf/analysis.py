"""`ezmsg perf report` and `compare`: tables of what `benchmark` has written."""

from __future__ import annotations

import argparse
import html
import json
import statistics
import webbrowser
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ezmsg.core.errors import ConfigError
from ezmsg.util.perf.util import table

Case = tuple[str, str, int, int]
"""Configuration, how messages went, clients, bytes of a message."""


@dataclass
class Summary:
    """What was measured in a file: medians of all runs of a case.

    Attributes:
        environment: What was measured, and on what.
        rates_hz: Messages per second.
        latencies_s: Mean time from sending to receiving.
        runs: Of each case.
    """

    environment: dict[str, str]
    rates_hz: dict[Case, float]
    latencies_s: dict[Case, float]
    runs: dict[Case, int]


def load(path: Path) -> Summary:
    """Read a file.

    Raises:
        ConfigError: It is none that `benchmark` has written.
    """
    rates: defaultdict[Case, list[float]] = defaultdict(list)
    latencies: defaultdict[Case, list[float]] = defaultdict(list)
    try:
        first, *lines = path.read_text().splitlines()
        environment: dict[str, str] = json.loads(first)
        for line in lines:
            it: dict[str, Any] = json.loads(line)
            case = (it["config"], it["comms"], it["n_clients"], it["msg_size"])
            rates[case].append(it["sample_rate_hz"])
            latencies[case].append(it["latency_s"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("perf", str(path), f"a file that `ezmsg perf benchmark` has written ({error})") from error
    return Summary(
        environment,
        {case: statistics.median(values) for case, values in rates.items()},
        {case: statistics.median(values) for case, values in latencies.items()},
        {case: len(values) for case, values in rates.items()},
    )


def report(args: argparse.Namespace) -> int:
    """Make a report of a file, or of how it compares with a baseline."""
    path: Path = args.perf
    baseline: Path | None = getattr(args, "baseline", None)
    prefix = "report" if baseline is None else "compare"
    output = args.output or path.with_name(f"{prefix}_{path.stem.removeprefix('perf_')}.html")
    return write_report(path, baseline, output, is_shown=not args.no_browser)


def write_report(path: Path, baseline: Path | None, output: Path, *, is_shown: bool) -> int:
    """Print a table and write it as a page; 0."""
    summary = load(path)
    older = None if baseline is None else load(baseline)
    columns, rows = _absolute(summary) if older is None else _relative(summary, older)
    print(table(columns, rows))
    title = f"{path}" if baseline is None else f"{path} against {baseline}"
    environments = [summary.environment] if older is None else [summary.environment, older.environment]
    output.write_text(_page(title, columns, rows, environments))
    print(f"written to {output}")
    if is_shown:
        webbrowser.open(output.resolve().as_uri())
    return 0


def _name(case: Case) -> str:
    config, comms, clients, size = case
    return f"{config} {comms} {clients} x {size} B"


def _absolute(summary: Summary) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            _name(case),
            f"{rate:,.0f}",
            f"{rate * case[3] / 1e6:,.2f}",
            f"{summary.latencies_s[case] * 1e6:,.1f}",
            str(summary.runs[case]),
        ]
        for case, rate in summary.rates_hz.items()
    ]
    return ["case", "messages/s", "MB/s", "latency µs", "runs"], rows


def _relative(summary: Summary, older: Summary) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            _name(case),
            f"{rate:,.0f}",
            _ratio(rate, older.rates_hz.get(case)),
            f"{summary.latencies_s[case] * 1e6:,.1f}",
            _ratio(summary.latencies_s[case], older.latencies_s.get(case)),
        ]
        for case, rate in summary.rates_hz.items()
    ]
    return ["case", "messages/s", "of baseline", "latency µs", "of baseline"], rows


def _ratio(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else "-"


def _page(title: str, columns: list[str], rows: list[list[str]], environments: list[dict[str, str]]) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    facts = "".join(
        f"<p>{html.escape('; '.join(f'{name} {value}' for name, value in facts.items()))}</p>" for facts in environments
    )
    body = cells("th", columns) + "".join(cells("td", row) for row in rows)
    style = "body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:right}td:first-child{text-align:left}"
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1>{facts}<table>{body}</table>\n"
    )
