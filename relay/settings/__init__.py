"""The relay's settings: their fields, where their values come from, and the errors of wrong values. Nothing else reads RELAY_*.

A flag of `relay serve` overrides the environment, the environment overrides `.env`. Every field (fields.py) is described in
docs/configuration.md; a test compares them.
"""

from .fields import SECRETS
from .loading import environment_name, load, misspelled
from .settings import Settings

__all__ = ["SECRETS", "Settings", "environment_name", "load", "misspelled"]
