from uuid import uuid4

import pytest

from ezmsg.core import profiling
from ezmsg.core.profiling import EdgeMetrics, ProfileRegistry, PublisherMetrics, SubscriberMetrics
from tests.core.profiling.recording import SHM, Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(profiling, "PROFILE_TIME", made)
    return made


@pytest.fixture
def registry() -> ProfileRegistry:
    return ProfileRegistry()


@pytest.fixture
def publisher(registry: ProfileRegistry) -> PublisherMetrics:
    return registry.register_publisher(uuid4(), "OUT", 8)


@pytest.fixture
def subscriber(registry: ProfileRegistry) -> SubscriberMetrics:
    return registry.register_subscriber(uuid4(), "IN")


@pytest.fixture
def edge(subscriber: SubscriberMetrics) -> EdgeMetrics:
    return subscriber.edge(uuid4(), "OUT", SHM)
