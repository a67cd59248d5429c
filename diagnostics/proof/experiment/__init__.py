"""Rounds, the work of each, and the decision that they lead to."""
