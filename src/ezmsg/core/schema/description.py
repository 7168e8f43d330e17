"""The flat description of a settings class: one row per field, enough for a simple form."""

from __future__ import annotations

import re
from typing import Any

from ezmsg.core.graphmeta import SettingsFieldMetadata, SettingsSchemaMetadata
from ezmsg.core.schema import annotation as annotations
from ezmsg.core.schema.document import Node, json_schema
from ezmsg.core.schema.facts import Facts, read
from ezmsg.core.schema.families.pydanticv1 import constraints
from ezmsg.core.schema.family import NO_DEFAULT, Field
from ezmsg.core.schema.plain import plain
from ezmsg.core.schema.table import family_of

_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array", "dict": "object"}


def describe(tp: Any) -> SettingsSchemaMetadata | None:
    """The description of a settings class; None if `tp` is of no family we know."""
    owner = annotations.class_of(tp)
    family = family_of(owner)
    if owner is None or family is None:
        return None
    try:
        fields = family.fields(owner)
    except Exception:  # a class its own library does not understand
        fields: list[Field] = []
    name = annotations.type_name(owner)
    return SettingsSchemaMetadata(family.provider, name, [_row(field) for field in fields], json_schema(owner))


def _row(field: Field) -> SettingsFieldMetadata:
    facts = _facts(field)
    choices = list(facts.choices) if facts.choices is not None else annotations.choices(field.annotation)
    default = field.make_default()
    return SettingsFieldMetadata(
        name=field.name,
        field_type=field.type_name or annotations.type_name(field.annotation),
        required=field.required,
        default=None if default is NO_DEFAULT else plain(default),
        description=facts.description,
        bounds=facts.bounds(),
        choices=None if choices is None else plain(choices),
        widget_hint=_widget(field.annotation, facts, choices),
    )


def _facts(field: Field) -> Facts:
    """What the field says, then its annotation, then what stands behind Optional."""
    bare, metadata = annotations.unwrapped(field.annotation)
    inner, behind_optional = annotations.unwrapped(annotations.without_none(bare))
    return field.facts.over(read(metadata)).over(read(behind_optional)).over(constraints(inner))


def _widget(annotation: Any, facts: Facts, choices: list[Any] | None) -> str | None:
    if choices is not None:
        return "select"
    kind = _scalar(annotation)
    if kind is bool:
        return "checkbox"
    if kind in (int, float) and facts.bounds() is not None:
        return "slider"
    return {int: "int_input", float: "float_input", str: "text_input"}.get(kind) if kind else None


def _scalar(annotation: Any) -> Any:
    """The scalar a field holds, also behind Optional, or named in a text that could not be resolved."""
    if isinstance(annotation, str):
        text = re.sub(r"Optional\[(\w+)\]|\s*\|\s*None", r"\1", annotation)
        return next((kind for kind in (bool, int, float, str) if text == kind.__name__), None)
    bare = annotations.unwrapped(annotations.without_none(annotations.unwrapped(annotation)[0]))[0]
    if not isinstance(bare, type):
        return None
    return next((kind for kind in (bool, int, float, str) if issubclass(bare, kind)), None)


def document_of(fields: list[SettingsFieldMetadata]) -> Node:
    """What the rows alone say, for descriptions without a document: made by hand, or by somebody else."""
    return {"type": "object", "properties": {field.name: _node(field) for field in fields}}


def _node(field: SettingsFieldMetadata) -> Node:
    """What the flat description of a field says; its bounds may be exclusive, which it cannot tell."""
    text = field.field_type.replace("builtins.", "").replace("typing.", "")
    bare = re.sub(r"^Optional\[(.+)\]$|\s*\|\s*None$", r"\1", text)
    is_nullable = bare != text or (field.default is None and not field.required)
    if field.choices is not None:
        return {"enum": [*field.choices, None] if is_nullable else field.choices}
    kind = _TYPES.get(bare.partition("[")[0])
    if kind is None:
        return {}
    low, high = field.bounds or (None, None)
    keys = {"integer": ("minimum", "maximum"), "number": ("minimum", "maximum")}
    keys |= {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
    limits = {key: limit for key, limit in zip(keys.get(kind, ()), (low, high), strict=False) if limit is not None}
    node: Node = {"type": kind, **limits}
    return {"anyOf": [node, {"type": "null"}]} if is_nullable else node
