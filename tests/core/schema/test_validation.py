from __future__ import annotations

import collections
import datetime
import math
import pathlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal

import annotated_types
import hypothesis.strategies as st
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given

from ezmsg.core.errors import EzmsgError, SettingsInvalid
from ezmsg.core.graphmeta import SettingsFieldMetadata, SettingsSchemaMetadata
from ezmsg.core.schema.validation import validate
from ezmsg.core.settingsmeta import settings_schema_from_type
from ezmsg.core.wire.frames import error_of, refusal_of
from tests.core.schema.kinds import SETTINGS, Color, Inner, Mixed


def schema_of(tp: Any) -> SettingsSchemaMetadata:
    schema = settings_schema_from_type(tp)
    assert schema is not None
    return schema


def broken(tp: Any, patch: dict[str, Any]) -> list[tuple[str, str]]:
    """Fields and rules that a patch of settings of class `tp` breaks."""
    schema = tp if isinstance(tp, SettingsSchemaMetadata) else schema_of(tp)
    try:
        validate(schema, patch)
    except SettingsInvalid as error:
        return [(found["field"], found["rule"]) for found in error.violations]
    return []


@pytest.mark.parametrize("tp", SETTINGS)
def test_every_family_takes_what_is_right_and_tells_all_that_is_wrong(tp: Any) -> None:
    right = {"gain": 10, "mode": "exact", "limit": None, "inner.cutoff": 3, "inner.order": 8, "taps": [1.0, 2]}
    assert broken(tp, right | {"inner": {"cutoff": 1.5}}) == []
    wrong = {"gain": 11, "mode": "slow", "limit": "x", "inner.order": 0, "inner.none": 1, "taps": ["x"], "gain.deep": 1}
    assert broken(tp, wrong | {"nothing": 1}) == [
        ("gain", "out of bounds"),
        ("mode", "not a choice"),
        ("limit", "wrong type"),
        ("inner.order", "out of bounds"),
        ("inner.none", "unknown field"),
        ("taps[0]", "wrong type"),
        ("gain.deep", "too deep"),
        ("nothing", "unknown field"),
    ]


@pytest.mark.parametrize("tp", [tp for tp in SETTINGS if tp.__name__ != "ParamSettings"])
def test_a_whole_new_object_needs_all_that_is_required(tp: Any) -> None:
    assert broken(tp, {"inner": {"order": 9, "more": 1}}) == [
        ("inner.order", "out of bounds"),
        ("inner.more", "unknown field"),
        ("inner.cutoff", "missing required"),
    ]


def test_error_is_named_and_says_everything() -> None:
    with pytest.raises(SettingsInvalid, match=r"gain=0: out of bounds, expected ≥ 1") as caught:
        validate(schema_of(SETTINGS[0]), {"gain": 0})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EzmsgError)
    assert caught.value.violations == [{"field": "gain", "value": "0", "rule": "out of bounds", "expected": "≥ 1"}]


def test_error_travels_in_a_refusal() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        validate(schema_of(SETTINGS[0]), {"gain": 0, "none": object()})
    received = error_of(refusal_of(caught.value))
    assert isinstance(received, SettingsInvalid)
    assert received.violations == caught.value.violations


@dataclass
class Many:
    whole: int = 0
    real: float = 0.0
    flag: bool = False
    above: Annotated[float, annotated_types.Gt(0)] = 1.0
    below: Annotated[float | None, annotated_types.Lt(1)] = None
    even: Annotated[int, annotated_types.MultipleOf(2)] = 0
    tenth: Annotated[float, annotated_types.MultipleOf(0.1)] = 0.0
    text: Annotated[str, annotated_types.Len(1, 3), msgspec.Meta(pattern="^a")] = "a"
    color: Color = Color.RED
    maybe: Literal["a"] | None = None
    when: datetime.datetime | None = None
    file: pathlib.Path | None = None
    array: np.ndarray | None = None
    pair: tuple[int, str] = (1, "a")
    queue: collections.deque[int] = field(default_factory=collections.deque)
    table: dict[str, Inner] = field(default_factory=dict)
    either: int | str = 0
    lost: Nowhere = None  # noqa: F821 - such annotations are met
    made: int = field(default=1, init=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", 1 << 70),
        ("whole", np.int32(3)),
        ("real", 3),
        ("real", math.nan),
        ("real", -math.inf),
        ("real", Decimal("0.5")),
        ("above", math.inf),
        ("below", None),
        ("tenth", 0.3),
        ("even", -4),
        ("color", "blue"),
        ("color", Color.BLUE),
        ("maybe", None),
        ("when", "2024-01-01T00:00:00"),
        ("when", datetime.datetime(2024, 1, 1)),
        ("file", pathlib.Path("x")),
        ("file", "x"),
        ("array", np.zeros(2)),
        ("queue", collections.deque([1])),
        ("pair", (2, "b")),
        ("pair", [2, "b"]),
        ("table", {"left": Inner(1.0)}),
        ("table.left.cutoff", 2.0),
        ("table.left", {"cutoff": 1}),
        ("either", "x"),
        ("lost", object()),
        ("lost.deeper", 1),
    ],
)
def test_accepted(name: str, value: Any) -> None:
    assert broken(Many, {name: value}) == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("whole", True, "wrong type"),
        ("whole", 3.0, "wrong type"),
        ("whole", None, "wrong type"),
        ("whole", object(), "wrong type"),
        ("real", False, "wrong type"),
        ("real", "1", "wrong type"),
        ("flag", 1, "wrong type"),
        ("above", 0, "out of bounds"),
        ("above", math.nan, "out of bounds"),
        ("above", Decimal("nan"), "out of bounds"),
        ("below", 1.0, "out of bounds"),
        ("below", math.inf, "out of bounds"),
        ("tenth", math.inf, "out of bounds"),
        ("even", 3, "out of bounds"),
        ("text", "", "out of bounds"),
        ("text", "aaaa", "out of bounds"),
        ("text", "b", "out of bounds"),
        ("color", "green", "not a choice"),
        ("maybe", "b", "not a choice"),
        ("when", 5, "wrong type"),
        ("file", 5, "wrong type"),
        ("pair", [1], "out of bounds"),
        ("either", 1.5, "wrong type"),
        ("either", [], "wrong type"),
        ("made", 2, "read only"),
        ("queue", b"x", "wrong type"),
        ("whole.x", 2, "too deep"),
        ("", 2, "unknown field"),
        ("table.left.none", 2, "unknown field"),
    ],
)
def test_refused(name: str, value: Any, rule: str) -> None:
    assert rule in [found for _, found in broken(Many, {name: value})]


def test_values_nested_without_end_are_too_deep() -> None:
    value: dict[str, Any] = {"model": {}, "old": {}, "struct": {}, "table": {}}
    value["again"] = value
    assert "too deep" in [rule for _, rule in broken(Mixed, {"again": value})]


def test_families_nested_in_each_other_are_checked() -> None:
    patch = {"model.gain": 0, "old.inner.order": 9, "struct.mode": 3, "param.gain": 11, "table.x.cutoff": "x"}
    assert {rule for _, rule in broken(Mixed, patch)} == {"out of bounds", "not a choice", "wrong type"}
    assert broken(Mixed, {"again.again.color": "red"}) == []


def test_models_that_allow_more_take_more() -> None:
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        x: int = 1

    assert broken(Open, {"y": 1}) == []


def test_rows_alone_are_enough_for_types_bounds_and_choices() -> None:
    def row(name: str, kind: str, default: Any, bounds: Any = None, choices: Any = None) -> SettingsFieldMetadata:
        return SettingsFieldMetadata(name, kind, False, default, None, bounds, choices, None)

    schema = SettingsSchemaMetadata(
        "dataclass",
        "somewhere.S",
        [
            row("gain", "builtins.int", 1, (0.0, 5.0)),
            row("limit", "typing.Optional[float]", None),
            row("other", "str | None", "a"),
            row("mode", "builtins.str", "a", choices=["a", "b"]),
            row("any", "somewhere.T", 0),
        ],
    )
    assert broken(schema, {"gain": 5, "limit": None, "other": None, "mode": "b", "any.x": 1, "any": object()}) == []
    assert broken(schema, {"gain": 6, "limit": "x", "other": 1, "mode": "c", "no": 1, "gain.x": 1}) == [
        ("gain", "out of bounds"),
        ("limit", "wrong type"),
        ("other", "wrong type"),
        ("mode", "not a choice"),
        ("no", "unknown field"),
        ("gain.x", "too deep"),
    ]


NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False))


@given(low=st.integers(-1000, 1000), size=st.integers(0, 1000), value=NUMBERS, exclusive=st.booleans())
def test_agrees_with_the_class_on_bounds(low: int, size: int, value: Any, exclusive: bool) -> None:
    limits = {"gt": low, "lt": low + size} if exclusive else {"ge": low, "le": low + size}
    kind = type(value)
    model = pydantic.create_model("Model", x=(kind, pydantic.Field(**limits)))
    struct = msgspec.defstruct("Struct", [("x", Annotated[kind, msgspec.Meta(**limits)])])
    try:
        model(x=value)
        accepted = True
    except pydantic.ValidationError:
        accepted = False
    assert (broken(model, {"x": value}) == []) is accepted
    assert (broken(struct, {"x": value}) == []) is accepted


@given(
    choices=st.lists(st.one_of(st.integers(), st.text(), st.booleans()), min_size=1, max_size=4),
    value=st.one_of(st.integers(-2, 2), st.text(max_size=2), st.booleans()),
    limit=st.integers(0, 3),
    text=st.text(max_size=5),
)
def test_agrees_with_the_class_on_choices_and_lengths(choices: list[Any], value: Any, limit: int, text: str) -> None:
    model = pydantic.create_model(
        "Model", x=(Literal[tuple(choices)], choices[0]), y=(str, pydantic.Field("", max_length=limit))
    )
    schema = schema_of(model)
    assert broken(schema, {"x": choices[-1]}) == []
    is_choice = any(value == choice and type(value) is type(choice) for choice in choices)
    assert (broken(schema, {"x": value}) == []) is is_choice
    assert (broken(schema, {"y": text}) == []) is (len(text) <= limit)
