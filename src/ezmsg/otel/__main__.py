"""`python -m ezmsg.otel`: the telemetry agent of a graph, as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from ezmsg.core import config
from ezmsg.core.errors import AuthKeyError, ConfigError, ConnectionFailed, ExporterLeased, EzmsgError
from ezmsg.core.net.address import Address
from ezmsg.core.net.forking import ENDING_SIGNALS
from ezmsg.otel.settings import NotConfigured, Settings, sdk_is_disabled

if TYPE_CHECKING:
    from ezmsg.otel.agent import AgentCore

PATIENCE_S = 5.0
CHILD_S = 10.0
"""For the graph of a child to end when both were told to: what it measured last is exported, too."""

logger = logging.getLogger("ezmsg.otel")


class Exit(IntEnum):
    """How the agent ended."""

    OK = 0
    FAILED = 1
    MISCONFIGURED = 2
    LEASED = 3
    UNREACHABLE = 4


def main(arguments: Sequence[str] | None = None) -> Exit:
    """Run an agent until its graph ends or it is told to."""
    options = parser().parse_args(arguments)
    if options.child:
        # Ctrl-C reaches the whole process group; we end when the server does, with what it still sends us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Standard output belongs to nobody there; what the console exporter prints goes where the log goes.
        sys.stdout = sys.stderr
    _log_to_stderr(options)
    try:
        return serve(options)
    except (ConfigError, NotConfigured, AuthKeyError) as error:
        logger.error("%s", error)
        return Exit.MISCONFIGURED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ezmsg.otel",
        description="Exports the telemetry of an ezmsg graph over OTLP, as the standard OTEL_* variables say.",
    )
    made.add_argument("--graph", metavar="HOST:PORT", type=_address, help="address of the GraphServer")
    made.add_argument("--wait", metavar="SECONDS", type=float, default=PATIENCE_S, help="how long to wait for it")
    made.add_argument("--child", action="store_true", help="end at the end of file of standard input")
    made.add_argument("--verbose", action="store_true", help="log what the exporters do")
    return made


def _log_to_stderr(options: argparse.Namespace) -> None:
    # The parent of a child adds the time when it passes a line on.
    form = "%(levelname)s: %(message)s" if options.child else "%(asctime)s %(name)s %(levelname)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, format=form, stream=sys.stderr)
    # `ezmsg.core` logs to a handler of its own; here every line is written once, by the one above.
    logging.getLogger("ezmsg").handlers.clear()
    if options.verbose:
        logging.getLogger("ezmsg").setLevel(logging.DEBUG)
    else:
        # One line for each change of state is ours to write; the exporters write several for each failure.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)


def serve(options: argparse.Namespace) -> Exit:
    """Check what is asked for, and do it."""
    mode = config.otel_mode()
    if mode == "global":
        expected = "auto, agent or off for an agent (with global, each process feeds the providers of its own program)"
        raise ConfigError("EZMSG_OTEL", mode, expected)
    if mode == "off" or sdk_is_disabled():
        logger.info("nothing is exported: %s", "EZMSG_OTEL is off" if mode == "off" else "OTEL_SDK_DISABLED is true")
        return Exit.OK
    settings = Settings.from_environment()
    if settings.traces.exporter == settings.metrics.exporter == "none":
        logger.info("nothing is exported: OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER are none")
        return Exit.OK
    # Only now: this takes most of the time a start needs.
    from ezmsg.otel.agent import AgentCore

    core = AgentCore(settings)
    core.start()
    try:
        status = asyncio.run(follow(core, options))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        has_ended = core.stop()
    if not has_ended:
        # A thread hangs in an export; the interpreter might wait for what it holds.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


async def follow(core: AgentCore, options: argparse.Namespace) -> Exit:
    """Feed the core until the graph ends, a signal comes, or (for a child) standard input ends."""
    from ezmsg.otel.client import AgentClient

    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    if options.child:
        loop.add_signal_handler(signal.SIGTERM, _stop_soon, loop, told_to_stop)
        threading.Thread(target=_watch_stdin, args=(loop, told_to_stop), daemon=True).start()
        # Whoever started us held them back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    else:
        loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
        loop.add_signal_handler(signal.SIGINT, told_to_stop.set)
    client = asyncio.create_task(AgentClient(core, options.graph or config.graph_address()).run(options.wait))
    stopping = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({client, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done() and core.has_news:
        # While the server still hears what became of the spans it sent.
        await asyncio.to_thread(core.drain, is_last=True)
    stopping.cancel()
    client.cancel()
    try:
        await client
    except asyncio.CancelledError:
        logger.info("told to stop")
    except ConnectionFailed as error:
        logger.error("%s", error)
        return Exit.UNREACHABLE
    except EzmsgError as error:
        logger.error("%s", error)
        return Exit.LEASED if isinstance(error, ExporterLeased) else Exit.FAILED
    return Exit.OK


def _stop_soon(loop: asyncio.AbstractEventLoop, told_to_stop: asyncio.Event) -> None:
    """SIGTERM may have reached the whole program: then its graph ends, and standard input. A second one is final."""
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    loop.call_later(CHILD_S, told_to_stop.set)


def _watch_stdin(loop: asyncio.AbstractEventLoop, told_to_stop: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended before us
        loop.call_soon_threadsafe(told_to_stop.set)


def _address(text: str) -> str:
    try:
        return str(Address.from_string(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
