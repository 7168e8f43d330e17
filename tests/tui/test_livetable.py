"""The table under all others: what it shows when there is nothing, and that the cursor stays."""

from __future__ import annotations

from textual.app import App, ComposeResult

from ezmsg.tui.livetable import Head, LiveTable

HEADS = (Head("unit", right=False), Head("msg/s", 6))


class Units(LiveTable):
    NOTHING = "no units yet"


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        yield Units()


async def test_a_table_without_rows_says_that_there_are_none_yet() -> None:
    app = Shown()
    async with app.run_test(size=(80, 24)):
        table = app.query_one(Units)
        table.show(HEADS, {})
        assert table.get_row_at(0)[0].plain.strip() == "no units yet"
        assert (table.lines()[1:], table.selected) == ([], None)
        table.show(HEADS, {"a": ["A", "1.0"], "b": ["B", "2.0"]})
        assert [line.split() for line in table.lines()[1:]] == [["A", "1.0"], ["B", "2.0"]]
        assert table.row_count == 2
        table.show(HEADS, {})
        assert table.get_row_at(0)[0].plain.strip() == "no units yet"


async def test_the_cursor_stays_on_its_row_when_others_come() -> None:
    app = Shown()
    async with app.run_test(size=(80, 24)):
        table = app.query_one(Units)
        table.show(HEADS, {"b": ["B", "2.0"]})
        table.show(HEADS, {"a": ["A", "1.0"], "b": ["B", "2.0"]})
        assert table.selected == "b"
