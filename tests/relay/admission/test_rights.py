"""The topics of a key's scopes: patterns, and how RELAY_CLIENT_KEYS has them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.admission.keys import hash_of, parse_keys
from relay.admission.rights import TopicRights
from relay.errors import ForbiddenError, TopicForbiddenError

HASH = hash_of(b"a key")
# Few letters, so that names, and beginnings of names, meet.
NAMES = st.text("aA.~", min_size=1, max_size=4)
PATTERNS = st.lists(st.tuples(NAMES, st.booleans()), max_size=4)


@given(PATTERNS, NAMES)
@example([("chat.", True)], "chat")
@example([("chat.", True)], "chat.")
@example([("chat", True)], "chats")
@example([("chat", False)], "chat.")
def test_a_topic_is_allowed_by_its_name_or_by_how_it_begins(patterns: list[tuple[str, bool]], topic: str) -> None:
    rights = TopicRights.of(name + "*" * prefix for name, prefix in patterns)
    expected = any(topic[: len(name)] == name and (prefix or len(topic) == len(name)) for name, prefix in patterns)
    assert rights.allow(topic) == expected


@pytest.mark.parametrize("pattern", ["", "*", "a*b", "a**", "*a", "a/b", "a\n", "ä", 129 * "a"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="must be a topic's name"):
        TopicRights.of([pattern])


@pytest.mark.parametrize(
    ("scopes", "said"),
    [
        ("subscribe=", "the topics of 'a': '' must be"),
        ("subscribe=*", "the topics of 'a': '\\*' must be"),
        ("subscribe+subscribe=news", "'subscribe' of 'a' stands with topics and without"),
        ("generate=news", "'generate' of 'a' cannot name topics, only publish and subscribe can"),
    ],
)
def test_a_key_whose_topics_are_wrong_is_refused(scopes: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_keys(f"a:{scopes}:{HASH}")


def test_each_scope_has_its_own_topics_and_one_without_is_for_all() -> None:
    scopes = "models+subscribe=news+subscribe=chat.*+publish=chat.*"
    some, every = parse_keys(f"some:{scopes}:{HASH},every:subscribe:{HASH}")
    assert some.scopes == {"models", "subscribe", "publish"}
    for topic in ("news", "chat.1"):
        some.check("GET", f"/v1/topics/{topic}")
        every.check("GET", f"/v1/topics/{topic}")
    some.check("POST", "/v1/topics/chat.1")
    some.check("GET", "/v1/models")
    for method, topic in (("POST", "news"), ("GET", "chat"), ("HEAD", "other"), ("GET", "news/"), ("GET", "")):
        with pytest.raises(TopicForbiddenError):
            some.check(method, f"/v1/topics/{topic}")
    with pytest.raises(ForbiddenError):
        every.check("POST", "/v1/topics/news")
