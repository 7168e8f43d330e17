"""The filter and the beat detector of the ECG demo, against numpy and against another library's beats."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.ecg.reference import EDGE_S, Comparison, compare, load_reference
from examples.ecg.signal import (
    BLOCK_SAMPLES,
    FS_HZ,
    BandPass,
    BeatDetector,
    Float32,
    band_pass_taps,
    blocks,
    load_recording,
)

ECG_MV, _ = load_recording()
REFERENCE_S = load_reference()


def filter_in_blocks(ecg_mv: Float32, cuts: list[Float32]) -> Float32:
    band_pass = BandPass()
    filtered = np.concatenate([band_pass.process(block) for block in cuts])
    assert filtered.shape == ecg_mv.shape
    return filtered


def beats_of(ecg_mv: Float32, block_samples: int = BLOCK_SAMPLES) -> list[float]:
    band_pass = BandPass()
    detector = BeatDetector(band_pass.delay_s)
    beats = [beat for block in blocks(ecg_mv, block_samples) for beat in detector.process(band_pass.process(block))]
    return beats + detector.flush()


def excerpt(seconds: float) -> Float32:
    return ECG_MV[: round(seconds * FS_HZ)]


def test_recording_is_five_minutes_of_millivolts() -> None:
    ecg_mv, fs_hz = load_recording()

    assert (ecg_mv.shape, ecg_mv.dtype, fs_hz) == ((108_000,), np.float32, 360.0)
    assert -4 < ecg_mv.min() < 0 < ecg_mv.max() < 4


def test_blocks_hold_the_recording_and_the_last_may_be_short() -> None:
    cut = blocks(ECG_MV[:100])

    assert [len(block) for block in cut] == [36, 36, 28]
    assert np.array_equal(np.concatenate(cut), ECG_MV[:100])


# The filter


def test_filter_equals_numpy_convolve_on_the_whole_recording() -> None:
    taps = BandPass().taps
    # The level before the recording is that of its first sample.
    whole = np.convolve(ECG_MV.astype(np.float64) - ECG_MV[0], taps)[: len(ECG_MV)]

    assert np.allclose(filter_in_blocks(ECG_MV, blocks(ECG_MV)), whole, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 720), max_size=20))
def test_filter_output_does_not_depend_on_the_cuts(places: list[int]) -> None:
    ecg_mv = ECG_MV[:720]
    cut = np.split(ecg_mv, sorted(places))

    whole = BandPass().process(ecg_mv)

    assert np.allclose(filter_in_blocks(ecg_mv, cut), whole, rtol=0, atol=1e-6)


def test_filter_keeps_its_type_and_gives_nothing_for_nothing() -> None:
    band_pass = BandPass()

    assert band_pass.process(np.empty(0, np.float32)).shape == (0,)
    assert band_pass.process(ECG_MV[:36]).dtype == np.float32


def gain(frequency_hz: float) -> float:
    """Ratio of the amplitudes of a sine after and before the filter, when it has settled."""
    time_s = np.arange(10 * 360) / FS_HZ
    sine = np.sin(2 * np.pi * frequency_hz * time_s).astype(np.float32)
    settled = BandPass().process(sine)[360:]
    return float(np.sqrt(2 * np.mean(settled.astype(np.float64) ** 2)))


@pytest.mark.parametrize("frequency_hz", [8, 9, 10, 11, 12])
def test_filter_passes_the_band_of_the_qrs_complex(frequency_hz: float) -> None:
    assert gain(frequency_hz) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("frequency_hz", [5, 15])
def test_filter_halves_the_amplitude_at_its_edges(frequency_hz: float) -> None:
    assert gain(frequency_hz) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("frequency_hz", [0.3, 0.5, 1, 20, 50, 60, 120])
def test_filter_stops_wander_and_mains(frequency_hz: float) -> None:
    assert gain(frequency_hz) < 0.01


def test_filter_takes_no_notice_of_the_offset_of_the_electrode() -> None:
    with_offset = BandPass().process(ECG_MV[:3600] + np.float32(300))

    assert np.allclose(with_offset, BandPass().process(ECG_MV[:3600]), rtol=0, atol=1e-4)


def test_filter_delays_by_half_its_length() -> None:
    band_pass = BandPass()
    impulse = np.zeros(720, np.float32)
    impulse[100] = 1

    assert np.argmax(band_pass.process(impulse)) == 100 + round(band_pass.delay_s * FS_HZ)
    assert np.allclose(band_pass.taps, band_pass.taps[::-1])


@pytest.mark.parametrize(("low_hz", "high_hz", "count"), [(0, 15, 181), (15, 5, 181), (5, 180, 181), (5, 15, 180)])
def test_filter_that_cannot_be_is_refused(low_hz: float, high_hz: float, count: int) -> None:
    with pytest.raises(ValueError, match="must"):
        band_pass_taps(FS_HZ, low_hz, high_hz, count)


@pytest.mark.parametrize("stage", [BandPass(), BeatDetector(0.25)])
def test_block_of_two_axes_is_refused(stage: BandPass | BeatDetector) -> None:
    with pytest.raises(ValueError, match=r"shape \(36, 1\)"):
        stage.process(np.zeros((36, 1), np.float32))


# The detector


def test_detector_agrees_with_the_reference_over_the_whole_recording() -> None:
    comparison = compare(beats_of(ECG_MV), REFERENCE_S, 300)

    assert comparison.expected == 502
    assert comparison.sensitivity >= 0.98, comparison
    assert comparison.positive_predictivity >= 0.98, comparison


@pytest.mark.parametrize(("seconds", "expected"), [(5, 8), (15, 29), (30, 57)])
def test_detector_finds_the_beats_of_an_excerpt(seconds: float, expected: int) -> None:
    comparison = compare(beats_of(excerpt(seconds)), REFERENCE_S, seconds)

    assert comparison.expected == expected
    assert abs(comparison.found - comparison.expected) <= 1, comparison


@pytest.mark.parametrize("seconds", [5, 15])
def test_detector_agrees_beat_by_beat_before_the_first_artefact(seconds: float) -> None:
    comparison = compare(beats_of(excerpt(seconds)), REFERENCE_S, seconds)

    assert (comparison.missed, comparison.extra) == (0, 0)


def test_any_length_of_excerpt_ends_without_a_lost_or_invented_beat() -> None:
    for samples in range(1 * 360, 10 * 360, 50):
        comparison = compare(beats_of(ECG_MV[:samples]), REFERENCE_S, samples / FS_HZ)
        assert (comparison.missed, comparison.extra) == (0, 0), samples


@pytest.mark.parametrize("block_samples", [1, 7, 360, 10_800])
def test_beats_do_not_depend_on_the_length_of_the_blocks(block_samples: int) -> None:
    assert beats_of(excerpt(30), block_samples) == beats_of(excerpt(30))


def test_beats_are_told_once_in_order_and_soon() -> None:
    band_pass = BandPass()
    detector = BeatDetector(band_pass.delay_s)
    told: list[float] = []
    for number, block in enumerate(blocks(excerpt(15)), start=1):
        for beat_s in detector.process(band_pass.process(block)):
            now_s = number * BLOCK_SAMPLES / FS_HZ
            # The first beats wait until the levels are learned.
            assert now_s < 4 or now_s - beat_s < 0.8
            told.append(beat_s)

    assert len(told) > 20
    assert all(later - earlier > 0.2 for earlier, later in itertools.pairwise(told))


def test_heart_rate_is_the_mean_of_the_last_eight_beats() -> None:
    band_pass = BandPass()
    detector = BeatDetector(band_pass.delay_s)
    assert detector.heart_rate_bpm is None

    beats = detector.process(band_pass.process(excerpt(15))) + detector.flush()

    assert detector.heart_rate_bpm == pytest.approx(60 * 7 / (beats[-1] - beats[-8]))
    assert detector.heart_rate_bpm == pytest.approx(128, abs=2)


def test_flat_line_has_no_beats() -> None:
    assert beats_of(np.full(3600, 0.7, np.float32)) == []


def test_lost_block_costs_the_beats_beside_it_and_no_other() -> None:
    ecg_mv = excerpt(15).copy()
    ecg_mv[1800:1836] = np.nan

    beats = beats_of(ecg_mv)

    lost = set(beats_of(excerpt(15))) - set(beats)
    assert set(beats) < set(beats_of(excerpt(15)))
    assert all(4.5 < beat_s < 6 for beat_s in lost)


def test_jolt_of_the_electrode_does_not_hide_the_beats_after_it() -> None:
    ecg_mv = excerpt(15).copy()
    ecg_mv[1800:1810] += 100

    after = [beat_s for beat_s in beats_of(ecg_mv) if beat_s > 6]

    assert after == [beat_s for beat_s in beats_of(excerpt(15)) if beat_s > 6]


def test_detector_learns_anew_when_the_signal_gets_ten_times_weaker() -> None:
    ecg_mv = excerpt(15).copy()
    ecg_mv[1800:] = ecg_mv[1800:] / 10 + ecg_mv[1800] * 0.9

    comparison = compare(beats_of(ecg_mv), REFERENCE_S, 15)

    assert comparison.missed <= 1, comparison


def test_recording_shorter_than_the_learning_time_is_judged_at_the_flush() -> None:
    assert compare(beats_of(excerpt(1.5)), REFERENCE_S, 1.5) == Comparison(2, 2, 2, 0, 0)


def test_flushed_detector_tells_nothing_more_and_takes_nothing_more() -> None:
    detector = BeatDetector(0.25)
    detector.flush()

    assert detector.flush() == []
    with pytest.raises(RuntimeError, match="flushed"):
        detector.process(ECG_MV[:36])


# The comparison


def test_comparison_pairs_each_beat_once() -> None:
    assert compare([1.0, 1.1, 2.0, 3.2], [1.05, 2.1, 4.0], 10) == Comparison(
        found=4, expected=3, matched=2, missed=1, extra=2
    )


def test_comparison_leaves_out_the_end_of_the_excerpt_on_both_sides() -> None:
    end_s = 10 - EDGE_S

    assert compare([], [end_s + 0.01], 10) == Comparison(0, 0, 0, 0, 0)
    assert compare([end_s + 0.01], [], 10) == Comparison(0, 0, 0, 0, 0)


def test_pair_across_the_edge_is_neither_missed_nor_extra() -> None:
    end_s = 10 - EDGE_S

    assert compare([end_s + 0.05], [end_s - 0.05], 10) == Comparison(1, 1, 1, 0, 0)
    assert compare([end_s - 0.05], [end_s + 0.05], 10) == Comparison(0, 0, 0, 0, 0)


def test_shares_of_an_empty_comparison_are_one() -> None:
    nothing = compare([], [], 10)

    assert (nothing.sensitivity, nothing.positive_predictivity) == (1.0, 1.0)
