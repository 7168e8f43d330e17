"""A pipeline of ezmsg-sigproc in three processes: its results, and one trace through all hops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfilt, sosfilt_zi

from ecosystem.pipeline import BAND_PASS, SHIFT_S, WINDOW_S, recording, windows_of
from ecosystem.programs import Start
from examples.ecg.signal import FS_HZ
from examples.otlp_receiver import HttpReceiver
from examples.otlp_store import SeenSpan, Store

TOPICS = (
    "PLAYER/OUTPUT_SIGNAL",
    "BAND_PASS/OUTPUT_SIGNAL",
    "ENERGY/WINDOW/OUTPUT_SIGNAL",
    "ENERGY/POWER/OUTPUT_SIGNAL",
    "COLLECTOR/OUTPUT_MESSAGE",
)
HOPS = [f"{what} {topic}" for topic in TOPICS for what in ("publish", "process")]


def test_a_pipeline_in_three_processes_gives_what_scipy_gives_and_is_traced_end_to_end(
    start: Start, tmp_path: Path
) -> None:
    found = tmp_path / "energy.npz"
    with HttpReceiver() as receiver:
        program = start(
            "ecosystem.pipeline", str(found), EZMSG_TRACE_RATIO="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        )  # fmt: skip
        assert program.ended() == 0, program.output
        assert receiver.store.wait_for(lambda: _ways(receiver.store) != [])
        ways = _ways(receiver.store)
    with np.load(found) as archive:
        np.testing.assert_allclose(archive["energy"], _energy_by_scipy(), atol=1e-9)
    assert len(ways) == windows_of(len(recording()))
    for way in ways:
        assert [span.span.name for span in way] == HOPS
        assert len({span.trace_id for span in way}) == 1
        assert len({span.resource["process.pid"] for span in way}) == 3


def _energy_by_scipy() -> np.ndarray:
    nyquist_hz = FS_HZ / 2
    sos = butter(BAND_PASS.order, [BAND_PASS.cuton / nyquist_hz, BAND_PASS.cutoff / nyquist_hz], "band", output="sos")
    signal = recording()
    filtered, _ = sosfilt(
        sos, signal, axis=0, zi=sosfilt_zi(sos)[..., np.newaxis] * signal[0]
    )  # as if it had begun before
    window, shift = round(WINDOW_S * FS_HZ), round(SHIFT_S * FS_HZ)
    starts = range(0, len(filtered) - window + 1, shift)
    return np.stack([filtered[start : start + window].std(axis=0) for start in starts])


def _ways(store: Store) -> list[list[SeenSpan]]:
    """The ways of messages, from the source to the last unit."""
    spans = {span.span_id: span for span in store.spans}
    ways: list[list[SeenSpan]] = []
    for span in spans.values():
        if span.span.name == HOPS[-1]:
            way = [span]
            while (parent := spans.get(way[0].parent_span_id)) is not None:
                way.insert(0, parent)
            ways.append(way)
    return ways
