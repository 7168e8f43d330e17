"""Objects that are one array and a few things beside it, without pickle: what does not change is read once.

A type is registered with a form: how to take such an object apart, and how to put it together again. A message is a
head, and behind it the array as it would be alone. The head:

    constant part: its bytes (2 bytes), the bytes of the whole head (2), the module that registers the form (behind its
        length, 1 byte), the header of the array (behind its length, 2 bytes; see `arraycodec`), what the form calls
        constant, padding
    variable part: of the same size in all messages with the same constant part

Whoever receives many messages with the same constant part reads it once. The head is 8 bytes more than a multiple of
16, for the same reason as that of an array.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ezmsg.core.arraycodec import CONTIGUOUS, LAYOUT, WRITEABLE, Array, Spec, array_head, array_spec

Data = bytes | bytearray | memoryview

Split = Callable[[Any], tuple[bytes, bytes, Array] | None]
"""Takes an object apart: constant part, variable part, array; None for an object that needs pickle.

What it returns as constant is compared by identity: it is the very same object as long as nothing in it changes, and
then the variable part has the same size.
"""
Join = Callable[[Data, int, Array], Any]
"""Puts an object together: the memory in which its variable part begins at an offset, and its array."""

_SIZES: Final = struct.Struct("<HH")
_SIZE: Final = struct.Struct("<H")
HEAD_MAX: Final = 0xFFFF
_KNOWN: Final = 1024
"""Constant parts remembered; programs that never repeat one must not fill the memory."""


class Form(NamedTuple):
    """How objects of a type travel.

    Attributes:
        home: The module that registers it, which receivers import.
        splitter: Makes what takes the objects of one publisher apart; it may remember what the last one was.
        join: What puts objects with a constant part together.
    """

    home: str
    splitter: Callable[[], Split]
    join: Callable[[bytes], Join]


FORMS: Final[dict[type, Form]] = {}
"""By the very type; subclasses are pickled."""
_by_home: Final[dict[bytes, Form]] = {}


def register(kind: type, form: Form) -> None:
    """Let objects of a type travel in this form; before the first is sent. One module registers one type."""
    FORMS[kind] = form
    _by_home[form.home.encode()] = form


class Composer:
    """Makes the heads of the objects of one publisher; remembers the last."""

    __slots__ = ("_constant", "_dtype", "_home", "_layout", "_part", "_shape", "_split")

    def __init__(self, form: Form) -> None:
        self._split = form.splitter()
        self._home = form.home.encode()
        self._part: bytes | None = None
        self._dtype: Any = None
        self._shape: tuple[int, ...] = ()
        self._layout = 0
        self._constant = b""

    def compose(self, obj: Any) -> tuple[bytes, Array] | None:
        """The head of an object, and its array; None if it needs pickle."""
        parts = self._split(obj)
        if parts is None:
            return None
        part, variable, array = parts
        layout = array.flags.num & LAYOUT
        if part is self._part and array.dtype is self._dtype and array.shape == self._shape and layout == self._layout:
            return self._constant + variable, array
        if layout & CONTIGUOUS and not layout & WRITEABLE:
            return None  # receivers are told of arrays that cannot be written to, by the codec
        head = array_head(array, layout)
        if head is None:
            return None
        constant = _constant(self._home, head, part, len(variable))
        if constant is None:
            return None
        self._part, self._dtype, self._shape, self._layout = part, array.dtype, array.shape, layout
        self._constant = constant
        return constant + variable, array


def _constant(home: bytes, head: bytes, part: bytes, variable_bytes: int) -> bytes | None:
    content = bytes((len(home),)) + home + _SIZE.pack(len(head)) + head + part
    size = _SIZES.size + len(content)
    padding = (8 - size - variable_bytes) % 16
    size += padding
    if size + variable_bytes > HEAD_MAX:
        return None
    return _SIZES.pack(size, size + variable_bytes) + content + bytes(padding)


class Template(NamedTuple):
    """What messages with the same constant part have in common.

    Attributes:
        constant: Bytes of the constant part.
        head: Bytes of the head.
        spec: What the array is.
        join: Puts them together.
    """

    constant: int
    head: int
    spec: Spec
    join: Join


_templates: Final[dict[bytes, Template]] = {}


def constant_of(head: Data, start: int) -> bytes:
    """The constant part of a head that begins at `start`."""
    size, _ = _SIZES.unpack_from(head, start)
    return bytes(head[start : start + size])


def template_of(constant: bytes) -> Template:
    """What a constant part says.

    Raises:
        ValueError: It is none, or nobody here knows the form.
    """
    template = _templates.get(constant)
    return _new_template(constant) if template is None else template


def _new_template(constant: bytes) -> Template:
    try:
        size, head_size = _SIZES.unpack_from(constant)
        at = _SIZES.size + 1 + constant[_SIZES.size]
        home = constant[_SIZES.size + 1 : at]
        (array_size,) = _SIZE.unpack_from(constant, at)
        at += _SIZE.size
        spec = array_spec(constant[at : at + array_size])
        if home not in _by_home:
            importlib.import_module(home.decode())
        template = Template(size, head_size, spec, _by_home[home].join(constant[at + array_size :]))
    except Exception as error:  # of whatever module
        raise ValueError(f"the head of a composite cannot be read: {type(error).__name__}: {error}") from error
    if len(_templates) >= _KNOWN:
        _templates.clear()
    _templates[constant] = template
    return template


def composite_of(head: Data, buffer: Data) -> Any:
    """The object with this head; its array is a view of the buffer, or of what is behind the head if they are one.

    Raises:
        ValueError: The head is none.
        TypeError: The buffer is too small.
    """
    template = template_of(constant_of(head, 0))
    array = template.spec.view(buffer, template.head if buffer is head else 0)
    return template.join(head, template.constant, array)
