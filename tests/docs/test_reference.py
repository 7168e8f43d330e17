"""Pages that are made from tables are as made from them."""

from tools import telemetry_reference


def test_the_page_about_telemetry_says_what_the_table_does() -> None:
    """If this fails: `python tools/telemetry_reference.py`, and commit the page."""
    assert telemetry_reference.PAGE.read_text(encoding="utf-8") == telemetry_reference.page()
