"""Finds monitors: by given addresses, or from DNS, Prometheus or Kubernetes.

| written | means |
|---|---|
| `http://10.0.0.7:6060` or `10.0.0.7:6060`, several with commas | these |
| `dns:relay-headless:6060` | every address of that name: a headless Service has one for each pod |
| `prometheus:http://prometheus:9090?up{job="diagnostics"}` | the label `instance` of every series that the query gives now |
| `k8s:app=relay`, `k8s:app=relay@6061` | every pod that runs with these labels, in the pod's own namespace; from within a pod |

For Kubernetes the service account needs the right to list pods. Sources: Prometheus' `GET /api/v1/query`, and the `GET
/api/v1/namespaces/{namespace}/pods` of the Kubernetes API.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from ..errors import TargetError, UsageError

__all__ = ["Target", "resolve"]

DEFAULT_PORT: Final = 6060
MOST_TARGETS: Final = 1000
_TIMEOUT_SECONDS: Final = 5.0
_MOST_BYTES: Final = 64 * 1024 * 1024
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, order=True)
class Target:
    """A monitor. `name`, for the table: the address, or the pod's name where known."""

    name: str
    url: str


def resolve(words: Sequence[str], account: Path = _ACCOUNT) -> list[Target]:
    """The monitors for these words of the table above, each once, sorted by name.

    account   the folder with a pod's token, namespace and the certificate of the Kubernetes API
    Raises UsageError for a malformed word, TargetError where DNS, Prometheus or Kubernetes fails or has none.
    """
    monitors: set[Target] = set()
    for word in words:
        kind, colon, rest = word.partition(":")
        ways: dict[str, Callable[[str], list[Target]]] = {
            "dns": _dns,
            "prometheus": _prometheus,
            "k8s": lambda text: _kubernetes(text, account),
        }
        targets = ways[kind](rest) if colon and kind in ways else _written(word)
        if not targets:
            raise TargetError(f"{word!r} is no monitor at all now", remedy="is the name right, and does anything run?")
        monitors.update(targets)
    # Several words may give the same monitor; a name that is not only the address is preferred.
    by_url = {target.url: target for target in sorted(monitors, key=lambda target: target.name != _address(target.url))}
    if len(by_url) > MOST_TARGETS:
        raise UsageError(f"{len(by_url)} monitors are more than {MOST_TARGETS}", remedy="ask for some of them")
    return sorted(by_url.values())


def _address(url: str) -> str:
    return url.partition("//")[2]


def _written(word: str) -> list[Target]:
    addresses = [each for part in word.split(",") if (each := part.strip())]
    if not addresses:
        raise UsageError(f"{word!r} names no monitor", remedy="is the variable set that this word comes from?")
    return [_of_address(each) for each in addresses]


def _of_address(text: str, name: str = "") -> Target:
    try:
        parts = urlsplit(text if "//" in text else f"http://{text}")
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise UsageError(f"{text!r} is not a monitor's address: {error}", remedy="write http://10.0.0.7:6060") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{text!r} is not a monitor's address",
            remedy="write http://10.0.0.7:6060, dns:NAME:PORT, prometheus:URL?QUERY or k8s:LABEL=VALUE",
        )
    place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Target(name or f"{place}:{port}", f"{parts.scheme}://{place}:{port}")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def _dns(text: str) -> list[Target]:
    place, colon, port = text.rpartition(":")
    if not colon:
        place, port = port, str(DEFAULT_PORT)
    name = place.strip("[]")
    if not name or name.isdecimal():  # a number is an address to the resolver: 6060 is 0.0.23.172
        raise UsageError(f"dns:{text} has no name", remedy="write dns:relay-headless:6060")
    if not _is_port(port):
        raise UsageError(f"dns:{text} has no port", remedy="write dns:relay-headless:6060")
    try:
        addresses = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetError(
            f"no address of {place!r} is known: {error}", remedy="is this the name of a headless Service?"
        ) from error
    return [_of_address(f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}")
            for family, _, _, _, address in addresses]  # fmt: skip


def _prometheus(text: str) -> list[Target]:
    url, mark, query = text.partition("?")
    if not mark or not query:
        raise UsageError(
            f"prometheus:{text} has no query", remedy='write prometheus:http://prometheus:9090?up{job="diagnostics"}'
        )
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"prometheus:{text} has no address", remedy='write prometheus:http://prometheus:9090?up{job="diagnostics"}'
        )
    answer = _get_json(url.rstrip("/") + "/api/v1/query", {"query": query}, {}, None)
    try:
        series = [each["metric"] for each in answer["data"]["result"]]
    except (KeyError, TypeError) as error:
        raise TargetError(f"{url} did not answer as Prometheus does", remedy="is it Prometheus?") from error
    return [
        _of_address(str(labels["instance"]), str(labels.get("pod", ""))) for labels in series if "instance" in labels
    ]


def _kubernetes(text: str, account: Path) -> list[Target]:
    selector, _, port = text.rpartition("@") if "@" in text else (text, "", str(DEFAULT_PORT))
    if not selector.partition("=")[0] or "=" not in selector or not _is_port(port):
        raise UsageError(f"k8s:{text} names no label, or no port", remedy="write k8s:app=relay or k8s:app=relay@6060")
    host, api_port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token, namespace = ((account / name).read_text(encoding="utf-8").strip() for name in ("token", "namespace"))
    except OSError as error:
        raise TargetError(
            f"this is no pod with a service account: {error}",
            remedy="run it in the cluster, or use dns: with a headless Service and kubectl port-forward",
        ) from error
    if not host:
        raise TargetError("KUBERNETES_SERVICE_HOST is not set", remedy="run it in the cluster")
    certificate = account / "ca.crt"
    trusted = ssl.create_default_context(cafile=str(certificate)) if certificate.exists() else None
    url = f"https://{f'[{host}]' if ':' in host else host}:{api_port}/api/v1/namespaces/{namespace}/pods"
    answer = _get_json(url, {"labelSelector": selector}, {"Authorization": f"Bearer {token}"}, trusted)
    try:
        pods = [(pod["metadata"]["name"], pod["status"]) for pod in answer["items"]]
        running = [
            (name, status["podIP"]) for name, status in pods if status.get("phase") == "Running" and status.get("podIP")
        ]
    except (KeyError, TypeError) as error:
        raise TargetError(f"{url} did not answer as the Kubernetes API does") from error
    return [
        _of_address(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", name) for name, address in running
    ]


def _get_json(url: str, query: dict[str, str], headers: dict[str, str], trusted: ssl.SSLContext | None) -> Any:
    """GET the JSON at `url`. Raises TargetError."""
    try:
        with (
            httpx2.Client(timeout=_TIMEOUT_SECONDS, trust_env=False, verify=trusted or True) as client,
            client.stream("GET", url, params=query, headers={**headers, "Accept-Encoding": "identity"}) as response,
        ):
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise TargetError(f"{url} sends more than {_MOST_BYTES} bytes")
            if not response.is_success:
                raise TargetError(
                    f"{url} answered {response.status_code}", remedy=_REMEDIES.get(response.status_code, "")
                )
            return httpx2.Response(200, content=bytes(body)).json()
    except (httpx2.TransportError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise TargetError(f"nothing answers at {url}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{url} answered what is no JSON: {error}") from error


_REMEDIES: Final = {
    401: "the token of the service account is not accepted",
    403: "let the service account list pods: a Role with get and list on pods, and a RoleBinding",
}
