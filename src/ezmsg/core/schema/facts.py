"""What is said about a value besides its type: bounds, lengths, choices, words.

Read from whatever carries it by the usual names: annotated_types, msgspec.Meta, field infos of pydantic, plain strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from numbers import Real
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known; None where nothing is. Lengths are of text and containers."""

    ge: Any = None
    gt: Any = None
    le: Any = None
    lt: Any = None
    multiple_of: Any = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    title: str | None = None
    description: str | None = None
    choices: tuple[Any, ...] | None = None

    def over(self, beneath: Facts) -> Facts:
        """These facts, and those of `beneath` where these say nothing."""
        mine = {name: value for name in NAMES if (value := getattr(self, name)) is not None}
        return replace(beneath, **mine)

    def bounds(self) -> tuple[float | None, float | None] | None:
        """Lowest and highest value (or length) as floats, whether they themselves are allowed or not."""
        low = next((float(v) for v in (self.ge, self.gt, self.min_length) if v is not None), None)
        high = next((float(v) for v in (self.le, self.lt, self.max_length) if v is not None), None)
        return None if low is None and high is None else (low, high)


NO_FACTS = Facts()
NAMES = tuple(field.name for field in fields(Facts))


def read(metadata: Iterable[Any]) -> Facts:
    """The facts that pieces of metadata state; later ones win."""
    facts = NO_FACTS
    for item in metadata:
        facts = _read_one(item).over(facts)
    return facts


def _read_one(item: Any) -> Facts:
    if isinstance(item, str):
        return Facts(description=item)
    if isinstance(item, type):
        return NO_FACTS
    found = {name: value for name, usable in _USABLE.items() if usable(value := _attribute(item, name))}
    words = _attribute(item, "documentation")  # of typing.Doc
    if _is_text(words):
        found.setdefault("description", words)
    nested = _attribute(item, "metadata")  # of a field info of pydantic in Annotated
    return Facts(**found).over(read(cast(list[Any], nested)) if isinstance(nested, list) else NO_FACTS)


def _attribute(item: Any, name: str) -> Any:
    try:
        return getattr(item, name, None)
    except Exception:  # an object we know nothing about
        return None


def is_number(value: Any) -> bool:
    """Whether `value` can bound numbers."""
    return not isinstance(value, bool) and isinstance(value, (Real, Decimal)) and value == value


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and value >= 0 and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_USABLE: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("ge", "gt", "le", "lt", "multiple_of"), is_number),
    **dict.fromkeys(("min_length", "max_length"), _is_length),
    **dict.fromkeys(("pattern", "title", "description"), _is_text),
}
