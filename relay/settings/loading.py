"""Reads the settings. The error of a wrong value names its source and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import AliasChoices, SecretStr, ValidationError

from diagnostics.variables import misspelled as misspelled_of

from ..errors import SettingsError
from .fields import SECRETS
from .settings import Settings

__all__ = ["environment_name", "load", "misspelled"]

PREFIX: Final = "RELAY_"


def environment_name(field: str) -> str:
    """The environment variable that sets `field`."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"RELAY_{field.upper()}"


def misspelled(environment: Iterable[str]) -> dict[str, str]:
    """Of the names of variables, those that are no setting and may be meant as one, each with that."""
    return misspelled_of(environment, [environment_name(field) for field in Settings.model_fields], PREFIX)


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
    if field == "port" and str(problem["input"]).startswith(("tcp://", "udp://")):
        reason = (
            "Kubernetes sets it so beside a Service named relay; set it in the pod's env, or enableServiceLinks: false"
        )
        return f"{source} is {problem['input']!r}: {reason}"
    return f"{source} is {problem['input']!r}: {reason[0].lower()}{reason[1:]}"
