"""`python -m diagnostics` is the command `diagnostics`."""

import sys

from .cli import main

sys.exit(main())
