"""Puts the agent into a running process, and takes it out again; from outside, whatever that process has installed."""
