"""`ezmsg dashboard`: from the package of the dashboard, or a command that says how to install it."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from ezmsg.core.commands.common import add_address_argument
from ezmsg.core.commands.dashboard import DashboardDependencyError, require_dashboard_dependency

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

logger = logging.getLogger("ezmsg")


def setup_dashboard_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    try:
        module = require_dashboard_dependency()
        module.setup_dashboard_cmdline(subparsers)
    except DashboardDependencyError as error:
        _set_up_fallback(subparsers, error)


def _set_up_fallback(subparsers: Subparsers, error: DashboardDependencyError) -> None:
    def say_what_is_missing(args: argparse.Namespace) -> int:
        logger.warning("%s", error)
        return 1

    parser = subparsers.add_parser("dashboard", help="serve the dashboard (pip install ezmsg-dashboard)")
    add_address_argument(parser, "--graph-address")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--open-browser", action="store_true", help="open the dashboard in a browser")
    parser.add_argument("--log-level", default="info", help="of the dashboard (default: %(default)s)")
    parser.set_defaults(_handler=say_what_is_missing)
