"""Random ids of traces and spans, never zero, fresh after a fork."""

from __future__ import annotations

import os
import random

_random = random.Random()
_bits = _random.getrandbits


def new_trace_id() -> int:
    """A random id of 128 bits."""
    return _bits(128) or 1


def new_span_id() -> int:
    """A random id of 64 bits."""
    return _bits(64) or 1


def hex_trace_id(high: int, low: int) -> str:
    """A trace id as OpenTelemetry writes it, from its two halves."""
    return f"{high:016x}{low:016x}"


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
