"""The incident report: one self-contained HTML file for readers who were not there.

    model.py      the report's content, independent of its source: summary, plots, tables, flame graphs, commands
    proof.py      from an experiment (verify, compare)
    bundle.py     from the captures of a live service
    plot.py       a timeline as inline SVG
    page.py       the HTML        markdown.py   the same for an issue or a chat
    folder.py     writes both

All untrusted text in a page (names of functions, commands, output) is escaped where it is written.
"""
