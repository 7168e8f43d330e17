"""Values reduced to what JSON can say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, cast

from ezmsg.core.schema.table import family_of

PLAIN_TYPES = (type(None), bool, int, float, str, list, dict)
_DEPTH = 100


def plain(value: Any, say: Callable[[Any], Any] | None = None) -> Any:
    """`value` as None, bool, int, float, str, list or dict with text as keys, all the way down.

    Members of an Enum become their values, sets and tuples lists, objects of a settings class dicts, scalars of numpy
    numbers; anything else its repr, or (if it is not of a member) what `say` makes of it; what contains itself `...`.
    """
    return _plain(value, (), say or text)


def _plain(value: Any, above: tuple[int, ...], say: Callable[[Any], Any]) -> Any:
    level: Any = shallow(value)
    if not isinstance(level, (list, dict)):
        if isinstance(level, PLAIN_TYPES):
            return cast(Any, level)
        return text(level) if isinstance(value, Enum) else say(level)
    if id(value) in above or len(above) == _DEPTH:
        return "..."
    above = (*above, id(value))
    if isinstance(level, list):
        return [_plain(item, above, say) for item in cast(list[Any], level)]
    return {key: _plain(item, above, say) for key, item in cast(dict[str, Any], level).items()}


def is_same(value: Any, choice: Any) -> bool:
    """Whether two plain values are the same, where True is not 1."""
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def shallow(value: Any) -> Any:
    """One level of `plain`: what is inside a list or dict stays as it is, and so does what only has a repr."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return shallow(value.value)
    for kind in (int, float, str):
        if isinstance(value, kind):
            return cast(Any, value if type(value) is kind else _base(kind, value))
    if isinstance(value, Mapping):
        return {str(key): item for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return list(cast(list[Any], value))
    if isinstance(value, AbstractSet):
        return _in_order(cast(AbstractSet[Any], value))
    return _shallow_object(value)


def _shallow_object(value: Any) -> Any:
    if (family := family_of(type(value))) is not None:
        return dump(family, value)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        item: Any = value.item()
        return cast(Any, item) if isinstance(item, PLAIN_TYPES) else value
    return value


def dump(family: Any, value: Any) -> dict[str, Any]:
    """The values of the fields of `value` by name; empty if it does not give them."""
    try:
        return {str(key): item for key, item in family.dump(value).items()}
    except Exception:  # code of others: a serializer, a property
        return {}


def _base(kind: type, value: Any) -> Any:
    """`value` without its subclass, which may have its own idea of `str` and `float`."""
    return kind.__new__(kind, value) if kind is not str else str.__str__(value)


def _in_order(values: AbstractSet[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=text)


def text(value: Any) -> str:
    """The repr of `value`, or what it is if it has none."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__module__}.{type(value).__qualname__}>"
