"""A graph without faults: `python -m deploy.testing.healthy`, two processes. It ends, in order, with standard input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from deploy.testing.graph import Check, Samples, Source, SourceSettings, serving

BUFFERS = 1024
"""A minute of messages: the machine may do something else for a while without anybody having to wait for a slot."""


class Mean(ez.Unit):
    """Takes no time."""

    INPUT = ez.InputStream(Samples)
    OUTPUT = ez.OutputStream(Samples, num_buffers=BUFFERS)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def average(self, samples: Samples) -> AsyncIterator[Any]:
        """Average a message."""
        yield self.OUTPUT, samples.mean(keepdims=True)


def main() -> None:
    """Run it."""
    source, mean, check = Source(SourceSettings(rate_hz=20.0)), Mean(), Check()
    source.OUTPUT.num_buffers = BUFFERS
    with serving() as address:
        ez.run(
            SOURCE=source,
            MEAN=mean,
            CHECK=check,
            connections=[(source.OUTPUT, mean.INPUT), (mean.OUTPUT, check.INPUT)],
            process_components=[mean],
            graph_address=address,
        )


if __name__ == "__main__":
    main()
