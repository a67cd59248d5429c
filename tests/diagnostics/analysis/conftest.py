"""The profile strategies, where every test beside them can import them, and no deadline: machines differ in speed."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("profiles", deadline=None, max_examples=60)
settings.load_profile("profiles")
