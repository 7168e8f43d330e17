"""Settings that are models of pydantic 2."""

from __future__ import annotations

import sys
from enum import Flag
from typing import Any, cast

from ezmsg.core.schema.facts import Facts, read
from ezmsg.core.schema.family import NO_DEFAULT, Family, Field


def _holds(tp: type) -> bool:
    return isinstance(getattr(tp, "model_fields", None), dict) and callable(getattr(tp, "model_dump", None))


def _fields(tp: Any) -> list[Field]:
    return [_field(name, info) for name, info in tp.model_fields.items()]


def _field(name: str, info: Any) -> Field:
    stated = read([info])
    facts = Facts(title=stated.title, description=stated.description).over(read(info.metadata))
    alias = info.alias if info.validation_alias is None else info.validation_alias
    return Field(
        name,
        info.annotation,
        facts,
        NO_DEFAULT if info.is_required() or info.default_factory else info.default,
        info.default_factory,
        argument=alias if isinstance(alias, str) else None,
    )


def _dump(value: Any) -> dict[str, Any]:
    try:
        return value.model_dump(warnings=False)  # with the serializers of the model
    except Exception:
        return {name: getattr(value, name) for name in cast(Any, type(value)).model_fields}


def _replaced(value: Any, name: str, new: Any) -> Any:
    """A copy with another value, as the model validates it; a copy alone would take anything."""
    model = cast(Any, type(value))
    if not model.model_config.get("frozen") and not getattr(model.model_fields.get(name), "frozen", False):
        # Validates this field, and then the model as a whole.
        return model.__pydantic_validator__.validate_assignment(value.model_copy(), name, new)
    changed = value.model_copy(update={name: new})
    arguments = {field.argument or field.name: getattr(changed, field.name) for field in _fields(model)}
    made = model.model_validate(arguments | (changed.model_extra or {}))
    return value.model_copy(update={name: getattr(made, name)})


def _document(tp: Any) -> dict[str, Any] | None:
    library = sys.modules["pydantic.json_schema"]

    class Quiet(library.GenerateJsonSchema):
        """Defaults that JSON cannot say are no reason for a warning."""

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Say nothing."""

        def enum_schema(self, schema: Any) -> Any:
            """The members of a Flag are not all it takes: they combine."""
            if issubclass(schema["cls"], Flag):
                return {"type": "integer"}
            return library.GenerateJsonSchema.enum_schema(self, schema)

        def complex_schema(self, schema: Any) -> Any:
            """Anything: JSON has no complex numbers, and those of Python are no text."""
            return {}

    try:
        return tp.model_json_schema(by_alias=False, schema_generator=Quiet)
    except Exception:  # a field of a type it cannot describe, or a name it cannot find
        return None


FAMILY = Family("pydantic", _holds, _fields, _dump, _replaced, _document)
