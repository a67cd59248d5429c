"""Signed URLs: what a signature is good for, and that it is good for nothing else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admission.keys import ClientKey, hash_of, parse_keys
from relay.admission.signed import SKEW_SECONDS, Signing, parse_secrets
from relay.errors import ForbiddenError, SettingsError, SignatureError, TopicForbiddenError, UrlExpiredError
from relay.settings import load

HASH, OTHER_HASH = hash_of(b"a key"), hash_of(b"another key")
OLD, NEW = b"o" * 32, b"n" * 32
NOW = 1_764_000_000.0
NEWS = "/v1/topics/news"


def keys(
    text: str = f"app:generate+subscribe=news+subscribe=chat.*:{HASH},ci:models:{OTHER_HASH}",
) -> tuple[ClientKey, ...]:
    return parse_keys(text)


def signing(*secrets: bytes, at: float = NOW, of: tuple[ClientKey, ...] = ()) -> Signing:
    return Signing(of or keys(), secrets or (OLD,), lambda: at)


def name_of(checking: Signing, url: str, method: str = "GET") -> str | None:
    parts = urlsplit(url)
    key = checking.key_of(method, parts.path, parts.query.encode())
    return key.name if key is not None else None


def test_a_url_is_good_at_every_relay_until_it_expires_and_for_a_little_longer() -> None:
    signed = signing().sign("app", NEWS, 30)
    assert signed.expires == NOW + 30
    for later in (-3600, 0, 30 + SKEW_SECONDS - 0.1):  # one relay's clock may be behind
        assert name_of(signing(at=NOW + later), signed.url) == "app"
    for later in (30 + SKEW_SECONDS, 86400):
        with pytest.raises(UrlExpiredError):
            name_of(signing(at=NOW + later), signed.url)


def test_a_client_may_add_where_it_is() -> None:
    assert (
        name_of(signing(), signing().sign("app", NEWS, 30).url + "&last_event_id=1764000000000-0&policy=latest")
        == "app"
    )


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("path", "/v1/topics/new"),
        ("path", "/v1/topics/news2"),
        ("path", "/v1/topics/chat.1"),
        ("path", "/v1/streams/AAAAAAAAAAAAAAAAAAAA"),
        ("path", "/stream"),
        ("method", "POST"),
        ("method", "HEAD"),
        ("expires", "1764000031"),
        ("expires", "01764000030"),
        ("expires", "+1764000030"),
        ("expires", "1764000030.0"),
        ("expires", "１７６４０００03０"),
        ("expires", ""),
        ("expires", "9" * 5000),
        ("key", "ci"),
        ("key", "nobody"),
        ("key", ""),
        ("signature", ""),
        ("signature", "A" * 43),
        ("signature", "ä"),
    ],
)
def test_whatever_is_changed_ends_it(part: str, value: str) -> None:
    url = urlsplit(signing().sign("app", NEWS, 30).url)
    fields = {name: values[0] for name, values in parse_qs(url.query).items()}
    is_query = part in fields
    changed = urlencode({**fields, part: value} if is_query else fields).encode()
    path, method = value if part == "path" else url.path, value if part == "method" else "GET"
    with pytest.raises(SignatureError):
        signing().key_of(method, path, changed)
    if is_query:
        without = urlencode({name: each for name, each in fields.items() if name != part}).encode()
        twice = f"{url.query}&{part}={fields[part]}".encode()
        with pytest.raises(SignatureError):
            signing().key_of("GET", url.path, twice)
        if part != "signature":
            with pytest.raises(SignatureError):
                signing().key_of("GET", url.path, without)


@given(st.integers(min_value=0), st.integers(1, 127))
def test_no_character_of_the_signature_may_differ(place: int, change: int) -> None:
    url = signing().sign("app", NEWS, 30).url
    head, signature = url.rsplit("=", 1)
    index = place % len(signature)
    other = chr(ord(signature[index]) ^ change)
    query = (
        urlsplit(head).query
        + "="
        + urlencode({"": signature[:index] + other + signature[index + 1 :]}).removeprefix("=")
    )
    with pytest.raises(SignatureError):
        signing().key_of("GET", NEWS, query.encode())


@given(st.binary(max_size=200))
def test_whatever_a_query_is_it_is_none_or_refused(query: bytes) -> None:
    assert signing().key_of("GET", NEWS, query.replace(b"signature=", b"")) is None
    with pytest.raises(SignatureError):
        signing().key_of("GET", NEWS, b"signature=" + query)


def test_a_secret_is_replaced_without_refusing_what_is_out() -> None:
    before = signing(OLD).sign("app", NEWS, 60).url
    between = signing(NEW, OLD).sign("app", NEWS, 60).url
    assert (
        name_of(signing(NEW, OLD), before)
        == name_of(signing(OLD, NEW), between)
        == name_of(signing(NEW), between)
        == "app"
    )
    with pytest.raises(SignatureError):
        name_of(signing(NEW), before)


def test_a_url_is_worth_what_its_key_is_worth_now() -> None:
    url = signing().sign("app", "/v1/topics/chat.1", 60).url
    assert name_of(signing(of=keys(f"app:subscribe=chat.*:{HASH}")), url) == "app"
    for changed in (f"app:subscribe=chat.*:{OTHER_HASH}", f"other:subscribe:{HASH}"):
        with pytest.raises(SignatureError):  # the key was replaced, or taken away
            name_of(signing(of=keys(changed)), url)
    for path, error in (("/v1/topics/other", TopicForbiddenError), ("/v1/topics/news", ForbiddenError)):
        with pytest.raises(error):
            signing().sign("app" if error is TopicForbiddenError else "ci", path, 60)


@pytest.mark.parametrize("text", ["", " , ", "s" * 31, f"{'s' * 32},short", ",".join(3 * ["s" * 32])])
def test_wrong_secrets_are_refused_and_not_shown(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        parse_secrets(text)
    assert "sss" not in str(caught.value)
    assert "short" not in str(caught.value)
    monkeypatch.setenv("RELAY_URL_SECRETS", "s" * 32)
    with pytest.raises(SettingsError, match="RELAY_CLIENT_KEYS is not"):
        load()
    monkeypatch.setenv("RELAY_CLIENT_KEYS", f"app:subscribe:{HASH}")
    assert "sss" not in repr(load())
