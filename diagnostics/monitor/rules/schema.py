"""The JSON schema of the rules' file, made from the tables that the parser checks by: `diagnostics rules --schema`. Pure.

For editors and for checks in CI. What it cannot say, `diagnostics rules --check` does: whether names are given once, whether a
condition's text means something, what a kind of capture has for options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .keys import ACTIONS, RULE, Key, Number
from .rule_file import MAX_ACTIONS, MAX_RULES
from .triggers import TRIGGERS

__all__ = ["schema"]

_CONDITION: Final = ("trigger", "when", "for")


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of Highwater's monitor",
        "type": "object",
        "additionalProperties": False,
        "properties": {"rule": {"type": "array", "maxItems": MAX_RULES, "items": {"oneOf": _rules()}}},
        "$defs": {"action": {"oneOf": [_action(do, keys) for do, keys in ACTIONS.items()]}},
    }


def _rules() -> list[dict[str, Any]]:
    """One variant for each trigger, since bounds are the trigger's, and one for conditions."""
    shared = {name: key for name, key in RULE.items() if name not in _CONDITION}
    variants = [_rule({"when": {**RULE["when"].schema()}}, ["name", "when"], shared)]
    for name, trigger in TRIGGERS.items():
        bound = Number(trigger.low, trigger.high, says=trigger.says)
        own = {"trigger": {"const": name}, trigger.side: bound.schema(), "for": RULE["for"].schema()}
        variants.append(_rule(own, ["name", "trigger", trigger.side], shared))
    return variants


def _rule(own: dict[str, Any], required: list[str], shared: Mapping[str, Key]) -> dict[str, Any]:
    actions = {"type": "array", "maxItems": MAX_ACTIONS, "items": {"$ref": "#/$defs/action"}}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**{name: key.schema() for name, key in shared.items()}, **own, "action": actions},
        "required": required,
        "dependentRequired": {"options": ["capture"]},
    }


def _action(do: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"do": {"const": do}, **{name: key.schema() for name, key in keys.items()}},
        "required": ["do", *(name for name, key in keys.items() if key.required)],
    }
    if do == "webhook":
        made["oneOf"] = [{"required": ["url"]}, {"required": ["url_env"]}]
        made["not"] = {"required": ["key_env", "key_file"]}
    if do == "command":
        made["properties"]["argv"]["prefixItems"] = [{"pattern": "^/"}]
    return made
