"""`ezmsg perf benchmark`, for a very short time, and what is made of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ezmsg.core.errors import ConfigError, ServerUnreachable
from ezmsg.util.perf.impl import Scenario, perform
from ezmsg.util.perf.run import measured
from tests.util.perf.conftest import Perf


@pytest.mark.parametrize(
    ("config", "comms", "received"), [("fanin", "local", [6]), ("fanout", "tcp", [3, 3]), ("relay", "shm_spread", [3])]
)
def test_graphs_receive_all_that_is_sent(config: str, comms: str, received: list[int]) -> None:
    scenario = Scenario(config, comms, n_clients=2, msg_size=10_000, num_msgs=3, num_buffers=1, max_duration_s=60.0)
    tallies = perform(scenario)
    assert [tally.received for tally in tallies] == received
    measurement = measured(scenario, tallies)
    assert measurement.sample_rate_hz > 0
    assert measurement.data_rate_bps == measurement.sample_rate_hz * 10_000
    assert 0 < measurement.latency_median_s
    assert measurement.received == sum(received)


def test_a_benchmark_is_written_reported_and_compared(
    perf: Perf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = "benchmark --num-msgs 3 -i 2 -r 1 --msg-sizes 16 --n-clients 1 --comms local --configs fanout --warmup 0"
    assert perf(f"{short} --name one --no-browser") == 0
    lines = [json.loads(line) for line in Path("perf_one.txt").read_text().splitlines()]
    assert lines[0]["ezmsg"]
    assert [(it["config"], it["comms"], it["n_clients"], it["received"]) for it in lines[1:]] == [
        ("fanout", "local", 1, 3)
    ] * 2
    assert "<table>" in Path("report_one.html").read_text()

    assert perf("report perf_one.txt --no-browser --output other.html") == 0
    assert "fanout local 1 x 16 B" in Path("other.html").read_text()
    assert perf("compare perf_one.txt -b perf_one.txt --no-browser") == 0
    assert Path("compare_one.html").exists()
    assert "1.00" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_told_before_the_warm_up(perf: Perf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", "127.0.0.1:1")
    with pytest.raises(ServerUnreachable):
        perf("benchmark --warmup 3600 --name never --no-browser")
    assert not Path("perf_never.txt").exists()


@pytest.mark.parametrize("text", ["", "[]\n1\n", "{}\n{}\n", "no JSON"])
def test_other_files_are_refused(perf: Perf, text: str) -> None:
    Path("other").write_text(text)
    with pytest.raises(ConfigError, match="ezmsg perf benchmark"):
        perf("report other --no-browser")
