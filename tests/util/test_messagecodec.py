"""Messages as JSON, and logs of them."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ezmsg.core as ez
from ezmsg.core.errors import LogLineUnreadable, UnknownMessageType
from ezmsg.util.messagecodec import (
    LogStart,
    MessageDecoder,
    MessageEncoder,
    StampedMessage,
    import_type,
    log_line,
    message_log,
    type_str,
)
from tests.util.messages.signals import signal, signals

FEW = settings(max_examples=30)


@dataclasses.dataclass(frozen=True)
class Reading:
    value: Any = 0
    total: int = dataclasses.field(default=7, init=False)


class Options(ez.Settings):
    gain: float = 1.0


class Colour(enum.Enum):
    RED = 1


def through(message: Any) -> Any:
    """What comes of a message that is written and read."""
    return json.loads(json.dumps(message, cls=MessageEncoder), cls=MessageDecoder)


@pytest.mark.parametrize(
    "message",
    [
        None,
        1.5,
        "a\udc00",
        [1, {"a": None}],
        b"bytes",
        {1, 2},
        1 + 2j,
        np.float32(1.5),
        Colour.RED,
        Path("/a"),
        Reading(Reading([1])),
        Options(gain=2.0),
        int,
        {"_type": "mine"},
        signal(),
    ],
)
def test_messages_come_back_as_they_were(message: Any) -> None:
    assert through(message) == message
    assert type(through(message)) is type(message)


def test_tuples_come_back_as_lists_and_keys_as_text() -> None:
    assert through((1, 2)) == [1, 2]
    assert through({1: 2}) == {"1": 2}


PLAIN = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes(),
    hnp.byte_string_dtypes(), hnp.unicode_string_dtypes(),
)  # fmt: skip


@FEW
@given(hnp.arrays(PLAIN, hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back_byte_for_byte(array: Any) -> None:
    back = through(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


@pytest.mark.parametrize("dtype", ["datetime64[ms]", "timedelta64[D]", [("a", "<i4"), ("b", "<f8")], object])
def test_arrays_of_other_types_come_back_too(dtype: Any) -> None:
    array = np.zeros((2, 3), dtype)
    assert through(array).dtype == array.dtype
    assert through(array).tolist() == array.tolist()


@FEW
@given(signals())
def test_signals_come_back(message: Any) -> None:
    assert through(message) == message


def test_arrays_in_any_order_of_memory_come_back() -> None:
    assert through(np.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_fields_that_no_constructor_takes_come_back() -> None:
    reading = Reading(1)
    object.__setattr__(reading, "total", 9)
    assert through(reading).total == 9


def test_json_is_as_other_programs_read_it() -> None:
    text = json.dumps(Reading(np.arange(2, dtype="<i2")), cls=MessageEncoder)
    assert json.loads(text) == {
        "value": {"_type": "_ndarray", "dtype": "int16", "data": "AAABAA==", "shape": [2]},
        "total": 7,
        "_type": f"{__name__}:Reading",
    }
    assert json.loads(json.dumps(LogStart(), cls=MessageEncoder)) == {"_type": "ezmsg.util.messagecodec:LogStart"}
    assert '"ezmsg.util.messages.axisarray:LinearAxis"' in json.dumps(signal(), cls=MessageEncoder)


def test_classes_are_found_by_name() -> None:
    assert type_str(Reading()) == f"{__name__}:Reading"
    assert import_type(type_str(Reading())) is Reading
    assert import_type("collections:OrderedDict") is collections.OrderedDict
    assert type_str(1) == "builtins:int"


@pytest.mark.parametrize("name", ["nowhere.at_all:X", "json:X", "json", ":X", "json:dumps"])
def test_what_is_no_class_is_refused(name: str) -> None:
    with pytest.raises(UnknownMessageType, match=name) as raised:
        import_type(name)
    assert isinstance(raised.value, ImportError)


# -- logs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of two messages, received at 10.0 and 10.5."""
    path = tmp_path / "log.txt"
    lines = [log_line(LogStart(), 9.0), log_line(signal(), 10.0), log_line([1], 10.5)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_log_gives_messages_and_when_they_were_received(path: Path) -> None:
    assert list(message_log(path)) == [signal(), [1]]
    assert [entry["ts"] for entry in message_log(path, return_object=False)] == [10.0, 10.5]
    assert [entry["obj"] for entry in message_log(path, return_object=False)] == [signal(), [1]]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_left_out_and_reported(path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(path.read_text()[: -cut - 1])
    with caplog.at_level(logging.WARNING, "ezmsg"):
        assert list(message_log(path)) == [signal()]
    assert "is torn" in caplog.text


def test_a_last_line_without_an_end_counts_if_it_is_whole(path: Path) -> None:
    path.write_text(path.read_text()[:-1])
    assert list(message_log(path)) == [signal(), [1]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"ts": 1, "obj"', "JSONDecodeError"),
        ('{"ts": 1}', "KeyError"),
        ("[1]", "TypeError"),
        ('{"ts": 1, "obj": {"_type": "nowhere:X"}}', "nowhere:X"),
        (f'{{"ts": 1, "obj": {{"_type": "{__name__}:Reading", "colour": 1}}}}', "colour"),
        ('{"ts": 1, "obj": {"_type": "_pickle", "data": "gASV"}}', "truncated"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(path: Path, line: str, reason: str) -> None:
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(LogLineUnreadable, match=f"line 1 of .*{reason}"):
        list(message_log(path))


def test_a_log_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(message_log(tmp_path / "nothing"))


def test_a_stamped_message_is_a_pair() -> None:
    assert StampedMessage(1, 2.0) == (1, 2.0)
