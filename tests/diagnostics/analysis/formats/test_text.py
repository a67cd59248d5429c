from __future__ import annotations

from dataclasses import replace

from strategies import stacks

from diagnostics.analysis.formats.text import render_listing, render_top
from diagnostics.analysis.profile import Frame, Sample
from diagnostics.analysis.views import listing, top


def test_a_table_lines_up_and_says_what_it_leaves_out() -> None:
    profile = replace(stacks(("fill main", 3 * 1024 * 1024), ("parse main", 1024)), not_covered=("the past",))
    assert render_top(profile, top(profile), 2).splitlines() == [
        "test, 5 s window, ended 2026-09-21 14:13:20 UTC: inuse_space 3.00 MiB in 2 stacks",
        "    flat   flat%       cum    cum%  where",
        "3.00 MiB  100.0%  3.00 MiB  100.0%  fill /srv/fill.py",
        "1.00 KiB   <0.1%  1.00 KiB   <0.1%  parse /srv/parse.py",
        "... and 1 more",
        "",
        "not covered: the past",
    ]


def test_a_difference_shows_signs() -> None:
    profile = stacks(("grew", 2048), ("shrank", -1024))
    text = render_top(profile, top(profile), 20)
    assert "inuse_space +1.00 KiB" in text
    assert "+2.00 KiB   66.7%" in text
    assert "-1.00 KiB  -33.3%" in text


def test_source_lines_with_gaps_and_without_source() -> None:
    profile = stacks(("fill", 64))
    frame = profile.samples[0].stack[0]
    far = replace(profile, samples=(*profile.samples, Sample((replace(frame, line=20),), (1,))))
    source = [f"line {number}" for number in range(1, 31)]
    text = render_listing(far, listing(far, "fill", lambda file: source))
    assert "64 B  64 B     4  line 4" in text
    assert "..." in text
    assert "(no source)" in render_listing(far, listing(far, "fill", lambda file: None))


def test_names_cannot_drive_the_terminal() -> None:
    frame = Frame("\x1b]0;title\x07", "/srv/\x1b[2J.py", 1)
    profile = replace(stacks(), kind="\x1b[31m", samples=(Sample((frame,), (1,)),), not_covered=("\x1b[0m",))
    for text in (
        render_top(profile, top(profile), 5),
        render_listing(profile, listing(profile, "title", lambda file: ["\x1b[1mcode"])),
    ):
        assert "\x1b" not in text
        assert "\x07" not in text
