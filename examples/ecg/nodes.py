"""The three processes of the demo: `python -m examples.ecg.nodes ROLE GRAPH_ADDRESS [SECONDS]`.

Each says `ready` when it is part of the graph and ends when its standard input ends; the source starts at a line on it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from examples.ecg.messages import EcgBlock, Heart
from examples.ecg.signal import BLOCK_SAMPLES, BandPass, BeatDetector, blocks, load_recording
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient

RAW, FILTERED, HEART = "RAW", "FILTERED", "HEART"
FILTER_INPUT, DETECTOR_INPUT, DISPLAY_INPUT = "FILTER/INPUT", "DETECTOR/INPUT", "DISPLAY/INPUT"


async def source(context: GraphContext, started: asyncio.Event, seconds: float) -> None:
    """Play the recording in real time, a block every 100 ms."""
    publisher = await context.publisher(RAW)
    await context.connect(RAW, FILTER_INPUT)
    print("ready", flush=True)
    await started.wait()
    ecg_mv, fs_hz = load_recording()
    pieces = blocks(ecg_mv[: int(seconds * fs_hz)])
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    for number, piece in enumerate(pieces):
        # A block is there when its last sample was taken.
        await asyncio.sleep(begin_s + (number + 1) * BLOCK_SAMPLES / fs_hz - loop.time())
        await publisher.broadcast(EcgBlock(piece, number * BLOCK_SAMPLES, fs_hz, number == len(pieces) - 1))


async def band_pass(context: GraphContext, started: asyncio.Event, seconds: float) -> None:
    """Keep what a heart beat is made of: 5 to 15 Hz."""
    subscriber = await context.subscriber(FILTER_INPUT)
    publisher = await context.publisher(FILTERED)
    await context.connect(FILTERED, DETECTOR_INPUT)
    print("ready", flush=True)
    band_pass = BandPass()
    while True:
        async with subscriber.recv_zero_copy() as block:
            filtered = band_pass.process(block.data_mv)
            await publisher.broadcast(EcgBlock(filtered, block.first_sample, block.fs_hz, block.is_last))


async def detector(context: GraphContext, started: asyncio.Event, seconds: float) -> None:
    """Find heart beats and count them per minute."""
    subscriber = await context.subscriber(DETECTOR_INPUT)
    publisher = await context.publisher(HEART)
    await context.connect(HEART, DISPLAY_INPUT)
    print("ready", flush=True)
    beats = BeatDetector(BandPass().delay_s)
    while True:
        async with subscriber.recv_zero_copy() as block:
            found = beats.process(block.data_mv)
            if block.is_last:
                found += beats.flush()
            await publisher.broadcast(Heart(found, beats.heart_rate_bpm, block.is_last))


ROLES = {"source": source, "filter": band_pass, "detector": detector}


async def main(role: str, address: str, seconds: float) -> None:
    """Play one role until standard input ends."""
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def follow_input() -> None:
        if await reader.readline():
            started.set()
            await reader.read()

    async with GraphContext(address) as context:
        client = ProcessControlClient(address)
        await client.register([role.upper()])
        work = asyncio.create_task(ROLES[role](context, started, seconds))
        ended = asyncio.create_task(follow_input())
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # raises what ended it too early
            await ended
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await client.close()
    transport.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo itself, which then ends our input
    os.environ["EZMSG_PROCESS_NAME"] = f"ecg-{sys.argv[1]}"
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
