"""The form of one component's settings: an editor for each field, what it takes beside it, what was wrong below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Label, Select, Static, Switch

from ezmsg.tui.fields import Field


class FieldRow(Vertical):
    """One field. Enter sends what was typed, Escape takes it back."""

    DEFAULT_CSS = """
    FieldRow { height: auto; }
    FieldRow Horizontal { height: 1; }
    FieldRow .name { width: 13; padding: 0 1 0 0; text-align: right; }
    FieldRow Input, FieldRow Select { width: 17; }
    FieldRow Switch { width: 17; border: none; height: 1; padding: 0; background: transparent; }
    FieldRow .value { width: 17; color: $text 70%; }
    FieldRow .hint { width: 1fr; padding: 0 0 0 1; color: $text 60%; }
    FieldRow .error { height: auto; padding: 0 1 0 13; color: #ff8080; display: none; }
    FieldRow.wrong .error { display: block; }
    FieldRow.edited .name { color: $warning; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "take_back", "Take back", show=False)]

    class Changed(Message):
        """The user wants another value."""

        def __init__(self, row: FieldRow, value: Any) -> None:
            """Made by the row."""
            super().__init__()
            self.row, self.value = row, value

    def __init__(self, field: Field, *, is_live: bool) -> None:
        """Make one; without `is_live` it only shows."""
        super().__init__()
        self.field = field
        self.is_live = is_live
        # What was sent last, and what stands in the editor unless the user typed since.
        self._sent_text = ""
        self._untouched = {field.text}
        self._editor: Input | Static | Switch | Any = self._made_editor(field, is_live)

    def _made_editor(self, field: Field, is_live: bool) -> Any:
        if not is_live:
            return Static(field.text, classes="value", markup=False)
        if field.kind == "switch":
            return Switch(bool(field.value), animate=False)
        if field.kind == "choice":
            options = [(str(choice), json.dumps(choice)) for choice in field.choices]
            known = json.dumps(field.value) in [value for _, value in options]
            value = json.dumps(field.value) if known else Select.NULL
            return Select(options, value=value, allow_blank=field.is_nullable or not known, compact=True)
        return Input(field.text, compact=True, select_on_focus=False)

    def compose(self) -> ComposeResult:
        """Name, editor, hint, and an error below."""
        with Horizontal():
            yield Label(self.field.path[-12:], classes="name", markup=False)
            yield self._editor
            yield Label(self.field.hint, classes="hint", markup=False)
        yield Static("", classes="error", markup=False)

    # -- from outside -------------------------------------------------------------------------------------------------

    def take(self, field: Field) -> None:
        """The settings changed. What is being typed stays, and is marked as it was."""
        # Not by the mark: the message that sets it may still be on its way.
        is_edited = isinstance(self._editor, Input) and self._editor.value not in self._untouched
        self.field = field
        if not is_edited:
            self._show_value()

    def accepted(self) -> None:
        """What was sent holds now; what was typed since then stays."""
        self.remove_class("wrong")
        self._untouched.add(self._sent_text)
        if not isinstance(self._editor, Input) or self._editor.value == self._sent_text:
            self.remove_class("edited")

    def refused(self, reason: str) -> None:
        """What was sent does not."""
        self.query_one(".error", Static).update(reason)
        self.add_class("wrong")
        if not isinstance(self._editor, Input):
            self._show_value()

    def _show_value(self) -> None:
        editor, field = self._editor, self.field
        self._untouched = {field.text}
        if isinstance(editor, Static):
            editor.update(field.text)
            return
        with self.prevent(Input.Changed, Switch.Changed, Select.Changed):
            if isinstance(editor, Switch):
                editor.value = bool(field.value)
            elif isinstance(editor, Input):
                if editor.value != field.text:
                    editor.value = field.text
                    editor.cursor_position = len(field.text)
            elif field.value is not None:
                editor.value = json.dumps(field.value)

    # -- from the user ------------------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Mark what was not sent yet."""
        event.stop()
        self.set_class(event.value != self.field.text, "edited")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send it, if it can be one."""
        event.stop()
        self._sent_text = event.value
        try:
            value = self.field.parse(event.value)
        except ValueError as error:
            self.refused(str(error))
        else:
            self.post_message(self.Changed(self, value))

    def on_switch_changed(self, event: Switch.Changed) -> None:
        """Send it."""
        event.stop()
        self.post_message(self.Changed(self, event.value))

    def on_select_changed(self, event: Select.Changed) -> None:
        """Send it, if it is another one."""
        event.stop()
        value = json.loads(event.value) if isinstance(event.value, str) else None
        if value != self.field.value:
            self.post_message(self.Changed(self, value))

    def action_take_back(self) -> None:
        """What holds now."""
        self.remove_class("wrong", "edited")
        self._show_value()


class SettingsForm(VerticalScroll):
    """All fields of one component."""

    DEFAULT_CSS = "SettingsForm { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        """Make an empty one."""
        super().__init__(id=id)
        self.component: str | None = None
        self._shape: object = None

    async def show_fields(self, component: str, fields: Sequence[Field], *, is_live: bool) -> None:
        """Show these; editors stay where only values changed."""
        shape = (component, is_live, tuple((field.path, field.kind, field.choices) for field in fields))
        rows = list(self.query(FieldRow))
        if shape == self._shape and len(rows) == len(fields):
            for row, field in zip(rows, fields, strict=True):
                row.take(field)
            return
        self.component, self._shape = component, shape
        # Where there are editors, the keys are theirs; else they scroll.
        self.can_focus = not is_live
        await self.remove_children()
        if fields:
            await self.mount_all(FieldRow(field, is_live=is_live) for field in fields)
        else:
            await self.mount(Static("it has no fields", classes="note", markup=False))
        self.scroll_home(animate=False)

    def row(self, path: str) -> FieldRow:
        """The row of a field."""
        return next(row for row in self.query(FieldRow) if row.field.path == path)
