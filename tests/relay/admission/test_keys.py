"""Client keys: parsing RELAY_CLIENT_KEYS, and no key or hash in an error's message."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from relay.admission.keys import NEEDED, OPEN, SCOPES, TOPICS, hash_of, parse_keys
from relay.cli import main
from relay.errors import SettingsError
from relay.settings import Settings, load

HASH = hash_of(b"a key")


def test_keys_have_a_name_scopes_and_a_hash() -> None:
    first, second = parse_keys(f"ci:models:{HASH}, app.one:generate+models:{HASH},")
    assert (first.name, first.scopes, first.sha256) == ("ci", {"models"}, HASH)
    assert (second.name, second.scopes) == ("app.one", {"generate", "models"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a:models:{HASH},a:models:{HASH}", "'a' stands twice"),
        (f"a:admin:{HASH}", "some of generate, models"),
        (f"a::{HASH}", "some of generate, models"),
        ("a:models:sk-secret", "relay hash-key"),
        (f"a:models:{HASH.upper()}", "64 hexadecimal"),
        ("sk-secret", "entry 1 must be NAME"),
        (f"sk-secret with a space:models:{HASH}", "entry 1 must be NAME"),
        (" , ", "lists no key"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_secret_is_shown(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_CLIENT_KEYS", text)
    with pytest.raises(SettingsError) as caught:
        load()
    assert "RELAY_CLIENT_KEYS" in str(caught.value)
    assert said in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert HASH not in str(caught.value)


def test_hashes_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_CLIENT_KEYS", f"ci:models:{HASH}")
    assert HASH not in repr(load())
    assert load().keys[0].sha256 == HASH


@pytest.mark.parametrize("origin", ["https://app.example/", "app.example", "https://app.example/page", "null"])
def test_an_origin_is_written_as_browsers_send_it(origin: str) -> None:
    with pytest.raises(SettingsError, match="RELAY_CORS_ORIGINS"):
        load(cors_origins=origin)
    assert load(cors_origins="https://a.example:8443, *").origins == ["https://a.example:8443", "*"]


def test_hash_key_prints_what_the_setting_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "k" * 32
    monkeypatch.setattr("sys.stdin", io.StringIO(key + "\nmore\n"))
    assert main(["hash-key"]) == 0
    assert capsys.readouterr().out == hash_of(key.encode()) + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert main(["hash-key"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "short" not in printed.err


def test_every_route_is_open_or_needs_a_scope(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    from relay.app import create_app

    made: Any = create_app(Settings(), "http://127.0.0.1:1/v1")
    assert {route.path for route in made.api.routes} == set(NEEDED) | OPEN | {f"{TOPICS}{{topic}}"}
    assert {*NEEDED.values(), "publish", "subscribe"} == SCOPES
