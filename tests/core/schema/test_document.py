from __future__ import annotations

import datetime
import enum
import json
import pathlib
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

import annotated_types
import hypothesis.strategies as st
import msgspec
import numpy as np
import pydantic
import pytest
import typing_extensions
from hypothesis import given

from ezmsg.core.schema.document import DRAFT, json_schema
from ezmsg.core.schema.validation import validate
from ezmsg.core.settingsmeta import settings_schema_from_type
from tests.core.schema.kinds import SETTINGS, Color, Inner, Mixed, ModelInner, mixed


def of(annotation: Any) -> dict[str, Any]:
    document = json_schema(annotation)
    assert document.pop("$schema") == DRAFT
    return document


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (Callable[[], int], {}),
        (np.ndarray, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (tuple[float, ...], {"type": "array", "items": {"type": "number"}}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict, {"type": "object", "additionalProperties": True}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (int | Any, {}),
        (Literal["a", 1, None], {"enum": ["a", 1, None]}),
        (Color, {"enum": ["red", "blue"]}),
        (enum.IntEnum("Level", "LOW HIGH"), {"enum": [1, 2]}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (pathlib.Path, {"type": "string", "format": "path"}),
        (Annotated[int, annotated_types.Gt(1), "w"], {"type": "integer", "exclusiveMinimum": 1, "description": "w"}),
        (Annotated[str, annotated_types.Len(1, 3)], {"type": "string", "minLength": 1, "maxLength": 3}),
        (Annotated[list, annotated_types.Len(2)], {"type": "array", "minItems": 2}),
        (Annotated[int, annotated_types.MultipleOf(2)], {"type": "integer", "multipleOf": 2}),
        (Annotated[str, msgspec.Meta(pattern="^a", title="T")], {"type": "string", "pattern": "^a", "title": "T"}),
        (Annotated[int | None, msgspec.Meta(le=3)], {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "null"}]}),
        (typing.Final[int], {"type": "integer"}),
        (enum.Flag("Parts", "LEFT RIGHT"), {"type": "integer"}),
    ],
)  # fmt: skip
def test_annotations(annotation: Any, expected: dict[str, Any]) -> None:
    assert of(annotation) == expected


def test_documentation_in_annotations_is_the_description() -> None:
    class Doc:  # typing.Doc, of later versions
        documentation = "said"

    assert of(Annotated[int, Doc()]) == {"type": "integer", "description": "said"}


@pytest.mark.parametrize("tp", SETTINGS)
def test_every_family_has_an_object_on_top(tp: Any) -> None:
    document = of(tp)
    gain, limit = document["properties"]["gain"], document["properties"]["limit"]
    assert (gain["type"], gain["minimum"], gain["maximum"], gain["default"]) == ("integer", 1, 10, 2)
    assert {"type": "null"} in limit["anyOf"]
    assert document["$defs"]
    assert json_schema(tp()) == json_schema(tp)


def test_classes_of_all_families_are_defined_once() -> None:
    document = of(mixed())
    json.dumps(document)
    assert document["properties"]["again"]["anyOf"][0] == {"$ref": "#/$defs/Mixed"}
    assert document["properties"]["table"]["additionalProperties"] == {"$ref": "#/$defs/Inner"}
    names = {"Mixed", "ModelSettings", "ModelInner", "OldSettings", "OldInner", "ParamSettings", "ParamInner"}
    assert set(document["$defs"]) == names | {"StructSettings", "StructInner", "Inner"}
    assert document["required"] == ["model", "old", "struct", "table"]


def test_definitions_of_the_same_name_do_not_meet() -> None:
    def other() -> type:
        class ModelInner(pydantic.BaseModel):
            other: int

        class Holder(pydantic.BaseModel):
            held: ModelInner

        Holder.model_rebuild(_types_namespace={"ModelInner": ModelInner})
        return Holder

    both = make_dataclass("Both", [("first", ModelInner), ("second", other()), ("third", ModelInner)])
    document = of(both)
    first, second = (document["properties"][name]["$ref"] for name in ("first", "second"))
    assert document["properties"]["third"]["$ref"] == first
    assert "cutoff" in document["$defs"][first.rpartition("/")[2]]["properties"]
    held = document["$defs"][second.rpartition("/")[2]]["properties"]["held"]["$ref"]
    assert list(document["$defs"][held.rpartition("/")[2]]["properties"]) == ["other"]


class Undescribable(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    array: np.ndarray = np.zeros(1)
    call: Callable[[], int] = int
    inner: Inner = Inner(1.0)


def test_a_model_its_library_cannot_describe_is_described_by_its_fields() -> None:
    document = of(Undescribable)
    assert document["properties"]["inner"]["$ref"] == "#/$defs/Inner"
    assert "type" not in document["properties"]["call"]


class Parts(enum.Flag):
    LEFT = 1
    RIGHT = 2


class Numbers(pydantic.BaseModel):
    parts: Parts = Parts.LEFT
    impedance: complex = 0j


def test_a_model_takes_what_json_says_differently() -> None:
    schema = settings_schema_from_type(Numbers)
    assert schema is not None
    validate(schema, {"parts": Parts.LEFT | Parts.RIGHT, "impedance": 1j})
    assert schema.fields[0].choices is None


@pytest.mark.parametrize("family", [typing.TypedDict, typing_extensions.TypedDict])
def test_a_typed_dict_has_fields_whoever_made_it(family: Any) -> None:
    assert of(family("Pair", {"left": int}))["properties"] == {"left": {"type": "integer"}}


KEY = uuid.UUID(int=1)


def test_defaults_that_json_has_a_text_for_are_that_text() -> None:
    @dataclass
    class Local:
        file: pathlib.Path = pathlib.Path("a/b")
        day: datetime.date = datetime.date(2024, 2, 29)
        key: uuid.UUID = KEY

    document = of(Local)
    defaults = {name: node["default"] for name, node in document["properties"].items()}
    assert defaults == {"file": "a/b", "day": "2024-02-29", "key": "00000000-0000-0000-0000-000000000001"}


def test_fields_that_follow_from_others_are_read_only() -> None:
    @dataclass
    class Local:
        made: int = field(default=1, init=False)

    assert of(Local)["properties"]["made"] == {"type": "integer", "default": 1, "readOnly": True}


class Odd:
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("_") else RuntimeError(name)


T = typing.TypeVar("T")
LEAVES = st.sampled_from(
    [
        *(int, str, float, bool, bytes, Any, None, object, complex, T, "Nowhere", "int", "][", 5, Color, Inner, Mixed),
        *(Odd(), Odd, type, np.ndarray, Callable, typing.Generic, ..., Literal[1, "a"], typing.NamedTuple("N", [])),
        *(typing.TypedDict("D", {"a": int}), ModelInner, datetime.timedelta, typing.ClassVar, typing.NoReturn),
    ]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def wrapped(make: Callable[[Any], Any], item: Any) -> Any:
        try:
            return make(item)
        except Exception:
            return item

    makers = st.sampled_from(
        [
            lambda x: list[x],
            lambda x: dict[str, x],
            lambda x: tuple[x, ...],
            lambda x: tuple[x, int],
            lambda x: typing.Optional[x],  # noqa: UP045 - | refuses strings
            lambda x: typing.Union[x, int, str],  # noqa: UP007 - | refuses strings
            lambda x: Annotated[x, annotated_types.Ge(1), "words", Odd(), 3],
            lambda x: typing.Final[x],
            lambda x: set[x],
            lambda x: type[x],
        ]
    )
    return st.builds(wrapped, makers, inner)


@given(
    annotations=st.lists(st.recursive(LEAVES, nested, max_leaves=5), max_size=6),
    defaults=st.lists(st.sampled_from([1, "a", 2.5, None, Color.RED, Inner(1.0), object(), Odd()]), max_size=6),
)
def test_no_dataclass_is_too_odd(annotations: list[Any], defaults: list[Any]) -> None:
    fields: list[Any] = []
    for index, annotation in enumerate(annotations):
        rest = len(annotations) - index
        default = [field(default_factory=lambda d=defaults[rest - 1]: d)] if rest <= len(defaults) else []
        fields.append((f"f{index}", annotation, *default))
    tp = make_dataclass("Generated", [item for item in fields if _is_usable(item[1])])
    schema = settings_schema_from_type(tp)
    assert schema is not None
    assert schema.json_schema is not None
    assert set(schema.json_schema["properties"]) == {row.name for row in schema.fields}
    assert schema.json_schema.get("required", []) == [row.name for row in schema.fields if row.required]
    json.dumps(schema.json_schema)
    assert settings_schema_from_type(tp) == schema


def _is_usable(annotation: Any) -> bool:
    """Dataclasses leave class variables out, and refuse some by themselves."""
    try:
        return len(make_dataclass("Probe", [("it", annotation)]).__dataclass_fields__) == 1 and (
            annotation is not typing.ClassVar
        )
    except Exception:
        return False
