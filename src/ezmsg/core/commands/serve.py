"""`ezmsg serve`: a GraphServer in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import stat
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ezmsg.core import config
from ezmsg.core.commands.common import add_address_argument, address_option, graph_address_from_args
from ezmsg.core.commands.dashboard import (
    DashboardDependencyError,
    DashboardProcess,
    add_dashboard_argument,
    start_dashboard,
)
from ezmsg.core.graphserver import GraphService

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers
    from ezmsg.core.net.address import Address

logger = logging.getLogger("ezmsg")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def setup_serve_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a graph in the foreground",
        description="Serve a graph at exactly this address until Ctrl-C, SIGTERM or ezmsg shutdown. With "
        "OTEL_EXPORTER_OTLP_ENDPOINT set, telemetry is exported, too.",
    )
    add_address_argument(parser)
    add_dashboard_argument(parser)
    parser.set_defaults(_handler=handle_serve)


async def handle_serve(args: argparse.Namespace) -> None:
    """Serve until a signal or somebody's `shutdown`; then everybody is told."""
    address = graph_address_from_args(args)
    stopping = asyncio.Event()
    with _heard_signals(stopping.set):
        service = GraphService(address)
        server: Any = _created(service)
        dashboard = None
        try:
            if not address.port:
                address = service.address
            dashboard = _dashboard_of(address, args.dashboard)
            if config.serve_in_background():
                leave_the_caller_alone()
            else:
                ends = f"Ctrl-C or ezmsg shutdown{address_option(address)} ends it"
                print(f"GraphServer at {address} (process {os.getpid()}). {ends}.", flush=True)
            await _ended(server, stopping)
        finally:
            if isinstance(dashboard, DashboardProcess):
                dashboard.stop()
            server.stop()


def _created(service: GraphService) -> object:
    try:
        return service.create_server()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        hint = "ezmsg doctor tells who is there, --address takes another"
        raise OSError(error.errno, f"{error.strerror}: {hint}") from None


async def _ended(server: Any, stopping: asyncio.Event) -> None:
    """Wait until the server ended by itself, or is to be stopped."""
    joined = asyncio.get_running_loop().run_in_executor(None, server.join)
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({joined, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()


def _dashboard_of(graph_address: Address, port: int | bool | None) -> object:
    if port is None or port is False:
        return None
    try:
        dashboard = start_dashboard(graph_address, dashboard_port=port)
    except DashboardDependencyError as error:
        logger.warning("%s", error)
        return None
    print(f"Dashboard at http://{getattr(dashboard, 'address', graph_address)}", flush=True)
    return dashboard


@contextlib.contextmanager
def _heard_signals(heard: Callable[[], object]) -> Generator[None]:
    """Be told of signals that end a program, instead of ending. Those that are ignored stay so, as nohup wants it."""
    loop = asyncio.get_running_loop()
    added: list[signal.Signals] = []
    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: whoever is has the signals
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, heard)
                added.append(number)
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)


def leave_the_caller_alone() -> None:
    """Outlive the terminal, and keep only files: who reads a pipe or a terminal would wait until the server ends."""
    with contextlib.suppress(OSError):
        os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
