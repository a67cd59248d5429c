"""The resource of all that is exported is the SDK's, and cheap to look up."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from opentelemetry.sdk.resources import Resource

from relay.telemetry.providers import Providers


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> Resource:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    providers = Providers.made(["logs"])
    assert providers is not None
    assert providers.logs is not None
    providers.logs[0].shutdown()
    return providers.logs[0].resource


def test_the_resource_is_what_the_sdk_makes_of_the_environment(resource: Resource) -> None:
    made = Resource.create({"service.name": "shop"})
    # The SDK gives each resource that it makes an id of its own.
    ours, theirs = ({**each.attributes, "service.instance.id": ""} for each in (resource, made))
    assert ours == theirs
    assert ours["deployment.environment.name"] == "test"
    assert resource.schema_url == made.schema_url


def test_a_copy_of_the_resource_is_the_same_key_of_a_dict(resource: Resource) -> None:
    copy = Resource(resource.attributes, resource.schema_url)
    assert resource == copy
    assert hash(resource) == hash(copy)


def test_a_look_up_of_the_resource_makes_no_json_of_its_attributes(resource: Resource) -> None:
    """The SDK looks it up once for each span and each log record."""
    functions: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            functions.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        hash(resource)
    finally:
        sys.setprofile(None)
    assert functions == ["__hash__"]
