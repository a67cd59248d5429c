"""Profiles as hypothesis makes them: any names, any signs, empty stacks, recursion, labels."""

from __future__ import annotations

from hypothesis import strategies as st

from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType

# Names that break things more often than random text does.
NASTY = st.sampled_from(
    ["", " ", ";", "%3B", "%", "a (b:3)", "(no stack)", "</script>", "\n", "\x1b[31m", "é", "\u2028", "1 2"]
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=8) | NASTY
FRAMES = st.builds(Frame, NAMES, NAMES, st.integers(0, 10_000))
LABELS = st.dictionaries(NAMES, NAMES, max_size=2).map(lambda found: tuple(sorted(found.items())))
VALUES = st.integers(-(2**63), 2**63 - 1)
# Whole milliseconds survive the way through nanoseconds.
TIMES = st.integers(0, 2_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)


@st.composite
def profiles(draw: st.DrawFn, types: int | None = None) -> Profile:
    """With `types`, two profiles have the same sample types."""
    width = types if types is not None else draw(st.integers(1, 3))
    frames = st.sampled_from(draw(st.lists(FRAMES, min_size=1, max_size=6)))
    sample = st.builds(
        Sample,
        st.lists(frames, max_size=6).map(tuple),
        st.lists(VALUES, min_size=width, max_size=width).map(tuple),
        LABELS,
    )
    return Profile(
        kind=draw(NAMES),
        sample_types=tuple(ValueType(f"type{index}", "bytes") for index in range(width)),
        samples=tuple(draw(st.lists(sample, max_size=6))),
        time=draw(TIMES),
        duration=draw(TIMES),
        not_covered=tuple(draw(st.lists(NAMES, max_size=2))),
        meta=draw(
            st.dictionaries(NAMES.filter(lambda name: name != "comments"), st.integers(0, 99) | NAMES, max_size=2)
        ),
    )


def stacks(*rows: tuple[str, int]) -> Profile:
    """A profile of one sample type from rows like ("leaf caller root", 10). A frame's line is its name's length."""
    samples = tuple(
        Sample(tuple(Frame(name, f"/srv/{name}.py", len(name)) for name in names.split()), (amount,))
        for names, amount in rows
    )
    return Profile("test", (ValueType("inuse_space", "bytes"),), samples, time=1_790_000_000.0, duration=5.0)
