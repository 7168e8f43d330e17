"""Turns a message into a pickle with out-of-band buffers, and back.

Protocol 5: large contiguous data (arrays, bytearrays) stays in buffers that are written and read without a copy.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

from ezmsg.core.wire.messages import BUFFERS_MAX

# The one codec so far; the message header names it, so that others can be added.
PICKLE5 = 0


class Encoded(NamedTuple):
    """A message as bytes: the pickle, and the raw buffers beside it."""

    codec: int
    head: bytes
    buffers: list[memoryview]
    size: int


def encode(obj: Any) -> Encoded:
    """Serialise a message; whatever its pickling raises comes through."""
    views: list[pickle.PickleBuffer] = []
    head = pickle.dumps(obj, protocol=5, buffer_callback=views.append)
    if not views:
        return Encoded(PICKLE5, head, [], len(head))
    try:
        buffers = [view.raw() for view in views] if len(views) <= BUFFERS_MAX else None
    except BufferError:
        buffers = None
    if buffers is None:
        # Non-contiguous buffers, which some exporters offer, or more than a message can name: everything in-band.
        head = pickle.dumps(obj, protocol=5)
        return Encoded(PICKLE5, head, [], len(head))
    return Encoded(PICKLE5, head, buffers, len(head) + sum(buffer.nbytes for buffer in buffers))


def decode(codec: int, head: bytes | bytearray | memoryview, buffers: Sequence[memoryview]) -> Any:
    """The message again; its arrays are views of `buffers`."""
    if codec != PICKLE5:
        raise ValueError(f"unknown codec {codec}")
    return pickle.loads(head, buffers=buffers)
