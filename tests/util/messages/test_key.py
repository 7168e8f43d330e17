"""Signals are told apart by their key."""

from __future__ import annotations

from ezmsg.util.messages.key import FilterOnKey, KeySettings, SetKey, set_key
from tests.util.conftest import Run
from tests.util.messages.signals import signal


def test_set_key_changes_nothing_but_the_key() -> None:
    message = signal(key="old")
    changed = set_key("new").send(message)
    assert changed == signal(key="new")
    assert changed.data is message.data
    assert message.key == "old"


async def test_the_unit_sets_the_key_it_was_told_last(run: Run) -> None:
    async with run(SetKey(key="a")) as rig:
        await rig.send("INPUT_SIGNAL", signal())
        await rig.send("INPUT_SETTINGS", KeySettings(key="b"))
        await rig.send("INPUT_SIGNAL", signal())
        assert [message.key for message in await rig.receive("OUTPUT_SIGNAL", 2)] == ["a", "b"]


async def test_the_filter_lets_one_key_pass(run: Run) -> None:
    async with run(FilterOnKey(key="a")) as rig:
        await rig.send("INPUT_SIGNAL", signal(key="a"), signal(key="b"), signal(key=""), signal((2,), key="a"))
        assert [message.shape for message in await rig.receive("OUTPUT_SIGNAL", 2)] == [(4, 3), (2,)]
