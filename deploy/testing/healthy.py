"""A graph without faults: `python -m deploy.testing.healthy`, two processes. It ends, in order, with standard input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from deploy.testing.graph import Check, Samples, Source, SourceSettings, serving


class Mean(ez.Unit):
    """Takes no time."""

    INPUT = ez.InputStream(Samples)
    OUTPUT = ez.OutputStream(Samples)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def average(self, samples: Samples) -> AsyncIterator[Any]:
        """Average a message."""
        yield self.OUTPUT, samples.mean(keepdims=True)


def main() -> None:
    """Run it."""
    source, mean, check = Source(SourceSettings(rate_hz=20.0)), Mean(), Check()
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
