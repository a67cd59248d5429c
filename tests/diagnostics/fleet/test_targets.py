"""Where the monitors are: written down, in DNS, or known to Kubernetes. Prometheus is asked in e2e/test_prometheus.py."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import DiagnosticsError, TargetError, UsageError
from diagnostics.fleet.targets import Target, resolve


def urls(*words: str) -> list[str]:
    return [target.url for target in resolve(words)]


def test_addresses_are_taken_as_they_are_written_each_once() -> None:
    assert urls("http://10.0.0.7:6060,10.0.0.8", "10.0.0.7:6060", "https://a.example:1/x", "[::1]:7") == [
        "http://10.0.0.7:6060", "http://10.0.0.8:6060", "http://[::1]:7", "https://a.example:1",
    ]  # fmt: skip


def test_dns_has_one_monitor_for_each_address() -> None:
    assert "http://127.0.0.1:6061" in urls("dns:localhost:6061")
    assert urls("dns:127.0.0.1") == ["http://127.0.0.1:6060"]


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("", UsageError),
        (",", UsageError),
        ("ftp://x", UsageError),
        ("http://", UsageError),
        ("a:b:c", UsageError),
        ("10.0.0.7:99999", UsageError),
        ("dns:x:0", UsageError),
        ("dns:x:y", UsageError),
        ("dns:x:\N{ARABIC-INDIC DIGIT SIX}", UsageError),
        ("dns:", UsageError),
        ("dns::6060", UsageError),
        ("dns:6060", UsageError),  # the name was left out
        ("dns:[]:6060", UsageError),
        ("prometheus:?up", UsageError),
        ("prometheus:prometheus:9090?up", UsageError),
        ("dns:no-such-name.invalid:6060", TargetError),
        ("prometheus:http://127.0.0.1:9090", UsageError),
        ("prometheus:http://127.0.0.1:9?up", TargetError),
        ("k8s:relay", UsageError),
        ("k8s:app=relay@x", UsageError),
        ("k8s:app=relay@70000", UsageError),
        ("k8s:=relay", UsageError),
        ("k8s:app=relay", TargetError),  # nothing of a pod is here
    ],
)
def test_a_word_that_means_nothing_is_refused_with_a_reason(
    word: str, error: type[DiagnosticsError], tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        resolve([word], tmp_path)
    assert raised.value.message


@given(st.text(max_size=40).filter(lambda word: not word.startswith(("dns:", "prometheus:", "k8s:"))))
def test_any_text_is_addresses_or_an_error_of_ours(word: str) -> None:
    with contextlib.suppress(UsageError, TargetError):
        for target in resolve([word]):
            assert urlsplit(target.url).port


class Api(http.server.BaseHTTPRequestHandler):
    """What the Kubernetes API answers to a list of pods: there is no API server that can be started here."""

    pods: tuple[tuple[str, str, str | None], ...] = ()
    status = 200

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        assert parts.path == "/api/v1/namespaces/prod/pods"
        assert parse_qs(parts.query) == {"labelSelector": ["app=relay"]}
        allowed = self.headers["Authorization"] == "Bearer secret"
        items = [
            {"metadata": {"name": name}, "status": {"phase": phase, **({"podIP": address} if address else {})}}
            for name, phase, address in self.pods
        ]
        self.send_response(type(self).status if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"kind": "PodList", "items": items}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Api], Path]]:
    """An API with a certificate of its own, and the folder that a pod finds its account in."""
    account = tmp_path / "account"
    account.mkdir()
    key, certificate = tmp_path / "key.pem", account / "ca.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    (account / "token").write_text("secret\n", encoding="utf-8")
    (account / "namespace").write_text("prod", encoding="utf-8")

    class Answers(Api):
        pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Answers, account
        server.shutdown()
        thread.join()


def test_kubernetes_tells_the_pods_that_run(cluster: tuple[type[Api], Path]) -> None:
    api, account = cluster
    api.pods = (
        ("relay-a", "Running", "10.1.0.4"), ("relay-b", "Running", "fd00::5"), ("relay-c", "Pending", None),
        ("relay-d", "Succeeded", "10.1.0.6"),
    )  # fmt: skip
    assert resolve(["k8s:app=relay@6061"], account) == [
        Target("relay-a", "http://10.1.0.4:6061"), Target("relay-b", "http://[fd00::5]:6061"),
    ]  # fmt: skip
    # The pod's name says more than its address, which is known as well.
    assert resolve(["10.1.0.4:6061", "k8s:app=relay@6061"], account)[0].name == "relay-a"
    api.pods = ()
    with pytest.raises(TargetError, match="no monitor at all now"):
        resolve(["k8s:app=relay"], account)
    api.status = 403
    with pytest.raises(TargetError, match="403") as raised:
        resolve(["k8s:app=relay"], account)
    assert "RoleBinding" in (raised.value.remedy or "")


def test_an_api_with_another_certificate_gets_no_token(cluster: tuple[type[Api], Path], tmp_path: Path) -> None:
    _, account = cluster
    (account / "ca.crt").unlink()  # as if it were signed by nobody that is known here
    with pytest.raises(TargetError, match="certificate"):
        resolve(["k8s:app=relay"], account)
