"""The images and what is started from them: what can be known without Docker and without a cluster.

No image is built here. What is in one is what tests/installs installs, by the same commands, into empty environments.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from diagnostics.cli import COMMANDS
from relay.settings import Settings, environment_name, load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TARGETS = set(re.findall(r"^FROM \S+ AS (relay|monitor)$", DOCKERFILE, re.MULTILINE))
IMAGES = {f"highwater-{target}:{PROJECT['version']}" for target in TARGETS}


def manifests() -> list[dict[str, Any]]:
    kept = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [document for name in kept for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = str(Path(sys.executable).parent / "hadolint")
    linted = subprocess.run([linter, str(FOLDER / "Dockerfile")], capture_output=True, encoding="utf-8", check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_an_image_has_extras_that_there_are_and_does_not_run_as_root() -> None:
    extras = {extra for named in re.findall(r"\)\[([\w,]+)\]", DOCKERFILE) for extra in named.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for stage in stages:
        if stage.split()[2] in TARGETS:
            assert "USER 10001:10001" in stage
    copied = {word for line in re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    let_in = set(
        re.findall(r"^!(\S+)$", (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("words", re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))
def test_an_image_starts_a_command_that_there_is(words: str) -> None:
    program, command, *_ = yaml.safe_load(words)
    assert program in PROJECT["scripts"]
    assert program != "diagnostics" or command in COMMANDS


def test_what_is_started_is_made_by_the_dockerfile() -> None:
    pods = [document["spec"]["template"]["spec"] for document in manifests() if document["kind"] == "Deployment"]
    started = {container["image"] for pod in pods for container in (*pod["containers"], *pod["initContainers"])}
    started |= {service["image"] for service in SERVICES.values() if "build" in service}
    assert started == IMAGES
    for tag in re.findall(r"-t (\S+)", DOCKERFILE):
        assert tag in IMAGES


@pytest.mark.parametrize("document", manifests(), ids=lambda document: str(document["kind"]))
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_a_manifest_is_what_kubernetes_takes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_an_ephemeral_container_that_attaches_is_root_and_may_trace() -> None:
    """As `kubectl debug --custom` makes it; what it can do with these rights: tests/diagnostics/monitor/attach."""
    text = (ROOT / "docs" / "attach.md").read_text(encoding="utf-8")
    ((image, name, custom),) = re.findall(
        r"kubectl debug -it POD --image=(\S+) --target=(\S+) .*\n +--custom=(\S+) -- ", text
    )
    partial = yaml.safe_load((ROOT / custom).read_text(encoding="utf-8"))
    assert partial["securityContext"]["runAsUser"] == 0, "the image's user has no capabilities"
    assert partial["securityContext"]["capabilities"]["add"] == ["SYS_PTRACE"]
    assert image in IMAGES
    (beside,) = re.findall(r"docker run --rm -it (.*) \\\n +(\S+) diagnostics attach 1$", text, re.MULTILINE)
    assert (beside[1], "--user 0 --cap-add SYS_PTRACE" in beside[0]) == (image, True)
    debugger = {"name": "debugger", "image": image, "targetContainerName": name.lower(), **partial}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "service"},
        "spec": {"containers": [{"name": name.lower(), "image": "service:1"}], "ephemeralContainers": [debugger]},
    }  # fmt: skip
    kubernetes_validate.validate(pod, "1.32", strict=True)


def test_the_policy_and_the_pod_monitor_name_ports_that_there_are() -> None:
    (policy,) = (document for document in manifests() if document["kind"] == "NetworkPolicy")
    (deployment,) = (document for document in manifests() if document["kind"] == "Deployment")
    pod = deployment["spec"]["template"]
    ports = [port for each in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]) for port in each["ports"]]
    monitored = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text(encoding="utf-8"))["spec"]
    assert policy["spec"]["podSelector"] == monitored["selector"]
    assert monitored["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == {port["containerPort"] for port in ports}
    assert {each["port"] for each in monitored["podMetricsEndpoints"]} <= {port["name"] for port in ports}


def test_compose_wires_what_there_is() -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    given = SERVICES["relay"]["environment"]
    assert {name for name in given if name.startswith("RELAY_")} <= known
    for name, service in SERVICES.items():
        for needed in service.get("depends_on", ()):
            assert needed in SERVICES
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            there = (FOLDER / source).resolve().exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert there, f"{name}: {source}"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), "published on loopback only"
    for name in ("prometheus.yaml", "grafana.yaml"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert {host for host, _ in re.findall(r"\b([a-z]+):(\d{4,5})\b", text)} <= set(SERVICES)


def test_the_compose_file_of_replicas_has_settings_that_fit_each_other_and_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compose: dict[str, Any] = yaml.safe_load((FOLDER / "compose.replicas.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    monkeypatch.chdir(tmp_path)
    for name in ("relay-a", "relay-b"):
        given = dict(services[name]["environment"])
        assert re.fullmatch(r"\$\{RELAY_CLIENT_KEYS:\?.+\}", given.pop("RELAY_CLIENT_KEYS"))
        assert re.fullmatch(r"\$\{RELAY_URL_SECRETS:\?.+\}", given.pop("RELAY_URL_SECRETS"))
        assert given.keys() <= {environment_name(field) for field in Settings.model_fields}
        with monkeypatch.context() as variables:
            for variable, value in {
                **given,
                "RELAY_CLIENT_KEYS": "a:generate:" + 64 * "0",
                "RELAY_URL_SECRETS": 32 * "s",
            }.items():
                variables.setenv(variable, value)
            settings = load()
        assert (settings.host, settings.resume, settings.shared_limits) == ("127.0.0.1", "redis", True)
        assert settings.drain_seconds + 10 <= int(services[name]["stop_grace_period"].removesuffix("s"))
        listens = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
        assert f"server 127.0.0.1:{settings.port} " in listens
    balanced = (FOLDER / "haproxy.cfg").read_text(encoding="utf-8")
    assert f"bind {given['RELAY_REDIS_URL'].removeprefix('redis://').removesuffix('/0')}" in balanced
    sentinel = (FOLDER / "sentinel.conf").read_text(encoding="utf-8")
    for name in ("redis-a", "redis-b"):
        words = services[name]["command"]
        port = words[words.index("--port") + 1]
        assert f"server redis 127.0.0.1:{port} " in balanced
    assert "sentinel monitor relay 127.0.0.1 6391 1" in sentinel
    assert words[-2:] == ["--replicaof", "127.0.0.1 6391"]
    for name, service in services.items():
        assert service["network_mode"] == "host", name
        assert set(service.get("depends_on", ())) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in compose["volumes"], name


@pytest.mark.e2e
def test_the_relay_of_compose_streams_and_shows_its_page_to_who_has_the_token(
    launch: Callable[..., Any], free_port: Callable[[], int], http: Callable[..., Any], tmp_path: Path
) -> None:
    """The commands and variables of compose.yaml as processes, at other addresses and without Redis and a Collector."""
    ports = {name: free_port() for name in ("upstream", "relay", "monitor")}
    places = {
        "0.0.0.0:6060": f"127.0.0.1:{ports['monitor']}", "0.0.0.0": "127.0.0.1", "8000": str(ports["upstream"]),
    }  # fmt: skip

    def command(service: str) -> list[str]:
        program, *words = SERVICES[service]["command"]
        return [sys.executable, "-m", program, *(places.get(word, word) for word in words)]

    variables = dict(SERVICES["relay"]["environment"])
    for name in ("RELAY_REDIS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        del variables[name]
    variables |= {
        "RELAY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{ports['upstream']}/v1", "DIAGNOSTICS_TOKEN": "t" * 32,
        "DIAGNOSTICS_READ_TOKEN": "r" * 32, "DIAGNOSTICS_DIR": str(tmp_path / "relay"),
        "RELAY_PORT": str(ports["relay"]),
    }  # fmt: skip
    upstream = launch(*command("upstream"), cwd=tmp_path)
    upstream.wait_for("http", 60)
    relay = launch(*command("relay"), env=variables, cwd=tmp_path)
    relay.wait_for("relay http", 60)
    (path,) = re.findall(r"curl -N http://127.0.0.1:8080(\S+)", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert b"data: " in http(f"http://127.0.0.1:{ports['relay']}{path}").body
    page = f"http://127.0.0.1:{ports['monitor']}/debug/memory"
    assert http(page).status == 401
    assert http(page, headers={"Authorization": f"Bearer {'r' * 32}"}).status == 200
    assert relay.end() == 0
