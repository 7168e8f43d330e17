"""`ezmsg shutdown`: end a server in order."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from ezmsg.core.commands.common import add_address_argument, graph_address_from_args
from ezmsg.core.errors import ServerUnreachable
from ezmsg.core.graphserver import GraphService

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

logger = logging.getLogger("ezmsg")


def setup_shutdown_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("shutdown", help="end the GraphServer at an address")
    add_address_argument(parser)
    parser.set_defaults(_handler=handle_shutdown)


async def handle_shutdown(args: argparse.Namespace) -> None:
    """End the server, and wait until it listens no more; one that is not there is only worth a warning."""
    address = graph_address_from_args(args)
    try:
        await GraphService(address).shutdown()
    except ServerUnreachable as error:
        logger.warning("there is nothing to shut down: no GraphServer answers at %s (%s)", address, error.reason)
        return
    print(f"The GraphServer at {address} has ended.")
