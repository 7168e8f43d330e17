"""Annotations of classes: resolved where they can be, unwrapped, and named.

They are the code of others: nothing here raises because of what an annotation is.
"""

from __future__ import annotations

import inspect
import types
import typing
from enum import Enum, Flag
from typing import Any, Literal

_QUALIFIERS = {"Final", "ClassVar", "Required", "NotRequired", "ReadOnly"}


def resolved(annotation: Any, owner: type, *, extras: bool = True) -> Any:
    """What `annotation` of `owner` means, references by name included; itself if some name is not to be found."""
    holder = type("_", (), {"__annotations__": {"it": annotation}, "__module__": owner.__module__})
    names = {name: member for name, member in vars(owner).items() if isinstance(member, type)}
    try:
        hints = typing.get_type_hints(holder, localns={**names, owner.__name__: owner}, include_extras=extras)
    except Exception:
        return annotation
    return hints["it"]


def of_class(owner: type) -> dict[str, Any]:
    """The annotations of a class and its bases by name, each resolved where it was written."""
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        try:
            annotations = inspect.get_annotations(base)
        except Exception:  # evaluated late, and a name is missing
            continue
        found.update({name: resolved(annotation, base) for name, annotation in annotations.items()})
    return found


def unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """The type proper, and the metadata of all `Annotated` around it, outermost last."""
    metadata: list[Any] = []
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            metadata[:0] = annotation.__metadata__
            annotation = annotation.__origin__
        elif getattr(origin, "_name", None) in _QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation, metadata


def branches(annotation: Any) -> tuple[Any, ...] | None:
    """The members of a union; None of anything else."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return None


def without_none(annotation: Any) -> Any:
    """X of `Optional[X]`; anything else as it is."""
    found = [branch for branch in branches(annotation) or () if branch not in (None, types.NoneType)]
    return found[0] if len(found) == 1 else annotation


def class_of(annotation: Any) -> type | None:
    """The class an annotation stands for: itself, or the origin of a generic one; None for Any and object."""
    bare = unwrapped(annotation)[0]
    if bare is Any or bare is object:
        return None
    origin = typing.get_origin(bare) or bare
    return origin if isinstance(origin, type) else None


def choices(annotation: Any) -> list[Any] | None:
    """The values of a Literal or the members of an Enum, also behind Optional; None if any value will do.

    Those of a Flag are not all it takes: they combine.
    """
    bare = unwrapped(without_none(unwrapped(annotation)[0]))[0]
    if typing.get_origin(bare) is Literal:
        return list(typing.get_args(bare))
    if isinstance(bare, type) and issubclass(bare, Enum) and not issubclass(bare, Flag):
        return list(bare)
    return None


def is_typed_dict(owner: Any) -> bool:
    """Whether a class of mappings is a TypedDict, of typing or of typing_extensions."""
    return hasattr(owner, "__total__")


def type_name(annotation: Any) -> str:
    """`module.qualname` of a class, else the text of the annotation, in both cases without metadata."""
    annotation = resolved(annotation, object, extras=False)
    bare = unwrapped(annotation)[0]
    if isinstance(bare, type) and typing.get_origin(bare) is None:
        return f"{bare.__module__}.{bare.__qualname__}"
    return annotation if isinstance(annotation, str) else str(annotation)
