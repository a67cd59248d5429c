"""The Kubernetes example: what can be known of it without a cluster, and its two containers run as processes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.settings import Settings, environment_name, load

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
TEXT = (FOLDER / "relay.yaml").read_text(encoding="utf-8")
DOCUMENTS: dict[str, dict[str, Any]] = {document["kind"]: document for document in yaml.safe_load_all(TEXT)}
DEPLOYMENT = DOCUMENTS["Deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(RELAY,) = POD["containers"]
(MONITOR,) = POD["initContainers"]


def environment(container: dict[str, Any]) -> dict[str, str | None]:
    """Each variable and its value; None for one that is a secret's or the cluster's."""
    return {row["name"]: row.get("value") for row in container["env"]}


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def settings() -> Settings:
    names = {environment_name(field): field for field in Settings.model_fields}
    given = {names[name]: value for name, value in environment(RELAY).items() if value is not None}
    return load(**given, redis_url="redis://redis:6379/0")  # of the secret


def test_every_variable_exists_and_has_a_value_that_the_relay_takes() -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    assert set(environment(RELAY)) <= known
    assert settings().host == "0.0.0.0"
    manual = (FOLDER.parent / "configuration.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in manual for name in environment(MONITOR) if name.startswith("DIAGNOSTICS_"))


def test_there_is_time_to_drain() -> None:
    before = int(RELAY["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert before + settings().drain_seconds + 10 <= POD["terminationGracePeriodSeconds"]


def test_the_streams_fit_into_the_memory() -> None:
    limit = mebibytes(RELAY["resources"]["limits"]["memory"]) << 20
    assert settings().budget_bytes <= limit * 2 // 3
    assert settings().max_streams * settings().stream_budget_bytes <= settings().budget_bytes
    assert settings().budget_bytes + settings().topics_bytes < limit * settings().memory_share


def test_relay_and_monitor_meet_in_one_folder_as_one_user() -> None:
    mounts = [container["volumeMounts"] for container in (RELAY, MONITOR)]
    assert mounts[0] == mounts[1]
    (mount,) = mounts[0]
    assert mount["name"] in {volume["name"] for volume in POD["volumes"]}
    folders = {environment(container)["DIAGNOSTICS_DIR"] for container in (RELAY, MONITOR)}
    (folder,) = folders
    assert folder is not None
    assert folder.startswith(mount["mountPath"] + "/"), "the volume's top is root's"
    assert POD["shareProcessNamespace"]
    assert POD["securityContext"]["runAsUser"] > 0
    assert all("runAsUser" not in container["securityContext"] for container in (RELAY, MONITOR))
    assert MONITOR["restartPolicy"] == "Always"
    assert RELAY["image"].rpartition(":")[2] == MONITOR["image"].rpartition(":")[2], "of one version"


def test_everything_that_refers_to_something_finds_it() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert DOCUMENTS[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert DOCUMENTS["Service"]["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in RELAY["ports"]}
    assert ports == {"http": settings().port}
    assert {port["targetPort"] for port in DOCUMENTS["Service"]["spec"]["ports"]} <= set(ports)
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert RELAY[probe]["httpGet"]["port"] in ports
    scaler = DOCUMENTS["HorizontalPodAutoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    assert DOCUMENTS[target["kind"]]["metadata"]["name"] == target["name"]
    assert scaler["metrics"][0]["containerResource"]["container"] == RELAY["name"]
    assert DEPLOYMENT["replicas"] == scaler["minReplicas"] > DOCUMENTS["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    scraped = DEPLOYMENT["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert [str(port["containerPort"]) for port in MONITOR["ports"]] == [scraped]
    assert MONITOR["command"][-1].endswith(f":{scraped}")


def secrets() -> Iterator[tuple[str, str]]:
    for container in (RELAY, MONITOR):
        for row in container["env"]:
            reference = row.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                yield reference["name"], reference["key"]


def test_the_command_for_the_secret_makes_all_that_is_read() -> None:
    comment = " ".join(line.lstrip("# ").rstrip("\\ ") for line in TEXT.splitlines() if line.startswith("#"))
    made = re.search(r"create secret generic (\S+)((?: --from-literal=\S+)+)", comment)
    assert made
    keys = re.findall(r"--from-literal=([^=]+)=", made[2])
    assert {(made[1], key) for key in keys} == set(secrets())


@pytest.mark.e2e
def test_the_two_containers_work_together(
    launch: Callable[..., Any],
    free_port: Callable[[], int],
    http: Callable[..., Any],
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Their commands and variables, with other ports, folders and values for what the cluster would give."""
    port, watched = free_port(), free_port()
    secret = {
        "DIAGNOSTICS_TOKEN": "t" * 32, "DIAGNOSTICS_READ_TOKEN": "r" * 32, "DIAGNOSTICS_DIR": str(tmp_path / "relay"),
        "RELAY_REDIS_URL": "redis://127.0.0.1:9/0",  # which is away: the relay is ready all the same
        "DIAGNOSTICS_ALLOWED_HOSTS": "10.1.2.3", "RELAY_PORT": str(port), "RELAY_HOST": "127.0.0.1",
    }  # fmt: skip

    def run(container: dict[str, Any]) -> Any:
        fixed = {name: value for name, value in environment(container).items() if value is not None}
        given = {name: secret[name] for name in environment(container) if name in secret}
        words = [word.replace("0.0.0.0:6060", f"127.0.0.1:{watched}") for word in container["command"][1:]]
        return launch(
            sys.executable, "-m", container["command"][0], *words, env={**fixed, **given}, cwd=tmp_path
        )  # fmt: skip

    monitor = run(MONITOR)
    relay = run(RELAY)
    relay.wait_for("relay http", 60)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert http(f"http://127.0.0.1:{port}{RELAY[probe]['httpGet']['path']}").status == 200
    reader = {"Authorization": f"Bearer {secret['DIAGNOSTICS_READ_TOKEN']}", "Host": f"10.1.2.3:{watched}"}

    def metrics() -> str:
        return str(http(f"http://127.0.0.1:{watched}/metrics", headers=reader).body.decode())

    monitor.wait_for("diagnostics http")
    eventually(lambda: 'diagnostics_agent_up{worker="0"} 1.0' in metrics())
    (budget,) = re.findall(r'^stream_budget_bytes\{worker="0"\} (\S+)$', metrics(), re.MULTILINE)
    assert float(budget) == settings().budget_bytes
    refused = http(f"http://127.0.0.1:{watched}/debug/memory/captures", "POST", {"kind": "tasks", "seconds": 1}, reader)
    assert refused.status == 403
    assert relay.end() == 0
