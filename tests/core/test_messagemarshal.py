"""Messages as bytes and back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ezmsg.core.messagemarshal import decode, encode
from ezmsg.core.wire.messages import BUFFERS_MAX


def test_arrays_travel_beside_the_pickle_and_come_back_as_views() -> None:
    sent = np.arange(1000.0)
    encoded = encode({"data": sent})
    assert [buffer.nbytes for buffer in encoded.buffers] == [8000]
    assert encoded.size == len(encoded.head) + 8000
    buffers = [memoryview(bytearray(buffer)) for buffer in encoded.buffers]
    received = decode(encoded.codec, encoded.head, buffers)["data"]
    np.testing.assert_array_equal(received, sent)
    buffers[0][:8] = np.float64(-1).tobytes()
    assert received[0] == -1


def test_what_has_more_buffers_than_a_message_can_name_goes_in_band() -> None:
    encoded = encode([bytearray(1) for _ in range(BUFFERS_MAX + 1)])
    assert encoded.buffers == []
    encoded = encode([pickle.PickleBuffer(b"x") for _ in range(BUFFERS_MAX + 1)])
    assert encoded.buffers == []
    assert decode(encoded.codec, encoded.head, []) == [b"x"] * (BUFFERS_MAX + 1)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown codec 99"):
        decode(99, b"", [])
