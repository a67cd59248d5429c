"""The steps of a walk: by the extension `_walk`, or in Python where that was not built. Of millions of objects the extension
goes through a hundred million a second, and Python through five.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .in_python import Addresses, drawn, kinds, of_kinds
else:
    try:
        from ._walk import Addresses, drawn, kinds, of_kinds
    except ImportError:
        from .in_python import Addresses, drawn, kinds, of_kinds

__all__ = ["Addresses", "drawn", "kinds", "of_kinds"]
