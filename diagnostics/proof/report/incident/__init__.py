"""One page that tells what happened: for a person who was not there, in one file, without a network.

    model.py      what such a page holds, whatever it is about: summary, plots, tables, flame graphs, how to run it again
    proof.py      from an experiment (verify, compare)
    bundle.py     from the captures of a live service
    plot.py       a timeline as inline SVG
    page.py       the HTML        markdown.py   the same for an issue or a chat
    folder.py     writes both

Everything in a page that came from outside (names of functions, commands, output) is escaped where it is written.
"""
