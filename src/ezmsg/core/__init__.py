"""Publishers, subscribers and channels over local, shared-memory and TCP transports."""

from ._version import __version__ as __version__
