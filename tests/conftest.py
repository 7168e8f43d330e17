"""A clean environment for all tests, and a guard that fails those which leave something behind."""

import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import hypothesis
import pytest

from tests import leaks

# Before anything imports ezmsg: some variables are read at import.
SESSION = tempfile.TemporaryDirectory(prefix="ezmsg-tests-")
HOME = Path(SESSION.name, "home")
TEMPORARY = Path(SESSION.name, "tmp")
PATIENCE_S = 40.0
HOME.mkdir()
TEMPORARY.mkdir()

for name in list(os.environ):
    if name.startswith(("EZMSG_", "OTEL_", "XDG_")) or name.lower().endswith("_proxy"):
        del os.environ[name]
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path may keep its files
os.environ["HOME"] = str(HOME)
os.environ["EZMSG_AUTHKEY_FILE"] = str(HOME / "authkey")
# A subscriber that is told of a publisher after this gets what is published from then on only.
os.environ["EZMSG_SUBSCRIBER_UPDATE_TIMEOUT_SEC"] = str(PATIENCE_S)
# Servers and publishers take the first free port. Tests that run at the same time, which hold other keys, have ports of
# their own: who looks for a server or a publisher that has ended would find theirs.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
FIRST_PORT = 10_500 + 450 * ((os.getppid() + int(WORKER) if WORKER else os.getpid()) % 32)
os.environ["EZMSG_SERVER_PORT_START"] = str(FIRST_PORT)
os.environ["EZMSG_PUBLISHER_PORT_START"] = str(FIRST_PORT + 50)
# Where who names no address looks for a server: at the usual port there may be one, of a user of this machine.
os.environ["TESTS_DEFAULT_PORT"] = str(FIRST_PORT + 449)
# The programs do so, too. What runs tests does it below: not by what another process that does has left here.
ELSEWHERE = str(Path(__file__).with_name("elsewhere"))
PYTHONPATH = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([ELSEWHERE, *(path for path in PYTHONPATH if path not in ("", ELSEWHERE))])
sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__module__", "") != "sitecustomize"]
os.environ["TMPDIR"] = tempfile.tempdir = str(TEMPORARY)
# gRPC, once a test has loaded it, would keep descriptors of its own across every fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Where bytecode is not kept, as in many containers, each of the hundreds of programs of tests would compile all of
# ezmsg again, which takes three times as long as to import it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell that runs the tests in the background, or nohup, has one ignored, which every program of a test would inherit.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

hypothesis.settings.register_profile(
    "same-always",
    # Speed belongs to benchmarks.
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # What passed passes again. With FUZZ=1 in the environment every run looks for something new.
    derandomize="FUZZ" not in os.environ,
)
hypothesis.settings.load_profile("same-always")

UNFINISHED_TASKS = leaks.UnfinishedTasks()

from ezmsg.core import config  # noqa: E402 - see above

config.GRAPHSERVER_PORT_DEFAULT = int(os.environ["TESTS_DEFAULT_PORT"])


def pytest_configure() -> None:
    resource_tracker.ensure_running()  # a process and a descriptor that multiprocessing keeps until exit


def pytest_collection_finish() -> None:
    # All tests and what they import stay; without them a full collection, of which there are many, takes a tenth.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    with contextlib.suppress(OSError):
        SESSION.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """A busy machine takes longer than users want to wait for a process, where they say nothing else."""
    from ezmsg.core import graphcontext
    from ezmsg.core.control.processrequests import ProcessRequests
    from ezmsg.core.net import listener
    from ezmsg.core.runtime import coordinator
    from ezmsg.core.server import agent

    with pytest.MonkeyPatch.context() as patch:
        for name in ("REACT_S", "EXIT_S"):
            patch.setattr(coordinator, name, PATIENCE_S)
        # An agent ends by itself, in less than 2 s of its own.
        patch.setattr(agent, "DRAIN_TIMEOUT_S", PATIENCE_S)
        # Who is busy is no stranger, and what a session leaves is gone when it is closed.
        patch.setattr(listener, "HANDSHAKE_TIMEOUT_S", PATIENCE_S)
        patch.setattr(graphcontext, "CLOSE_TIMEOUT_S", PATIENCE_S)
        for method in (*vars(ProcessRequests).values(), *vars(graphcontext.GraphContext).values()):
            defaults = getattr(method, "__kwdefaults__", None) or {}
            for name in defaults.keys() & {"timeout", "timeout_per_process"}:
                if defaults[name] is not None:
                    patch.setitem(defaults, name, PATIENCE_S)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What tests log may be no valid text, which cannot be passed on to the process that reports.
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def _unfinished_tasks() -> Iterator[None]:
    with UNFINISHED_TASKS.watch():
        yield


@pytest.fixture(autouse=True)
def _leak_guard(_unfinished_tasks: None) -> Iterator[None]:
    before = leaks.Snapshot.take(TEMPORARY)
    yield
    found = leaks.since(before, TEMPORARY)
    found.tasks = UNFINISHED_TASKS.take()
    if found:
        pytest.fail(str(found), pytrace=False)
