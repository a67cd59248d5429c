"""Studies the proof itself: is its decision the same every time, and does it never accuse a well-behaved service?
`python -m diagnostics.proof.study`.

well_behaved/  services that look suspicious and are not: each must never be accused
subjects.py    the subjects: every scenario with both apps, every well-behaved service alone
journal.py     one line of JSON for each experiment, appended as it ends: an interrupted study continues from there
table.py       the journal's results as Markdown and JSON
__main__.py    the command
"""
