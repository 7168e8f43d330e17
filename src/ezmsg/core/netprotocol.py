"""Names of the network layer that users know; they live beneath."""

from __future__ import annotations

import asyncio
import contextlib

from ezmsg.core import config
from ezmsg.core.config import DEFAULT_HOST, GRAPHSERVER_ADDR_ENV, GRAPHSERVER_PORT_DEFAULT
from ezmsg.core.net.address import Address, AddressType

GRAPHSERVER_ADDR = config.graph_address()

__all__ = [
    "DEFAULT_HOST",
    "GRAPHSERVER_ADDR",
    "GRAPHSERVER_ADDR_ENV",
    "GRAPHSERVER_PORT_DEFAULT",
    "Address",
    "AddressType",
    "close_stream_writer",
]


async def close_stream_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection that `GraphService.open_connection` opened, and wait until it is gone."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
