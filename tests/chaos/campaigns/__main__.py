"""`python -m tests.chaos.campaigns`; see __init__.py."""

import sys

from .run import main

sys.exit(main())
