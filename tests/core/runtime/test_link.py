"""What a process of a run says arrives, whatever it is told meanwhile."""

from __future__ import annotations

import asyncio

from ezmsg.core.runtime.link import BackendEnd, CoordinatorEnd, open_line
from ezmsg.core.runtime.messages import Ended, Event, Left, Stop, Tally, Up


async def test_the_last_words_of_a_process_are_heard_though_it_is_told_something_when_it_is_gone() -> None:
    ours, theirs = open_line()
    coordinator, heard = CoordinatorEnd(ours), asyncio.Queue[Event]()
    listening = asyncio.create_task(coordinator.listen(heard.put_nowait))
    backend = BackendEnd(theirs)
    backend.report(Up())
    assert await heard.get() == Up()

    backend.report(Ended(Tally()), Left())
    theirs.close()
    coordinator.tell(Stop(is_interrupt=True))
    await listening

    assert [heard.get_nowait(), heard.get_nowait()] == [Ended(Tally()), Left()]
