"""The version of the installed distribution; it also greets every peer."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ezmsg")
except PackageNotFoundError:  # a source tree on sys.path that nobody installed
    __version__ = "0+unknown"
