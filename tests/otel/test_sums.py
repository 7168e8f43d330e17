"""Sums that leave the exporter never fall, nor count anything twice, whoever of those between comes and goes.

A process, its link, the server's book, and the agent's registry as they are, without the connections between them.
"""

from __future__ import annotations

import random
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.metrics.export import Sum

from ezmsg.core.profiling import ProfileRegistry, PublisherMetrics
from ezmsg.core.server.books import closedendpoints
from ezmsg.core.server.books.telemetry import TelemetryBook
from ezmsg.core.telemetry import closing
from ezmsg.core.telemetry.collect import Collector as LinkCollector
from ezmsg.core.wire.records import OpenTelemetryReader
from ezmsg.otel import state
from ezmsg.otel.client import Place
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from tests.core.profiling.recording import publish
from tests.otel.feeds import STARTED_NS, hello

GRAPH, TOPICS = "127.0.0.1:7", ("A", "B")
STEPS = 40


class History:
    """Everything that may happen to them, in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.profiles = ProfileRegistry()
        self.profiles.client_opened(GRAPH, UUID(int=1))
        self.publishers: dict[UUID, PublisherMetrics] = {}
        self.link: LinkCollector | None = None
        self.connections = 0
        self.book = TelemetryBook(1000)
        self.sent = dict.fromkeys(TOPICS, 0)
        self.told: dict[str, dict[str, int]] = {}
        self.place = Place()
        self.agent_begins()

    # -- the process

    def open(self) -> None:
        publisher_id, topic = uuid4(), self.random.choice(TOPICS)
        self.publishers[publisher_id] = self.profiles.register_publisher(publisher_id, topic, 4, graph_address=GRAPH)
        if self.link is None:
            self.link = LinkCollector(self.profiles, GRAPH)
            self.connect(is_new_server=False)

    def publish(self) -> None:
        for metrics in self.publishers.values():
            for _ in range(self.random.randrange(4)):
                publish(metrics, metrics.sent, metrics.sent)
                self.sent[metrics.topic] += 1

    def close(self) -> None:
        if self.publishers:
            publisher_id = self.random.choice(list(self.publishers))
            del self.publishers[publisher_id]
            self.profiles.unregister_publisher(publisher_id)

    # -- its link

    def connect(self, *, is_new_server: bool) -> None:
        assert self.link is not None
        opened = self.book.link_opened(hello(self.link.link_id), 0, 0)
        self.link.begin(opened.last_seq, is_new_server=is_new_server)

    def deliver(self) -> None:
        while self.link is not None and (batch := self.link.collect()) is not None:
            self.book.batch(self.link.link_id, batch)

    def lose_batch(self) -> None:
        if self.link is not None:
            self.link.collect()
            self.lose_link()

    def lose_link(self) -> None:
        if self.link is not None:
            self.book.link_closed(self.link.link_id)
            self.connect(is_new_server=False)

    def end_link(self) -> None:
        if self.link is not None and not self.publishers:
            self.deliver()
            self.book.batch(self.link.link_id, self.link.last())
            self.book.link_closed(self.link.link_id)
            self.link.end(is_goodbye=False)
            self.link = None

    def crash_server(self) -> None:
        self.book = TelemetryBook(1000)
        self.place = Place()
        if self.link is not None:
            self.connect(is_new_server=True)
        if self.random.random() < 0.5:
            self.agent_begins()
        else:
            self.agent.doubt_all()
            self.agent.server_replaced()
            self.agent_joins()

    # -- the agent

    def agent_begins(self) -> None:
        self.book.reader_close("x")
        self.agent, self.place = Registry(ResourceFactory()), Place()
        self.exporter = Collector(self.agent, Ledger(), dict, STARTED_NS)
        self.agent_joins()

    def agent_rejoins(self) -> None:
        self.book.reader_close("x")
        self.agent.doubt_all()
        self.agent_joins()

    def agent_joins(self) -> None:
        self.book.reader_open("x", OpenTelemetryReader("agent", 1, positions=self.place.told({})))

    def take(self) -> None:
        for record in self.book.reader_take("x"):
            self.agent.apply(record)
            self.place.note(record)
            self.book.reader_acknowledged("x", 1, {})

    def export(self) -> None:
        collection = self.exporter.collect(STARTED_NS)
        resources = [made.resource.attributes["service.instance.id"] for made in collection.data.resource_metrics]
        assert len(resources) == len(set(resources))
        for made in collection.data.resource_metrics:
            before = self.told.setdefault(str(made.resource.attributes["service.instance.id"]), {})
            for metric in made.scope_metrics[0].metrics:
                if metric.name == "messaging.client.sent.messages" and isinstance(metric.data, Sum):
                    for point in metric.data.data_points:
                        topic = str(dict(point.attributes or {})["messaging.destination.name"])
                        assert before.get(topic, 0) <= point.value <= self.sent[topic], topic
                        before[topic] = int(point.value)
        self.agent.forget(collection.ended)

    def settle(self) -> None:
        """What is told reaches the receiver."""
        self.deliver()
        self.take()
        self.export()
        assert dict.fromkeys(TOPICS, 0) | self.told[str(UUID(int=1))] == self.sent


@pytest.mark.parametrize("seed", range(40))
def test_sums_never_fall_and_count_everything_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closedendpoints, "KEPT", 9)
    monkeypatch.setattr(closing, "KEPT", 3)
    monkeypatch.setattr(state, "MAX_CLOSED", 12)
    history = History(seed)
    of_process = [history.open, history.publish, history.publish, history.close, history.close, history.end_link]
    between = [history.deliver, history.lose_batch, history.lose_link, history.take, history.export]
    seldom = [history.crash_server, history.agent_begins, history.agent_rejoins]
    for _ in range(STEPS):
        history.random.choice([*3 * of_process, *2 * between, *seldom])()
        # Nothing was sent to an agent, or a server, that is lost before it was told.
        if history.random.random() < 0.3:
            history.deliver()
            history.take()
            history.export()
    history.open()
    history.publish()
    history.settle()
