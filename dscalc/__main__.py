"""``python -m dscalc``."""

import sys

from dscalc.cli import main

sys.exit(main())
