"""Settings that are structs of msgspec.

Their own JSON Schema goes by names on the wire (`rename=`, tags), but settings go by names of attributes, so it is not
used.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ezmsg.core.schema.annotation import of_class
from ezmsg.core.schema.family import NO_DEFAULT, Family, Field


def _holds(tp: type) -> bool:
    return issubclass(tp, msgspec.Struct)


def _fields(tp: Any) -> list[Field]:
    annotations = of_class(tp)  # msgspec.structs.fields fails as a whole on one name it cannot find
    names: tuple[str, ...] = tp.__struct_fields__
    defaults: tuple[Any, ...] = tp.__struct_defaults__
    given: dict[str, Any] = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    return [_field(name, annotations.get(name, Any), given.get(name, msgspec.NODEFAULT)) for name in names]


def _field(name: str, annotation: Any, default: Any) -> Field:
    if default is msgspec.NODEFAULT:
        return Field(name, annotation)
    factory = getattr(default, "factory", None) if type(default).__module__ == "msgspec._core" else None
    return Field(name, annotation, default=NO_DEFAULT if factory else default, factory=factory)


def _dump(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__ if hasattr(value, name)}


def _replaced(value: Any, name: str, new: Any) -> Any:
    return msgspec.structs.replace(value, **{name: new})


FAMILY = Family("msgspec", _holds, _fields, _dump, _replaced)
