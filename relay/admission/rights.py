"""Which topics a client key may subscribe to, or publish to. Pure.

A scope of a key that concerns topics may name some of them, each by a pattern (keys.py has where they stand):

| pattern | allows |
|---|---|
| `news` | the topic `news` |
| `chat.*` | all topics whose name begins with `chat.`: `chat.1`, and neither `chat` nor `chats` |

A `*` stands at the end only, and never alone: a scope without patterns is for all topics, and a pattern whose prefix was
left out by accident must not be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["TopicRights"]

_PATTERN: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}\*?")


@dataclass(frozen=True, slots=True)
class TopicRights:
    """The topics that one scope of one key is for: those with one of `names`, and those that begin with one of `prefixes`."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> TopicRights:
        """The rights that patterns give, of which each adds to the others. Raises ValueError for what is not a pattern.

        >>> rights = TopicRights.of(["news", "chat.*"])
        >>> [topic for topic in ("news", "newspaper", "chat", "chat.1", "Chat.1") if rights.allow(topic)]
        ['news', 'chat.1']
        """
        names, prefixes = set(), []
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(f"{pattern!r} must be a topic's name, or the beginning of one and then *")
            if pattern.endswith("*"):
                prefixes.append(pattern.removesuffix("*"))
            else:
                names.add(pattern)
        return cls(frozenset(names), tuple(prefixes))

    def allow(self, topic: str) -> bool:
        return topic in self.names or topic.startswith(self.prefixes)
