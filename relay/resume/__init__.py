"""Resumable completions: streams are kept, and a client that was cut off gets the rest. docs/resume.md is the manual."""
