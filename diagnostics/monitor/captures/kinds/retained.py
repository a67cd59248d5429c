"""retained: the bytes that each open stream alone keeps alive, and their containers. No window; the option `seconds` is a
delay before the reading.

Artifacts: `profile.json` (by the lines that hold the bytes, with route and state), `retained.json` (every stream),
`retained.txt` (the largest ones, for people).
"""

from __future__ import annotations

from typing import Any

from .kind import Kind, Session
from .options import seconds_or_now
from .profile_json import profile_of, top_of, write_json
from .tables import bytes_of

__all__ = ["KIND", "as_text"]

# The agent kills a forked walk after three minutes.
_PATIENCE_SECONDS = 200.0
# The manifest has the bytes of this many streams, largest first; retained.json has all of them with their containers.
_STREAMS = 1_000
_SHOWN = 10


async def take(session: Session) -> dict[str, Any]:
    await session.wait(session.options["seconds"])
    reply = await session.ask_reading("retained", patience=_PATIENCE_SECONDS)
    session.enter("rendering")
    streams, unknown = reply["streams"], reply.get("unknown") or None
    write_json(session.folder / "profile.json", profile_of(reply))
    write_json(session.folder / "retained.json", {key: reply[key] for key in ("time", "meta", "streams")})
    result = {
        "time": reply["time"],
        # Where streams are unknown their sum is unknown, too, not 0.
        "unknown": unknown,
        "total_bytes": None if unknown else sum(stream["retained_bytes"] for stream in streams),
        "total_count": None if unknown else sum(stream["retained_objects"] for stream in streams),
        "shared_between_bytes": None if unknown else reply["meta"]["shared_between_bytes"],
        "open": None if unknown else len(streams),
        "streams": [
            {key: value for key, value in stream.items() if key != "containers" or place < _SHOWN}
            for place, stream in enumerate(streams[:_STREAMS])
        ],
        "top": top_of(reply),
        "not_covered": reply["not_covered"],
    }
    (session.folder / "retained.txt").write_text(as_text(result, streams), encoding="utf-8")
    return result


def as_text(result: dict[str, Any], streams: list[dict[str, Any]]) -> str:
    """One paragraph a stream, the largest first."""
    paragraphs = [_headline(result)]
    for stream in streams:
        age = "" if stream["age_seconds"] is None else f", open for {stream['age_seconds']:.1f} s"
        held, shared = bytes_of("retained_bytes")(stream), bytes_of("shared_bytes")(stream) or "not known"
        facts = f"{held} in {stream['retained_objects']} objects, shared {shared}"
        lines = [f"stream {stream['id']} {stream['route']} ({stream['state']}{age}): {facts}"]
        lines += [f"    {bytes_of('bytes')(container)} in {container['path']}" for container in stream["containers"]]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def _headline(result: dict[str, Any]) -> str:
    if result.get("unknown"):
        return f"not known: {result['unknown']}"
    return (
        f"{bytes_of('total_bytes')(result)} kept alive by {result['open']} open streams,"
        f" {bytes_of('shared_between_bytes')(result)} more by several of them together"
    )


def _notes(result: dict[str, Any]) -> list[str]:
    return [
        f"stream {stream['id']} {stream['route']}: {bytes_of('retained_bytes')(stream)}, most in {container['path']}"
        for stream in result["streams"][:_SHOWN]
        for container in stream.get("containers", ())[:1]
    ]


KIND = Kind(name="retained", options={"seconds": (0.0, seconds_or_now)}, take=take, headline=_headline, notes=_notes)
