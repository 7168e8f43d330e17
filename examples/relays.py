"""Collections with relays: a part of a graph with a border of its own, used twice, one inside the other's wiring.

python -m examples.relays

A relay is a real hop: the collection decides how much is queued at its border and whether a message is copied there. A
topic (`ez.InputTopic`, `ez.OutputTopic`) is only a name for edges to go through, and costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez

WORDS = (" a ", "graph ", " of", "units")


class Speak(ez.Unit):
    """Publishes words."""

    OUTPUT = ez.OutputStream(str)

    @ez.publisher(OUTPUT)
    async def speak(self) -> AsyncIterator[Any]:
        """Publish all of them, and complete."""
        for word in WORDS:
            yield self.OUTPUT, word
        raise ez.Complete


class EditSettings(ez.Settings):
    """The name of a method of `str` without arguments."""

    method: str


class Edit(ez.Unit):
    """Changes each word."""

    SETTINGS = EditSettings
    INPUT = ez.InputStream(str)
    OUTPUT = ez.OutputStream(str)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def edit(self, word: str) -> AsyncIterator[Any]:
        """Change a word."""
        yield self.OUTPUT, getattr(word, self.SETTINGS.method)()


class Editor(ez.Collection):
    """Two edits, one after the other, that nobody sees from outside."""

    SETTINGS = EditSettings
    INPUT = ez.InputRelay(str)
    OUTPUT = ez.OutputRelay(str, copy_on_forward=False)  # nobody changes a str

    TRIM = Edit(EditSettings("strip"))
    CHANGE = Edit()

    def configure(self) -> None:
        """Hand the settings on to whom they concern."""
        self.CHANGE.apply_settings(self.SETTINGS)

    def network(self) -> ez.NetworkDefinition:
        """From border to border."""
        return (self.INPUT, self.TRIM.INPUT), (self.TRIM.OUTPUT, self.CHANGE.INPUT), (self.CHANGE.OUTPUT, self.OUTPUT)


class Show(ez.Unit):
    """Prints words, and ends the run with the last."""

    INPUT = ez.InputStream(str)

    async def initialize(self) -> None:
        """Nothing has come yet."""
        self._count = 0

    @ez.subscriber(INPUT)
    async def show(self, word: str) -> None:
        """Print a word."""
        print(word)
        self._count += 1
        if self._count == len(WORDS):
            raise ez.NormalTermination


class Office(ez.Collection):
    """Words go through two editors."""

    SPEAK = Speak()
    TITLES = Editor(EditSettings("title"))
    SWAPS = Editor(EditSettings("swapcase"))
    SHOW = Show()

    def network(self) -> ez.NetworkDefinition:
        """Editors are wired like units."""
        yield self.SPEAK.OUTPUT, self.TITLES.INPUT
        yield self.TITLES.OUTPUT, self.SWAPS.INPUT
        yield self.SWAPS.OUTPUT, self.SHOW.INPUT

    def process_components(self) -> list[ez.Component]:
        """One editor, with all that is in it, gets a process of its own."""
        return [self.SWAPS]


if __name__ == "__main__":
    ez.run(OFFICE=Office())
