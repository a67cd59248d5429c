"""How to run a relay of one's own under the scenarios: a TOML file, so that any relay in any language can be the third subject.

    command = "{python} -m relay serve --port {port}"      {port}: where to listen; {python}: the interpreter that runs this
    source = "relay/"                                      a part of the path of its own files, for profiles (optional)

    [environment]                                          {upstream}: the upstream's base URL, which ends in /v1
    RELAY_UPSTREAM_BASE_URL = "{upstream}"

    [scenarios.no_admission.environment]                   what it needs in one scenario beyond that: its limit
    RELAY_MAX_STREAMS = "4"

    [scenarios.span_per_chunk.environment]                 {otlp}: somebody who takes traces over OTLP, and looks that some come
    OTEL_EXPORTER_OTLP_ENDPOINT = "{otlp}"

    [scenarios.NAME]
    skip = "it has no such route"                          not run, and said so

The work is the scenario's. What a relay has to be told is how large its limits are: a scenario offers streams for seconds, and
a limit that is sized for hours would not be met.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .comparison import command_of
from .load import Request
from .scenario import OwnRelay

__all__ = ["RelayFile", "read_relay_file"]

_KEYS = {"command", "source", "environment", "scenarios"}
_SCENARIO_KEYS = {"environment", "skip", "path"}


@dataclass(frozen=True)
class RelayFile:
    """What the file says: how to run the relay in each scenario, and which scenarios it has no route for, and why."""

    relay: OwnRelay
    environments: Mapping[str, Mapping[str, str]]
    paths: Mapping[str, str]
    skipped: Mapping[str, str]

    def relay_for(self, scenario: str) -> OwnRelay | None:
        """The relay as it is run in `scenario`; None where it is not."""
        if scenario in self.skipped:
            return None
        environment = {**self.relay.environment, **self.environments.get(scenario, {})}
        path = self.paths.get(scenario)
        request = None if path is None else Request("GET", path)
        return OwnRelay(self.relay.command, environment, self.relay.source, request)


def read_relay_file(path: Path, known: Iterable[str]) -> RelayFile:
    """Read it; `known` are the scenarios' names. Raises UsageError with what is wrong and where."""
    try:
        told = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path given to --relay") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", remedy="docs/verification.md shows one") from error
    reader = _Reader(path)
    reader.only(told, _KEYS, "")
    scenarios = reader.table(told, "scenarios", "")
    reader.only(scenarios, set(known), "scenarios.")
    tables = {name: reader.table(scenarios, name, "scenarios.") for name in scenarios}
    for name, table in tables.items():
        reader.only(table, _SCENARIO_KEYS, f"scenarios.{name}.")
    command = reader.text(told, "command", "")
    words = [word.replace("{python}", sys.executable) for word in command_of(command, f"command in {path}")]
    return RelayFile(
        OwnRelay(tuple(words), reader.texts(told, ""), reader.text(told, "source", "") if "source" in told else ""),
        {name: reader.texts(table, f"scenarios.{name}.") for name, table in tables.items()},
        {name: reader.text(table, "path", f"scenarios.{name}.") for name, table in tables.items() if "path" in table},
        {name: reader.text(table, "skip", f"scenarios.{name}.") for name, table in tables.items() if "skip" in table},
    )


class _Reader:
    """Takes values from the file, and says where a wrong one stands."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def only(self, table: Mapping[str, Any], allowed: set[str], where: str) -> None:
        unknown = sorted(set(table) - allowed)
        if unknown:
            raise UsageError(
                f"{self._path}: {where}{unknown[0]} is unknown", remedy=f"known here: {', '.join(sorted(allowed))}"
            )

    def table(self, table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise UsageError(f"{self._path}: {where}{key} is {value!r}, not a table", remedy=f"write [{where}{key}]")
        return value

    def text(self, table: Mapping[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str):
            found = "is missing" if value is None else f"is {value!r}, not a text"
            raise UsageError(f"{self._path}: {where}{key} {found}", remedy="docs/verification.md shows a relay file")
        return value

    def texts(self, table: Mapping[str, Any], where: str) -> dict[str, str]:
        environment = self.table(table, "environment", where)
        return {name: self.text(environment, name, f"{where}environment.") for name in environment}
