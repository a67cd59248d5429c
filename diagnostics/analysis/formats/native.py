"""Profile JSON as bytes, the lossless format. The same Profile always gives the same bytes."""

from __future__ import annotations

import json

from ...errors import UsageError
from ..profile import Profile

__all__ = ["decode", "encode"]


def encode(profile: Profile) -> bytes:
    """One line of ASCII JSON, keys in order."""
    return json.dumps(profile.to_json(), separators=(",", ":"), sort_keys=True).encode() + b"\n"


def decode(data: bytes) -> Profile:
    """The inverse of `encode`. Raises UsageError where the bytes are no Profile."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not a Profile: it is not JSON: {error}", remedy="is the file complete?") from error
    return Profile.from_json(document)
