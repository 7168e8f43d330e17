"""Changed copies of messages."""

from __future__ import annotations

import dataclasses
import importlib.util
import runpy

import numpy as np
import pytest

from ezmsg.util.messages.util import fast_replace, replace
from tests.util.messages.signals import signal


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: list[int]


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int = 1


def test_replace_changes_some_fields_and_keeps_the_others_themselves() -> None:
    before = Frozen(1, [2])
    after = replace(before, x=3)
    assert after == Frozen(3, [2])
    assert after.y is before.y
    assert before.x == 1
    assert fast_replace(Slotted(), x=5) == Slotted(5)


def test_replace_checks_what_the_constructor_checks() -> None:
    with pytest.raises(ValueError, match="dims must be same length"):
        replace(signal(), data=np.zeros(3))
    with pytest.raises(TypeError, match="colour"):
        replace(signal(), colour="red")  # type: ignore[call-arg]


def test_a_variable_makes_replace_the_one_of_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_DISABLE_FAST_REPLACE", "")
    path = importlib.util.find_spec("ezmsg.util.messages.util").origin  # type: ignore[union-attr]
    assert runpy.run_path(str(path))["replace"] is dataclasses.replace
