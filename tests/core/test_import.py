"""Importing ezmsg.core is cheap and free of OpenTelemetry, which belongs to ezmsg.otel."""

import subprocess
import sys

import ezmsg.core as ez


def test_importing_core_does_not_import_opentelemetry() -> None:
    code = "import sys, ezmsg.core; print(*(name for name in sys.modules if name.startswith('opentelemetry')))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == []


def test_the_declarative_names_are_exported() -> None:
    assert {"task", "publisher", "subscriber", "main", "timeit", "process", "thread"} < set(ez.__all__)
    assert {"Component", "Unit", "Collection", "Settings", "State", "NetworkDefinition"} < set(ez.__all__)
    assert {"InputStream", "OutputStream", "Topic", "InputTopic", "OutputTopic"} < set(ez.__all__)
    assert {"InputRelay", "OutputRelay", "System", "Message", "Flag"} < set(ez.__all__)
    assert {"run", "run_system", "GraphRunner", "GraphRunnerStartError"} < set(ez.__all__)
    assert {"Complete", "NormalTermination"} < set(ez.__all__)
    assert all(hasattr(ez, name) for name in ez.__all__)


def test_importing_core_begins_nothing() -> None:
    code = (
        "import multiprocessing, threading, ezmsg.core\n"
        "print(multiprocessing.get_start_method(allow_none=True), threading.active_count())"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["None", "1"]


def test_submodules_are_attributes_of_the_package() -> None:
    assert ez.settings.SettingsMeta is type(ez.Settings)
    assert ez.unit.UnitMeta is type(ez.Unit)
    assert ez.stream.InputStream is ez.InputStream
    assert ez.dag.DAG
    assert ez.graphserver.GraphService
