"""What all tests of readings share: a process as a service is, for a forked child, which reads it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def thawed() -> Iterator[None]:
    """All objects are in the collector's lists, the older ones first; tests freeze them at their beginning."""
    gc.freeze()
    gc.unfreeze()
    yield
    gc.freeze()
