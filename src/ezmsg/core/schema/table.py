"""The families of settings classes we know. To add one, add its room and a row here."""

from __future__ import annotations

from typing import Any

from ezmsg.core.schema.families import dataclass, msgspecstruct, parameterized, pydanticmodel, pydanticv1
from ezmsg.core.schema.family import Family

FAMILIES: tuple[Family, ...] = (
    dataclass.FAMILY,
    pydanticmodel.FAMILY,
    pydanticv1.FAMILY,
    parameterized.FAMILY,
    msgspecstruct.FAMILY,
)


def family_of(tp: Any) -> Family | None:
    """The family of a class; None for other classes, and for what is no class."""
    if not isinstance(tp, type):
        return None
    try:
        return next((family for family in FAMILIES if family.holds(tp)), None)
    except Exception:  # a metaclass that refuses to be asked
        return None
