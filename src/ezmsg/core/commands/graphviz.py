"""`ezmsg graphviz`: the graph in the language of Graphviz."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ezmsg.core.commands.common import add_address_argument, add_compact_argument, graph_address_from_args
from ezmsg.core.graphserver import GraphService

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers


def setup_graphviz_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "graphviz", help="print the graph for Graphviz", description="Print the graph: ezmsg graphviz | dot -Tsvg"
    )
    add_address_argument(parser)
    add_compact_argument(parser)
    parser.set_defaults(_handler=handle_graphviz)


async def handle_graphviz(args: argparse.Namespace) -> None:
    """Print the graph."""
    await printed_graph(args, "graphviz")


async def printed_graph(args: argparse.Namespace, fmt: str) -> str:
    """Print the graph, and return it; an empty one is said to be."""
    address = graph_address_from_args(args)
    graph = await GraphService(address).get_formatted_graph(fmt, compact_level=args.compact)
    if graph:
        print(graph.rstrip("\n"))
    else:
        print(f"the graph at {address} has no edges", file=sys.stderr)
    return graph
