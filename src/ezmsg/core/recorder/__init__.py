"""The recorder: what happens to a message becomes rows of integers, and rows become histograms, spans and samples.

`ezmsg.core.profiling` is its face. Nothing here knows asyncio, sockets or OpenTelemetry.
"""
