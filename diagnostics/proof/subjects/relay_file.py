"""Reads a TOML file that describes how to run the user's own relay, in any language, as the third subject of the scenarios.

    command = "{python} -m relay serve --port {port}"      {port}: where to listen; {python}: the interpreter that runs this
    source = "relay/"                                      a part of the path of its own files, for profiles (optional)

    [environment]                                          {upstream}: the upstream's base URL, which ends in /v1
    RELAY_UPSTREAM_BASE_URL = "{upstream}"

    [scenarios.no_admission.environment]                   further variables in one scenario: here its limit
    RELAY_MAX_STREAMS = "4"

    [scenarios.span_per_chunk.environment]                 {otlp}: the URL of an OTLP receiver, which must get exports
    OTEL_EXPORTER_OTLP_ENDPOINT = "{otlp}"

    [scenarios.zombie_subscribers]
    path = "/v1/topics/feed"                               its clients GET this instead of the scenario's request
    publish = "/v1/topics/feed"                            events are POSTed here, at the scenario's pace

    [scenarios.NAME]
    skip = "it has no such route"                          not run; the reason is reported

The workload is the scenario's. A relay's limits must be set low: a scenario offers streams for seconds, and would not reach a
limit that is sized for hours.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..clients.address import Request
from ..scenario import OwnRelay
from .command import command_of

__all__ = ["RelayFile", "read_relay_file"]

_KEYS = {"command", "source", "environment", "scenarios"}
_SCENARIO_KEYS = {"environment", "path", "publish", "skip"}


@dataclass(frozen=True)
class RelayFile:
    """The file's content: the relay in each scenario that it names, in all others, and scenario -> why it is not run."""

    relay: OwnRelay
    relays: Mapping[str, OwnRelay]
    skipped: Mapping[str, str]

    def relay_for(self, scenario: str) -> OwnRelay | None:
        """The relay for `scenario`; None where it is skipped."""
        return None if scenario in self.skipped else self.relays.get(scenario, self.relay)


def read_relay_file(path: Path, known: Iterable[str]) -> RelayFile:
    """Read the file; `known`: the scenarios' names. Raises UsageError that names the place of the fault."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path given to --relay") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", remedy="docs/verification.md shows one") from error
    reader = _Reader(path)
    reader.only(document, _KEYS, "")
    command = command_of(reader.text(document, "command", ""), f"command in {path}")
    words = tuple(word.replace("{python}", sys.executable) for word in command)
    relay = OwnRelay(words, reader.texts(document, ""), reader.optional(document, "source", ""))
    scenarios = reader.table(document, "scenarios", "")
    reader.only(scenarios, set(known), "scenarios.")
    tables = {name: reader.table(scenarios, name, "scenarios.") for name in scenarios}
    relays = {name: _in_scenario(relay, table, reader, f"scenarios.{name}.") for name, table in tables.items()}
    skipped = {
        name: reader.text(table, "skip", f"scenarios.{name}.") for name, table in tables.items() if "skip" in table
    }
    return RelayFile(relay, relays, skipped)


def _in_scenario(relay: OwnRelay, table: Mapping[str, Any], reader: _Reader, where: str) -> OwnRelay:
    reader.only(table, _SCENARIO_KEYS, where)
    path = reader.optional(table, "path", where)
    return replace(
        relay,
        environment={**relay.environment, **reader.texts(table, where)},
        request=Request(path) if path else None,
        publish=reader.optional(table, "publish", where),
    )


class _Reader:
    """Reads values of the file's tables; its errors name their place (`where`)."""

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
            problem = "is missing" if value is None else f"is {value!r}, not a text"
            raise UsageError(f"{self._path}: {where}{key} {problem}", remedy="docs/verification.md shows a relay file")
        return value

    def optional(self, table: Mapping[str, Any], key: str, where: str) -> str:
        return self.text(table, key, where) if key in table else ""

    def texts(self, table: Mapping[str, Any], where: str) -> dict[str, str]:
        environment = self.table(table, "environment", where)
        return {name: self.text(environment, name, f"{where}environment.") for name in environment}
