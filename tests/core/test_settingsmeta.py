from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType

import annotated_types
import msgspec
import numpy as np
import param
import pydantic
import pytest
from pydantic import v1

from ezmsg.core.graphmeta import SettingsFieldMetadata, SettingsSchemaMetadata
from ezmsg.core.settingsmeta import (
    settings_repr_value,
    settings_schema_from_type,
    settings_schema_from_value,
    settings_snapshot_value,
    settings_structured_value,
)
from tests.core.schema.kinds import SETTINGS, Color, DataclassSettings, Inner, ParamInner, StructSettings, mixed


def rows(tp: Any) -> dict[str, SettingsFieldMetadata]:
    schema = settings_schema_from_type(tp)
    assert schema is not None
    return {row.name: row for row in schema.fields}


def test_import_brings_in_neither_pydantic_nor_param() -> None:
    code = (
        "import sys, ezmsg.core.settingsmeta, ezmsg.core.schema.patch, ezmsg.core.schema.validation\n"
        "print({'pydantic', 'param', 'annotated_types'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


# -- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tp", SETTINGS)
def test_every_family_has_a_structured_value(tp: Any) -> None:
    value = settings_structured_value(tp())
    assert value is not None
    assert (value["gain"], value["mode"], value["limit"], value["taps"]) == (2, "fast", None, [1.0])
    assert (value["inner"]["cutoff"], value["inner"]["order"]) == (0.5, 4)


def test_values_of_param_include_its_name() -> None:
    assert settings_structured_value(ParamInner(name="here")) == {"name": "here", "cutoff": 0.5, "order": 4}


def test_structured_value_is_reduced_to_what_json_can_say() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "odd"

    value = OrderedDict(
        {1: Color.RED, "t": (1, {2}), "n": np.float64(0.5), "i": np.int16(3), "o": Odd(), "b": b"x", "in": Inner(1.0)}
    )
    structured = settings_structured_value(value)
    assert structured == {
        "1": "red",
        "t": [1, [2]],
        "n": 0.5,
        "i": 3,
        "o": "odd",
        "b": "b'x'",
        "in": {"cutoff": 1.0, "order": 4},
    }
    assert type(structured["n"]) is float


def test_structured_value_of_what_contains_itself_ends() -> None:
    value: dict[str, Any] = {"x": 1}
    value["self"] = [value]
    assert settings_structured_value(value) == {"x": 1, "self": ["..."]}


@pytest.mark.parametrize("value", [None, 3, "text", object, DataclassSettings, [1]])
def test_other_values_have_a_repr_only(value: Any) -> None:
    assert settings_structured_value(value) is None
    assert settings_repr_value(value) == repr(value)
    assert settings_schema_from_value(value) is None


def test_repr_value_survives_a_broken_repr() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Broken" in str(settings_repr_value(Broken()))


def test_families_nested_in_each_other_are_structured() -> None:
    value = settings_structured_value(mixed())
    assert value is not None
    assert value["model"]["inner"] == {"cutoff": 0.5, "order": 4}
    assert value["old"]["gain"] == value["struct"]["gain"] == value["param"]["gain"] == 2
    assert value["table"] == {"left": {"cutoff": 1.0, "order": 4}}
    assert value["color"] == "red"


def test_snapshot_has_pickle_structure_and_schema() -> None:
    snapshot = settings_snapshot_value(DataclassSettings(gain=7))
    assert snapshot.serialized is not None
    assert pickle.loads(snapshot.serialized) == DataclassSettings(gain=7)
    assert snapshot.repr_value == snapshot.structured_value
    assert snapshot.structured_value is not None
    assert snapshot.structured_value["gain"] == 7
    assert snapshot.settings_schema == settings_schema_from_type(DataclassSettings)


def test_snapshot_of_what_cannot_be_pickled_has_no_bytes() -> None:
    snapshot = settings_snapshot_value(lambda: None)
    assert snapshot.serialized is None
    assert "lambda" in str(snapshot.repr_value)
    assert snapshot.structured_value is snapshot.settings_schema is None


# -- descriptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tp", "provider"), list(zip(SETTINGS, ["dataclass", "pydantic", "pydantic", "param", "msgspec"], strict=True))
)
def test_every_family_is_described_alike(tp: Any, provider: str) -> None:
    schema = settings_schema_from_type(tp)
    assert schema is not None
    assert (schema.provider, schema.settings_type) == (provider, f"{tp.__module__}.{tp.__qualname__}")
    found = rows(tp)
    assert sorted(found) == ["gain", "inner", "limit", "mode", "taps"]
    assert (found["gain"].bounds, found["gain"].default, found["gain"].widget_hint) == ((1.0, 10.0), 2, "slider")
    assert (found["mode"].choices, found["mode"].widget_hint) == (["fast", "exact"], "select")
    assert (found["limit"].default, found["limit"].widget_hint) == (None, "float_input")
    assert found["inner"].default["cutoff"] == 0.5
    assert not any(row.required for row in found.values())
    assert settings_schema_from_value(tp()) == schema


@dataclass
class Many:
    needed: int
    flag: bool = False
    text: str = "x"
    ratio: float = 0.5
    color: Color = Color.BLUE
    items: list[int] = field(default_factory=list)
    broken: int = field(default_factory=lambda: 1 // 0)
    spoken: Annotated[int | None, "words", annotated_types.Interval(gt=2, lt=5)] = None
    behind: Annotated[int, annotated_types.Gt(3)] | None = None
    meta: Annotated[float, msgspec.Meta(le=1.0, description="from Meta")] = 0.0
    listed: str = field(default="a", metadata={"choices": ("a", "b"), "description": "d", "ge": "no number"})
    strange: int = field(default=1, metadata={"choices": 5, "max": None, "description": 3})
    lost: Nowhere = None  # noqa: F821 - such annotations are met
    call: Callable[[], int] | None = None
    never: int = field(default=1, init=False)


def test_rows_of_a_dataclass() -> None:
    assert rows(Many)["needed"] == SettingsFieldMetadata(
        "needed", "builtins.int", True, None, None, None, None, "int_input"
    )
    found = {
        name: (row.field_type, row.required, row.default, row.description, row.bounds, row.choices, row.widget_hint)
        for name, row in rows(Many).items()
    }
    color = f"{Color.__module__}.Color"
    assert found == {
        "needed": ("builtins.int", True, None, None, None, None, "int_input"),
        "flag": ("builtins.bool", False, False, None, None, None, "checkbox"),
        "text": ("builtins.str", False, "x", None, None, None, "text_input"),
        "ratio": ("builtins.float", False, 0.5, None, None, None, "float_input"),
        "color": (color, False, "blue", None, None, ["red", "blue"], "select"),
        "items": ("list[int]", False, [], None, None, None, None),
        "broken": ("builtins.int", False, "<factory>", None, None, None, "int_input"),
        "spoken": ("int | None", False, None, "words", (2.0, 5.0), None, "slider"),
        "behind": ("typing.Optional[int]", False, None, None, (3.0, None), None, "slider"),
        "meta": ("builtins.float", False, 0.0, "from Meta", (None, 1.0), None, "slider"),
        "listed": ("builtins.str", False, "a", "d", None, ["a", "b"], "select"),
        "strange": ("builtins.int", False, 1, "3", None, None, "int_input"),
        "lost": ("Nowhere", False, None, None, None, None, None),
        "call": ("collections.abc.Callable[[], int] | None", False, None, None, None, None, None),
        "never": ("builtins.int", False, 1, None, None, None, "int_input"),
    }


def test_one_lost_name_does_not_take_the_other_annotations_along() -> None:
    def make() -> type:
        @dataclass
        class Local:
            color: Color
            lost: Nowhere  # noqa: F821 - such annotations are met

        return Local

    assert rows(make())["color"].choices == ["red", "blue"]


Volts = NewType("Volts", float)


def test_new_types_are_what_they_stand_for() -> None:
    @dataclass
    class Local:
        level: Volts = Volts(1.0)

    assert rows(Local)["level"].widget_hint == "float_input"


class Model(pydantic.BaseModel):
    text: str = pydantic.Field("a", min_length=1, max_length=5, description="said")
    ratio: float = pydantic.Field(alias="Ratio", gt=0, lt=1)
    call: Callable[[], int] | None = None


def test_rows_of_a_model() -> None:
    found = rows(Model)
    assert (found["text"].bounds, found["text"].description) == ((1.0, 5.0), "said")
    assert (found["ratio"].bounds, found["ratio"].required) == ((0.0, 1.0), True)


class Old(v1.BaseModel):
    text: str = v1.Field("a", min_length=1, description="said")
    coded: v1.constr(regex="a") = "a"  # type: ignore[valid-type]
    made: v1.conint(gt=2) = 3  # type: ignore[valid-type]
    needed: Literal[1, 2]
    positive: v1.PositiveInt = 1


def test_rows_of_an_old_model() -> None:
    found = rows(Old)
    assert (found["text"].bounds, found["text"].description) == ((1.0, None), "said")
    assert (found["made"].bounds, found["made"].widget_hint) == ((2.0, None), "slider")
    assert (found["needed"].required, found["needed"].choices) == (True, [1, 2])
    schema = settings_schema_from_type(Old)
    assert schema is not None
    assert schema.json_schema is not None
    assert schema.json_schema["properties"]["coded"]["pattern"] == "^(?:a)"
    assert (found["positive"].bounds, found["positive"].widget_hint) == ((0.0, None), "slider")


class Params(param.Parameterized):
    ratio = param.Magnitude(0.5, doc="said")
    on = param.Boolean(True)
    named = param.Selector(objects={"one": 1, "two": 2}, default=1)
    open_choice = param.Selector(objects=["a"], default="a", check_on_set=False)
    day = param.Date()
    label = param.String("x", constant=True)


def test_rows_of_params() -> None:
    found = rows(Params)
    assert (found["ratio"].bounds, found["ratio"].description) == ((0.0, 1.0), "said")
    assert found["ratio"].field_type == f"{param.Magnitude.__module__}.Magnitude"
    assert found["on"].widget_hint == "checkbox"
    assert found["named"].choices == [1, 2]
    assert found["open_choice"].choices is None
    assert found["day"].widget_hint is None


def test_structs_go_by_names_of_attributes() -> None:
    schema = settings_schema_from_type(StructSettings)
    assert schema is not None
    assert schema.json_schema is not None
    assert list(schema.json_schema["properties"]) == [row.name for row in schema.fields]


@pytest.mark.parametrize("tp", [None, int, dict, "text", list[int], object(), Color])
def test_nothing_else_is_described(tp: Any) -> None:
    assert settings_schema_from_type(tp) is None


def test_schema_is_compared_by_its_rows() -> None:
    schema = settings_schema_from_type(Inner)
    assert schema is not None
    assert schema == SettingsSchemaMetadata(schema.provider, schema.settings_type, schema.fields)
    assert not math.isnan(schema.fields[1].default)


class Refusing(type):
    def __getattr__(cls, name: str) -> Any:
        raise RuntimeError(name)


def test_a_class_that_refuses_to_be_asked_is_of_no_family() -> None:
    class Odd(metaclass=Refusing):
        pass

    assert settings_schema_from_type(Odd) is None
    assert settings_structured_value(Odd()) is None
