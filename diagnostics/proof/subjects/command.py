"""A command template with `{port}`, which tells the user's own service where to listen."""

from __future__ import annotations

import shlex

from ...errors import UsageError

__all__ = ["command_of"]


def command_of(text: str, option: str) -> list[str]:
    """The words of a command template. Raises UsageError for unbalanced quotes, or where no word contains `{port}`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}", remedy="quote it as for a shell") from error
    if not any("{port}" in word for word in words):
        raise UsageError(
            f"{option} {text!r} has no {{port}}: where would it listen?",
            remedy=f"for example {option} 'python -m uvicorn app:app --port {{port}}'",
        )
    return words
