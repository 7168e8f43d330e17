"""`ezmsg mermaid`: the graph in the language of Mermaid, and in a browser."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import webbrowser
import zlib
from typing import TYPE_CHECKING, Final

from ezmsg.core.commands.common import add_address_argument, add_compact_argument
from ezmsg.core.commands.graphviz import printed_graph

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

# Behind `#` nothing leaves the browser; mermaid.ink draws the picture itself, and so gets the graph.
TARGETS: Final = {
    "ink": "https://mermaid.ink/img/pako:",
    "live": "https://mermaid.live/edit#pako:",
    "play": "https://www.mermaidchart.com/play#pako:",
}


def setup_mermaid_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "mermaid",
        help="print the graph for Mermaid, and open it in a browser",
        description="Print the graph, and open it in a browser. The target ink sends the graph to mermaid.ink; "
        "the others keep it in the browser.",
    )
    add_address_argument(parser)
    add_compact_argument(parser)
    parser.add_argument(
        "--target", choices=list(TARGETS), default="live", help="where to open it (default: %(default)s)"
    )
    parser.add_argument("-n", "--nobrowser", action="store_true", help="print only")
    parser.set_defaults(_handler=handle_mermaid)


async def handle_mermaid(args: argparse.Namespace) -> None:
    """Print the graph and show it."""
    graph = await printed_graph(args, "mermaid")
    if not graph or args.nobrowser:
        return
    url = mermaid_url(graph, args.target)
    if not webbrowser.open(url):
        print(f"no browser could be opened; this is what it would show: {url}", file=sys.stderr)


def mermaid_url(graph: str, target: str) -> str:
    """A link that shows a graph.

    Args:
        graph: In the language of Mermaid.
        target: `ink`, `live` or `play`.

    Raises:
        ValueError: There is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: expected one of {', '.join(TARGETS)}")
    state = json.dumps({"code": graph, "mermaid": {"theme": "default"}})
    packed = base64.urlsafe_b64encode(zlib.compress(state.encode(), 9))
    return TARGETS[target] + packed.decode()
