"""`ezmsg doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ezmsg.core import config
from ezmsg.core._version import __version__
from ezmsg.core.commands.checks.clocks import look_at_clocks
from ezmsg.core.commands.checks.environment import look_at_environment
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.key import look_at_key
from ezmsg.core.commands.checks.limits import look_at_limits
from ezmsg.core.commands.checks.server import look_at_server
from ezmsg.core.commands.checks.stale import look_for_stale
from ezmsg.core.commands.common import add_address_argument, graph_address_from_args

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

MARKS = {"ok": "ok", "info": "-", "warning": "WARNING", "problem": "PROBLEM"}
MOST_COLUMNS = 120
LEAST_NAME = 15


def setup_doctor_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="see what works here and what does not",
        description="See whether a GraphServer is there, which key, limits, settings and clocks are in force, and what "
        "is left of dead processes. Changes nothing. Exit code 0: nothing is wrong; 1: there is a problem.",
    )
    add_address_argument(parser)
    parser.add_argument("--json", action="store_true", help="print findings for programs")
    parser.set_defaults(_handler=handle_doctor)


async def handle_doctor(args: argparse.Namespace) -> int:
    """Look at everything, tell it, and return 1 if there is a problem."""
    findings = await diagnose(args)
    has_problem = any(finding.state == "problem" for finding in findings)
    if args.json:
        print(json.dumps({"ok": not has_problem, "version": __version__, "findings": list(map(asdict, findings))}))
    else:
        print(as_table(findings, min(MOST_COLUMNS, shutil.get_terminal_size().columns)))
    return int(has_problem)


async def diagnose(args: argparse.Namespace) -> list[Finding]:
    """Everything there is to say."""
    by_environment = config.GRAPHSERVER_ADDR_ENV if config.graph_address_is_set() else None
    named_by = "--address" if args.address else by_environment
    try:
        address = graph_address_from_args(args)
    except ValueError as error:
        finding = Finding("server", "address", "problem", str(error), "write host:port")
        address, server, findings = None, None, [finding]
    else:
        server, findings = await look_at_server(address, named_by)
    findings += await _looked_at("key", look_at_key)
    findings += await _looked_at("limits", look_at_limits, server)
    findings += await _looked_at("environment", look_at_environment)
    findings += await _looked_at("clocks", look_at_clocks, server)
    findings += await _looked_at("stale", look_for_stale, address, server)
    return findings


async def _looked_at(topic: str, look: Callable[..., Any], *args: object) -> list[Finding]:
    """What a check finds; whatever keeps it from looking is a finding, too."""
    try:
        found = look(*args)
        return await found if inspect.isawaitable(found) else found
    except Exception as error:
        return [Finding(topic, "check", "problem", f"could not be done: {type(error).__name__}: {error}")]


def as_table(findings: list[Finding], columns: int) -> str:
    """The findings for people, remedies below what they are for."""
    lines: list[str] = []
    topic, name_width = "", 0
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            name_width = max(LEAST_NAME, *(len(other.name) for other in findings if other.topic == topic))
            lines += ["", topic]
        begin = f"  {MARKS[finding.state]:8} {finding.name:{name_width}}  "
        lines += _wrapped(begin, finding.text, columns)
        if finding.remedy:
            lines += _wrapped(" " * len(begin) + "→ ", finding.remedy, columns)
    return "\n".join([*lines[1:], "", _summary(findings)])


def _wrapped(begin: str, text: str, columns: int) -> list[str]:
    return textwrap.wrap(
        text, max(columns, len(begin) + 20), initial_indent=begin, subsequent_indent=" " * len(begin),
        break_long_words=False, break_on_hyphens=False,
    ) or [begin.rstrip()]  # fmt: skip


def _summary(findings: list[Finding]) -> str:
    counts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for word in ("problem", "warning")
        if (number := sum(finding.state == word for finding in findings))
    ]
    return f"Found {' and '.join(counts)}." if counts else "Nothing is wrong."
