"""Reads the settings. The error of a wrong value names its source and what is wrong with it."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, SecretStr, ValidationError

from ..errors import SettingsError
from .fields import SECRETS
from .settings import Settings

__all__ = ["environment_name", "load"]


def environment_name(field: str) -> str:
    """The environment variable that sets `field`."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"RELAY_{field.upper()}"


def load(**flags: Any) -> Settings:
    """The settings, overridden by `flags` (by field name; None: not given). Raises SettingsError."""
    overrides = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem, overrides) for problem in error.errors())) from None


def _explain(problem: Any, flags: dict[str, Any]) -> str:
    if not problem["loc"]:  # an error of several settings together, whose `input` would show all settings
        return str(problem["msg"]).removeprefix("Value error, ")
    where = str(problem["loc"][0])
    fields = {environment_name(field): field for field in Settings.model_fields}
    field = fields.get(where, where)
    name = environment_name(field) if field in Settings.model_fields else where
    source = f"{name} (given as a flag)" if field in flags else name
    reason = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], SecretStr) or field in SECRETS:
        return f"{source}: {reason}"
    return f"{source} is {problem['input']!r}: {reason[0].lower()}{reason[1:]}"
