"""Settings that are models of pydantic 1, also the ones that pydantic 2 still brings (`pydantic.v1`).

Their own JSON Schema does not say that Optional allows null, so it is not used.
"""

from __future__ import annotations

from typing import Any, Optional, cast

from ezmsg.core.schema.annotation import branches, of_class, unwrapped
from ezmsg.core.schema.facts import NO_FACTS, Facts, read
from ezmsg.core.schema.family import NO_DEFAULT, Family, Field

# What `Field` and the con…() functions of pydantic 1 call it.
_RENAMED = {"min_items": "min_length", "max_items": "max_length", "regex": "pattern"}


def _holds(tp: type) -> bool:
    if callable(getattr(tp, "model_dump", None)):  # a model of pydantic 2, which warns about __fields__
        return False
    return isinstance(getattr(tp, "__fields__", None), dict) and callable(getattr(tp, "construct", None))


def _fields(tp: Any) -> list[Field]:
    written = of_class(tp)  # what the library makes of it hides int behind a class of its own
    return [_field(name, item, written.get(name, item.outer_type_)) for name, item in tp.__fields__.items()]


def _field(name: str, item: Any, annotation: Any) -> Field:
    if item.allow_none and branches(unwrapped(annotation)[0]) is None:
        annotation = Optional[annotation]  # noqa: UP045 - the annotation may be no type
    return Field(
        name,
        annotation,
        _facts(item.field_info).over(constraints(item.outer_type_)),
        NO_DEFAULT if item.required or item.default_factory else item.default,
        item.default_factory,
        argument=item.alias,
    )


def constraints(annotation: Any) -> Facts:
    """What a class made by `conint` and its like says."""
    # By a base: PositiveInt and its like are classes of their own.
    bases = annotation.__mro__ if isinstance(annotation, type) else ()
    return _facts(annotation) if any(base.__name__.startswith("Constrained") for base in bases) else NO_FACTS


def _facts(source: Any) -> Facts:
    said: dict[str, Any] = {name: getattr(source, name, None) for name in _ALL}
    if regex := said["regex"]:
        # Compiled in a class of its own; pydantic 1 looks at the beginning only.
        said["regex"] = f"^(?:{getattr(regex, 'pattern', regex)})"
    return read([_Said({_RENAMED.get(name, name): value for name, value in said.items() if value is not None})])


_ALL = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", *_RENAMED, "title", "description")


class _Said:
    def __init__(self, facts: dict[str, Any]) -> None:
        vars(self).update(facts)


def _dump(value: Any) -> dict[str, Any]:
    return value.dict()


def _replaced(value: Any, name: str, new: Any) -> Any:
    """A copy with another value, as the model validates it; a copy alone would take anything."""
    model = cast(Any, type(value))
    changed = value.copy(update={name: new})
    made = model(**{item.alias: getattr(changed, known) for known, item in model.__fields__.items()})
    return value.copy(update={name: getattr(made, name)})


FAMILY = Family("pydantic", _holds, _fields, _dump, _replaced)
