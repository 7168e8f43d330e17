from __future__ import annotations

import contextlib
import copy
import datetime
import enum
import json
import pathlib
import types
from collections import OrderedDict, UserDict, deque
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Literal

import hypothesis.strategies as st
import param
import pydantic
import pytest
from hypothesis import given
from pydantic import v1

from ezmsg.core.errors import EmptyFieldPath, SettingsNotKnown, UnknownSettingsField
from ezmsg.core.schema.patch import apply_patch
from ezmsg.core.schema.validation import validate
from ezmsg.core.settingsmeta import settings_schema_from_type, settings_structured_value
from tests.core.schema.kinds import (
    INNER,
    SETTINGS,
    Color,
    DataclassSettings,
    Inner,
    ModelInner,
    ParamSettings,
    StructSettings,
    mixed,
)


@pytest.mark.parametrize("tp", SETTINGS)
def test_every_family_is_patched_into_a_new_object(tp: Any) -> None:
    value = tp()
    before = settings_structured_value(value)
    flat, deep = apply_patch(value, "gain", 7), apply_patch(value, "inner.order", 3)
    assert (type(flat), flat.gain, deep.inner.order) == (tp, 7, 3)
    assert type(deep.inner) is type(value.inner)
    assert settings_structured_value(value) == before


@pytest.mark.parametrize(("tp", "inner"), list(zip(SETTINGS, INNER, strict=True)))
def test_a_mapping_becomes_the_object_it_stands_for(tp: Any, inner: Any) -> None:
    patched = apply_patch(tp(), "inner", {"cutoff": 2, "order": 1})
    assert type(patched.inner) is inner
    assert (patched.inner.cutoff, patched.inner.order) == (2.0, 1)


def test_values_become_what_the_annotation_says() -> None:
    assert apply_patch(mixed(), "color", "blue").color is Color.BLUE
    assert apply_patch(mixed(), "color", "green").color == "green"
    assert apply_patch(DataclassSettings(), "taps", [1, 2]).taps == (1.0, 2.0)
    assert apply_patch(DataclassSettings(), "limit", 1).limit == 1
    assert apply_patch(DataclassSettings(), "gain", "text").gain == "text"

    @dataclass
    class Local:
        path: pathlib.Path
        inner: Inner | None = None
        inners: list[Inner | ModelInner] = field(default_factory=list)
        paths: tuple[pathlib.Path, ...] = ()
        table: dict[str, tuple[Shape, pathlib.Path]] = field(default_factory=dict)

    assert apply_patch(Local(pathlib.Path()), "path", "x").path == pathlib.Path("x")
    assert apply_patch(Local(pathlib.Path()), "inner", {"cutoff": 1}).inner == Inner(1.0)
    assert apply_patch(Local(pathlib.Path()), "inners", [{"cutoff": 1}, Inner(2.0)]).inners == [Inner(1.0), Inner(2.0)]
    assert apply_patch(Local(pathlib.Path()), "paths", ["x"]).paths == (pathlib.Path("x"),)
    table = apply_patch(Local(pathlib.Path()), "table", {"x": [[1, 1], "y"]}).table
    assert table == {"x": (Shape.SQUARE, pathlib.Path("y"))}
    assert apply_patch(Local(pathlib.Path()), "table", {"x": [[1, 1]]}).table == {"x": [[1, 1]]}


class Shape(enum.Enum):
    SQUARE = (1, 1)
    ROUND = object()


class Parts(enum.Flag):
    LEFT = 1
    RIGHT = 2


def test_a_choice_becomes_what_its_description_stands_for() -> None:
    @dataclass
    class Local:
        shape: Shape = Shape.SQUARE
        color: Literal[Color.RED, Color.BLUE] | None = None
        parts: Parts = Parts.LEFT

    class Reduce(param.Parameterized):
        by = param.Selector(default=min, objects=[min, max])

    rows = {row.name: row for tp in (Local, Reduce) for row in settings_schema_from_type(tp).fields}
    for row, choices in [("shape", list(Shape)), ("color", list(Color)), ("by", [min, max])]:
        holder: Any = Reduce() if row == "by" else Local()
        assert [getattr(apply_patch(holder, row, said), row) for said in rows[row].choices] == choices
        assert [getattr(apply_patch(holder, row, choice), row) for choice in choices] == choices
    assert rows["parts"].choices is None
    assert apply_patch(Local(), "parts", 3).parts is Parts.LEFT | Parts.RIGHT


def test_models_with_aliases_are_made_by_names_of_attributes() -> None:
    class Renamed(pydantic.BaseModel):
        ratio: float = pydantic.Field(alias="Ratio")

    class Holder(pydantic.BaseModel):
        held: Renamed

    Holder.model_rebuild(_types_namespace={"Renamed": Renamed})
    value = Holder(held=Renamed(Ratio=1.0))
    assert apply_patch(value, "held", {"ratio": 2.0}).held.ratio == 2.0


def test_path_leads_through_mixed_families() -> None:
    value = mixed()
    assert apply_patch(value, "model.inner.cutoff", 1.5).model.inner.cutoff == 1.5
    assert apply_patch(value, "old.inner.cutoff", 1.5).old.inner.cutoff == 1.5
    assert apply_patch(value, "struct.inner.cutoff", 1.5).struct.inner.cutoff == 1.5
    assert apply_patch(value, "param.inner.cutoff", 1.5).param.inner.cutoff == 1.5
    assert apply_patch(value, "table.left.cutoff", 1.5).table == {"left": Inner(1.5)}


@pytest.mark.parametrize("made", [dict, OrderedDict, UserDict])
def test_mappings_are_copied_and_take_new_names(made: Any) -> None:
    value = made({"a": 1})
    patched = apply_patch(value, "b", 2)
    assert (type(patched), dict(patched), dict(value)) == (made, {"a": 1, "b": 2}, {"a": 1})


def test_mappings_that_cannot_be_written_become_dicts() -> None:
    assert apply_patch(types.MappingProxyType({"a": 1}), "a", 2) == {"a": 2}


def test_keys_of_mappings_are_found_by_their_text() -> None:
    assert apply_patch({1: "a"}, "1", "b") == {1: "b"}


class Plain:
    __slots__ = ("__dict__", "slot")
    inherited: int

    def __init__(self) -> None:
        self.shared = [1]
        self._hidden = 1

    @property
    def computed(self) -> int:
        return 1


def test_other_objects_are_copied_deep() -> None:
    value = Plain()
    patched = apply_patch(value, "slot", 2)
    assert patched.slot == 2
    assert not hasattr(value, "slot")
    assert patched.shared == [1]
    assert patched.shared is not value.shared
    with pytest.raises(UnknownSettingsField) as caught:
        apply_patch(value, "computed", 2)
    assert sorted(caught.value.known) == ["inherited", "shared", "slot"]


@pytest.mark.parametrize("path", ["", ".", "gain.", ".gain", "inner..order"])
def test_empty_paths_are_refused(path: str) -> None:
    with pytest.raises(EmptyFieldPath):
        apply_patch(DataclassSettings(), path, 1)


@pytest.mark.parametrize("tp", SETTINGS)
def test_unknown_fields_are_refused_with_those_there_are(tp: Any) -> None:
    with pytest.raises(UnknownSettingsField, match=r"no field 'inner\.none' in .*Inner: the fields are cutoff, order"):
        apply_patch(tp(), "inner.none", 1)
    with pytest.raises(UnknownSettingsField, match="it has no fields"):
        apply_patch(tp(), "gain.deeper", 1)


def test_unknown_names_on_the_way_through_a_mapping_are_refused() -> None:
    with pytest.raises(UnknownSettingsField, match=r"no field 'table\.right'.*left"):
        apply_patch(mixed(), "table.right.cutoff", 1)


def test_what_is_not_known_cannot_be_patched() -> None:
    with pytest.raises(SettingsNotKnown, match="no current value of the settings"):
        apply_patch(None, "gain", 1)
    with pytest.raises(SettingsNotKnown, match="no current value of again"):
        apply_patch(mixed(), "again.color", 1)


def test_fields_that_follow_from_others_cannot_be_set() -> None:
    @dataclass
    class Local:
        x: int = 1
        made: int = field(default=1, init=False)

    with pytest.raises(UnknownSettingsField, match=r"the fields are x$"):
        apply_patch(Local(), "made", 2)


def test_what_the_class_raises_passes_and_nothing_changed() -> None:
    @dataclass(frozen=True)
    class Careful:
        x: int = 1

        def __post_init__(self) -> None:
            if self.x < 0:
                raise FrozenInstanceError("below zero")

    with pytest.raises(FrozenInstanceError):
        apply_patch(Careful(), "x", -1)
    value = ParamSettings()
    with pytest.raises(ValueError, match="gain"):
        apply_patch(value, "gain", 11)
    assert value.gain == 2


class Band(pydantic.BaseModel):
    low_hz: float = pydantic.Field(5.0, gt=0)
    high_hz: float = 15.0

    @pydantic.model_validator(mode="after")
    def _order(self) -> Band:
        if self.low_hz >= self.high_hz:
            raise ValueError("low_hz must be below high_hz")
        return self


class FrozenBand(Band):
    model_config = pydantic.ConfigDict(frozen=True)


class OldBand(v1.BaseModel):
    low_hz: float = v1.Field(5.0, gt=0, alias="low")
    high_hz: float = 15.0

    @v1.root_validator(skip_on_failure=True)
    def _order(cls, values: dict[str, float]) -> dict[str, float]:
        if values["low_hz"] >= values["high_hz"]:
            raise ValueError("low_hz must be below high_hz")
        return values


@pytest.mark.parametrize("tp", [Band, FrozenBand, OldBand])
def test_models_validate_the_value_and_themselves(tp: Any) -> None:
    value = tp()
    for wrong in (-1.0, 20.0, "much"):
        with pytest.raises(ValueError, match="low"):
            apply_patch(value, "low_hz", wrong)
    patched = apply_patch(value, "low_hz", 8)
    assert (patched.low_hz, type(patched.low_hz), patched.high_hz) == (8.0, float, 15.0)
    assert value == tp()


def test_models_take_what_they_allow_besides_their_fields() -> None:
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow", frozen=True)
        x: int = 1

    value = Open.model_validate({"y": 1})
    assert apply_patch(value, "y", 2).model_extra == {"y": 2}
    assert value.model_extra == {"y": 1}


PATHS = [
    "gain",
    "mode",
    "limit",
    "inner.cutoff",
    "inner",
    "taps",
    "table.a.b",
    "table.new",
    "nowhere",
    "color",
    "again",
]
VALUES = st.one_of(
    st.none(), st.integers(1, 10), st.floats(), st.text(), st.lists(st.floats()), st.dictionaries(st.text(), st.none())
)
MAPPINGS = st.dictionaries(st.sampled_from(["gain", "inner", "table", "a", "cutoff"]), VALUES)


@given(
    value=st.one_of(
        st.builds(DataclassSettings, gain=st.integers(), inner=st.builds(Inner, st.integers())),
        st.builds(StructSettings, gain=st.integers()),
        st.builds(ModelInner, cutoff=st.integers()),
        st.builds(lambda table: {"table": table, "inner": {"cutoff": 1}}, st.dictionaries(st.just("a"), MAPPINGS)),
        MAPPINGS,
    ),
    path=st.sampled_from(PATHS),
    new=VALUES,
)
def test_the_original_stays_equal_to_a_deep_copy(value: Any, path: str, new: Any) -> None:
    before = copy.deepcopy(value)
    with contextlib.suppress(UnknownSettingsField, SettingsNotKnown, TypeError, pydantic.ValidationError):
        apply_patch(value, path, new)
    assert repr(value) == repr(before)


def test_param_objects_keep_their_watchers_to_themselves() -> None:
    seen: list[Any] = []
    value = ParamSettings()
    value.param.watch(seen.append, "gain")
    assert isinstance(apply_patch(value, "gain", 3), param.Parameterized)
    assert value.gain == 2


@dataclass
class Place:
    path: pathlib.Path = pathlib.Path("/place")


class Moment(datetime.datetime):
    """A subclass, as the timestamps of pandas are."""


MOMENT = Moment(2020, 1, 2)


def test_what_a_form_shows_as_default_can_be_sent_back() -> None:
    @dataclass
    class Local:
        paths: list[pathlib.Path] = field(default_factory=lambda: [pathlib.Path("/x")])
        table: dict[str, pathlib.Path] = field(default_factory=lambda: {"y": pathlib.Path("/y")})
        pair: tuple[pathlib.Path, int] = (pathlib.Path("/z"), 1)
        place: Place = field(default_factory=Place)
        times: list[datetime.datetime] = field(default_factory=lambda: [datetime.datetime(2020, 1, 2)])
        raw: bytearray = field(default_factory=lambda: bytearray(b"\xff"))
        recent: deque[int] = field(default_factory=lambda: deque([1, 2]))
        names: dict[int, str] = field(default_factory=lambda: {1: "one"})
        key: Literal[b"a", b"b"] = b"b"

    value = Local()
    schema = settings_schema_from_type(Local)
    document = schema.json_schema
    assert document is not None
    for name, node in document["properties"].items():
        shown = json.loads(json.dumps(node["default"]))
        validate(schema, {name: shown})
        assert getattr(apply_patch(value, name, shown), name) == getattr(value, name)


def test_a_default_that_has_no_text_is_no_reason_to_describe_nothing() -> None:
    @dataclass
    class Local:
        begin: datetime.datetime = MOMENT

    document = settings_schema_from_type(Local).json_schema
    assert document is not None
    assert document["properties"]["begin"]["default"] == repr(MOMENT)
