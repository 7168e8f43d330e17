import pytest

from ezmsg.core.profiling import ProfileRegistry


@pytest.fixture
def registry() -> ProfileRegistry:
    return ProfileRegistry()
