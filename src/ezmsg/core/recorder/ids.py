"""Random ids of traces and spans, never zero, fresh after a fork."""

from __future__ import annotations

import os
import random

_random = random.Random()

random_bits = _random.getrandbits
"""For the message path, which makes ids of its own: a call less."""


def new_trace_id() -> bytes:
    """A random id of 128 bits, as OpenTelemetry and the wire have it: nobody calculates with it."""
    return (random_bits(128) or 1).to_bytes(16, "big")


def new_span_id() -> int:
    """A random id of 64 bits."""
    return random_bits(64) or 1


def hex_span_id(span_id: int) -> str:
    """A span id as OpenTelemetry writes it."""
    return f"{span_id:016x}"


def chance(ratio: float) -> bool:
    """True with this probability."""
    return _random.random() < ratio


def below(n: int) -> int:
    """A random whole number >= 0 and < n."""
    return _random.randrange(n)


os.register_at_fork(after_in_child=_random.seed)
