"""Names of the network layer that users know; they live beneath."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Final

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
    "read_str",
    "uint64_to_bytes",
]

LONGEST_STR_BYTES: Final = 1 << 20
_UINT64: Final = struct.Struct("<Q")


async def close_stream_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection that `GraphService.open_connection` opened, and wait until it is gone."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def uint64_to_bytes(value: int) -> bytes:
    """A number as 8 bytes, the lowest first.

    Raises:
        ValueError: It is negative, or does not fit.
    """
    try:
        return _UINT64.pack(value)
    except struct.error as error:
        raise ValueError(f"{value} is no unsigned number of 64 bits") from error


async def read_str(reader: asyncio.StreamReader) -> str:
    """Read text: its length in bytes as `uint64_to_bytes` gives it, then UTF-8.

    Raises:
        asyncio.IncompleteReadError: The stream ends before.
        ValueError: It is no UTF-8, or longer than 1 MiB.
    """
    (size,) = _UINT64.unpack(await reader.readexactly(_UINT64.size))
    if size > LONGEST_STR_BYTES:
        raise ValueError(f"a text of {size} bytes is announced, more than {LONGEST_STR_BYTES}")
    return (await reader.readexactly(size)).decode()
