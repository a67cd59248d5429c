"""Verdicts: readings, the checks for each cause, and the one table of causes."""
