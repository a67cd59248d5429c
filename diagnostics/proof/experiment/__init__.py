"""Experiments: the rounds, their workload, and the decision from their figures."""
