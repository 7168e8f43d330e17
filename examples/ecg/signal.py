"""The signal side of the ECG demo: the recording, a band-pass filter and a beat detector.

Plain numpy, called by the units of the demo. Nothing here knows of units, topics or telemetry: blocks in, blocks or
beat times out. Both `BandPass` and `BeatDetector` keep what they need between blocks, so how a recording is cut into
blocks does not change what they find.

The detector follows Pan J, Tompkins WJ, "A Real-Time QRS Detection Algorithm", IEEE Trans Biomed Eng 32(3):230-236,
1985, doi:10.1109/TBME.1985.325532, and differs in two things. It takes the root of the integrated square, so that a
ventricular beat with twice the slope raises the threshold less than fourfold and does not hide the normal beats after
it. And one rule, `BeatDetector.LEARN_S`, does for the start, for the search-back, and for a signal that became weaker.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FS_HZ = 360.0
BLOCK_SAMPLES = 36  # 100 ms
RECORDING = Path(__file__).parent / "data" / "ecg_mitdb_208.npz"

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def load_recording() -> tuple[Float32, float]:
    """Load the five minutes of ECG that come with the demo.

    Returns:
        ecg_mv: (time,) float32, millivolts.
        fs_hz: Its sampling rate.
    """
    with np.load(RECORDING) as archive:
        raw: NDArray[np.uint16] = archive["ecg"]
    # Offset and gain of the database: 1024 is 0 mV, 200 steps are 1 mV.
    return ((raw.astype(np.float64) - 1024) / 200).astype(np.float32), FS_HZ


def blocks(ecg_mv: Float32, samples: int = BLOCK_SAMPLES) -> list[Float32]:
    """Cut a recording into blocks; the last is shorter when the length is no multiple.

    Args:
        ecg_mv: (time,) float32, millivolts.
        samples: Length of a block.

    Returns:
        Views of `ecg_mv`, in order, each (samples,) float32, millivolts.
    """
    return [ecg_mv[start : start + samples] for start in range(0, len(ecg_mv), samples)]


def band_pass_taps(fs_hz: float, low_hz: float, high_hz: float, count: int) -> Float64:
    """Design a linear-phase band-pass filter: the ideal impulse response under a Hamming window.

    The gain is 1/2 (-6 dB) at both edges, about 1 between them and exactly 0 at 0 Hz: an electrode's constant offset
    may be a hundred times the beats.

    Args:
        fs_hz: Sampling rate.
        low_hz: Lower edge.
        high_hz: Upper edge.
        count: Number of taps, odd. From pass to stop takes about 3.3 * fs_hz / count.

    Returns:
        (count,) float64, symmetric.

    Raises:
        ValueError: The edges are not 0 < low < high < fs / 2, or the count is even.
    """
    if not 0 < low_hz < high_hz < fs_hz / 2:
        raise ValueError(f"edges must rise between 0 and {fs_hz / 2} Hz, not {low_hz} and {high_hz}")
    if count < 3 or count % 2 == 0:
        raise ValueError(f"the number of taps must be odd and at least 3, not {count}")
    time_s = (np.arange(count) - count // 2) / fs_hz
    window = np.hamming(count)
    ideal = 2 * high_hz * np.sinc(2 * high_hz * time_s) - 2 * low_hz * np.sinc(2 * low_hz * time_s)
    taps = ideal * window / fs_hz
    return taps - window * (taps.sum() / window.sum())


class BandPass:
    """A causal band-pass filter that is fed block by block.

    The first sample counts as the level before the recording, so that a constant offset does not look like a beat.

    Attributes:
        taps: (taps,) float64, the impulse response.
        delay_s: Every frequency leaves this much later than it entered, in seconds.
    """

    def __init__(self, fs_hz: float = FS_HZ, low_hz: float = 5.0, high_hz: float = 15.0, taps: int = 181) -> None:
        """Design the filter.

        Args:
            fs_hz: Sampling rate of the blocks.
            low_hz: Lower edge, -6 dB.
            high_hz: Upper edge, -6 dB.
            taps: Length of the impulse response in samples, odd; the delay is half of it.

        Raises:
            ValueError: See `band_pass_taps`.
        """
        self.taps = band_pass_taps(fs_hz, low_hz, high_hz, taps)
        self.delay_s = (taps - 1) / 2 / fs_hz
        self._past: Float64 | None = None

    def process(self, block: Float32) -> Float32:
        """Filter the next block.

        Args:
            block: (time,) float32, millivolts; any length, also none. A NaN makes the next `len(taps)` samples of the
                output NaN and is then forgotten.

        Returns:
            (time,) float32, millivolts: as long as `block` and `delay_s` behind it.

        Raises:
            ValueError: The block has more than one axis.
        """
        _check_one_axis(block)
        if not block.size:
            return np.empty(0, np.float32)
        if self._past is None:
            self._past = np.full(len(self.taps) - 1, block[0], np.float64)
        joined = np.concatenate((self._past, block.astype(np.float64)))
        self._past = joined[block.size :]
        return np.convolve(joined, self.taps, mode="valid").astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Peak:
    """A local maximum of the slope: a beat, or noise.

    Attributes:
        time_s: Where the filtered ECG is largest within the peak, seconds in the recording.
        slope: Its height, root mean square over `BeatDetector.INTEGRATE_S`, millivolts per second.
    """

    time_s: float
    slope: float


class BeatDetector:
    """Finds heart beats in band-passed ECG, block by block.

    A beat is told about 0.3 s after it left the filter. The first ones wait for the levels to be learned and are told
    together, about 3 s into the recording.

    A lost block is to be replaced by one of NaN: beats next to it are not found, those after it keep their times.
    """

    LEARN_S = 2.0
    """After so long without a beat the levels are learned from the peaks set aside since, which are judged again."""
    REFRACTORY_S = 0.2
    """A heart cannot beat again sooner: of several peaks within this time only the highest counts."""
    INTEGRATE_S = 0.15
    """About the width of the widest QRS complex."""
    THRESHOLD = 0.25
    """A beat is higher than this share of the way from the level of noise to that of beats."""
    ADAPT = 0.125
    """The share of each new peak in the level of its kind."""
    FLOOR = 1.0
    """Millivolts per second. Less is no signal at all; the weakest beat of the recording has 3, most have 20."""
    RATE_BEATS = 8
    """`heart_rate_bpm` is the mean over so many beats."""

    def __init__(self, delay_s: float, fs_hz: float = FS_HZ) -> None:
        """Start at the beginning of a recording.

        Args:
            delay_s: Delay of the filter before this detector, subtracted from all times: `BandPass.delay_s`.
            fs_hz: Sampling rate of the blocks.
        """
        self._fs_hz = fs_hz
        self._span = round(self.REFRACTORY_S * fs_hz)
        width = round(self.INTEGRATE_S * fs_hz)
        self._window = np.full(width, 1 / width)
        # Slope of the least-squares line through five samples: as the derivative, with less noise.
        self._derivative = np.array([2, 1, 0, -1, -2]) * fs_hz / 10
        self._reach = len(self._derivative) + width - 1
        # As many samples as a peak needs around it, so that each new sample decides exactly one more position.
        self._past = np.zeros(self._reach - 1 + 2 * self._span)
        # Index of the first of them in the unfiltered recording.
        self._past_start = -len(self._past) - delay_s * fs_hz
        # Levels of noise and of beats, millivolts per second; infinite until learned.
        self._noise = 0.0
        self._signal = np.inf
        self._aside: list[_Peak] = []
        self._recent: deque[float] = deque(maxlen=self.RATE_BEATS)
        self._flushed = False

    @property
    def heart_rate_bpm(self) -> float | None:
        """Mean rate over the last `RATE_BEATS` beats, beats per minute; None before the second beat."""
        if len(self._recent) < 2:
            return None
        return 60 * (len(self._recent) - 1) / (self._recent[-1] - self._recent[0])

    def process(self, block: Float32) -> list[float]:
        """Take the next block.

        Args:
            block: (time,) float32, millivolts, from `BandPass.process`; any length, also none.

        Returns:
            Times of the beats that are certain now, seconds in the unfiltered recording, rising, each told once.

        Raises:
            RuntimeError: The detector was flushed.
            ValueError: The block has more than one axis.
        """
        _check_one_axis(block)
        if self._flushed:
            raise RuntimeError("the detector was flushed at the end of its recording; make a new one")
        if not block.size:
            return []
        return [beat.time_s for peak in self._peaks(block) for beat in self._decide(peak)]

    def flush(self) -> list[float]:
        """Tell the beats that still waited for later samples. The recording is over; nothing more can be processed.

        What is in the filter is not seen: the excerpt ends `delay_s` before its last sample. A beat that the end cuts
        may be told or not, which is why `examples.ecg.reference.compare` leaves the last half second out.

        Returns:
            Times as from `process`; nothing if called again.
        """
        if self._flushed:
            return []
        beats = self.process(np.zeros(self._reach + self._span, np.float32))
        self._flushed = True
        if np.isinf(self._signal):  # The whole recording was shorter than LEARN_S.
            beats += [beat.time_s for beat in self._learn()]
        return beats

    def _peaks(self, block: Float32) -> list[_Peak]:
        """Find the positions where the slope is the highest within `REFRACTORY_S` to both sides."""
        joined = np.concatenate((self._past, block.astype(np.float64)))
        start, span = self._past_start, self._span
        self._past = joined[block.size :]
        self._past_start += block.size

        derivative = np.convolve(joined, self._derivative, mode="valid")
        slope = np.sqrt(np.convolve(derivative**2, self._window, mode="valid"))
        around = sliding_window_view(slope, 2 * span + 1)
        middle = around[:, span]
        # Comparisons with NaN are false: no peak has a NaN near it. Of equal neighbours the first is the peak.
        is_peak = (middle > around[:, :span].max(axis=1)) & (middle >= around[:, span + 1 :].max(axis=1))
        found: list[_Peak] = []
        for index in np.flatnonzero(is_peak & (middle > self.FLOOR)) + span:
            largest = index + np.argmax(np.abs(joined[index : index + self._reach]))
            found.append(_Peak(float((start + largest) / self._fs_hz), float(slope[index])))
        return found

    def _decide(self, peak: _Peak) -> list[_Peak]:
        """Call a peak a beat, or set it aside.

        Returns:
            The beats that are certain now: this peak, none, or those that the levels learned anew brought to light.
        """
        if np.isfinite(self._signal) and self._judge(peak):
            return [peak]
        self._aside.append(peak)
        if peak.time_s - self._aside[0].time_s < self.LEARN_S:
            return []
        return self._learn()

    def _learn(self) -> list[_Peak]:
        """Take the levels from the peaks set aside, and judge these again."""
        peaks, self._aside = self._aside, []
        slopes = np.array([peak.slope for peak in peaks])
        if not slopes.size:
            return []
        self._signal = float(slopes.max())
        low = slopes[slopes < self._signal / 2]
        self._noise = float(low.mean()) if low.size else 0.0
        return [peak for peak in peaks if self._judge(peak)]

    def _judge(self, peak: _Peak) -> bool:
        """Tell a beat from noise, and let the level of its kind follow it."""
        if peak.slope <= self._noise + self.THRESHOLD * (self._signal - self._noise):
            self._noise += self.ADAPT * (peak.slope - self._noise)
            return False
        # Bounded, or one jolt of the electrode would hide the beats after it.
        self._signal += self.ADAPT * (min(peak.slope, 2 * self._signal) - self._signal)
        self._aside.clear()
        self._recent.append(peak.time_s)
        return True


def _check_one_axis(block: Float32) -> None:
    if block.ndim != 1:
        raise ValueError(f"a block has one axis, time; this one has the shape {block.shape}")
