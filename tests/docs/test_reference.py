"""Pages that are made from tables are as made from them."""

from tools import layers_picture, telemetry_reference


def test_the_page_about_telemetry_says_what_the_table_does() -> None:
    """If this fails: `python tools/telemetry_reference.py`, and commit the page."""
    assert telemetry_reference.PAGE.read_text(encoding="utf-8") == telemetry_reference.page()


def test_the_picture_of_the_layers_shows_those_that_are_checked() -> None:
    """If this fails: `python tools/layers_picture.py`, and commit the picture."""
    assert layers_picture.PICTURE.read_text(encoding="utf-8") == layers_picture.picture()
