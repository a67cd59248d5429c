"""What can be set, from where, and what is wrong with a value: the only place that reads the relay's settings.

A flag of `relay serve` overrides the environment, the environment overrides `.env`. Every field (fields.py) stands in
docs/configuration.md; a test compares them.
"""

from .fields import SECRETS, Settings
from .loading import environment_name, load

__all__ = ["SECRETS", "Settings", "environment_name", "load"]
