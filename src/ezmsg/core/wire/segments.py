"""How named shared memory is laid out: equal buffers, one after the other. Checked here by both ends."""

from __future__ import annotations

import operator
from typing import Any, Final

from ezmsg.core.errors import ConfigError

RESERVED_BYTES: Final = 16
"""At the end of each buffer, never handed out: programs rely on the sizes that follow from it."""
_MAX: Final = (1 << 63) - 1


def check_layout(num_buffers: Any, buf_size: Any) -> tuple[int, int]:
    """Both as plain integers, where they make a segment.

    Args:
        num_buffers: How many buffers, at least one.
        buf_size: Bytes of each, the reserved ones included; more than these.

    Raises:
        ConfigError: They do not.
    """
    return _integer("num_buffers", num_buffers, 1), _integer("buf_size", buf_size, RESERVED_BYTES + 1)


def _integer(name: str, value: Any, minimum: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not minimum <= number <= _MAX:
        raise ConfigError(name, value, f"an integer from {minimum} to {_MAX}")
    return number
