"""Settings: their sources, wrong values, and a manual that lists them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import SettingsError
from relay.settings import Settings, environment_name, load, misspelled

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*map(environment_name, Settings.model_fields), "OPENAI_API_KEY"]:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_the_promised_addresses() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.diagnostics_listen) == ("127.0.0.1", 8080, "127.0.0.1:6060")
    assert settings.upstream_base_url is None


def test_a_flag_overrides_the_environment_and_that_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "RELAY_PORT=1\nRELAY_HOST=::1\nDIAGNOSTICS_LISTEN=127.0.0.1:7\nOTHER=x\n", encoding="utf-8"
    )
    monkeypatch.setenv("RELAY_PORT", "2")
    assert load().port == 2
    assert load(port="3").port == 3
    assert load(port=None).port == 2
    assert load().host == "::1"
    assert load().diagnostics_listen == "127.0.0.1:7"


def test_the_key_falls_back_to_openais_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    key = load().upstream_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-theirs"
    monkeypatch.setenv("RELAY_UPSTREAM_API_KEY", "sk-ours")
    key = load().upstream_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-ours"
    assert "sk-" not in repr(load())


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_UPSTREAM_BASE_URL", "")
    assert load().upstream_base_url is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("upstream_base_url", "https://api.openai.com", "/v1"),
        ("upstream_base_url", "api.openai.com/v1", "http or https"),
        ("upstream_base_url", "https://user:secret@there/v1", "RELAY_UPSTREAM_API_KEY"),
        ("port", "65536", "65535"),
        ("read_timeout_seconds", "0", "greater than 0"),
        ("read_timeout_seconds", "nan", "finite"),
        ("max_event_bytes", "12", "1024"),
        ("fallback_base_urls", "http://a/v1,http://b", "/v1"),
        ("read_ahead_bytes", "5000000", "RELAY_STREAM_BUDGET_BYTES"),
        ("stream_budget_bytes", "1000", "131072"),
        ("log_level", "loud", "debug"),
        ("resume", "disk", "redis"),
        ("resume", "redis", "RELAY_REDIS_URL"),
        ("resume_bytes", "2000000", "RELAY_RESUME_STREAM_BYTES"),
        ("diagnostics_listen", ["x"], "string"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    message = str(caught.value)
    assert environment_name(name) in message
    assert said in message
    assert "given as a flag" in message
    assert caught.value.exit_code == 2


def test_a_trailing_slash_does_not_matter() -> None:
    assert load(upstream_base_url="https://api.openai.com/v1/").upstream_base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_stands_in_the_manual(field: str) -> None:
    rows = [
        line
        for line in CONFIGURATION.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{environment_name(field)}` |")
    ]
    assert len(rows) == 1
    default = Settings.model_fields[field].default
    assert default in (None, "") or f"| `{default}` |" in rows[0]


def test_the_manual_lists_no_setting_that_is_gone() -> None:
    listed = {
        line.split("`")[1]
        for line in CONFIGURATION.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `RELAY_")
    }
    assert listed <= {environment_name(field) for field in Settings.model_fields}


def test_what_is_kept_of_streams_fits_the_processes_and_the_budget() -> None:
    with pytest.raises(SettingsError, match="RELAY_WORKERS"):
        load(resume="memory", workers=2)
    with pytest.raises(SettingsError, match="RELAY_BUDGET_BYTES"):
        load(resume="memory", budget_bytes=32 * 1024 * 1024)
    assert load(budget_bytes=32 * 1024 * 1024).resuming is None
    assert load(resume="memory", workers=1).resuming is not None
    shared = load(resume="redis", workers=2, redis_url="redis://:secret@there/0").resuming
    assert shared is not None
    assert shared.redis is not None
    assert "secret" not in repr(shared)


def test_a_misspelled_setting_is_told_with_the_one_that_may_be_meant() -> None:
    slips = {
        "RELAY_RESUM": "RELAY_RESUME",
        "RELAY_CLIENT_KEY": "RELAY_CLIENT_KEYS",
        "RELAY_MAX_STREAM": "RELAY_MAX_STREAMS",
        "RELAY_UPSTREAM_URL": "RELAY_UPSTREAM_BASE_URL",
        "RELAY_REDIS_URI": "RELAY_REDIS_URL",
    }
    right = [environment_name(field) for field in Settings.model_fields]
    assert misspelled([*slips, *right, "OTHER", "RELAYS", "RELAY_"]) == slips


def test_what_kubernetes_sets_for_a_service_of_this_name_is_no_slip() -> None:
    ports = [
        f"RELAY_PORT_{number}_{kind}" for number in (80, 8080) for kind in ("TCP", "TCP_ADDR", "TCP_PORT", "TCP_PROTO")
    ]
    services = [f"RELAY_SERVICE_{what}" for what in ("HOST", "PORT", "PORT_HTTP", "PORT_METRICS")]
    assert misspelled([*ports, *services, "RELAY_HEADLESS_SERVICE_HOST", "RELAY_HEADLESS_PORT"]) == {}


def test_the_port_that_kubernetes_sets_for_a_service_of_this_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", "tcp://10.96.0.12:80")
    with pytest.raises(
        SettingsError, match=r"RELAY_PORT is 'tcp://10.96.0.12:80': Kubernetes .* enableServiceLinks: false"
    ):
        load()
