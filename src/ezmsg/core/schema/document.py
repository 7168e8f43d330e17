"""JSON Schema (draft 2020-12) of settings classes and of anything their fields are annotated with.

The library of a class makes it where it can, else our own walk over the annotations does. A type nobody can describe is
`{}`, anything.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import datetime
import decimal
import enum
import pathlib
import typing
import uuid
from typing import Any, cast

import msgspec

from ezmsg.core.schema import annotation as annotations
from ezmsg.core.schema.facts import NO_FACTS, Facts, read
from ezmsg.core.schema.families.pydanticv1 import constraints
from ezmsg.core.schema.family import NO_DEFAULT, Family, Field
from ezmsg.core.schema.plain import plain, text
from ezmsg.core.schema.table import family_of

Node = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/"

_LEAVES: dict[Any, Node] = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.time: {"type": "string", "format": "time"},
}
_BASES: dict[type, Node] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    enum.Flag: {"type": "integer"},
    float: {"type": "number"},
    pathlib.PurePath: {"type": "string", "format": "path"},
}
# What JSON has a text for, which a form can show and send back.
_TEXTS = (bytes, bytearray, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
_LISTS = (list, collections.deque, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set)


def json_schema(tp_or_value: Any) -> Node:
    """The JSON Schema of a class, an annotation, or the class of a value; nested classes in `$defs`.

    Properties go by the names of attributes. Never raises because of what a class looks like.
    """
    walk = _Walk()
    root = walk.node(tp_or_value if _is_annotation(tp_or_value) else type(tp_or_value))
    if set(root) == {"$ref"}:  # a form is easier to draw from an object that stands on top
        root = walk.defs[root["$ref"].removeprefix(REF)]
    used = _reached(root, walk.defs)
    defs = {name: node for name, node in walk.defs.items() if name in used}
    return plain({"$schema": DRAFT, **root} | ({"$defs": defs} if defs else {}))


def _is_annotation(it: Any) -> bool:
    if isinstance(it, type) or typing.get_origin(it) is not None or it is None:
        return True
    return type(it).__module__ in ("typing", "typing_extensions")


class _Walk:
    """One walk: `defs` fills up with the classes met on the way."""

    def __init__(self) -> None:
        self.defs: dict[str, Node] = {}
        self._names: dict[type, str] = {}

    def node(self, annotation: Any) -> Node:
        """The schema of one annotation."""
        try:
            bare, metadata = annotations.unwrapped(annotation)
            return stated(self._bare(bare), read(metadata).over(constraints(bare)))
        except Exception:  # an annotation is the code of others
            return {}

    def _bare(self, tp: Any) -> Node:
        if tp is None:
            return {"type": "null"}
        if isinstance(tp, collections.abc.Hashable) and tp in _LEAVES:
            return dict(_LEAVES[tp])
        if (parts := annotations.branches(tp)) is not None:
            return _any_of([self.node(part) for part in parts])
        if (choices := annotations.choices(tp)) is not None:
            return {"enum": plain(choices)}
        owner = annotations.class_of(tp)
        if owner is None:
            return {}
        if (family := family_of(owner)) is not None:
            return {"$ref": REF + self._define(owner, family)}
        return self._container(tp, owner) or _by_base(owner) or self._by_msgspec(tp)

    def _container(self, tp: Any, owner: type) -> Node | None:
        arguments = typing.get_args(tp)
        if owner is tuple:
            return self._tuple(arguments)
        if owner in _LISTS or owner in _SETS or owner is collections.abc.MutableSequence:
            items = self.node(arguments[0]) if arguments else {}
            unique = {"uniqueItems": True} if owner in _SETS else {}
            return {"type": "array"} | ({"items": items} if items else {}) | unique
        if issubclass(owner, collections.abc.Mapping) and not annotations.is_typed_dict(cast(Any, owner)):
            values = self.node(arguments[1]) if len(arguments) == 2 else {}
            return {"type": "object", "additionalProperties": values or True}
        return None

    def _tuple(self, arguments: tuple[Any, ...]) -> Node:
        if not arguments:
            return {"type": "array"}
        if arguments[-1] is Ellipsis:
            return {"type": "array", "items": self.node(arguments[0])}
        items = [self.node(item) for item in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}

    def _by_msgspec(self, tp: Any) -> Node:
        document = msgspec.json.schema(tp)  # raises for what it does not know: {}
        return self._absorbed(document)

    def _define(self, owner: type, family: Family) -> str:
        if owner in self._names:
            return self._names[owner]
        document = family.document(owner)
        if document is None:
            name = self._names[owner] = self._free_name(owner.__name__)
            self.defs[name] = {}  # taken, for a class that holds itself
            self.defs[name] = self._object(owner, family)
            return name
        top = self._absorbed(document)
        if set(top) == {"$ref"}:
            name = top["$ref"].removeprefix(REF)
        else:
            name = self._free_name(owner.__name__)
            self.defs[name] = top
        self._names[owner] = name
        return name

    def _object(self, owner: type, family: Family) -> Node:
        try:
            fields = family.fields(owner)
        except Exception:
            return {"type": "object"}
        node: Node = {"title": owner.__name__, "type": "object"}
        words = vars(owner).get("__doc__")
        if isinstance(words, str) and not words.startswith(f"{owner.__name__}("):  # dataclasses make one of their own
            node["description"] = words
        node["properties"] = {field.name: self._property(field) for field in fields}
        if required := [field.name for field in fields if field.required]:
            node["required"] = required
        return node

    def _property(self, field: Field) -> Node:
        node = stated(self.node(field.annotation), field.facts)
        default = field.make_default()
        if default is not NO_DEFAULT:
            node["default"] = _default(default, field.annotation)
        if not field.settable:
            node["readOnly"] = True
        return node

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.defs:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def _absorbed(self, document: Node) -> Node:
        """A document of a library: its definitions become ours, under names that are free."""
        theirs: dict[str, Node] = document.pop("$defs", {})
        names: dict[str, str] = {}
        for name, node in theirs.items():
            names[name] = name if self.defs.get(name) == node else self._free_name(name)
            self.defs.setdefault(names[name], node)
        moved = {REF + old: REF + new for old, new in names.items() if old != new}
        if moved:
            self.defs.update({new: _moved(theirs[old], moved) for old, new in names.items()})
        return _moved(document, moved)


def _by_base(owner: type) -> Node | None:
    return next((dict(node) for base, node in _BASES.items() if issubclass(owner, base)), None)


def _default(value: Any, annotation: Any) -> Any:
    """As a form shows and sends it back; choices as they are listed."""
    return plain(value) if annotations.choices(annotation) is not None else plain(value, _said)


def _said(value: Any) -> Any:
    """What JSON has no type for, but a text or a list that a form can send back."""
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, collections.deque):
        return plain(list(cast("collections.deque[Any]", value)))
    if isinstance(value, _TEXTS):
        with contextlib.suppress(TypeError):  # a subclass, as the timestamps of pandas are
            return msgspec.to_builtins(value)
    return text(value)


def _any_of(nodes: list[Node]) -> Node:
    if {} in nodes:
        return {}
    unique = [node for index, node in enumerate(nodes) if node not in nodes[:index]]
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _moved(node: Any, moved: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _moved(value, moved) for key, value in cast(Node, node).items()}
    if isinstance(node, list):
        return [_moved(item, moved) for item in cast(list[Any], node)]
    return moved.get(node, node) if isinstance(node, str) else node


def _reached(root: Node, defs: dict[str, Node]) -> set[str]:
    reached: set[str] = set()
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(cast(Node, node).values())
        elif isinstance(node, list):
            waiting.extend(cast(list[Any], node))
        elif isinstance(node, str) and node.startswith(REF) and (name := node.removeprefix(REF)) not in reached:
            reached.add(name)
            waiting.append(defs.get(name))
    return reached


_WORDS = {"title": "title", "description": "description"}
_OF_NUMBERS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_BY_TYPE: dict[str, dict[str, str]] = {
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "object": {"min_length": "minProperties", "max_length": "maxProperties"},
}


def stated(node: Node, facts: Facts) -> Node:
    """`node` with what `facts` say: words on top, limits where the values are that they limit."""
    if facts is NO_FACTS or facts == NO_FACTS:
        return node
    words = {key: getattr(facts, name) for name, key in _WORDS.items() if getattr(facts, name) is not None}
    return {**_limited(node, facts), **words}


def _limited(node: Node, facts: Facts) -> Node:
    if "anyOf" in node:
        return {**node, "anyOf": [_limited(branch, facts) for branch in node["anyOf"]]}
    kind = node.get("type")
    if kind == "null":
        return node
    limits: Node = {}
    for name, key in _BY_TYPE.get(cast(Any, kind), {}).items():
        if (value := getattr(facts, name)) is not None:
            limits[key] = _number(value)
    if facts.choices is not None:
        choices: Node = {"enum": plain(list(facts.choices))}
        limits |= {"items": choices} if kind == "array" else choices
    return {**node, **limits}


def _number(value: Any) -> Any:
    if isinstance(value, str):
        return value
    number = plain(value)
    return number if isinstance(number, (int, float)) else float(value)  # Decimal, Fraction
