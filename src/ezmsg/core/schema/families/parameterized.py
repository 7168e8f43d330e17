"""Settings that are Parameterized classes of param."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, Literal, Optional

from ezmsg.core.schema.facts import Facts, is_number
from ezmsg.core.schema.family import Family, Field


def _holds(tp: type) -> bool:
    library = sys.modules.get("param")
    return library is not None and issubclass(tp, library.Parameterized)


def _fields(tp: Any) -> list[Field]:
    return [_field(name, item) for name, item in tp.param.objects("existing").items() if name != "name"]


def _field(name: str, item: Any) -> Field:
    kind = item.__class__
    annotation = _annotation(item)
    if item.allow_None and annotation is not Any:
        annotation = Optional[annotation]  # noqa: UP045 - the annotation may be no type
    return Field(
        name,
        annotation,
        _facts(item),
        item.default,
        type_name=f"{kind.__module__}.{kind.__qualname__}",
        settable=not (item.constant or item.readonly),
    )


def _annotation(item: Any) -> Any:
    """The annotation that says what this parameter takes; Any if none does."""
    for kind in type(item).__mro__:
        if kind.__name__ in _ANNOTATIONS:
            return _ANNOTATIONS[kind.__name__](item)
    return Any


def _list(item: Any) -> Any:
    return list[item.item_type] if isinstance(item.item_type, type) else list[Any]


def _tuple(item: Any) -> Any:
    return tuple[(Any,) * item.length] if item.length else tuple[Any, ...]


def _choice(item: Any) -> Any:
    choices = _choices(item)
    return Any if choices is None else Literal[choices]


def _class(item: Any) -> Any:
    if not item.is_instance:
        return Any
    return item.class_ if isinstance(item.class_, type) else Any


# By name of the class of the parameter; a parameter is what the first of its bases here is.
_ANNOTATIONS: dict[str, Callable[[Any], Any]] = {
    "Boolean": lambda item: bool,
    "Integer": lambda item: int,
    "Date": lambda item: Any,
    "CalendarDate": lambda item: Any,
    "Number": lambda item: float,
    "String": lambda item: str,
    "Color": lambda item: str,
    "Path": lambda item: str,
    "ListSelector": lambda item: list[Any],
    "Selector": _choice,
    "List": _list,
    "DateRange": lambda item: Any,
    "CalendarDateRange": lambda item: Any,
    "Range": lambda item: tuple[float, float],
    "NumericTuple": lambda item: tuple[(float,) * item.length] if item.length else tuple[float, ...],
    "Tuple": _tuple,
    "Dict": lambda item: dict[Any, Any],
    "ClassSelector": _class,
}


def _facts(item: Any) -> Facts:
    low, high = getattr(item, "bounds", None) or (None, None)
    words = (item.doc or "").strip() or None
    if _annotation(item) not in (int, float):
        is_list = type(item).__name__ == "List"
        return Facts(
            min_length=low if is_list else None,
            max_length=high if is_list else None,
            pattern=_pattern(item),
            description=words,
            choices=_choices(item),
        )
    low, high = low if is_number(low) else None, high if is_number(high) else None
    low_is_in, high_is_in = getattr(item, "inclusive_bounds", (True, True))
    return Facts(
        ge=low if low_is_in else None,
        gt=None if low_is_in else low,
        le=high if high_is_in else None,
        lt=None if high_is_in else high,
        description=words,
    )


def _pattern(item: Any) -> str | None:
    regex = getattr(item, "regex", None)
    return f"^(?:{regex})" if isinstance(regex, str) else None  # param looks at the beginning only


def _choices(item: Any) -> tuple[Any, ...] | None:
    found = tuple(getattr(item, "objects", None) or ())
    return found if found and getattr(item, "check_on_set", True) else None


def _dump(value: Any) -> dict[str, Any]:
    return dict(value.param.values())


def _replaced(value: Any, name: str, new: Any) -> Any:
    changed = copy.deepcopy(value)
    setattr(changed, name, new)
    return changed


FAMILY = Family("param", _holds, _fields, _dump, _replaced)
