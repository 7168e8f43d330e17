"""New values for fields, as somebody who cannot import the class sends them, made what the field is annotated with."""

from __future__ import annotations

import contextlib
import pathlib
import typing
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, cast

import msgspec

from ezmsg.core.schema import annotation as annotations
from ezmsg.core.schema.plain import is_same, plain
from ezmsg.core.schema.table import family_of


def converted(annotation: Any, new: Any) -> Any:
    """`new` as the annotation has it: a member for the value of an Enum, an object for a mapping, a tuple for a list.

    `new` itself where it is right already, or nothing of the kind can be made of it: judging it is not our task. What
    the class of a nested object says of its values is raised.
    """
    bare, _ = annotations.unwrapped(annotation)
    if (parts := annotations.branches(bare)) is not None:
        return _to_first_that_fits(parts, new)
    if (choices := annotations.choices(bare)) is not None:
        return _chosen(choices, new)
    owner = annotations.class_of(bare)
    if owner is None or (owner is bare and _is_instance(new, owner)):
        return new
    if issubclass(owner, Enum):
        with contextlib.suppress(ValueError):
            return owner(new)
        return new
    if (family := family_of(owner)) is not None:
        if not isinstance(new, Mapping):
            return new
        fields = {field.name: field.annotation for field in family.fields(owner)}
        values = {str(name): value for name, value in cast(Mapping[Any, Any], new).items()}
        return family.build(
            cast(Any, owner), {name: converted(fields.get(name, Any), value) for name, value in values.items()}
        )
    if issubclass(owner, pathlib.PurePath):
        return owner(new) if isinstance(new, str) else new
    for str_keys in (False, True):  # also where a form says numbers that are keys as JSON does
        with contextlib.suppress(Exception):
            return msgspec.convert(new, bare, str_keys=str_keys)
    # Not of this type, or with something in it that msgspec does not know.
    return _converted_inside(owner, typing.get_args(bare), new)


_MAKE: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list, set: set, frozenset: frozenset, tuple: tuple, deque: deque,
}  # fmt: skip


def _converted_inside(owner: Any, arguments: tuple[Any, ...], new: Any) -> Any:
    """A list, deque, set, tuple or dict, with what is in it converted."""
    given = cast(Any, type(new))
    if owner is dict and given is dict and len(arguments) == 2:
        return {key: converted(arguments[1], value) for key, value in new.items()}
    make = _MAKE.get(owner)
    if make is None or given not in _MAKE:
        return new
    items: list[Any] = list(new)
    if owner is not tuple or arguments[1:] == (Ellipsis,):
        arguments = (arguments[:1] or (Any,)) * len(items)
    return make(map(converted, arguments, items)) if len(arguments) == len(items) else new


def _chosen(choices: list[Any], new: Any) -> Any:
    """The choice that looks like `new` to somebody who only has the description."""
    if not any(new is choice for choice in choices):
        for choice in choices:
            if is_same(plain(choice), plain(new)):
                return choice
    return new


def _is_instance(new: Any, owner: type) -> bool:
    try:
        return isinstance(new, owner)
    except TypeError:  # a protocol without @runtime_checkable
        return False


def _to_first_that_fits(parts: tuple[Any, ...], new: Any) -> Any:
    classes = tuple(owner for part in parts if (owner := annotations.class_of(part)) is not None)
    if new is None or type(new) in classes:
        return new
    for part in parts:
        with contextlib.suppress(Exception):
            made = converted(part, new)
            if made is not new:
                return made
    return new
