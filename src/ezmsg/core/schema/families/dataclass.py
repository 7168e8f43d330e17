"""Settings that are dataclasses, `ez.Settings` among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ezmsg.core.schema.annotation import of_class
from ezmsg.core.schema.facts import Facts, is_number, read
from ezmsg.core.schema.family import NO_DEFAULT, Family, Field


def _holds(tp: type) -> bool:
    return dataclasses.is_dataclass(tp)


def _fields(tp: Any) -> list[Field]:
    annotations = of_class(tp)
    return [_field(item, annotations.get(item.name, item.type)) for item in dataclasses.fields(tp)]


def _field(item: dataclasses.Field[Any], annotation: Any) -> Field:
    default: Any = item.default
    factory: Any = item.default_factory
    facts = _facts(item.metadata)
    if type(default).__name__ == "FieldInfo":  # of a dataclass of pydantic
        facts = facts.over(read([default]))
        factory = default.default_factory
        default = dataclasses.MISSING if default.is_required() or factory else default.default
    return Field(
        item.name,
        annotation,
        facts,
        NO_DEFAULT if default is dataclasses.MISSING else default,
        None if factory is dataclasses.MISSING else factory,
        settable=item.init,
    )


def _facts(metadata: Mapping[Any, Any]) -> Facts:
    words, choices = metadata.get("description"), metadata.get("choices")
    has_choices = isinstance(choices, Iterable) and not isinstance(choices, str)
    return Facts(
        ge=_first_number(metadata, "ge", "min"),
        gt=_first_number(metadata, "gt"),
        le=_first_number(metadata, "le", "max"),
        lt=_first_number(metadata, "lt"),
        description=None if words is None else str(words),
        choices=tuple(cast(Iterable[Any], choices)) if has_choices else None,
    )


def _first_number(metadata: Mapping[Any, Any], *keys: str) -> Any:
    return next((metadata[key] for key in keys if is_number(metadata.get(key))), None)


def _dump(value: Any) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _replaced(value: Any, name: str, new: Any) -> Any:
    return dataclasses.replace(value, **{name: new})


FAMILY = Family("dataclass", _holds, _fields, _dump, _replaced)
