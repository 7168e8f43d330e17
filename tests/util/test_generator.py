"""Generators that are sent messages."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ezmsg.core as ez
from ezmsg.util.generator import Gen, compose, consumer
from tests.util.conftest import Run


@consumer
def adding(number: int) -> Generator[int | None, int, None]:
    """Adds to what it is sent; nothing comes of 0."""
    result: int | None = None
    while True:
        message = yield result
        result = message + number if message else None


def test_a_consumer_can_be_sent_to_at_once() -> None:
    assert adding(1).send(2) == 3
    assert adding.__name__ == "adding"


def test_composed_generators_hand_on_what_they_yield() -> None:
    assert compose(adding(1), adding(10))(100) == 111
    assert compose()(5) == 5


async def test_a_unit_publishes_what_its_generator_yields_but_not_none(run: Run) -> None:
    class Settings(ez.Settings):
        number: int

    class Adder(Gen):
        SETTINGS = Settings

        def construct_generator(self) -> None:
            self.STATE.gen = adding(self.SETTINGS.number)

    async with run(Adder(number=5)) as rig:
        await rig.send("INPUT", 1, 0, 2)
        assert await rig.receive("OUTPUT", 2) == [6, 7]


def test_a_unit_ends_with_its_generator() -> None:
    def twice() -> Generator[Any, Any, None]:
        yield (yield (yield))

    class Twice(Gen):
        def construct_generator(self) -> None:
            self.STATE.gen = twice()

    class Source(ez.Unit):
        OUTPUT = ez.OutputStream(int)

        @ez.publisher(OUTPUT)
        async def publish(self) -> Any:
            for number in range(5):
                yield self.OUTPUT, number

    source, gen = Source(), Twice()
    ez.run(SOURCE=source, GEN=gen, connections=[(source.OUTPUT, gen.INPUT)])
