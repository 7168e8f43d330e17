"""`python -m examples.ecg`: the demo, which can be interrupted from its first moment on."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Only now: large imports take a while, and most of an impatient user's Ctrl-C come then.
        from examples.ecg.demo import main

        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
