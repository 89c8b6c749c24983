"""The program: ``dscalc`` and ``python -m dscalc``."""

import atexit
import os
import sys

from dscalc.cli import main


def run() -> None:
    """Run ``main``, and end the process without freeing each object.

    Functions that others registered with ``atexit``, such as torch's, run first. After ``dscalc
    model`` the process ends normally: a user's model may hold objects that need it, such as a file
    that is written but not closed.
    """
    code = 1

    def end() -> None:
        if "dscalc.commands.model" not in sys.modules:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    atexit.register(end)  # registered first, so it runs last
    code = main()
    sys.exit(code)


if __name__ == "__main__":
    run()
