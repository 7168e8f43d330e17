from __future__ import annotations

import copy
import pickle
from typing import Any, NoReturn, TypeVar

import pytest

import ezmsg.core as ez
from ezmsg.core.addressable import Addressable
from ezmsg.core.stream import Stream, type_name

T = TypeVar("T")


class Unspeakable(type):
    def __repr__(cls) -> NoReturn:
        raise RuntimeError("no repr")


class Unnamed(metaclass=Unspeakable):
    pass


class Speechless:
    def __repr__(self) -> NoReturn:
        raise RuntimeError("no repr")


KINDS = [
    Stream,
    ez.InputStream,
    ez.OutputStream,
    ez.Topic,
    ez.InputTopic,
    ez.OutputTopic,
    ez.InputRelay,
    ez.OutputRelay,
]
MSG_TYPES = [int, Any, T, list[int], "Later", None, int | None, Unnamed, Speechless(), dict[str, T]]


def of(stream: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(stream).items() if not name.startswith("_")}


def test_classes_derive_as_documented() -> None:
    assert issubclass(Stream, Addressable)
    assert ez.InputStream.__bases__ == ez.OutputStream.__bases__ == ez.Topic.__bases__ == (Stream,)
    assert ez.InputTopic.__bases__ == ez.OutputTopic.__bases__ == (ez.Topic,)
    assert ez.InputRelay.__bases__ == (ez.InputTopic,)
    assert ez.OutputRelay.__bases__ == (ez.OutputTopic,)
    assert ez.stream.InputStream is ez.InputStream


def test_defaults_are_kept_as_attributes() -> None:
    assert of(ez.InputStream(int)) == {"msg_type": int, "leaky": False, "max_queue": None}
    publishing = {"msg_type": int, "host": None, "port": None, "num_buffers": 32, "buf_size": 65536}
    assert of(ez.OutputStream(int)) == {**publishing, "force_tcp": None, "allow_local": None}
    assert of(ez.OutputRelay(int)) == {**publishing, "force_tcp": False, "copy_on_forward": True}
    assert of(ez.InputRelay(int)) == {"msg_type": int, "leaky": False, "max_queue": None, "copy_on_forward": True}
    for kind in (Stream, ez.Topic, ez.InputTopic, ez.OutputTopic):
        assert of(kind(int)) == {"msg_type": int}


def test_arguments_may_be_positional() -> None:
    assert of(ez.InputStream(int, True, 3)) == {"msg_type": int, "leaky": True, "max_queue": 3}
    assert list(of(ez.OutputStream(int, "h", 1, 2, 3, True, False)).values()) == [int, "h", 1, 2, 3, True, False]
    assert list(of(ez.InputRelay(int, True, 3, False)).values()) == [int, True, 3, False]
    assert list(of(ez.OutputRelay(int, "h", 1, 2, 3, True, False)).values()) == [int, "h", 1, 2, 3, True, False]


@pytest.mark.parametrize("kind", [ez.InputStream, ez.InputRelay])
@pytest.mark.parametrize("max_queue", [0, -1])
@pytest.mark.parametrize("leaky", [True, False])
def test_a_queue_that_holds_nothing_is_refused(kind: Any, max_queue: int, leaky: bool) -> None:
    with pytest.raises(ValueError, match="max_queue"):
        kind(int, leaky=leaky, max_queue=max_queue)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ez.InputStream, {"max_queue": "3"}),
        (ez.OutputStream, {"num_buffers": 0}),
        (ez.OutputStream, {"num_buffers": "many"}),
        (ez.OutputStream, {"port": 1 << 16}),
        (ez.OutputRelay, {"num_buffers": None}),
        (ez.OutputRelay, {"port": "http"}),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_by_name(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}=.* cannot be used: expected .*"):
        kind(int, **wrong)


def test_attributes_are_mutable() -> None:
    stream = ez.OutputStream(int)
    stream.num_buffers = 1
    stream.host = "0.0.0.0"
    assert (stream.num_buffers, stream.host) == (1, "0.0.0.0")


@pytest.mark.parametrize("msg_type", MSG_TYPES, ids=range(len(MSG_TYPES)))
@pytest.mark.parametrize("kind", KINDS)
def test_any_message_type_can_be_shown_copied_and_pickled(kind: Any, msg_type: Any) -> None:
    stream = kind(msg_type)
    assert kind.__name__ in repr(stream)
    assert copy.deepcopy(stream).msg_type is msg_type
    again = pickle.loads(pickle.dumps(stream))
    assert type(again) is kind
    assert of(again).keys() == of(stream).keys()


def test_repr_tells_the_address_and_the_type() -> None:
    stream = ez.OutputStream(int)
    assert repr(stream) == "<OutputStream OutputStream builtins.int>"
    stream._set_name("OUT")
    stream._set_location(["SYS"])
    assert repr(stream) == "<OutputStream SYS/OUT builtins.int>"


def test_a_message_type_that_cannot_be_pickled_travels_as_its_name() -> None:
    class Local:
        pass

    again = pickle.loads(pickle.dumps(ez.InputStream(Local, leaky=True)))
    assert again.leaky
    assert again.msg_type.endswith("<locals>.Local")


def test_a_deep_copy_shares_nothing_but_the_message_type() -> None:
    stream: Any = ez.InputStream(int)
    stream.note = ["x"]
    stream._set_name("IN")
    copied = copy.deepcopy(stream)
    copied.leaky = True
    copied.note.append("y")
    assert (stream.leaky, stream.note, copied.name) == (False, ["x"], "IN")


def test_type_name_is_module_and_qualname_of_classes_and_the_repr_of_others() -> None:
    class Local:
        pass

    assert type_name(int) == "builtins.int"
    assert type_name(Local).endswith(
        "test_type_name_is_module_and_qualname_of_classes_and_the_repr_of_others.<locals>.Local"
    )
    assert type_name(list[int]) == "list[int]"
    assert type_name("Later") == "'Later'"
    assert type_name(Any) == "typing.Any"
    assert type_name(T) == "~T"
    assert "Speechless" in type_name(Speechless())
