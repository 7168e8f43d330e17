"""The same settings in every family: `gain` an int from 1 to 10, `mode` a choice, `limit` optional, `inner` nested."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

import annotated_types
import msgspec
import param
import pydantic
from pydantic import v1


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    cutoff: float
    order: int = field(default=4, metadata={"min": 1, "max": 8, "description": "order of the filter"})


@dataclass(frozen=True)
class DataclassSettings:
    gain: Annotated[int, annotated_types.Ge(1), annotated_types.Le(10)] = 2
    mode: Literal["fast", "exact"] = "fast"
    limit: float | None = None
    inner: Inner = Inner(0.5)
    taps: tuple[float, ...] = (1.0,)


class ModelInner(pydantic.BaseModel):
    cutoff: float
    order: int = pydantic.Field(4, ge=1, le=8)


class ModelSettings(pydantic.BaseModel):
    gain: int = pydantic.Field(2, ge=1, le=10)
    mode: Literal["fast", "exact"] = "fast"
    limit: Optional[float] = None  # noqa: UP045 - both spellings are tried
    inner: ModelInner = ModelInner(cutoff=0.5)
    taps: tuple[float, ...] = (1.0,)


class OldInner(v1.BaseModel):
    cutoff: float
    order: int = v1.Field(4, ge=1, le=8)


class OldSettings(v1.BaseModel):
    gain: int = v1.Field(2, ge=1, le=10)
    mode: Literal["fast", "exact"] = "fast"
    limit: Optional[float] = None  # noqa: UP045 - pydantic 1 knows no other spelling
    inner: OldInner = OldInner(cutoff=0.5)
    taps: tuple[float, ...] = (1.0,)


class ParamInner(param.Parameterized):
    cutoff = param.Number(0.5)
    order = param.Integer(4, bounds=(1, 8))


class ParamSettings(param.Parameterized):
    gain = param.Integer(2, bounds=(1, 10))
    mode = param.Selector(default="fast", objects=["fast", "exact"])
    limit = param.Number(None, allow_None=True)
    inner = param.ClassSelector(class_=ParamInner, default=ParamInner())
    taps = param.List([1.0], item_type=float)


class StructInner(msgspec.Struct, frozen=True):
    cutoff: float
    order: Annotated[int, msgspec.Meta(ge=1, le=8)] = 4


class StructSettings(msgspec.Struct, rename="camel"):
    gain: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    mode: Literal["fast", "exact"] = "fast"
    limit: float | None = None
    inner: StructInner = msgspec.field(default_factory=lambda: StructInner(0.5))
    taps: list[float] = msgspec.field(default_factory=lambda: [1.0])


SETTINGS: list[Any] = [DataclassSettings, ModelSettings, OldSettings, ParamSettings, StructSettings]
INNER: list[Any] = [Inner, ModelInner, OldInner, ParamInner, StructInner]


@dataclass
class Mixed:
    model: ModelSettings
    old: OldSettings
    struct: StructSettings
    table: dict[str, Inner]
    param: ParamSettings = field(default_factory=ParamSettings)
    color: Color = Color.RED
    again: Mixed | None = None


def mixed() -> Mixed:
    return Mixed(ModelSettings(), OldSettings(), StructSettings(), {"left": Inner(1.0)})
