from __future__ import annotations

import pytest

from ezmsg.core.addressable import Addressable
from ezmsg.core.errors import AlreadyAddressed, NotAddressed


def test_name_location_and_address_are_assertion_errors_until_they_are_set() -> None:
    it = Addressable()
    for part in ("name", "location", "address"):
        with pytest.raises(AssertionError):
            getattr(it, part)
    it._set_name("A")
    with pytest.raises(NotAddressed, match="A has no location"):
        _ = it.address


def test_address_is_location_and_name_joined_with_slashes() -> None:
    it = Addressable()
    it._set_name("UNIT")
    it._set_location(["ROOT", "COLL"])
    assert (it.name, it.location, it.address) == ("UNIT", ["ROOT", "COLL"], "ROOT/COLL/UNIT")


def test_address_without_a_location_has_no_leading_slash() -> None:
    it = Addressable()
    it._set_name("UNIT")
    it._set_location()
    assert (it.location, it.address) == ([], "UNIT")


def test_name_is_that_of_the_class_by_default() -> None:
    class Thing(Addressable):
        pass

    it = Thing()
    it._set_name()
    assert it.name == "Thing"


def test_name_and_location_can_be_set_once() -> None:
    it = Addressable()
    it._set_name("A")
    it._set_location()
    with pytest.raises(AssertionError, match="A has its name already and cannot get another"):
        it._set_name("A")
    with pytest.raises(AlreadyAddressed):
        it._set_location([])
    assert it.address == "A"


def test_properties_are_read_only() -> None:
    for part in ("name", "location", "address"):
        with pytest.raises(AttributeError):
            setattr(Addressable(), part, "A")


def test_the_location_of_one_is_not_that_of_another() -> None:
    location = ["ROOT"]
    it, other = Addressable(), Addressable()
    for one in (it, other):
        one._set_name("A")
        one._set_location(location)
    it.location.append("X")
    location.append("Y")
    assert it.address == other.address == "ROOT/A"
