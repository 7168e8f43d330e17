"""A table that is shown anew often, and changes only what changed: the cursor stays, little goes to the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.text import Text
from textual.widgets import DataTable

from ezmsg.tui.names import elided

# More rows than anybody reads; the first are shown.
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Head:
    """A column: its title and width. The first one takes what the others leave; addresses are shortened to fit."""

    title: str
    width: int = 0
    right: bool = True
    is_address: bool = False


class LiveTable(DataTable[Text]):
    """Rows of text by key, told from outside as a whole."""

    # Shown where there are no rows.
    NOTHING: ClassVar[str] = ""
    # The cursor leaves colours readable, also where the keys go.
    DEFAULT_CSS = """
    LiveTable { height: 1fr; padding: 0 0 0 1; scrollbar-size-vertical: 1; }
    LiveTable > .datatable--header { text-style: bold; }
    LiveTable:focus > .datatable--cursor { background: $primary-darken-3; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        """Make an empty one."""
        super().__init__(
            id=id, cursor_type="row", cell_padding=0, zebra_stripes=True, cursor_foreground_priority="renderable"
        )
        self._heads: tuple[Head, ...] = ()
        self._shown: dict[str, tuple[Text, ...]] = {}
        self.left_out = 0

    @property
    def room(self) -> int:
        """Columns of the terminal it has for its rows."""
        return max(12, self.size.width - 2)

    def show(self, heads: Sequence[Head], rows: Mapping[str, Sequence[Text | str]]) -> None:
        """Show these rows under these columns."""
        heads = self._fitted(heads)
        wanted = {
            key: tuple(_cell(head, text, number) for number, (head, text) in enumerate(zip(heads, cells, strict=True)))
            for key, cells in list(rows.items())[:MOST_ROWS]
        }
        self.left_out = max(0, len(rows) - MOST_ROWS)
        if heads != self._heads or list(wanted) != list(self._shown) or (self.NOTHING and not self.row_count):
            self._rebuild(heads, wanted)
            return
        for key, cells in wanted.items():
            for number, (old, new) in enumerate(zip(self._shown[key], cells, strict=True)):
                if old != new or old.style != new.style:
                    self.update_cell(key, str(number), new)
        self._shown = wanted

    @property
    def selected(self) -> str | None:
        """The key of the row the cursor is on."""
        keys = list(self._shown)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else None

    def lines(self) -> list[str]:
        """What it shows, as text."""
        rows = [[head.title for head in self._heads], *([cell.plain for cell in row] for row in self._shown.values())]
        return [" ".join(cells).rstrip() for cells in rows]

    def _fitted(self, heads: Sequence[Head]) -> tuple[Head, ...]:
        first, *others = heads
        rest = self.room - sum(head.width + 1 for head in others)
        return (replace(first, width=max(8, rest)), *others)

    def _rebuild(self, heads: tuple[Head, ...], wanted: dict[str, tuple[Text, ...]]) -> None:
        selected, offset = self.selected, self.scroll_offset
        self.clear(columns=heads != self._heads)
        if heads != self._heads:
            for number, head in enumerate(heads):
                title = _cell(head, head.title, number)
                self.add_column(title, width=title.cell_len, key=str(number))
        for key, cells in wanted.items():
            self.add_row(*cells, key=key)
        if not wanted and self.NOTHING:
            self.add_row(Text(self.NOTHING, style="dim italic"), *[Text()] * (len(heads) - 1))
        self._heads, self._shown = heads, wanted
        if selected in wanted:
            self.move_cursor(row=list(wanted).index(selected), scroll=False)
            self.scroll_to(y=offset.y, animate=False)


def _cell(head: Head, content: Text | str, number: int) -> Text:
    """As wide as its column; a blank keeps it from the one before."""
    text = content.copy() if isinstance(content, Text) else Text(content)
    text.no_wrap = True
    if head.is_address and text.cell_len > head.width:
        text = Text(elided(text.plain, head.width), style=text.style, no_wrap=True)
    text.truncate(head.width, overflow="ellipsis")
    text.align("right" if head.right else "left", head.width)
    if number:
        text.pad_left(1)
    return text
