"""The command line `ezmsg`: which commands there are, and what becomes of their results and errors."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

from ezmsg.core._version import __version__
from ezmsg.core.commands.common import OneLineParser
from ezmsg.core.commands.dashboard_cmd import setup_dashboard_cmdline
from ezmsg.core.commands.graphviz import handle_graphviz, setup_graphviz_cmdline
from ezmsg.core.commands.mermaid import handle_mermaid, setup_mermaid_cmdline
from ezmsg.core.commands.perf import setup_perf_cmdline
from ezmsg.core.commands.serve import handle_serve, setup_serve_cmdline
from ezmsg.core.commands.shutdown import handle_shutdown, setup_shutdown_cmdline
from ezmsg.core.commands.start import handle_start, setup_start_cmdline
from ezmsg.core.errors import EzmsgError
from ezmsg.core.net.address import AddressType

logger = logging.getLogger("ezmsg")

FAILED = 1
INTERRUPTED = 130

HANDLERS: dict[str, Callable[[argparse.Namespace], Awaitable[int | None]]] = {
    "serve": handle_serve,
    "start": handle_start,
    "shutdown": handle_shutdown,
    "graphviz": handle_graphviz,
    "mermaid": handle_mermaid,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser; the command goes to `command`, and what runs it to `_handler`."""
    # Here: every program imports this module by way of `ezmsg.core`, and few want to be diagnosed.
    from ezmsg.core.commands.doctor import setup_doctor_cmdline
    from ezmsg.core.commands.top import setup_top_cmdline
    from ezmsg.core.commands.trace import setup_trace_cmdline

    parser = OneLineParser(prog="ezmsg.core", description="Run, see and diagnose a graph of ezmsg.")
    parser.add_argument("--version", action="version", version=f"ezmsg {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    setup_serve_cmdline(subparsers)
    setup_start_cmdline(subparsers)
    setup_shutdown_cmdline(subparsers)
    setup_graphviz_cmdline(subparsers)
    setup_mermaid_cmdline(subparsers)
    setup_trace_cmdline(subparsers)
    setup_doctor_cmdline(subparsers)
    setup_top_cmdline(subparsers)
    setup_dashboard_cmdline(subparsers)
    setup_perf_cmdline(subparsers)
    return parser


def cmdline(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None for those of this process.

    Returns:
        The exit code. Errors are told in one line on standard error.

    Raises:
        SystemExit: The arguments cannot be used, or only help was asked for.
    """
    args = build_parser().parse_args(argv)
    handler: Callable[[argparse.Namespace], Any] = args._handler
    try:
        result = handler(args)
        if inspect.isawaitable(result):
            result = asyncio.run(cast("Coroutine[Any, Any, Any]", result))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has had enough; what is left must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        print(f"ezmsg {args.command}: {_in_one_line(error)}", file=sys.stderr)
        logger.debug("%s failed", args.command, exc_info=True)
        return FAILED
    return result if isinstance(result, int) else 0


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, EzmsgError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    expected = isinstance(error, (EzmsgError, OSError, ValueError))
    text = text if expected else f"{type(error).__name__}: {text} (EZMSG_LOGLEVEL=DEBUG tells where)"
    return " ".join(text.split())


async def run_command(
    cmd: str,
    graph_address: AddressType | None,
    target: str = "live",
    compact: int | None = None,
    nobrowser: bool = False,
    dashboard: bool | int | None = None,
) -> int | None:
    """Run one of the commands serve, start, shutdown, graphviz and mermaid.

    Args:
        cmd: Which.
        graph_address: Of the GraphServer; None for the default.
        target: Of mermaid: where the drawing is opened.
        compact: Of graphviz and mermaid: how many levels of the hierarchy collapse.
        nobrowser: Of mermaid: print only.
        dashboard: Of serve and start: serve a dashboard, too, at this port or (True) at the default one.

    Returns:
        The exit code; None is fine, too.

    Raises:
        ValueError: There is no such command.
    """
    handler = HANDLERS.get(cmd)
    if handler is None:
        raise ValueError(f"unknown command {cmd!r}: expected one of {', '.join(HANDLERS)}")
    return await handler(
        argparse.Namespace(
            command=cmd, address=graph_address, target=target, compact=compact, nobrowser=nobrowser,
            dashboard=dashboard,
        )
    )  # fmt: skip
