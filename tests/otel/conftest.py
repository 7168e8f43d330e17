from collections.abc import Iterator

import pytest

from examples.otlp_receiver import GrpcReceiver, HttpReceiver, Receiver
from ezmsg.otel.agent import AgentCore
from tests.otel.feeds import first, settings, span_rows
from tests.ports import KeptPort


@pytest.fixture(scope="session", autouse=True)
def _grpc_is_in_use() -> Iterator[None]:
    """While one server and one channel live, gRPC keeps its threads and descriptors, and the leak guard knows them."""
    with GrpcReceiver() as receiver:
        core = AgentCore(settings("grpc", receiver.endpoint))
        core.start()
        core.feed(first(spans=span_rows(1)))
        core.drain()
        yield
        core.stop()


@pytest.fixture(params=[HttpReceiver, GrpcReceiver], ids=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """One that may stop and start again."""
    with KeptPort() as kept, request.param(port=kept.address.port) as started:
        yield started


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as started:
        yield started
