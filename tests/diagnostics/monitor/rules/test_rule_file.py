"""A file of rules: what it means, every fault with its line, and that the schema says what the parser does."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import UsageError
from diagnostics.monitor.captures.kinds import KINDS
from diagnostics.monitor.rules.actions.messages import signature
from diagnostics.monitor.rules.expression import SERIES
from diagnostics.monitor.rules.keys import ACTIONS, RULE
from diagnostics.monitor.rules.rule import Capture, Command, Log, Rule, Webhook
from diagnostics.monitor.rules.rule_file import parse, read
from diagnostics.monitor.rules.schema import schema
from diagnostics.monitor.rules.triggers import TRIGGERS

DOCS = Path(__file__).parents[4] / "docs"

GOOD = """
[[rule]]
name = "buffers"
trigger = "buffered_bytes"
above = 1000000
for = 2
capture = "retained"
cooldown = 60
limit = 5
"""

FULL = """
[[rule]]
name = "ratio"
when = "rss_bytes / open_streams > 4 MiB for 30 s"
per_hour = 1
capture = "objects"
options = { seconds = 10 }

[[rule.action]]
do = "log"
level = "error"

[[rule.action]]
do = "webhook"
url_env = "HOOK"
shape = "slack"
key_file = "/run/secrets/key"
timeout = 2
attempts = 5

[[rule.action]]
do = "command"
argv = ["/usr/bin/logger", "-t", "it's \\"memory\\""]
env = ["PAGER"]
"""


def test_a_file_of_before() -> None:
    assert parse(GOOD) == (
        Rule("buffers", "buffered_bytes", 1_000_000, 2, (Capture("retained"),), cooldown=60, limit=5),
    )
    assert parse("") == ()


def test_a_file_with_everything() -> None:
    (rule,) = parse(FULL)
    assert rule.says == "rss_bytes / open_streams > 4194304 for 30 s"
    assert (rule.per_hour, rule.cooldown, rule.limit) == (1, 600, 3)
    assert rule.actions == (
        Capture("objects", {"seconds": 10}),
        Log("error"),
        Webhook(url_env="HOOK", shape="slack", key_file="/run/secrets/key", timeout=2, attempts=5),
        Command(("/usr/bin/logger", "-t", 'it\'s "memory"'), env=("PAGER",)),
    )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (("buffered_bytes", "buffered"), "line 4: rule 'buffers': trigger is 'buffered'; choose one of cgroup_share"),
        (("above", "below"), "line 2: rule 'buffers': above is missing"),
        (("1000000", "-1"), "line 5: rule 'buffers': above is -1; write a number from 0"),
        (("1000000", "inf"), "above is inf"),
        (("1000000", "nan"), "above is nan"),
        (('buffered_bytes"\nabove = 1000000', 'rss_share"\nabove = 85'), "above is 85; write a number from 0 to 0.999"),
        (('buffered_bytes"\nabove = 1000000', 'cgroup_share"\nabove = 1'), "above is 1"),
        (('buffered_bytes"\nabove = 1000000', 'seconds_to_limit"\nbelow = 0'), "below is 0"),
        (("for = 2", "for = true"), "for is True"),
        (("limit = 5", "limit = 0"), "line 9: rule 'buffers': limit is 0; write a number from 1 to 1000"),
        (('name = "buffers"', 'name = ""'), "line 3: rule 1: it has the name ''"),
        (('name = "buffers"', 'name = "\\u001b[2J"'), "it has the name '\\x1b[2J'"),
        (("cooldown", "cooled"), "line 8: rule 'buffers': it has no key 'cooled'; it has above, name"),
        (("[[rule]]", "[rule]"), "write one [[rule]]"),
        (("[[rule]]", "[["), "not TOML"),
        (("[[rule]]", "[[rules]]"), "line 2: it has 'rules'; write one [[rule]]"),
        (('"retained"', "3"), "line 7: rule 'buffers': capture is 3; choose one of memray"),
        (('"retained"', '"retained"\noptions = { secs = 3 }'), "line 8: rule 'buffers': "),
        (("cooldown = 60", "per_hour = 1.5"), "per_hour is 1.5; write a whole number from 1 to 1000"),
        (("for = 2", 'for = 2\nwhen = "fds > 1 for 1 s"'), "line 4: rule 'buffers': trigger beside when; leave it out"),
        (("for = 2", 'for = 2\naction = [{ do = "log" }, { do = "fly" }]'), "line 7: rule 'buffers': do is 'fly'; choose"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "log"\n[[rule.action]]\ndo = "webhook"'),
         "line 12: rule 'buffers': a webhook has one target; write either url or url_env"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "webhook"\nurl = "https://u:secret@x/"'),
         "line 12: rule 'buffers': url is not one; write an http or https address"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "webhook"\nkey = "secret"\nurl = "https://x/"'),
         "line 12: rule 'buffers': it has no key 'key'; it has do, url"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "command"\nargv = ["page", "secret"]'),
         "line 12: rule 'buffers': argv is relative; write the program's absolute path"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "command"\nargv = "/bin/sh -c secret"'),
         "line 12: rule 'buffers': argv is not one; write a list"),
        (("limit = 5", 'limit = 5\n[[rule.action]]\ndo = "capture"\nkind = "tasks"'), "line 10: rule 'buffers': it has two"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(change: tuple[str, str], names: str) -> None:
    changed = GOOD.replace(*change, 1)
    _, faults = read(changed)
    said = [str(fault) for fault in faults]
    assert any(names in each for each in said), said
    assert not any("secret" in each for each in said)
    with pytest.raises(UsageError) as caught:
        parse(changed, "my.toml")
    assert "my.toml" in str(caught.value)
    assert faults[0].message in str(caught.value)


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="line 12: two rules are named 'buffers'"):
        parse(GOOD * 2)


def test_a_key_within_a_text_of_several_lines_is_none() -> None:
    text = '[[rule]]\nname = """a\nlimit = 9\n"""\ntrigger = "loop_lag"\nabove = 1\nlimit = 0\n'
    lines = [fault.line for fault in read(text)[1] if fault.message.startswith("limit")]
    assert lines == [7]


# The manual and the schema


def test_the_manuals_rules_are_rules_and_its_receiver_verifies() -> None:
    manual = (DOCS / "rules.md").read_text(encoding="utf-8")
    files = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert [rule.name for rule in parse(files[0])] == ["buffers", "bytes-a-stream"]
    assert parse(GOOD + files[1])[0].actions[-1] == Command(("/usr/local/bin/page", "--team", "streaming"))
    (receiver,) = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
    names: dict[str, Any] = {"hmac": hmac, "hashlib": hashlib, "time": time}
    exec(receiver, names)
    header = signature(b"key", int(time.time()), b"{}")
    assert names["verified"](b"key", header, b"{}")
    assert not names["verified"](b"other", header, b"{}")
    assert not names["verified"](b"key", signature(b"key", int(time.time()) - 301, b"{}"), b"{}")


def test_the_published_schema_is_the_parsers() -> None:
    published = json.loads((DOCS / "rules.schema.json").read_text(encoding="utf-8"))
    assert published == schema(), "diagnostics rules --schema > docs/rules.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


def test_the_manual_has_every_key_trigger_and_action() -> None:
    manual = (DOCS / "rules.md").read_text(encoding="utf-8")
    keys = {*RULE, *TRIGGERS, *ACTIONS, *(key for keys in ACTIONS.values() for key in keys)}
    assert [key for key in sorted(keys) if f"`{key}`" not in manual] == []


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.just([]), st.just({}), st.just(""), st.just("x" * 3000)
)
NAMES = st.text("abc-", min_size=1, max_size=8)
VARIABLES = st.sampled_from(["HOOK", "_A1"])
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "for": st.integers(0, 100), "cooldown": st.floats(0, 86400), "limit": st.integers(1, 1000), "per_hour": st.integers(1, 9),
    "level": st.sampled_from(["warning", "error"]), "kind": st.sampled_from(sorted(KINDS)), "options": st.just({}),
    "url": st.sampled_from(["http://10.0.0.1:9/x?y=z", "https://hooks.example/T/B"]), "url_env": VARIABLES,
    "shape": st.sampled_from(["plain", "slack", "alertmanager", "alerts"]), "key_env": VARIABLES,
    "key_file": st.just("/run/key"), "timeout": st.floats(0.1, 60), "attempts": st.integers(1, 5),
    "argv": st.lists(st.sampled_from(["/bin/true", "-x"]), min_size=1, max_size=3), "memory": st.just(2**25),
    "env": st.lists(VARIABLES, max_size=2), "capture": st.sampled_from(sorted(KINDS)),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, keys: list[str], required: list[str]) -> dict[str, Any]:
    """A table with the required keys and some others, mostly right: sometimes one is wrong, missing or unknown."""
    chosen = [*required, *draw(st.lists(st.sampled_from(keys), unique=True, max_size=3))]
    table = {key: draw(RIGHT[key]) for key in chosen}
    spoil = draw(st.integers(0, 9))
    if spoil == 0 and table:
        table[draw(st.sampled_from(sorted(table)))] = draw(WRONG)
    elif spoil == 1:
        table["other"] = 1
    elif spoil == 2 and required:
        del table[required[0]]
    return table


@st.composite
def actions(draw: st.DrawFn) -> Any:
    do = draw(st.sampled_from([*ACTIONS, *ACTIONS, "fly"]))
    keys = ACTIONS.get(do, {})
    required = [name for name, key in keys.items() if key.required]
    if do == "webhook" and draw(st.integers(0, 4)):
        required = [draw(st.sampled_from(["url", "url_env"]))]
    table = draw(tables(list(keys), required)) if keys else {}
    return {"do": do, **table} if draw(st.integers(0, 19)) else draw(WRONG)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    rules = []
    for number in range(draw(st.integers(0, 3))):
        rule = draw(tables(["cooldown", "limit", "per_hour"], []))
        rule["name"] = f"{draw(NAMES)}{number}"
        if draw(st.booleans()):
            rule["when"] = f"{draw(st.sampled_from(SERIES))} > 5 for 1 s"
        else:
            name = draw(st.sampled_from([*TRIGGERS, "other"]))
            rule["trigger"] = name
            if name in TRIGGERS and draw(st.integers(0, 9)):
                trigger = TRIGGERS[name]
                rule[trigger.side] = draw(st.one_of(st.just(trigger.low), st.just(trigger.high), st.just(-1)))
            rule |= draw(tables(["for"], [])) if draw(st.booleans()) else {}
        if draw(st.integers(0, 5)) == 0:
            rule["above"] = 3
        if draw(st.booleans()):
            rule |= draw(tables(["options"], ["capture"]))
        if draw(st.booleans()):
            rule["action"] = draw(st.lists(actions(), max_size=9))
        rules.append(rule)
    return {"rule": rules}


def as_toml(document: dict[str, Any]) -> str:
    """JSON is almost TOML of one line: what TOML lacks is null, which no key may be."""

    def value(given: Any) -> str:
        if isinstance(given, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(each)}" for key, each in given.items()) + "}"
        if isinstance(given, list):
            return "[" + ", ".join(map(value, given)) + "]"
        return json.dumps("" if given is None else given)

    return "".join(f"{key} = {value(each)}\n" for key, each in document.items())


def captures_of(document: dict[str, Any]) -> list[int]:
    """How many captures each rule has: more than one is beyond the schema."""
    return [
        ("capture" in rule) + sum(isinstance(each, dict) and each.get("do") == "capture" for each in rule.get("action", ()))
        for rule in document["rule"]
    ]  # fmt: skip


@given(documents())
def test_the_schema_and_the_parser_agree(document: dict[str, Any]) -> None:
    text = as_toml(document)
    given_back = json.loads(json.dumps(document).replace("null", '""'))
    valid = jsonschema.Draft202012Validator(schema()).is_valid(given_back)
    _, faults = read(text)
    if max(captures_of(document), default=0) > 1:
        assert faults
    else:
        assert valid == (not faults), (text, [str(fault) for fault in faults])


# `diagnostics rules --check`


def checked(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diagnostics", "rules", "--check", str(path)],
        check=False, capture_output=True, encoding="utf-8", timeout=240, env={**os.environ, **env},
    )  # fmt: skip


BROKEN = """\
[[rule]]
name = "a"
trigger = "loop_lag"
above = "much"

[[rule]]
name = "b"
when = "rss_bytes > 1 GiB"
"""


def test_check_says_every_fault_with_its_line_and_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(BROKEN, encoding="utf-8")
    done = checked(path)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == f"{path}: line 4: rule 'a': above is 'much'; write a number from 0 to 3600"
    assert second.startswith(
        f"{path}: line 8: rule 'b': when is 'rss_bytes > 1 GiB'; at character 18, the end: expected"
    )
    path.write_text("[[rule]]\nname =\n", encoding="utf-8")
    done = checked(path)
    assert (done.returncode, "is not TOML" in done.stderr, "line 2" in done.stderr) == (2, True, True)


def test_check_of_a_good_file_ends_with_0_and_notes_what_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FULL, encoding="utf-8")
    path.chmod(0o644)
    done = checked(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("for 30 s: capture, log, webhook, command")
    assert "note: rule 'ratio': the variable HOOK is not set here" in done.stderr
    # A command may only be in a file that its owner alone can write.
    path.chmod(0o664)
    done = checked(path, HOOK="https://x/secret")
    assert (done.returncode, "it calls a command, and" in done.stderr, "664" in done.stderr) == (2, True, True)
    assert "secret" not in done.stderr
