"""What all records have in common: their base, and what fields may be."""

from __future__ import annotations

import contextlib
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
