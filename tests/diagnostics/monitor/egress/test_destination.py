"""Addresses of stores, and the names that are made there: nothing climbs out, nothing secret is repeated."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import UsageError
from diagnostics.monitor.egress.destination import Destination, folder_of, word

ID = "20261129T131400-000001-tracemalloc"


@pytest.mark.parametrize(
    ("url", "scheme", "bucket", "prefix"),
    [
        ("s3://evidence", "s3", "evidence", ""),
        ("s3://evidence/", "s3", "evidence", ""),
        ("s3://evidence/prod//eu/", "s3", "evidence", "prod/eu"),
        ("gs://evidence.example.com/a=b", "gs", "evidence.example.com", "a=b"),
        ("az://container/prod", "az", "container", "prod"),
        ("file:///var/evidence/", "file", "", "/var/evidence"),
        ("file:///var/with%20space", "file", "", "/var/with space"),
        ("file:///", "file", "", "/"),
    ],
)
def test_an_address_is_a_scheme_a_bucket_and_a_prefix(url: str, scheme: str, bucket: str, prefix: str) -> None:
    place = Destination.parse(url, "URL")
    assert (place.scheme, place.bucket, place.prefix) == (scheme, bucket, prefix)
    if "%" not in url:
        assert Destination.parse(place.url, "URL") == place


@pytest.mark.parametrize(
    "url",
    [
        "", "evidence", "/var/evidence", "http://evidence/x", "s3:", "s3:///x", "s3://e", "s3://-evidence", "s3://evidence:80/x",
        "s3://evidence/../x", "s3://evidence/./x", "s3://evidence/a b", "s3://evidence/a\nb", "s3://[", "s3://evidence/%2e%2e/x",
        "file://host/var", "file:var", "file:///var/../etc", "file:///var/%2e%2e/etc", "file:///var/%00",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_its_name(url: str) -> None:
    with pytest.raises(UsageError, match="DIAGNOSTICS_EGRESS_URL"):
        Destination.parse(url, "DIAGNOSTICS_EGRESS_URL")


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hush/evidence",
        "AKIA/hush",
        "s3://AKIA:hush@evidence/x",
        "az://c/x?sv=2026&sig=hush",
        "gs://evidence/x#hush",
        "hush@evidence",
        "s3://evidence/x?hush",
    ],
)
def test_an_address_that_may_hold_a_credential_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Destination.parse(url, "DIAGNOSTICS_EGRESS_URL")
    assert "hush" not in str(refused.value)
    assert "AKIA" not in str(refused.value)


def test_places_above_and_below() -> None:
    place = Destination.parse("s3://evidence/a/b", "URL")
    assert (place.name, place.parent.url, place.parent.parent.url) == ("b", "s3://evidence/a", "s3://evidence")
    assert place.parent.parent.parent == place.parent.parent
    assert place.parent.parent.below("x/y").url == "s3://evidence/x/y"
    root = Destination.parse("file:///a", "URL")
    assert (root.parent.url, root.parent.parent.url, root.parent.below("b").url) == (
        "file:///",
        "file:///",
        "file:///b",
    )


@given(st.text(), st.text())
def test_every_service_and_host_is_one_harmless_segment(service: str, host: str) -> None:
    path = folder_of(word(service, "service"), word(host, "host"), ID)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*/" + ID, path)
    assert ".." not in path.split("/")


@pytest.mark.parametrize(
    ("service", "upload"), [("..", ID), ("a/b", ID), ("", ID), ("a", "../x"), ("a", ID + "/x"), ("a", "")]
)
def test_no_path_is_made_of_anything_else(service: str, upload: str) -> None:
    with pytest.raises(ValueError, match="make no path"):
        folder_of(service, "host", upload)


@given(st.text(max_size=60) | st.from_regex(r"(s3|gs|az|file)://[\x20-\x7e]{0,40}", fullmatch=True))
def test_whatever_is_written_is_an_address_or_an_error(text: str) -> None:
    try:
        place = Destination.parse(text, "URL")
    except UsageError:
        return
    assert not {".", ".."} & set(place.prefix.split("/"))
    assert "@" not in place.bucket
