"""The keywords of JSON Schema that limit one value, for values of Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from ezmsg.core.schema.document import Node
from ezmsg.core.schema.plain import is_same, shallow


def is_among(value: Any, choices: Iterable[Any]) -> bool:
    """Whether `value` is one of the choices, where True is not 1."""
    return any(is_same(value, choice) for choice in choices)


def is_one_of(value: Any, kinds: list[str], node: Node) -> bool:
    """Whether `value` is of one of the types that `node` allows; int is fine for number, bool is no number."""
    if any(_IS.get(kind, _anything)(value) for kind in kinds):
        return True
    # A datetime where the document, which only knows JSON, says text of a format; a deque where it says array.
    is_opaque = shallow(value) is value and not isinstance(value, (type(None), bool, int, float, str, list, dict))
    is_text = "string" in kinds and bool(node.keys() & {"format", "contentEncoding"})
    is_array = "array" in kinds and isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray))
    return is_opaque and (is_text or is_array)


def _anything(value: Any) -> bool:
    del value
    return True


_IS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float, Decimal)) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

Limit = Callable[[Any, Any], bool]


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    if not math.isfinite(value):
        return False
    count = value / step
    return math.isclose(count, round(count), rel_tol=1e-9, abs_tol=1e-9)


def matches(value: str, pattern: str) -> bool:
    """Whether `pattern` is found in `value`."""
    try:
        return re.search(pattern, value) is not None
    except re.error:  # the dialect of somebody else
        return True


# NaN is within no bounds: every comparison with it is false.
NUMBER_LIMITS: dict[str, tuple[Limit, str]] = {
    "minimum": (lambda value, limit: value >= limit, "≥"),
    "exclusiveMinimum": (lambda value, limit: value > limit, ">"),
    "maximum": (lambda value, limit: value <= limit, "≤"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "<"),
    "multipleOf": (_is_multiple, "a multiple of"),
}
TEXT_LIMITS: dict[str, tuple[Limit, str]] = {
    "minLength": (lambda value, limit: len(value) >= limit, "length ≥"),
    "maxLength": (lambda value, limit: len(value) <= limit, "length ≤"),
    "pattern": (matches, "text like"),
}
LIST_LIMITS: dict[str, tuple[Limit, str]] = {
    "minItems": (lambda value, limit: len(value) >= limit, "length ≥"),
    "maxItems": (lambda value, limit: len(value) <= limit, "length ≤"),
}
OBJECT_LIMITS: dict[str, tuple[Limit, str]] = {
    "minProperties": (lambda value, limit: len(value) >= limit, "length ≥"),
    "maxProperties": (lambda value, limit: len(value) <= limit, "length ≤"),
}
