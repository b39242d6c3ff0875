"""`python -m alignguard.cli`."""

import sys

from . import main

sys.exit(main())
