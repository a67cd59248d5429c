"""The adapter to obstore against a real S3 server and a folder: what arrives, and what is said when nothing does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import DiagnosticsError, NotFoundError, UsageError
from diagnostics.monitor.egress.destination import Destination
from diagnostics.monitor.egress.store import ObjectStore, StoreError
from tests.s3 import ACCESS_KEY, S3, SECRET, Gate


def opened(url: str, timeout: float = 30, *, writes: bool = True) -> ObjectStore:
    return ObjectStore(Destination.parse(url, "URL"), timeout, writes=writes)


def put(store: ObjectStore, path: str, content: bytes | Path, size: int) -> None:
    asyncio.run(store.put(path, content, size))


@pytest.fixture
def client(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a listener that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_files_small_and_in_parts_arrive_whole_and_encrypted_as_the_environment_says(
    client: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "AES256")
    bucket, large = client.bucket(), tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * 700_000)  # 11 MB: three parts
    store = opened(f"s3://{bucket}/prod")
    put(store, "a/large", large, large.stat().st_size)
    put(store, "a/small", b"hello", 5)
    put(store, "a/empty", b"", 0)
    assert client.keys(bucket) == ["prod/a/empty", "prod/a/large", "prod/a/small"]
    for key in client.keys(bucket):
        assert client.headers(bucket, key)["x-amz-server-side-encryption"] == "AES256", key
    reader = opened(f"s3://{bucket}/prod", writes=False)
    digest = hashlib.sha256()
    for piece in reader.get("a/large"):
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(large.read_bytes()).hexdigest()
    assert sorted((each.path, each.bytes) for each in reader.list("a", 10)) == [
        ("a/empty", 0), ("a/large", 11_200_000), ("a/small", 5)
    ]  # fmt: skip
    assert len(reader.list("", 2)) == 2
    with pytest.raises(NotFoundError, match="a/none is not there"):
        list(reader.get("a/none"))


def test_the_same_in_a_folder(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/evidence"
    store = opened(url)
    put(store, "a/b", b"hello", 5)
    put(store, "a/b", b"hello", 5)
    assert (tmp_path / "evidence/a/b").read_bytes() == b"hello"
    reader = opened(url, writes=False)
    assert [(each.path, each.bytes) for each in reader.list("", 10)] == [("a/b", 5)]
    assert b"".join(reader.get("a/b")) == b"hello"
    with pytest.raises(NotFoundError):
        list(reader.get("a/c"))
    with pytest.raises(NotFoundError, match="none is not there"):
        opened(f"file://{tmp_path}/none", writes=False)  # reading makes no folder
    assert not (tmp_path / "none").exists()


def said_by(store: ObjectStore) -> str:
    with pytest.raises(StoreError) as failed:
        put(store, "a/b", b"hello", 5)
    assert failed.value.__cause__ is None  # obstore's own words are in no traceback
    assert failed.value.__suppress_context__
    return str(failed.value)


def test_no_word_of_a_stores_answer_is_passed_on_but_its_status_and_code(
    client: S3, s3_gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_gate.url)
    s3_gate.mode = "refuse"  # in words that have the access key and the secret
    said = said_by(opened(f"s3://{client.bucket()}"))
    assert "it answered 403 (AccessDenied)" in said
    assert ACCESS_KEY not in said
    assert SECRET not in said


def test_each_failure_says_what_it_is(client: S3, silent: str, free_port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it answered 404 (NoSuchBucket)" in said_by(opened("s3://no-such-bucket/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
    assert "it did not answer in time" in said_by(opened("s3://evidence", timeout=0.3))
    with pytest.raises(StoreError, match="it did not answer in time"):
        opened("s3://evidence", timeout=0.3, writes=False).list("", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "no connection to it could be made" in said_by(opened("s3://evidence"))
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "AWS_ALLOW_HTTP" in said_by(opened("s3://evidence"))


def test_what_cannot_be_configured_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", SECRET)
    with pytest.raises(UsageError, match="its environment variables are not understood") as refused:
        opened("s3://evidence")
    assert SECRET not in str(refused.value)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        opened("az://evidence")


def test_azure_and_google_are_opened_by_their_own_variables(monkeypatch: pytest.MonkeyPatch, s3_gate: Gate) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{s3_gate.url}/account")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    account = {
        "gcs_base_url": s3_gate.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    s3_gate.mode = "refuse"  # no server of theirs is there to take it: that it is asked, and how it refuses
    for url in ("az://container/prod", "gs://bucket/prod"):
        said = said_by(opened(url))
        assert f"{url}: it answered 403" in said
        assert "c2VjcmV0" not in said


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(DiagnosticsError, match=r"highwater-diagnostics\[egress\]"):
        opened("s3://evidence")
