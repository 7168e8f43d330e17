"""Reading the bodies of component classes, for their metaclasses: what they declare, and the mistakes in it.

What counts is what attribute lookup on the class finds: a subclass replaces what it redefines, and drops what it sets
to something else.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, TypeVar

from ezmsg.core.errors import DeclarationError
from ezmsg.core.schema.annotation import class_of, resolved, unwrapped
from ezmsg.core.stream import type_name

logger = logging.getLogger("ezmsg")

# Whose members no stream or child may be called like.
_OURS = ("ezmsg.core.addressable", "ezmsg.core.component", "ezmsg.core.unit", "ezmsg.core.collection")


def attributes(cls: type, is_wanted: Callable[[Any], bool]) -> dict[str, Any]:
    """The attributes of a class that are wanted, by name: those lookup finds, bases first."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if name.startswith("__") and name.endswith("__"):  # such as `__main__`, which we set ourselves
                continue
            if is_wanted(value):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def name_attributes(cls: type, named: dict[str, Any]) -> None:
    """Give what a class declares the names of the attributes.

    Raises:
        DeclarationError: One has another name already, or one that a member of every component has.
    """
    for name, it in named.items():
        if any(name in vars(base) for base in cls.__mro__ if base.__module__ in _OURS):
            raise DeclarationError(cls, name, "every component has a member of this name: choose another")
        if it._name is None:
            it._set_name(name)
        elif it._name != name:
            raise DeclarationError(cls, name, f"this object is declared as {it._name} already: make another one")


def warn_of_hidden(cls: type, members: Iterable[str]) -> None:
    """Tell of attributes in place of what a run asks a component for, such as a `name` or an `address`."""
    for name in members:
        if not isinstance(value := vars(cls).get(name), (property, NoneType)):
            text = "%s.%s = %.100r hides what every component has by this name: choose another"
            logger.warning(text, cls.__qualname__, name, value)


def refuse(cls: type, names: Iterable[str], kinds: Iterable[Callable[[Any], bool]], reason: str) -> None:
    """Report methods of a kind that a run would call in vain.

    Raises:
        DeclarationError: A method is of one of the kinds, predicates of `inspect`.
    """
    for name in names:
        if any(is_kind(getattr(cls, name, None)) for is_kind in kinds):
            raise DeclarationError(cls, name, reason)


def declared_class(cls: type, field: str, root: type) -> type[Any]:
    """The class that a component names in `field`, in its own body or in that of a base.

    A class of another kind than `root`, or than those its bases name, is logged as an error, and used.

    Raises:
        DeclarationError: What it names is no class.
    """
    if field not in vars(cls) and (annotated := _annotated(cls, field)) is not None:
        text = "%s.%s is only annotated; assign the class instead: %s = %s"
        logger.warning(text, cls.__qualname__, field, field, type_name(annotated))
        setattr(cls, field, annotated)
    named = getattr(cls, field)
    found = class_of(named)
    if found is None:
        raise DeclarationError(cls, field, f"{named!r:.100} is no class: name a subclass of {root.__name__}")
    if field in vars(cls):
        wanted = [root, *(class_of(getattr(base, field, root)) or root for base in cls.__bases__)]
        if broken := [kind for kind in wanted if not issubclass(found, kind)]:
            text = "%s.%s is %s, which is no subclass of %s"
            logger.error(text, cls.__qualname__, field, type_name(found), type_name(broken[0]))
    return found


def _annotated(cls: type, field: str) -> Any:
    """The class that an annotation without a value names; None without one, and where a subclass is to name it."""
    annotation = inspect.get_annotations(cls).get(field)
    if annotation is None:
        return None
    meant = unwrapped(resolved(annotation, cls))[0]
    if typing.get_origin(meant) is type:
        meant = typing.get_args(meant)[0]
    if isinstance(meant, TypeVar) or meant is Any:
        return None
    if class_of(meant) is None:
        raise DeclarationError(cls, field, f"the annotation {annotation!r} names no class: write {field} = TheClass")
    return meant
