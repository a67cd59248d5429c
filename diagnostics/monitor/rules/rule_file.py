"""Rules from TOML, one `[[rule]]` each: every fault with its line, its key and what may stand there. Pure.

What a file names outside of itself (environment variables, files, programs) is not looked at here: see `references`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import UsageError
from ..captures.kinds import kind_named
from .expression import ExpressionError, parse_condition
from .keys import ACTIONS, RULE, Key, Number
from .lines import Place, line_of, places
from .rule import Action, Capture, Command, Log, Rule, Webhook
from .triggers import TRIGGERS

__all__ = ["MAX_ACTIONS", "MAX_RULES", "Fault", "parse", "read"]

MAX_RULES: Final = 50
MAX_ACTIONS: Final = 8
_ONE_TABLE: Final = "write one [[rule]] table for each rule"


@dataclass(frozen=True, slots=True)
class Fault:
    """`where` names the rule, `message` the key and its value, `remedy` what may stand there; `line` from 1, or None."""

    where: str
    message: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line is not None else ""
        where = f"{self.where}: " if self.where else ""
        return f"{line}{where}{self.message}; {self.remedy}"


def parse(text: str, source: str = "the rules") -> tuple[Rule, ...]:
    """The rules in `text`. Raises UsageError with the first fault, and how many more there are."""
    rules, faults = read(text)
    if faults:
        first = faults[0]
        line = f", line {first.line}" if first.line is not None else ""
        more = f" ({len(faults) - 1} more: diagnostics rules --check)" if len(faults) > 1 else ""
        message = f"{first.where}: {first.message}" if first.where else first.message
        raise UsageError(f"{source}{line}: {message}{more}", remedy=first.remedy)
    return rules


def read(text: str) -> tuple[tuple[Rule, ...], list[Fault]]:
    """(the rules in `text`, what is wrong): where something is wrong the rules are not to be used."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number of 5,000 digits, and of tables a thousand deep
        return (), [Fault("", f"it is not TOML: {error}", "see docs/rules.md for an example")]
    reader = _Reader(places(text))
    rules = reader.rules(document)
    return tuple(rules), reader.faults


class _Reader:
    """Reads one document; collects its faults."""

    def __init__(self, lines: dict[Place, int]) -> None:
        self.faults: list[Fault] = []
        self._lines = lines
        self._where = ""

    def rules(self, document: dict[str, Any]) -> list[Rule]:
        entries = document.pop("rule", [])
        for key in document:
            self._fault((key,), f"it has {key!r:.60}", _ONE_TABLE)
        if not isinstance(entries, list):
            self._fault(("rule",), f"it has {entries!r:.100}", _ONE_TABLE)
            return []
        if len(entries) > MAX_RULES:
            self._fault(("rule", MAX_RULES), f"it has {len(entries)} rules", f"write at most {MAX_RULES}")
            return []
        rules: dict[str, Rule] = {}
        for number, entry in enumerate(entries):
            self._where = f"rule {number + 1}"
            rule = self._rule(entry, ("rule", number))
            if rule is not None and rule.name in rules:
                self._where = ""
                self._fault(
                    ("rule", number, "name"), f"two rules are named {rule.name!r}", "give each a name of its own"
                )
            elif rule is not None:
                rules[rule.name] = rule
        return list(rules.values())

    def _fault(self, place: Place, message: str, remedy: str) -> None:
        self.faults.append(Fault(self._where, message, remedy, line_of(self._lines, place)))

    def _rule(self, entry: Any, place: Place) -> Rule | None:
        if not isinstance(entry, dict):
            self._fault(place, f"it is {entry!r:.100}", _ONE_TABLE)
            return None
        before = len(self.faults)
        name = entry.get("name")
        if RULE["name"].wrong(name):
            self._fault((*place, "name"), f"it has the name {name!r:.100}", "give it a name of 1 to 60 characters")
        else:
            self._where = f"rule {name!r}"
        trigger = self._trigger(entry, place)
        self._check(entry, {key: each for key, each in RULE.items() if key not in ("name", "trigger")}, place)
        condition = self._condition(entry, place) if "when" in entry else None
        bounds = {} if trigger is None else self._bound_of(trigger)
        self._check(entry, bounds, place)
        other = ("trigger", "for") if condition is not None else ("when",) if trigger is not None else ()
        known = {name: key for name, key in RULE.items() if name not in other}
        # A bound beside a trigger that is wrong itself is not a second fault, nor what was told of one beside `when`.
        sides = () if bounds else ("above", "below", "trigger", "for")
        self._unknown(entry, {**bounds, **known, "action": None}, place, sides)
        actions = self._actions(entry, place)
        if len(self.faults) > before:
            return None
        return Rule(
            entry["name"],
            trigger or "",
            float(entry[TRIGGERS[trigger].side]) if trigger is not None else 0.0,
            float(entry.get("for", 5.0)),
            tuple(actions),
            float(entry.get("cooldown", 600.0)),
            int(entry.get("limit", 3)),
            entry.get("per_hour"),
            condition,
        )

    def _trigger(self, entry: Mapping[str, Any], place: Place) -> str | None:
        """The rule's trigger; None where an expression stands in its place, or it is wrong."""
        trigger = entry.get("trigger")
        if "when" in entry:
            for key in ("trigger", "above", "below", "for"):
                if key in entry:
                    self._fault((*place, key), f"{key} beside when", "leave it out: the condition says it")
            return None
        if not isinstance(trigger, str) or trigger not in TRIGGERS:
            choices = f"choose one of {', '.join(TRIGGERS)}, or write when with a condition"
            self._fault((*place, "trigger"), f"trigger is {trigger!r:.100}", choices)
            return None
        return trigger

    @staticmethod
    def _bound_of(trigger: str) -> dict[str, Key]:
        watched = TRIGGERS[trigger]
        return {watched.side: Number(watched.low, watched.high, says=watched.says, required=True)}

    def _condition(self, entry: Mapping[str, Any], place: Place) -> Any:
        if not isinstance(entry["when"], str):
            return None  # told by the check of its type
        try:
            return parse_condition(entry["when"])
        except ExpressionError as error:
            self._fault((*place, "when"), f"when is {entry['when']!r:.220}", str(error))
            return None

    def _unknown(
        self, entry: Mapping[str, Any], keys: Mapping[str, Key | None], place: Place, also: tuple[str, ...] = ()
    ) -> None:
        for key in entry:
            if key not in keys and key not in also:
                self._fault((*place, key), f"it has no key {key!r:.60}", f"it has {', '.join(keys)}")

    def _check(self, entry: Mapping[str, Any], keys: Mapping[str, Key], place: Place) -> None:
        for name, key in keys.items():
            if name in entry or key.required:
                self._fits(entry, name, key, place)

    def _fits(self, entry: Mapping[str, Any], name: str, key: Key, place: Place) -> bool:
        remedy = key.wrong(entry.get(name))
        if remedy:
            found = "not one" if key.secret else f"{entry.get(name)!r:.220}"
            self._fault((*place, name), f"{name} is {found if name in entry else 'missing'}", remedy)
        return not remedy

    # Actions

    def _actions(self, entry: Mapping[str, Any], place: Place) -> list[Action]:
        made: list[Action] = []
        if "capture" in entry and not RULE["capture"].wrong(entry["capture"]):
            made += self._capture(entry["capture"], entry.get("options", {}), (*place, "options"))
        elif "options" in entry and "capture" not in entry:
            self._fault((*place, "options"), "options without capture", "they are those of a capture")
        given = entry.get("action", [])
        if not isinstance(given, list):
            self._fault((*place, "action"), f"action is {given!r:.100}", "write one [[rule.action]] table for each")
            given = []
        if len(given) > MAX_ACTIONS:
            self._fault((*place, "action", MAX_ACTIONS), f"it has {len(given)} actions", f"write at most {MAX_ACTIONS}")
            given = []
        for number, each in enumerate(given):
            made += self._action(each, (*place, "action", number))
        if sum(isinstance(action, Capture) for action in made) > 1:
            self._fault((*place, "action"), "it has two captures", "one capture runs at a time: write a rule for each")
        return made

    def _action(self, given: Any, place: Place) -> list[Action]:
        do = given.get("do") if isinstance(given, dict) else None
        if not isinstance(do, str) or do not in ACTIONS:
            self._fault((*place, "do"), f"do is {do!r:.100}", f"choose one of {', '.join(ACTIONS)}")
            return []
        before = len(self.faults)
        keys = ACTIONS[do]
        self._unknown(given, {"do": None, **keys}, place)
        self._check(given, keys, place)
        facts = {key: value for key, value in given.items() if key != "do" and key in keys}
        if len(self.faults) > before:
            return []
        if do == "capture":
            return self._capture(facts["kind"], facts.get("options", {}), (*place, "options"))
        if do == "webhook":
            return self._webhook(facts, place)
        if do == "command":
            return self._command(facts, place)
        return [Log(**facts)]

    def _capture(self, kind: str, options: Any, place: Place) -> list[Action]:
        if not isinstance(options, dict):
            return []  # told by the check of its type
        try:
            kind_named(kind).checked(options)
        except UsageError as error:
            self._fault(place, error.message, error.remedy)
            return []
        return [Capture(kind, options)]

    def _webhook(self, facts: dict[str, Any], place: Place) -> list[Action]:
        if ("url" in facts) == ("url_env" in facts):
            self._fault(place, "a webhook has one target", "write either url or url_env")
            return []
        if "key_env" in facts and "key_file" in facts:
            self._fault((*place, "key_file"), "two keys", "write either key_env or key_file")
            return []
        return [Webhook(**facts)]

    def _command(self, facts: dict[str, Any], place: Place) -> list[Action]:
        argv = tuple(facts.pop("argv"))
        if not argv[0].startswith("/"):
            self._fault((*place, "argv"), "argv is relative", "write the program's absolute path")
            return []
        return [Command(argv, **{**facts, "env": tuple(facts.get("env", ()))})]
