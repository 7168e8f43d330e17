"""Addresses in few columns."""

from __future__ import annotations

from ezmsg.tui.names import EdgeNames, edge_text, elided


def test_an_edge_is_called_by_its_units_where_that_is_unique() -> None:
    names = EdgeNames([("A/OUT", "B/IN"), ("B/OUT", "C/IN"), ("B/OUT", "C/SIDE")])
    assert names.of("A/OUT", "B/IN") == ("A", "B")
    assert names.of("B/OUT", "C/SIDE") == ("B/OUT", "C/SIDE")


def test_the_root_that_all_share_is_left_out() -> None:
    assert EdgeNames([("SYS/A/OUT", "SYS/B/IN")]).of("SYS/A/OUT", "SYS/B/IN") == ("A", "B")
    assert EdgeNames([("SYS/A/OUT", "LOG")]).of("SYS/A/OUT", "LOG") == ("SYS/A", "LOG")


def test_a_long_address_is_shortened_where_it_tells_least() -> None:
    address = "SYSTEM/PREPROCESSING_7/BANDPASS"
    assert elided(address, 31) == address
    assert elided(address, 20) == "S…EM/P…_7/BANDPASS"
    assert elided(address, 16) == "S…EM/P…_7/BAN…SS"
    assert elided(address, 12) == "…P…_7/BAN…SS"
    assert elided(address, 1) == "…"


def test_both_sides_of_an_edge_stay_legible() -> None:
    assert edge_text("SOURCE", "SYSTEM/FILTERBANK/BAND", 20) == "SOURCE → …/F…NK/BAND"
    assert edge_text("A", "B", 20) == "A → B"
    assert len(edge_text("A" * 30, "B" * 30, 20)) <= 20
