"""What all records have in common: their base, and what fields may be."""

from __future__ import annotations

import contextlib
from numbers import Integral
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ezmsg.core.errors import ConfigError
from ezmsg.core.wire.limits import NAME_LENGTH

__all__ = [
    "Count",
    "Index",
    "Moment",
    "Name",
    "Number",
    "Port",
    "Record",
    "Seconds",
    "Tally",
    "Timestamp",
    "Word",
    "buffers_of",
    "port_of",
    "queue_of",
    "require_name",
]


# What fields may be, where a peer could put something absurd: refused before a server gets to see it.
Name = Annotated[str, Meta(max_length=NAME_LENGTH)]


Port = Annotated[int, Meta(ge=0, le=65535)]


Number = Annotated[int, Meta(ge=1, le=1 << 32)]


Seconds = Annotated[float, Meta(ge=0, le=1e9)]


# Of a table; of what is counted; of a clock. Sums of many still fit 64 bits.
Index = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Count = Annotated[int, Meta(ge=0, le=1 << 48)]
Moment = Annotated[int, Meta(ge=0, le=1 << 62)]
Word = Annotated[int, Meta(ge=0)]
"""64 bits, as all numbers on the wire at most."""


Tally = Annotated[dict[Name, int], Meta(max_length=256)]


Timestamp = Annotated[float, Meta(ge=-1e12, le=1e12)]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of everything that travels as a record."""


# What users may call something: names in records, as of an endpoint or a counter, are made of up to three of them.
LONGEST_NAME: Final = NAME_LENGTH // 4
MOST: Final = 1 << 20
"""Messages that a publisher or a queue may keep."""


def require_name(argument: str, value: object) -> None:
    """Refuse what no record can carry as a name, before anything is made that has it.

    Raises:
        ConfigError: It is no text, longer than users may call something, or holds half of a surrogate pair.
    """
    if isinstance(value, str) and len(value) <= LONGEST_NAME:
        with contextlib.suppress(UnicodeEncodeError):
            value.encode()
            return
    shown = f"{value:.60}…" if isinstance(value, str) and len(value) > LONGEST_NAME else value
    raise ConfigError(argument, shown, f"valid text of at most {LONGEST_NAME} characters")


def _count_of(argument: str, value: object, expected: str) -> int:
    """A number of messages, as a whole number of Python, whatever it is in.

    Raises:
        ConfigError: It is no whole number, not positive, or absurd.
    """
    if not isinstance(value, Integral) or not 0 < int(value) <= MOST:
        raise ConfigError(argument, value, f"{expected} (1 to {MOST:,})")
    return int(value)


def queue_of(max_queue: object) -> int | None:
    """A number of messages to keep, or None.

    Raises:
        ConfigError: It is neither.
    """
    return None if max_queue is None else _count_of("max_queue", max_queue, "None or a number of messages to keep")


def buffers_of(num_buffers: object) -> int:
    """A number of messages that may be on their way.

    Raises:
        ConfigError: It is none.
    """
    return _count_of("num_buffers", num_buffers, "a number of messages")


def port_of(port: object) -> int | None:
    """A port to listen on, or None.

    Raises:
        ConfigError: It is neither.
    """
    if port is None:
        return None
    if not isinstance(port, Integral) or not 0 <= int(port) < 1 << 16:
        raise ConfigError("port", port, "None or a port (0 to 65535)")
    return int(port)
