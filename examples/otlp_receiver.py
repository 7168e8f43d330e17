"""A real OTLP receiver that keeps what it gets: spans and metrics, over HTTP/protobuf or gRPC.

    python -m examples.otlp_receiver            # prints a summary of what arrives, until Ctrl-C

It stands in for a collector where there is none: in the demo, and in the tests, which also ask it to misbehave.
It needs nothing but what the OTLP exporters bring along.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from examples.otlp_store import Request, Signal, Store

Response = ExportTraceServiceResponse | ExportMetricsServiceResponse

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Behaviour:
    """How a receiver answers.

    `ok` takes everything but `rejected` items; `slow` takes it, and says so after `seconds`; `status` refuses with
    that HTTP status (over gRPC: that `code`) and asks to wait for `retry_after`, a number of seconds or (HTTP only) a
    date; `redirect` sends elsewhere; `black_hole` never answers.
    """

    kind: Literal["ok", "slow", "status", "redirect", "black_hole"] = "ok"
    seconds: float = 0.0
    status: int = 503
    code: str = "UNAVAILABLE"
    retry_after: str = ""
    rejected: int = 0


@dataclass(frozen=True)
class Tls:
    """PEM files of a receiver that encrypts; with `client_ca` it wants certificates of its clients, too."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Receiver:
    """What both protocols share. `endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT; use in a `with`, or start and stop."""

    protocol = ""

    def __init__(self, store: Store | None = None, port: int = 0, tls: Tls | None = None) -> None:
        """Receive on `port` of the loopback interface, by default a free one."""
        self.store = store or Store()
        self.port = port
        self.tls = tls
        self._behaviour = Behaviour()
        self._requests = 0
        self._counted = threading.Condition()
        # Replaced and set whenever the behaviour changes: whoever waits in the old one goes on.
        self._changed = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self.tls else ''}://{LOOPBACK}:{self.port}"

    def behave(self, kind: Literal["ok", "slow", "status", "redirect", "black_hole"], **how: Any) -> None:
        """Answer like this from now on; requests that wait for an answer are let go."""
        changed, self._changed = self._changed, threading.Event()
        self._behaviour = Behaviour(kind, **how)
        changed.set()

    @property
    def requests(self) -> int:
        """How many requests came, whatever became of them."""
        return self._requests

    def wait_for_requests(self, count: int, timeout_s: float = 30.0) -> bool:
        """Wait until so many requests have come in all."""
        with self._counted:
            return self._counted.wait_for(lambda: self._requests >= count, timeout_s)

    def start(self) -> Self:
        """Listen; again on the same port after a `stop`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Refuse connections, end those there are, wait for all threads."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _receive(self, signal: Signal, headers: Mapping[str, str], request: Request) -> Behaviour:
        """Keep a request, and wait as the behaviour wants; returns it."""
        behaviour, changed = self._behaviour, self._changed
        with self._counted:
            self._requests += 1
            self._counted.notify_all()
        if behaviour.kind in ("ok", "slow"):
            self.store.add(signal, headers, request)
        if behaviour.kind == "slow":
            changed.wait(behaviour.seconds)
        elif behaviour.kind == "black_hole":
            changed.wait()
        return behaviour


def _response(request: Request, rejected: int) -> Response:
    if isinstance(request, ExportTraceServiceRequest):
        traces = ExportTraceServiceResponse()
        if rejected:
            traces.partial_success.rejected_spans = rejected
            traces.partial_success.error_message = "asked to reject"
        return traces
    metrics = ExportMetricsServiceResponse()
    if rejected:
        metrics.partial_success.rejected_data_points = rejected
        metrics.partial_success.error_message = "asked to reject"
    return metrics


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, receiver: HttpReceiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__((LOOPBACK, receiver.port), _Handler)
        if (tls := receiver.tls) is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            if tls.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(tls.client_ca)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Else threads would wait for the next request of a connection that is kept alive."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.headers.get("Content-Encoding", ""):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        request: Request
        if self.path == "/v1/traces":
            signal, request = "traces", ExportTraceServiceRequest.FromString(body)
        elif self.path == "/v1/metrics":
            signal, request = "metrics", ExportMetricsServiceRequest.FromString(body)
        else:
            return self._answer(404)
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour = self.server.receiver._receive(signal, headers, request)
        match behaviour.kind:
            case "black_hole":
                self.close_connection = True
            case "status" if behaviour.retry_after:
                self._answer(behaviour.status, **{"Retry-After": behaviour.retry_after})
            case "status":
                self._answer(behaviour.status)
            case "redirect":
                self._answer(307, Location="http://elsewhere.invalid/")
            case _:
                self._answer(200, _response(request, behaviour.rejected).SerializeToString())

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # a client that did not want to wait
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HttpReceiver(Receiver):
    """Receives OTLP over HTTP/protobuf."""

    protocol = "http/protobuf"

    def start(self) -> Self:
        self._server = _Server(self)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="OTLP receiver")
        self._thread.start()
        return self

    def stop(self) -> None:
        self.behave("ok")
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()


class GrpcReceiver(Receiver):
    """Receives OTLP over gRPC."""

    protocol = "grpc"

    def start(self) -> Self:
        import grpc
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

        self._workers = futures.ThreadPoolExecutor(8, "OTLP receiver")
        self._server = grpc.server(self._workers, options=(("grpc.so_reuseport", 0),))
        trace_grpc.add_TraceServiceServicer_to_server(_Service(self, "traces"), self._server)
        metrics_grpc.add_MetricsServiceServicer_to_server(_Service(self, "metrics"), self._server)
        address = f"{LOOPBACK}:{self.port}"
        if (tls := self.tls) is None:
            self.port = self._server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.key.read_bytes(), tls.certificate.read_bytes())],
                tls.client_ca.read_bytes() if tls.client_ca else None,
                require_client_auth=tls.client_ca is not None,
            )
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()
        return self

    def stop(self) -> None:
        self.behave("ok")
        self._server.stop(grace=None).wait()
        self._workers.shutdown()


class _Service:
    def __init__(self, receiver: GrpcReceiver, signal: Signal) -> None:
        self._receiver = receiver
        self._signal: Signal = signal

    def Export(self, request: Any, context: Any) -> Response:
        import grpc
        from google.rpc.error_details_pb2 import RetryInfo

        headers = dict(context.invocation_metadata())
        behaviour = self._receiver._receive(self._signal, headers, request)
        if behaviour.kind in ("status", "redirect"):
            if behaviour.retry_after:
                info = RetryInfo()
                info.retry_delay.FromSeconds(int(behaviour.retry_after))
                context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
            context.abort(grpc.StatusCode[behaviour.code], "asked to refuse")
        return _response(request, behaviour.rejected)


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive OTLP and print, whenever something came, what it was.")
    parser.add_argument("--http-port", type=int, default=4318)
    parser.add_argument("--grpc-port", type=int, default=4317)
    options = parser.parse_args()
    store = Store()
    with HttpReceiver(store, options.http_port) as http, GrpcReceiver(store, options.grpc_port) as grpc:
        print(f"OTEL_EXPORTER_OTLP_ENDPOINT={http.endpoint}")
        print(f"OTEL_EXPORTER_OTLP_ENDPOINT={grpc.endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
        try:
            while True:
                # Taken, not kept: whoever tries a graph lets this run for hours.
                if store.wait_for(lambda: bool(store.arrived), 1.0):
                    print(store.take().summary(), flush=True)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
