"""Helpers of the network layer that programs import."""

from __future__ import annotations

import asyncio

import pytest

from ezmsg.core.netprotocol import read_str, uint64_to_bytes


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_text_is_read_as_its_length_says() -> None:
    text = "Größe".encode()
    reader = reader_of(uint64_to_bytes(len(text)) + text + b"rest")
    assert await read_str(reader) == "Größe"
    assert await reader.read() == b"rest"


async def test_text_that_is_cut_off_or_far_too_long_is_refused() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await read_str(reader_of(uint64_to_bytes(5) + b"abc"))
    with pytest.raises(ValueError, match="a text of 1099511627776 bytes is announced"):
        await read_str(reader_of(uint64_to_bytes(1 << 40)))


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_that_does_not_fit_is_named(value: int) -> None:
    assert uint64_to_bytes(258) == bytes([2, 1, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=f"{value} is no unsigned number of 64 bits"):
        uint64_to_bytes(value)
