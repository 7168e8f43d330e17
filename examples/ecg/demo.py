"""`make demo`: a recorded electrocardiogram in real time through four processes, and what is seen of it.

The source plays the recording, the filter keeps 5 to 15 Hz, the detector finds heart beats; each has a process of its
own. The display is in this one: it shows every edge while the graph runs, then one message's trace across all
processes, and what arrived over OTLP.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator

from rich.console import Console

import ezmsg.core as ez
from examples.ecg.reference import compare, load_reference
from examples.ecg.screen import trace_tree
from examples.ecg.units import Detector, Display, Filter, Seen, Source, SourceSettings
from examples.otlp_receiver import HttpReceiver

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def parse_arguments() -> argparse.Namespace:
    """`--seconds`, or DEMO_SECONDS, of the recording to play, and where."""
    parser = argparse.ArgumentParser(prog="python -m examples.ecg", description=__doc__)
    default = float(os.environ.get("DEMO_SECONDS", "15"))
    parser.add_argument(
        "--seconds", type=float, default=default, help="of the recording to play (default 15, at most 300)"
    )
    parser.add_argument("--graph", metavar="HOST:PORT", help="of a graph server that runs already (default: its own)")
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 300:
        parser.error(f"--seconds {arguments.seconds:g}: the recording can be played for 1 to 300 seconds")
    return arguments


@contextlib.contextmanager
def receiver_of_our_own(console: Console) -> Iterator[HttpReceiver | None]:
    """A receiver on loopback, where no endpoint is configured; telemetry goes where the variable says."""
    if os.environ.get(ENDPOINT):
        console.print(f"telemetry goes to {os.environ[ENDPOINT]} ({ENDPOINT})")
        yield None
        return
    with HttpReceiver() as receiver:
        os.environ[ENDPOINT] = receiver.endpoint
        os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        os.environ.setdefault("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        try:
            console.print(f"an OTLP receiver listens on {receiver.endpoint}; set {ENDPOINT} to use your own")
            yield receiver
        finally:
            del os.environ[ENDPOINT]


@contextlib.contextmanager
def graph_server(address: str | None) -> Iterator[str]:
    """The address of a graph: the one given, else of a server of our own."""
    if address is not None:
        yield address
        return
    server = ez.GraphServer()
    server.start("127.0.0.1:0")
    try:
        yield str(server.address)
    finally:
        server.stop()


def play(address: str, seconds: float, console: Console, seen: Seen) -> None:
    """Run the graph and show it."""
    source, band_pass, detector = Source(SourceSettings(seconds)), Filter(), Detector()
    display = Display(address, console, seen)
    ez.run(
        SOURCE=source,
        FILTER=band_pass,
        DETECTOR=detector,
        DISPLAY=display,
        connections=[
            (source.OUTPUT, band_pass.INPUT),
            (band_pass.OUTPUT, detector.INPUT),
            (detector.OUTPUT, display.INPUT),
        ],
        process_components=[source, band_pass, detector],
        graph_address=address,
    )


def report_run(console: Console, seen: Seen, seconds: float) -> bool:
    """One trace, and the beats against the reference; True when they agree."""
    if seen.spans:
        longest = max(seen.spans.values(), key=len)
        console.print("\n[bold]One message, from the electrode to the heart rate[/bold]")
        console.print(trace_tree(longest, seen.process_of))
    result = compare(seen.beats_s, load_reference(), seconds)
    agrees = abs(result.found - result.expected) <= 1 and bool(seen.spans)
    console.print(
        f"\n[bold]Heart beats[/bold] found {result.found}, reference {result.expected} "
        f"(matched {result.matched}, missed {result.missed}, extra {result.extra}): "
        + ("[green]agrees[/green]" if agrees else "[red]does not agree[/red]")
    )
    return agrees


def report_otlp(console: Console, receiver: HttpReceiver, seen: Seen) -> bool:
    """What the receiver got; True when it is what the native stream delivered."""
    spans = receiver.store.spans
    received = Counter(span.span_id for span in spans)
    native = {span.span_id for trace in seen.spans.values() for span in trace}
    names = sorted(receiver.store.metric_names())
    traces = len({span.trace_id for span in spans})
    same = native <= set(received) and max(received.values(), default=1) == 1
    console.print(
        f"\n[bold]Over OTLP[/bold] {len(spans)} spans in {traces} traces, {len(names)} metrics; "
        f"of {len(native)} spans of the native stream {len(native & set(received))} arrived, each once: "
        + ("[green]yes[/green]" if same else "[red]no[/red]")
    )
    console.print(", ".join(names), style="dim", highlight=False, soft_wrap=False)
    return same


def main() -> int:
    """Run the demo; the exit code is 0 when everything agreed."""
    arguments = parse_arguments()
    logging.getLogger("ezmsg").setLevel(logging.ERROR)
    os.environ.setdefault("EZMSG_LOGLEVEL", "ERROR")  # of the other processes
    os.environ.setdefault("EZMSG_PROCESS_NAME", "ecg")
    os.environ.setdefault("OTEL_SERVICE_NAME", "ecg-demo")
    # The receiver brings threads and gRPC, which do not like to be forked.
    multiprocessing.set_start_method("spawn")
    console = Console(soft_wrap=True)
    seen = Seen()
    with receiver_of_our_own(console) as receiver:
        with graph_server(arguments.graph) as address:
            console.print(f"playing {arguments.seconds:g} s of an electrocardiogram through the graph at {address}")
            play(address, arguments.seconds, console, seen)
        if not seen.is_complete:
            raise KeyboardInterrupt
        agrees = report_run(console, seen, arguments.seconds)
        if receiver is not None:
            agrees = report_otlp(console, receiver, seen) and agrees
    return 0 if agrees else 1
