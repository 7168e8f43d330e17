"""The graph for programs without an event loop: blocking publishers and subscribers, and callbacks that are spun.

with ez.sync.init() as context:
context.create_subscription("TOPIC", callback=print)
ez.sync.spin(context)
"""

from __future__ import annotations

from ezmsg.core.net.address import AddressType
from ezmsg.core.sync.context import DEFAULT_POLL_S, SyncContext
from ezmsg.core.sync.endpoints import SyncPublisher, SyncSubscriber

__all__ = ["SyncContext", "SyncPublisher", "SyncSubscriber", "init", "spin", "spin_once"]


def init(graph_address: AddressType | None = None, auto_start: bool | None = None) -> SyncContext:
    """A SyncContext, to be entered with `with`."""
    return SyncContext(graph_address, auto_start)


def spin(ctx: SyncContext, poll_interval: float = DEFAULT_POLL_S) -> None:
    """Call back for each message, until the context is shut down or KeyboardInterrupt."""
    ctx.spin(poll_interval)


def spin_once(ctx: SyncContext, timeout: float | None = 0.0) -> bool:
    """Call back for one message of every subscription that has any; whether there was any."""
    return ctx.spin_once(timeout)
