"""Formats an outcome as tables, JSON and pages. Pure."""
