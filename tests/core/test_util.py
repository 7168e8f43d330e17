from __future__ import annotations

import io
import logging
import sys
from collections import OrderedDict, UserDict
from typing import Any

import pytest

from ezmsg.core.util import LogHandler, either_dict_or_kwargs, is_dict_like


@pytest.mark.parametrize("value", [{}, OrderedDict(a=1), UserDict({"a": 1})])
def test_mappings_are_dict_like(value: Any) -> None:
    assert is_dict_like(value)


@pytest.mark.parametrize("value", [None, 1, "text", [("a", 1)], object()])
def test_other_things_are_not_dict_like(value: Any) -> None:
    assert not is_dict_like(value)


def test_what_was_given_is_returned() -> None:
    assert either_dict_or_kwargs({"a": 1}, {}, "run") == {"a": 1}
    assert either_dict_or_kwargs(None, {"a": 1}, "run") == {"a": 1}
    assert either_dict_or_kwargs({}, {"a": 1}, "run") == {"a": 1}
    assert either_dict_or_kwargs(None, {}, "run") == {}


def test_both_are_refused() -> None:
    with pytest.raises(ValueError, match=r"run\(\) takes a mapping or keywords, not both: b"):
        either_dict_or_kwargs({"a": 1}, {"b": 2}, "run")


@pytest.mark.parametrize("value", [5, [1], "text", 0])
def test_something_else_than_a_mapping_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"run\(\) needs a mapping"):
        either_dict_or_kwargs(value, {}, "run")


def test_a_line_of_the_log_is_lost_where_a_program_has_closed_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    LogHandler(closed).handle(logging.makeLogRecord({"msg": "hello"}))
