"""Does the proof give the same answer every time, and does it leave the innocent alone? `python -m diagnostics.proof.study`.

well_behaved/  services that look suspicious and are not: each must never be accused
subjects.py    what is run: every scenario with both apps, every well-behaved service alone
journal.py     one line of JSON for each experiment, appended as it ends: an interrupted study goes on from there
table.py       what the journal says, as Markdown and JSON
__main__.py    the command
"""
