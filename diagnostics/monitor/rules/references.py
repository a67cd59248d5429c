"""What rules name outside of their file: environment variables with targets and keys, key files, programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ...errors import UsageError
from .keys import ACTIONS
from .rule import Command, Rule, Webhook

__all__ = ["MAX_KEY_BYTES", "key_of", "missing", "target_of"]

MAX_KEY_BYTES: Final = 4096


def target_of(webhook: Webhook, environment: Mapping[str, str]) -> str:
    """The URL that is posted to. Raises UsageError, without the value, which may be secret."""
    if webhook.url:
        return webhook.url
    url = environment.get(webhook.url_env, "")
    if ACTIONS["webhook"]["url"].wrong(url):
        what = "has no http or https address" if url else "is not set"
        raise UsageError(f"the variable {webhook.url_env} {what}", remedy="set it in the monitor's environment")
    return url


def key_of(webhook: Webhook, environment: Mapping[str, str]) -> bytes | None:
    """The signature's key, None where the webhook is not signed; of a file without blanks around it. Raises UsageError."""
    if webhook.key_env:
        key = environment.get(webhook.key_env, "").encode()
        if not key:
            raise UsageError(
                f"the variable {webhook.key_env} is not set", remedy="set it in the monitor's environment to the key"
            )
        return key
    if not webhook.key_file:
        return None
    try:
        with open(webhook.key_file, "rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip()
    except OSError as error:
        raise UsageError(
            f"the key file {webhook.key_file} cannot be read: {error.strerror}", remedy="name a file with the key"
        ) from error
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise UsageError(
            f"the key file {webhook.key_file} has {len(key)} bytes", remedy=f"write a key of 1 to {MAX_KEY_BYTES} bytes"
        )
    return key


def missing(rules: Iterable[Rule], environment: Mapping[str, str]) -> list[tuple[str, UsageError]]:
    """(rule, what it names and is not there)."""
    found: list[tuple[str, UsageError]] = []
    for rule in rules:
        for action in rule.actions:
            try:
                if isinstance(action, Webhook):
                    target_of(action, environment)
                    key_of(action, environment)
                elif isinstance(action, Command):
                    _program(action)
            except UsageError as error:
                found.append((rule.name, error))
    return found


def _program(command: Command) -> None:
    path = Path(command.argv[0])
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError(f"{command.argv[0]} is no program that can be started", remedy="name an executable file")
