"""Make `reference_beats.json`: the beats that NeuroKit2 finds in the whole recording.

Run by hand from the root of the repository, in an environment of its own, not by any test:

    python -m pip install neurokit2==0.2.13 wfdb==4.3.1
    python -m examples.ecg.data.make_reference

The demo's own filter and detector have no part in it. A second detector, `gqrs` of the WFDB toolbox, judges the
reference: the file says how far the two agree.
"""

import json
from importlib.metadata import version

import neurokit2  # pyright: ignore[reportMissingImports]  # not a dependency of the project
import numpy as np
from wfdb.processing import gqrs_detect  # pyright: ignore[reportMissingImports]  # likewise

from examples.ecg.reference import REFERENCE, compare
from examples.ecg.signal import RECORDING, load_recording


def main() -> None:
    """Write the file."""
    ecg_mv, fs_hz = load_recording()
    seconds = len(ecg_mv) / fs_hz
    ecg = ecg_mv.astype(np.float64)

    cleaned = neurokit2.ecg_clean(ecg, sampling_rate=int(fs_hz), method="neurokit")
    _, found = neurokit2.ecg_peaks(cleaned, sampling_rate=int(fs_hz), method="neurokit")
    beats_s = [round(int(sample) / fs_hz, 4) for sample in found["ECG_R_Peaks"]]
    second_s = [float(sample / fs_hz) for sample in gqrs_detect(ecg, fs=fs_hz)]

    agreement = compare(second_s, beats_s, seconds)
    content = {
        "recording": RECORDING.name,
        "seconds": seconds,
        "fs_hz": fs_hz,
        "made_by": "examples/ecg/data/make_reference.py",
        "method": "neurokit2.ecg_clean and neurokit2.ecg_peaks, method 'neurokit', artefacts not corrected",
        "versions": {name: version(name) for name in ("neurokit2", "wfdb", "numpy", "scipy")},
        "cross_check": {
            "method": "wfdb.processing.gqrs_detect on the raw recording, pairs within 0.15 s",
            "both": agreement.matched,
            "reference_only": agreement.missed,
            "cross_check_only": agreement.extra,
        },
        "beats_s": beats_s,
    }
    text = json.dumps(content, indent=1)
    REFERENCE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
