"""Streaming clients: one, a fleet, and a probe that looks at one stream step by step."""
