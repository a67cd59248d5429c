"""A sampled live heap: the table that the service keeps (`table.py`), and what a Profile has of it (`as_profile.py`)."""

from .as_profile import in_use, profile, since, weight_of
from .blocks import LiveBlocks
from .table import HEADER_BYTES, MAGIC, MAX_BYTES, HeapTable, Site, decode, process_of

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_BYTES",
    "HeapTable",
    "LiveBlocks",
    "Site",
    "decode",
    "in_use",
    "process_of",
    "profile",
    "since",
    "weight_of",
]
