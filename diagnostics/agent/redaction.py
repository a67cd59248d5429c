"""Decides which names and values of a service may be shown, in captures, on the page and in profiles.

The rule is written here, and every reading that reports a name applies it.

The program's words are shown, data is not:

1. a value is never shown: of bytes and texts their type and size, of containers their length;
2. the key of a dictionary is shown where the program itself spells it: an identifier of at most 40 characters that stands in
   the code as a constant or a name. `registry['chat']` is such a key; a user's name from a request is not, and is
   shown as `<str of 5>`;
3. the name of an attribute is shown where the code spells it or its class declares it, as for keys: an object may be given
   attributes that are data;
4. names of locals, globals, classes, functions, modules, files and context variables are the programmer's and are shown;
5. names of tasks and threads, and the segments of a request's path, are composed by the program, often with data in them. What
   varies or looks like data is shown as `*`: numbers and hexadecimal runs, what has the shape of a key or an address, and what
   is longer than a name.

With DIAGNOSTICS_SHOW_NAMES=none names of 2, 3, 5 and of locals are left out, too: types, code and sizes remain.

The law of this file: it is loaded into other people's services with the first reading, and imports next to nothing.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MAX_KEY", "hidden_shapes", "is_programs", "key_shown", "name_allowed", "names_shown", "shown_path"]

MAX_KEY = 40
_MAX_SEGMENT = 32
_MAX_DIGITS = 9
# A run of letters, digits and underscores of at least this length is taken for a secret key where a letter follows a digit.
_KEY_LENGTH = 12
# Prefixes of secret keys that may be shorter, or have no digit: OpenAI's, Stripe's, GitHub's, Slack's, Google's, AWS's.
_KEY_BEGINNINGS = (
    "sk_", "sk-", "pk_", "pk-", "rk_", "rk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xoxa-", "xoxb-", "xoxp-",
    "xoxr-", "xoxs-", "AIza", "AKIA", "eyJ",
)  # fmt: skip
_CONSTANTS = frozenset({tuple, frozenset})

_words: frozenset[str] | None = None


def names_shown() -> bool:
    """Whether names other than those of code are shown at all: the service's DIAGNOSTICS_SHOW_NAMES is not `none`."""
    return os.environ.get("DIAGNOSTICS_SHOW_NAMES") != "none"


def name_allowed(key: Any) -> bool:
    """Whether `key` has the shape of a name in code: an identifier of at most 40 characters, not of a secret key's form."""
    return type(key) is str and key.isidentifier() and len(key) <= MAX_KEY and not _is_key(key)


def is_programs(key: Any) -> bool:
    """Whether `key` has the shape of a name, and stands in the program's code. To be called in a forked child: the first call
    walks all functions (70 ms for 20,000)."""
    global _words
    if not name_allowed(key):
        return False
    if _words is None:
        _words = frozenset(_spelled())
    return key in _words


def key_shown(key: Any, *, length: bool) -> str:
    """A dictionary's key in brackets. Of a string that may not be shown its length, if `length`; empty for any other key."""
    if names_shown() and is_programs(key):
        return f"[{key!r}]"
    return f"[<str of {len(key)}>]" if type(key) is str and length else ""


def hidden_shapes(text: str) -> str:
    """`text` with `*` for each word that has the shape of a secret key or an e-mail address."""
    return " ".join("*" if "@" in word or _is_key(word) else _without_keys(word) for word in text.split(" "))


def shown_path(path: Any) -> Any:
    """A request's path with `*` for each segment that is not letters or a short number; None where names are not shown.

    A value that is no str is returned unchanged.
    """
    if type(path) is not str:
        return path
    if not names_shown():
        return None
    return "/".join(segment if _is_plain(segment) else "*" for segment in path.split("/"))


def _is_plain(segment: str) -> bool:
    if not segment.isascii() or _is_key(segment):
        return False
    if segment.isdigit():
        return len(segment) <= _MAX_DIGITS
    letters = segment.replace("-", "").replace("_", "").replace(".", "").replace("~", "")
    if letters[:1] == "v" and letters[1:].isdigit():  # an API version
        return len(letters) <= 4
    return len(segment) <= _MAX_SEGMENT and (not letters or letters.isalpha())


def _is_key(word: str) -> bool:
    return any(word.startswith(beginning) and len(word) > len(beginning) + 3 for beginning in _KEY_BEGINNINGS)


def _without_keys(word: str) -> str:
    """The word with `*` for each run of letters, digits, underscores and hyphens that looks like a secret key."""
    pieces: list[str] = []
    run = ""
    for character in word + "\0":
        if character.isalnum() or character in "_-":
            run += character
            continue
        pieces.append("*" if _is_key(run) else "-".join("*" if _mixes(part) else part for part in run.split("-")))
        run = ""
        pieces.append(character)
    return "".join(pieces[:-1])


def _mixes(run: str) -> bool:
    """Whether a letter follows a digit in a run that is long enough: `4eC39HqLyjWD`, but not `ThreadPoolExecutor`."""
    if len(run) < _KEY_LENGTH:
        return False
    return any(run[place].isdigit() and run[place + 1].isalpha() for place in range(len(run) - 1))


def _codes_of(frame: Any) -> list[Any]:
    """The code objects of a frame and of all its callers."""
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes


def _spelled() -> set[str]:
    """Every name and every string constant in the code of all functions and of all running frames."""
    import gc
    from types import CodeType, FunctionType

    words: set[str] = set()
    pending: list[Any] = [thing.__code__ for thing in gc.get_objects() if type(thing) is FunctionType]
    # In a function of its own: a frame with itself among its locals is a reference cycle, which keeps its callers' locals.
    pending += [code for top in sys._current_frames().values() for code in _codes_of(top)]
    seen: set[int] = set()
    while pending:
        code = pending.pop()
        if id(code) in seen:
            continue
        seen.add(id(code))
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            words.update(names)
        constants = list(code.co_consts)
        while constants:
            constant = constants.pop()
            kind = type(constant)
            if kind is str:
                words.add(constant)
            elif kind in _CONSTANTS:
                constants.extend(constant)
            elif kind is CodeType:
                pending.append(constant)
    return words
