"""Endpoints of one process that closed: what they measured last, and what rows still call them.

They lie encoded and compressed, in a tenth of the memory: sessions come and go for days, and few are ever asked for
again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from ezmsg.core.recorder.past import LastValues, Past
from ezmsg.core.wire.records import EndpointRecord

KEPT: Final = 250
"""The newest that wait for an exporter that is still to come, and that rows may name."""


_ENCODER = msgspec.msgpack.Encoder()
_VALUES = msgspec.msgpack.Decoder(LastValues)


def _pack(last: LastValues) -> bytes:
    return zlib.compress(_ENCODER.encode(last), level=1)


def _unpack(packed: bytes) -> LastValues:
    return _VALUES.decode(zlib.decompress(packed))


class ClosedEndpoints:
    """The newest of them. Iterates over their indices, the oldest first.

    Attributes:
        past: What others measured, together.
    """

    def __init__(self) -> None:
        self._values: dict[int, bytes] = {}
        self.past = Past()

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def add(self, last: LastValues) -> None:
        """One closed; what it said when it closed before is forgotten."""
        index = last.endpoint.index
        self.discard(index)
        self._values[index] = _pack(last)
        if len(self._values) > KEPT:
            self.past.add(_unpack(self._values.pop(next(iter(self._values)))))

    def discard(self, index: int) -> None:
        """It is open again: its process lost its link, and tells everything once more."""
        self._values.pop(index, None)

    def last(self, index: int) -> LastValues | None:
        """The last values of one; None when they had to give way."""
        packed = self._values.get(index)
        return None if packed is None else _unpack(packed)

    def record(self, index: int) -> EndpointRecord | None:
        """What rows mean by an index."""
        packed = self._values.get(index)
        return None if packed is None else _unpack(packed).endpoint

    def records(self) -> list[EndpointRecord]:
        """What rows mean by the indices of all of them."""
        return [_unpack(packed).endpoint for packed in self._values.values()]
