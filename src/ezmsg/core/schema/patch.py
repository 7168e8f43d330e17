"""One field of settings changed, the settings themselves left as they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from ezmsg.core.errors import EmptyFieldPath, SettingsNotKnown, UnknownSettingsField
from ezmsg.core.schema.annotation import of_class, type_name
from ezmsg.core.schema.conversion import converted
from ezmsg.core.schema.family import Family
from ezmsg.core.schema.plain import dump
from ezmsg.core.schema.table import family_of


def apply_patch(value: Any, field_path: str, new: Any) -> Any:
    """The settings `value` with another value for one field.

    Args:
        value: Settings of any family, a mapping, or any other object. It is not changed; what it holds beside the
            field may be shared with the result.
        field_path: Name of the field; names joined with dots lead through nested objects and mappings. The last name
            may be new in a mapping.
        new: The new value; it becomes what the field is annotated with where that is plain, see `converted`.

    Raises:
        EmptyFieldPath: The path, or a part of it, is empty.
        UnknownSettingsField: There is no such field; nothing but a mapping takes new ones.
        SettingsNotKnown: `value`, or an object on the path, is None.
        Exception: What the class itself raises because of the new value.
    """
    parts = field_path.split(".")
    if not all(parts):
        raise EmptyFieldPath(field_path)
    return _patched(value, parts, 0, new)


def _patched(value: Any, parts: list[str], depth: int, new: Any) -> Any:
    if value is None:
        raise SettingsNotKnown(".".join(parts), ".".join(parts[:depth]) or "the settings")
    if isinstance(value, Mapping):
        return _patched_mapping(cast(Mapping[Any, Any], value), parts, depth, new)
    name, is_last = parts[depth], depth == len(parts) - 1
    family = family_of(type(value))
    known = _attributes(value) if family is None else _settable(family, value)
    if name not in known:
        raise UnknownSettingsField(".".join(parts[: depth + 1]), type_name(type(value)), list(known))
    made = converted(known[name], new) if is_last else _patched(getattr(value, name, None), parts, depth + 1, new)
    if family is not None:
        return family.replaced(value, name, made)
    changed = copy.deepcopy(value)
    setattr(changed, name, made)
    return changed


def _patched_mapping(value: Mapping[Any, Any], parts: list[str], depth: int, new: Any) -> Mapping[Any, Any]:
    name = parts[depth]
    key = name if name in value else next((key for key in value if str(key) == name), name)
    if depth < len(parts) - 1:
        if key not in value:
            raise UnknownSettingsField(".".join(parts[: depth + 1]), type_name(type(value)), [str(k) for k in value])
        new = _patched(value[key], parts, depth + 1, new)
    changed = _copied(value)
    changed[key] = new
    return changed


def _copied(value: Mapping[Any, Any]) -> MutableMapping[Any, Any]:
    """A copy to write into, of the same class where that can be written."""
    if isinstance(value, dict):
        return copy.copy(value)
    if isinstance(value, MutableMapping):
        return copy.deepcopy(value)  # its copy may share what it keeps its items in
    return dict(value)


def _settable(family: Family, value: Any) -> dict[str, Any]:
    """Annotations of the fields that can be set; Any for those that only this object has (`extra="allow"`)."""
    fields = family.fields(type(value))
    named = {field.name for field in fields}
    known = {field.name: field.annotation for field in fields if field.settable}
    if family.provider != "pydantic":
        return known
    return known | {name: Any for name in dump(family, value) if name not in named}


def _attributes(value: Any) -> dict[str, Any]:
    """Annotations of the public attributes of an object of no family; Any where there is none."""
    known: dict[str, Any] = {}
    for owner in reversed(type(value).__mro__):
        slots: Any = vars(owner).get("__slots__", ())
        names = [slots] if isinstance(slots, str) else list(slots)
        names += [name for name, member in vars(owner).items() if isinstance(member, property) and member.fset]
        known.update(dict.fromkeys(names, Any))
    known |= dict.fromkeys(getattr(value, "__dict__", {}), Any) | of_class(cast(Any, type(value)))
    return {name: annotation for name, annotation in known.items() if not name.startswith("_")}
