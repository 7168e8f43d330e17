"""Who sends: one OpenTelemetry resource for each process of the graph, and one for the agent itself.

`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` (of the agent's environment) describe the whole graph; what
tells one process from another always comes from the process. No command line: it can hold secrets.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from uuid import uuid4

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from ezmsg.otel.semconv import PROCESS_NAME, SCHEMA_URL
from ezmsg.otel.state import Process

DEFAULT_SERVICE_NAME = "ezmsg"
Identity = dict[str, str | int]


class ProcessResource(Resource):
    """A resource that is equal only to itself.

    The encoders put resources into dictionaries: a hash of the SDK's is a JSON dump, once for every span, and
    of two resources with equal attributes one would replace the other.
    """

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class ResourceFactory:
    """Makes the resources of one graph, all with the same service name; reads the environment once."""

    def __init__(self) -> None:
        detected = OTELResourceDetector().detect().attributes
        self._configured = {key: value for key, value in detected.items() if value}
        self._service_name: str | None = None

    def name_service(self, units: Iterable[str]) -> None:
        """Derive the name of the graph from the addresses of its units, once and for all."""
        if self._service_name is None:
            self._service_name = root_name(units)

    def of_process(self, process: Process) -> ProcessResource:
        """The resource of a process of the graph."""
        identity: Identity = {"service.instance.id": process.process_id or process.link_id}
        if (hello := process.hello) is not None:
            identity |= {"host.name": hello.host, "process.pid": hello.pid, PROCESS_NAME: hello.process_name}
            identity |= runtime_attributes(hello.runtime)
        return self._resource(identity)

    def of_agent(self) -> ProcessResource:
        """A resource for this process, under which the graph's own metrics and the exporter's leave."""
        identity: Identity = {
            "service.instance.id": str(uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            PROCESS_NAME: "ezmsg.otel",
        }
        runtime = f"{sys.implementation.name} {platform.python_version()}"
        return self._resource(identity | runtime_attributes(runtime))

    def _resource(self, identity: Mapping[str, str | int]) -> ProcessResource:
        sdk = {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": version("opentelemetry-sdk"),
        }
        name = {"service.name": self._service_name or DEFAULT_SERVICE_NAME}
        known = {key: value for key, value in identity.items() if value != ""}
        return ProcessResource({**sdk, **name, **self._configured, **known}, SCHEMA_URL)


def root_name(units: Iterable[str]) -> str:
    """What the addresses of all units begin with, `ezmsg` when there is no such thing."""
    roots = {unit.partition("/")[0] for unit in units if "/" in unit}
    return roots.pop() if len(roots) == 1 else DEFAULT_SERVICE_NAME


def runtime_attributes(runtime: str) -> Identity:
    """`process.runtime.*` from `CPython 3.11.7`; the conventions write the name in lower case."""
    name, _, number = runtime.partition(" ")
    return {"process.runtime.name": name.lower(), "process.runtime.version": number} if number else {}
