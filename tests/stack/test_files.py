"""The files that are given to Docker, as far as they can be checked without it."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.testing.binaries import Binaries
from deploy.testing.stack import DEPLOY

ROOT = DEPLOY.parent
COMPOSE = ROOT / "docker-compose.yml"
BIN = Path(sys.executable).parent


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def each_service() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "service"), compose()["services"].items(), ids=lambda one: str(one)[:20])


def run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True
    )


def test_the_compose_file_is_valid_by_the_compose_specification() -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    done = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    assert done.returncode == 0, done.stdout
    assert not done.stdout


@each_service()
def test_a_service_has_few_rights_and_a_limit(name: str, service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    for port in service.get("ports", ()):
        host = port.rsplit(":", 2)[0]
        assert ipaddress.ip_address(host).is_loopback


@each_service()
def test_an_image_has_a_version(name: str, service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+(\.\d+)?|local)", service["image"])


@each_service()
def test_what_is_mounted_is_there_and_read_only(name: str, service: dict[str, Any]) -> None:
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mode == ["ro"]
        else:
            assert source in compose()["volumes"]


def test_secrets_are_not_committed_and_not_in_the_environment() -> None:
    for secret in compose()["secrets"].values():
        assert run("git", "check-ignore", "--quiet", secret["file"]).returncode == 0
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "SECRET" in name:
                assert name.endswith("__FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def make_secrets(directory: Path) -> dict[str, str]:
    done = run("sh", ROOT / "tools/stack-secrets", directory)
    assert done.returncode == 0
    assert not done.stdout + done.stderr
    return {file.name: file.read_text(encoding="utf-8") for file in directory.iterdir()}


def test_secrets_are_made_once_and_kept_from_other_users(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    assert made.keys() == compose()["secrets"].keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert make_secrets(tmp_path / "secrets") == made


def test_the_collector_takes_its_configuration(binaries: Binaries) -> None:
    done = run(binaries.otelcol, "validate", "--config", DEPLOY / "collector/config.yaml")
    assert done.returncode == 0, done.stderr


def test_the_builder_has_the_components_of_the_configuration_and_no_others() -> None:
    config = yaml.safe_load((DEPLOY / "collector/config.yaml").read_text(encoding="utf-8"))
    manifest = yaml.safe_load((DEPLOY / "testing/otelcol.yaml").read_text(encoding="utf-8"))
    modules = {
        "otlp": "otlpreceiver",
        "memory_limiter": "memorylimiterprocessor",
        "otlp_http": "otlphttpexporter",
        "otlp_grpc": "otlpexporter",
        "health_check": "healthcheckextension",
    }
    for kind in ("receivers", "processors", "exporters", "extensions"):
        built = {part["gomod"].split()[0].rsplit("/", 1)[1] for part in manifest[kind]}
        assert built == {modules[name.partition("/")[0]] for name in config[kind]}


def test_what_is_tested_is_what_is_shipped() -> None:
    """The same releases in the images and in the recipes of the binaries."""
    images = {name: service["image"] for name, service in compose()["services"].items()}
    manifest = yaml.safe_load((DEPLOY / "testing/otelcol.yaml").read_text(encoding="utf-8"))
    assert images["collector"].endswith(f":{manifest['dist']['version']}")
    module = re.search(
        r"prometheus/prometheus v0\.(\d)(\d\d)\.(\d+)\n", (DEPLOY / "testing/prometheus/go.mod").read_text()
    )
    assert module
    assert images["prometheus"].endswith(f":v{module[1]}.{int(module[2])}.{module[3]}")


def test_prometheus_takes_its_configuration(binaries: Binaries) -> None:
    done = run(binaries.promtool, "check", "config", "--lint=all", "--lint-fatal", DEPLOY / "prometheus/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_plays_through_a_server_that_runs_already(tmp_path: Path) -> None:
    """What the profile `demo` starts, as two programs that share a home."""
    serving = [sys.executable, "-m", "ezmsg.core", "serve", "--address=127.0.0.1:0"]
    with subprocess.Popen(serving, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = re.search(r"127\.0\.0\.1:\d+", server.stdout.readline())
            assert address
            demo = run(
                sys.executable, "-m", "examples.ecg", "--seconds=3", f"--graph={address[0]}", OTEL_SDK_DISABLED="true"
            )
        finally:
            server.terminate()
            server.wait(30)
    assert "agrees" in demo.stdout, demo.stdout + demo.stderr
