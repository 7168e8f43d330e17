"""`python -m ezmsg.core`: the command line."""

import sys

from ezmsg.core.command import cmdline

if __name__ == "__main__":
    sys.exit(cmdline())
