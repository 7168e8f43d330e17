"""What every family of settings classes can be asked, and what it tells of a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ezmsg.core.schema.facts import NO_FACTS, Facts

NO_DEFAULT: Any = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class, as its family tells it.

    `argument` is its name as an argument of the constructor. `type_name` overrides the name of the annotation. A field
    that is not `settable` follows from others, or never changes.
    """

    name: str
    annotation: Any
    facts: Facts = NO_FACTS
    default: Any = NO_DEFAULT
    factory: Callable[[], Any] | None = None
    type_name: str | None = None
    settable: bool = True
    argument: str | None = None

    @property
    def required(self) -> bool:
        """Whether an object cannot be made without it."""
        return self.settable and self.default is NO_DEFAULT and self.factory is None

    def make_default(self) -> Any:
        """The default; NO_DEFAULT if there is none, `<factory>` if its factory does not work by itself."""
        if self.factory is None:
            return self.default
        try:
            return self.factory()
        except Exception:
            return "<factory>"


def no_document(tp: type) -> dict[str, Any] | None:
    """The library cannot describe its classes, or not by the names of their attributes."""
    del tp
    return None


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table of families.

    `holds` tells whether a class belongs here, and must not import the library to find out. `dump` gives the values
    of the fields, nested objects as they are. `replaced` gives a new object, the old one is not touched.
    `document` gives the JSON Schema the library makes, by names of attributes, if it does.
    """

    provider: str
    holds: Callable[[type], bool]
    fields: Callable[[Any], list[Field]]
    dump: Callable[[Any], Mapping[str, Any]]
    replaced: Callable[[Any, str, Any], Any]
    document: Callable[[type], dict[str, Any] | None] = field(default=no_document)

    def build(self, tp: type, values: Mapping[str, Any]) -> Any:
        """An object from values by names of fields; what the class raises passes."""
        arguments = {field.name: field.argument or field.name for field in self.fields(tp)}
        return tp(**{arguments.get(name, name): value for name, value in values.items()})
