"""Where profiles are pushed to: what is taken as it stands, what is refused, and that no secret is ever repeated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import UsageError
from diagnostics.monitor.export.destination import Destination
from diagnostics.monitor.settings import MonitorSettings

SECRET = "hunter2hunter2"


def destination(**given: Any) -> Destination | None:
    usual: dict[str, Any] = {"url": "http://127.0.0.1:4040", "protocol": "", "seconds": 60.0, "name": "", "headers": ""}
    return Destination.of(**{**usual, **given})


def settings(**given: str) -> Destination | None:
    return MonitorSettings.of({f"DIAGNOSTICS_PROFILES_{name}": value for name, value in given.items()}).profiles


def test_without_a_url_nothing_is_pushed() -> None:
    assert settings() is None
    assert settings(SECONDS="10", HEADERS="a=b", PROTOCOL="otlp") is None


@pytest.mark.parametrize(
    ("url", "protocol", "posted_to"),
    [
        ("http://127.0.0.1:4040", "", "http://127.0.0.1:4040/ingest"),
        ("http://127.0.0.1:4040/", "pyroscope", "http://127.0.0.1:4040/ingest"),
        ("https://collector:4318", "otlp", "https://collector:4318/v1development/profiles"),
        ("https://example.org/pprof/upload", "", "https://example.org/pprof/upload"),
        ("http://[::1]:4040/api/org/v1/profiles/", "otlp", "http://[::1]:4040/api/org/v1/profiles/"),
    ],
)
def test_a_url_with_a_path_is_taken_as_it_stands_and_one_without_gets_the_protocols(
    url: str, protocol: str, posted_to: str
) -> None:
    found = destination(url=url, protocol=protocol)
    assert found is not None
    assert found.url == posted_to


def test_what_is_given_is_taken_and_headers_are_decoded_and_not_shown() -> None:
    found = MonitorSettings.of(
        {
            "DIAGNOSTICS_PROFILES_URL": "http://127.0.0.1:4040", "DIAGNOSTICS_PROFILES_SECONDS": "15",
            "DIAGNOSTICS_PROFILES_HEADERS": f"Authorization=Basic%20{SECRET}%3D%3D, X-Scope-OrgID = team-a ,",
            "OTEL_SERVICE_NAME": "shop",
        }
    )  # fmt: skip
    assert found.profiles is not None
    assert (found.profiles.seconds, found.profiles.name, found.profiles.protocol) == (15.0, "shop", "pyroscope")
    assert found.profiles.headers == (("Authorization", f"Basic {SECRET}=="), ("X-Scope-OrgID", "team-a"))
    assert SECRET not in repr(found)
    named = destination(name="checkout")
    assert named is not None
    assert named.name == "checkout"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"PROTOCOL": "grpc"}, "DIAGNOSTICS_PROFILES_PROTOCOL is 'grpc'; set pyroscope or otlp"),
        ({"SECONDS": "0.5"}, "DIAGNOSTICS_PROFILES_SECONDS is '0.5'; set a number from 1 to 86400"),
        ({"SECONDS": "nan"}, "DIAGNOSTICS_PROFILES_SECONDS is 'nan'"),
        ({"URL": "127.0.0.1:4040"}, "DIAGNOSTICS_PROFILES_URL is '127.0.0.1:4040', which is no HTTP address"),
        ({"URL": "ftp://127.0.0.1"}, "no HTTP address"),
        ({"URL": "http://:4040"}, "no HTTP address"),
        ({"URL": "http://host:0"}, "no HTTP address"),
        ({"URL": "http://host:99999"}, "no HTTP address"),
        ({"URL": "http://host/a b"}, "no HTTP address"),
        ({"URL": "http://host/\nb"}, "no HTTP address"),
        ({"NAME": "a\nb"}, r"DIAGNOSTICS_PROFILES_NAME \(or OTEL_SERVICE_NAME\) is 'a\\nb'"),
        ({"NAME": "n" * 256}, "DIAGNOSTICS_PROFILES_NAME"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        settings(**{"URL": "http://127.0.0.1:4040", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"URL": f"http://user:{SECRET}@host:4040"},
        {"URL": f"http://user:{SECRET}@host:99999"},
        {"URL": f"http://host:4040/?key={SECRET}"},
        {"URL": f"nothing?{SECRET}"},
        {"URL": f"http://host/#{SECRET}"},
        {"HEADERS": SECRET},
        {"HEADERS": f"a=b,Authori zation={SECRET}"},
        {"HEADERS": f"Authorization={SECRET}%0d%0aX: y"},
        {"HEADERS": f"Authorization={SECRET}\u00e9"},
        {"HEADERS": f"Host={SECRET}"},
        {"HEADERS": ",".join(f"a{number}={SECRET}" for number in range(33))},
    ],
)
def test_what_may_hold_a_secret_is_refused_without_being_quoted(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"DIAGNOSTICS_PROFILES_(URL|HEADERS)") as refused:
        settings(**{"URL": "http://127.0.0.1:4040", **given})
    assert SECRET not in str(refused.value)


@given(st.text(max_size=40) | st.text(alphabet="htp:/@?#[]%.=,0 \n", max_size=40))
def test_any_text_is_a_destination_or_a_usage_error(text: str) -> None:
    for name in ("url", "headers", "name"):
        try:
            found = destination(**{name: text})
        except UsageError:
            continue
        if found is not None:
            assert found.url.startswith(("http://", "https://"))
            assert all("\n" not in value and "\r" not in value for _, value in found.headers)
