"""`ezmsg start`: a GraphServer in the background."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ezmsg.core import config
from ezmsg.core.commands.common import add_address_argument, address_option, graph_address_from_args
from ezmsg.core.commands.dashboard import (
    DashboardDependencyError,
    add_dashboard_argument,
    require_dashboard_dependency,
)
from ezmsg.core.errors import ConfigError, ServerDidNotStart
from ezmsg.core.graphserver import GraphService
from ezmsg.core.net.address import Address
from ezmsg.core.netprotocol import close_stream_writer

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

logger = logging.getLogger("ezmsg")

START_TIMEOUT_S = 20.0
POLL_S = 0.05
TOLD = 1
"""The exit code of a command that failed, and told in one line why."""


def setup_start_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "start",
        help="start a GraphServer in the background",
        description="Start a GraphServer in the background; returns when it can be reached. Fine if one is there. "
        "Its log goes to standard error if that is a file (ezmsg start 2>server.log), else nowhere.",
    )
    add_address_argument(parser)
    add_dashboard_argument(parser)
    parser.set_defaults(_handler=handle_start)


async def handle_start(args: argparse.Namespace) -> int:
    """Start a server and wait until it answers.

    Returns:
        The exit code.

    Raises:
        ServerDidNotStart: It was ended, or does not answer.
        OSError: Something else listens there.
    """
    address = graph_address_from_args(args)
    command = [sys.executable, "-m", "ezmsg.core", "serve", f"--address={address}"]
    if args.dashboard is not None and args.dashboard is not False:
        try:
            require_dashboard_dependency()
        except DashboardDependencyError as error:
            logger.warning("%s", error)
            return 1
        command += ["--dashboard"] if args.dashboard is True else ["--dashboard", str(args.dashboard)]
    if not address.port:
        raise ConfigError("--address", str(address), "a port other than 0, at which the server can be found")
    if _is_taken(address):
        await _reach(address)
        print(f"A GraphServer is at {address} already.")
        return 0
    pid = _spawn(command)
    if not await _is_reached(address, pid):
        return TOLD
    ends = f"ezmsg shutdown{address_option(address)} ends it"
    print(f"GraphServer at {address} (process {pid}), in the background. {ends}.")
    return 0


def _is_taken(address: Address) -> bool:
    """Whether somebody listens there; any other reason why nobody could is left to the server to tell."""
    try:
        address.bind_socket().close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _spawn(command: list[str]) -> int:
    os.environ[config.SERVE_IN_BACKGROUND] = "1"
    try:
        process = subprocess.Popen(command)
    finally:
        del os.environ[config.SERVE_IN_BACKGROUND]
    process.returncode = 0  # it outlives us, as it should: nobody waits for it
    return process.pid


async def _reach(address: Address) -> None:
    _, writer = await GraphService(address).open_connection()
    await close_stream_writer(writer)


async def _is_reached(address: Address, pid: int) -> bool:
    """Wait until the server answers; False if it ended, and said why itself."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await _reach(address)
            return True
        except OSError as error:
            if (status := _ended_with(pid)) == TOLD:
                return False
            if status is not None:
                raise ServerDidNotStart(str(address), f"it ended with exit code {status}") from error
            if time.monotonic() > deadline_s:
                os.kill(pid, signal.SIGKILL)
                raise ServerDidNotStart(str(address), f"it does not answer within {START_TIMEOUT_S:g} s") from error
        await asyncio.sleep(POLL_S)


def _ended_with(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None
