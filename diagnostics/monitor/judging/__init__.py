"""Verdicts, and rules that capture before a limit is met."""
