"""The records of the control plane have one address, in whichever room of the package they stand."""

import pickle
from typing import get_type_hints

import pytest

from ezmsg.core import errors, graphmeta

CLASSES = [it for name in graphmeta.__all__ if isinstance(it := getattr(graphmeta, name), type)]


def test_pickles_name_every_record_by_the_module_that_peers_know() -> None:
    assert {it.__module__ for it in CLASSES} == {"ezmsg.core.graphmeta"}
    edge = graphmeta.Edge("A", "B")
    assert b"ezmsg.core.graphmeta\x94" in pickle.dumps(edge)
    assert pickle.loads(pickle.dumps(edge)) == edge


@pytest.mark.parametrize("record", CLASSES, ids=lambda record: record.__name__)
def test_annotations_of_records_can_be_resolved(record: type) -> None:
    assert set(get_type_hints(record)) >= set(vars(record).get("__dataclass_fields__", ()))


def test_tracebacks_name_errors_by_the_module_they_are_imported_from() -> None:
    assert {getattr(errors, name).__module__ for name in errors.__all__} == {"ezmsg.core.errors"}


def test_pickles_of_errors_name_nothing_but_the_module_they_are_imported_from() -> None:
    pickled = pickle.dumps(errors.ConfigError("port", -1, "a port"))

    assert b"ezmsg.core.errors." not in pickled
    assert str(pickle.loads(pickled)) == str(errors.ConfigError("port", -1, "a port"))
