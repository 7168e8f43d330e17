"""Patches of settings, checked against nothing but the description of their class.

What is checked here is what drawing a form needs to hold: names, types, bounds, choices. A class may refuse more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, cast

from ezmsg.core.errors import SettingsInvalid
from ezmsg.core.graphmeta import SettingsSchemaMetadata
from ezmsg.core.schema.description import document_of
from ezmsg.core.schema.document import REF, Node
from ezmsg.core.schema.limits import (
    LIST_LIMITS,
    NUMBER_LIMITS,
    OBJECT_LIMITS,
    TEXT_LIMITS,
    Limit,
    is_among,
    is_one_of,
    matches,
)
from ezmsg.core.schema.plain import plain, shallow, text

_DEPTH = 32


def validate(schema: SettingsSchemaMetadata, patch: Mapping[str, Any]) -> None:
    """Check a patch before anything of it is applied.

    Args:
        schema: The description of the settings class, which need not be importable here.
        patch: New values by field, or by path (`"filter.cutoff"`). A mapping given for a field that is itself an
            object stands for a whole new one.

    Raises:
        SettingsInvalid: With every violation found.
    """
    check = _Check(schema.json_schema or document_of(schema.fields))
    for path, value in patch.items():
        check.entry(path, value)
    if check.violations:
        raise SettingsInvalid(schema.settings_type, check.violations)


class _Check:
    def __init__(self, document: Node) -> None:
        self.violations: list[dict[str, str]] = []
        self._document = document

    def entry(self, path: str, value: Any) -> None:
        """Check one value for the field at a dotted path."""
        node, walked = self._document, ""
        for part in path.split("."):
            nodes = self._beneath(node, part)
            where = f"{walked}.{part}" if walked else part
            if not nodes:
                names = self._names(node)
                if names is None:
                    self._add(path, value, "too deep", f"{walked} to be the last of the path")
                else:
                    self._add(where, value, "unknown field", _one_of(names))
                return
            node, walked = nodes[0] if len(nodes) == 1 else {"anyOf": nodes}, where
        if self._resolved(node).get("readOnly"):
            self._add(path, value, "read only", "no value")
            return
        self.value(node, value, path, 0)

    def value(self, node: Any, value: Any, path: str, depth: int) -> None:
        """Check a value, and all that is in it, against a node of the document."""
        if node is True or not node:
            if node is False:
                self._add(path, value, "wrong type", "nothing")
            return
        if depth == _DEPTH:
            self._add(path, value, "too deep", f"at most {_DEPTH} levels")
            return
        node = self._resolved(node)
        value = shallow(value)
        for part in node.get("allOf", ()):
            self.value(part, value, path, depth + 1)
        branches = node.get("anyOf") or node.get("oneOf")
        if branches and not self._fits_one(branches, value, path, depth):
            return
        choices = [node["const"]] if "const" in node else node.get("enum")
        if choices is not None and not is_among(plain(value), choices):
            self._add(path, value, "not a choice", _one_of(map(text, choices)))
            return
        kinds = node.get("type")
        if kinds is not None and not is_one_of(value, [kinds] if isinstance(kinds, str) else kinds, node):
            self._add(path, value, "wrong type", _name(node))
            return
        self._limits(node, value, path)
        if isinstance(value, list):
            self._items(node, cast(list[Any], value), path, depth)
        elif isinstance(value, dict):
            self._members(node, cast(dict[str, Any], value), path, depth)

    def _fits_one(self, branches: list[Node], value: Any, path: str, depth: int) -> bool:
        """Whether one branch takes the value; if none does, the reasons of the branch that comes closest are kept."""
        refusals: list[list[dict[str, str]]] = []
        kept = self.violations
        for branch in branches:
            self.violations = []
            self.value(branch, value, path, depth + 1)
            if not self.violations:
                self.violations = kept
                return True
            refusals.append(self.violations)
        self.violations = kept
        closer = [found for found in refusals if not _is_of_type(found, path)]
        if len(closer) == 1:
            kept.extend(closer[0])
        elif closer:
            kept.append(
                closer[0][0] | {"expected": " or ".join(dict.fromkeys(v["expected"] for f in closer for v in f))}
            )
        else:
            self._add(path, value, "wrong type", " or ".join(_name(self._resolved(branch)) for branch in branches))
        return False

    def _limits(self, node: Node, value: Any, path: str) -> None:
        number = float(value) if isinstance(value, Decimal) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            self._expect(node, number, path, NUMBER_LIMITS)
        elif isinstance(value, str):
            self._expect(node, value, path, TEXT_LIMITS)
        elif isinstance(value, list):
            self._expect(node, cast(Any, value), path, LIST_LIMITS)
        elif isinstance(value, dict):
            self._expect(node, cast(Any, value), path, OBJECT_LIMITS)

    def _expect(self, node: Node, value: Any, path: str, limits: dict[str, tuple[Limit, str]]) -> None:
        for keyword, (holds, words) in limits.items():
            if keyword in node and not holds(value, node[keyword]):
                self._add(path, value, "out of bounds", f"{words} {node[keyword]}")

    def _items(self, node: Node, items: list[Any], path: str, depth: int) -> None:
        first: list[Any] = node.get("prefixItems", [])
        rest: Any = node.get("items", {})
        for index, item in enumerate(items):
            self.value(first[index] if index < len(first) else rest, item, f"{path}[{index}]", depth + 1)

    def _members(self, node: Node, members: dict[str, Any], path: str, depth: int) -> None:
        for name, member in members.items():
            nodes = self._beneath(node, name)
            if nodes:
                self.value(nodes[0], member, f"{path}.{name}", depth + 1)
            elif (names := self._names(node)) is not None:
                self._add(f"{path}.{name}", member, "unknown field", _one_of(names))
        for name in node.get("required", ()):
            if name not in members:
                self._add(f"{path}.{name}", None, "missing required", "a value")

    def _beneath(self, node: Node, part: str) -> list[Node]:
        """The nodes that a value named `part` inside `node` may have; none if there is no such thing."""
        node = self._resolved(node)
        branches = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
        if not node or (node.get("type") is None and not branches and "properties" not in node and "enum" not in node):
            return [{}]  # anything goes
        if part in node.get("properties", {}):
            return [node["properties"][part]]
        found = [there for branch in branches for there in self._beneath(branch, part)]
        by_pattern = node.get("patternProperties", {})
        found += [there for pattern, there in by_pattern.items() if matches(part, pattern)]
        if found or node.get("type") != "object":
            return found
        others = node.get("additionalProperties", "properties" not in node)
        return [] if others is False else [{} if others is True else others]

    def _names(self, node: Node) -> list[str] | None:
        """The names of the fields of an object; None of what is no object."""
        node = self._resolved(node)
        if "properties" in node or node.get("type") == "object":
            return list(node.get("properties", {}))
        branches = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
        found = [names for branch in branches if (names := self._names(branch)) is not None]
        return [name for names in found for name in names] if found else None

    def _resolved(self, node: Node) -> Node:
        """`node`, or what it refers to along with what it says itself."""
        for _ in range(_DEPTH):
            reference = node.get("$ref")
            if not isinstance(reference, str):
                break
            target: Node = self._document.get("$defs", {}).get(reference.removeprefix(REF), {})
            node = target | {key: value for key, value in node.items() if key != "$ref"}
        return node

    def _add(self, field: str, value: Any, rule: str, expected: str) -> None:
        self.violations.append({"field": field, "value": text(value), "rule": rule, "expected": expected})


def _is_of_type(found: list[dict[str, str]], path: str) -> bool:
    """Whether a branch was refused for what the value is, not for what is in it."""
    return any(violation["rule"] == "wrong type" and violation["field"] == path for violation in found)


def _name(node: Node) -> str:
    kind = node.get("type", node.get("title", "another type"))
    return kind if isinstance(kind, str) else " or ".join(kind)


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"
