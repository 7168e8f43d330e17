"""The dashboard, a package of its own: whether it is there, where it listens, and how it is started beside a server."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import subprocess
import sys
from typing import Any

from ezmsg.core import config
from ezmsg.core.control import resolve
from ezmsg.core.errors import DashboardDependencyError
from ezmsg.core.net.address import Address, AddressType

DASHBOARD_ADDR_ENV = config.DASHBOARD_ADDR_ENV
DASHBOARD_PORT_DEFAULT = config.GRAPHSERVER_PORT_DEFAULT + 1
DASHBOARD_INSTALL_HINT = "the dashboard is a package of its own: pip install ezmsg-dashboard"
DASHBOARD_MODULE = "ezmsg.dashboard.server"
STOP_TIMEOUT_S = 3.0

__all__ = [
    "DASHBOARD_ADDR_ENV",
    "DASHBOARD_INSTALL_HINT",
    "DASHBOARD_PORT_DEFAULT",
    "DashboardDependencyError",
    "DashboardProcess",
    "add_dashboard_argument",
    "dashboard_address",
    "require_dashboard_dependency",
    "start_dashboard",
]


def add_dashboard_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for a dashboard beside the server."""
    parser.add_argument(
        "--dashboard",
        metavar="PORT",
        nargs="?",
        const=True,
        type=int,
        help="serve the dashboard, too (default port: that of the GraphServer plus 1)",
    )


def dashboard_address(graph_address: AddressType | None = None, dashboard_port: int | bool | None = None) -> Address:
    """Where a dashboard listens: `EZMSG_DASHBOARD_ADDR`, else beside the GraphServer, at the next port.

    Args:
        graph_address: Of the GraphServer; None for the default.
        dashboard_port: Replaces the port; True and None leave it.
    """
    configured = config.dashboard_address()
    if configured is not None:
        where = Address.from_string(configured)
    else:
        graph = resolve(graph_address)
        where = Address(graph.host, graph.port + 1)
    return where if dashboard_port is None or dashboard_port is True else Address(where.host, int(dashboard_port))


def require_dashboard_dependency() -> Any:
    """The module of the dashboard.

    Raises:
        DashboardDependencyError: It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(DASHBOARD_MODULE)
    except Exception as error:  # whatever a package raises that does not fit
        raise DashboardDependencyError(DASHBOARD_INSTALL_HINT, f"{type(error).__name__}: {error}") from None


class DashboardProcess:
    """A dashboard beside a server.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, address: Address, process: subprocess.Popen[bytes]) -> None:
        self.address = address
        self._process = process

    def stop(self) -> None:
        """End it, and wait for that."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
            return
        self._process.kill()
        self._process.wait()


def start_dashboard(graph_address: AddressType | None, dashboard_port: int | bool | None = None) -> DashboardProcess:
    """Start a dashboard for a graph, as a process of its own.

    Raises:
        DashboardDependencyError: It is not installed.
    """
    require_dashboard_dependency()
    where = dashboard_address(graph_address, dashboard_port)
    command = [
        sys.executable, "-m", "ezmsg.core", "dashboard",
        f"--graph-address={resolve(graph_address)}", f"--host={where.host}", f"--port={where.port}",
    ]  # fmt: skip
    return DashboardProcess(where, subprocess.Popen(command, stdin=subprocess.DEVNULL))
