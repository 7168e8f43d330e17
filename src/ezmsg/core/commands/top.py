"""`ezmsg top`: every edge of a running graph, in a terminal or as a table. What it shows lives in `ezmsg.tui`."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from typing import TYPE_CHECKING, Any

from ezmsg.core.commands.common import add_address_argument, graph_address_from_args
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net.address import Address

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

INSTALL_HINT = "it needs Textual: pip install 'ezmsg[tui]' (ezmsg top --once needs nothing)"
INTERVAL_S = 1.0
# Without a terminal, whose width would say.
PLAIN_COLUMNS = 120


def setup_top_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "top",
        help="watch every edge of a running graph",
        description="Show rate, age, queue, backpressure and its culprit for every edge of a running graph. q ends it.",
    )
    add_address_argument(parser)
    parser.add_argument("--once", action="store_true", help="print one table and end; needs no Textual")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_seconds, default=INTERVAL_S,
        help="over which figures are taken (default %(default)g)",
    )  # fmt: skip
    parser.set_defaults(_handler=handle_top)


async def handle_top(args: argparse.Namespace) -> int:
    """Show the graph until the user has enough of it, or once; returns the exit code."""
    address = graph_address_from_args(args)
    if args.once:
        print(await _one_table(address, args.interval))
        return 0
    try:
        importlib.import_module("textual")
    except ImportError:
        print(f"ezmsg top: {INSTALL_HINT}", file=sys.stderr)
        return 1
    # By name: the programs for terminals are above this package, not beneath it.
    app: Any = importlib.import_module("ezmsg.tui.app")
    top: Any = importlib.import_module("ezmsg.tui.top")
    return await app.run(top.TopApp(address, args.interval))


async def _one_table(address: Address, interval_s: float) -> str:
    measures: Any = importlib.import_module("ezmsg.tui.measures")
    table: Any = importlib.import_module("ezmsg.tui.table")
    measurer = measures.Measurer()
    async with GraphContext(address, auto_start=False) as context:
        await measures.look(context, measurer, 0.0)
        seen = await measures.look(context, measurer, interval_s)
    return table.as_text(seen, shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns)


def _seconds(text: str) -> float:
    """At least 0.1: a look has a price."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0.1 to 3600 seconds")
    return seconds
