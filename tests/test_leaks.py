"""The leak guard fails a test for each kind of thing it leaves behind, and for nothing else."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parent

LEAKY_TESTS = """
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import shared_memory
from pathlib import Path

import pytest_asyncio

kept = []  # so that nothing is closed by the garbage collector
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


async def test_task():
    kept.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))


def test_task_in_a_loop_of_its_own():
    loop = asyncio.new_event_loop()
    kept.append(loop.create_task(asyncio.Event().wait(), name="forgotten"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_loop():
    kept.append(asyncio.new_event_loop())


def test_thread():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()


def test_process():
    kept.append(subprocess.Popen(SLEEP))


def test_orphan():
    starter = f"import subprocess; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", starter], check=True)


def test_descriptor():
    kept.append(socket.socket())


def test_shared_memory():
    segment = shared_memory.SharedMemory("ezmsg-forgotten", create=True, size=64)
    segment.close()
    kept.append(segment)


def test_file():
    Path(tempfile.gettempdir(), "forgotten").touch()


def test_socket_file():
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.join(tempfile.gettempdir(), "door"))


@pytest_asyncio.fixture
async def in_use():
    task = asyncio.create_task(asyncio.Event().wait())
    directory = tempfile.TemporaryDirectory()
    reader, writer = os.pipe()
    child = subprocess.Popen(SLEEP)
    yield
    child.kill()
    child.wait()
    os.close(reader)
    os.close(writer)
    directory.cleanup()
    task.cancel()


async def test_clean(in_use, tmp_path):
    (tmp_path / "kept").touch()
    await asyncio.to_thread(len, "")


def test_clean_a_moment_later():
    threading.Timer(0.05, lambda: None).start()


def test_clean_sync():
    asyncio.run(asyncio.sleep(0))
"""

LEAKS = {
    "test_task": "tasks: forgotten",
    "test_task_in_a_loop_of_its_own": "tasks: forgotten",
    "test_loop": "descriptors: ",
    "test_thread": "threads: <Thread(forgotten",
    "test_process": "processes: psutil.Process",
    "test_orphan": "processes: psutil.Process",
    "test_descriptor": "descriptors: ",
    "test_shared_memory": "shared memory: ezmsg-forgotten",
    "test_file": "/forgotten",
    "test_socket_file": "/door",
}
CLEAN = ["test_clean", "test_clean_a_moment_later", "test_clean_sync"]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the guard says about each of the leaky tests, run in a pytest of their own."""
    directory = tmp_path_factory.mktemp("leaky")
    conftest = (TESTS / "conftest.py").read_text()
    (directory / "conftest.py").write_text(conftest + "\nleaks.SETTLE_S = 0.5\n")
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (directory / "test_leaky.py").write_text(LEAKY_TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=report.xml"],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
    )
    cases = ElementTree.parse(directory / "report.xml").iter("testcase")
    found = {case.attrib["name"]: "".join(part.attrib.get("message", "") for part in case) for case in cases}
    assert found.keys() == LEAKS.keys() | set(CLEAN), run.stdout
    return found


@pytest.mark.parametrize(("test", "complaint"), LEAKS.items())
def test_guard_fails_a_test_that_leaks_and_names_what(complaints: dict[str, str], test: str, complaint: str) -> None:
    assert complaint in complaints[test]


@pytest.mark.parametrize("test", CLEAN)
def test_guard_passes_a_test_that_cleans_up(complaints: dict[str, str], test: str) -> None:
    assert complaints[test] == ""
