"""Records of any type with any legal values, built from what msgspec knows of them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def strategy(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of one type, built from what msgspec knows of it."""
    match info:
        case inspect.AnyType():
            return PLAIN
        case inspect.RawType():
            return PLAIN.map(lambda value: msgspec.Raw(msgspec.msgpack.encode(value)))
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=least, le=most):
            return st.integers(-(2**63) if least is None else least, 2**64 - 1 if most is None else most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case inspect.StrType(max_length=most):
            return st.text(max_size=most)
        case inspect.BytesType():
            return st.binary(max_size=50)
        case inspect.ListType(item_type=item):
            return st.lists(strategy(item), max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(strategy(item), max_size=3).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(strategy, items))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(strategy(key), strategy(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of(*map(strategy, types))
        case inspect.EnumType(cls=enum):
            return st.sampled_from(list(enum))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.StructType(cls=record):
            return records_of(record)
    raise NotImplementedError(info)


def records_of(record: type[Any]) -> st.SearchStrategy[Any]:
    info = inspect.type_info(record)
    assert isinstance(info, inspect.StructType)
    return st.deferred(lambda: st.builds(record, **{field.name: strategy(field.type) for field in info.fields}))
