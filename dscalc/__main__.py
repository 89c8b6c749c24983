"""The program: ``dscalc``, and ``python -m dscalc``."""

import atexit
import os
import sys

from dscalc.cli import main


def run() -> None:
    """Run ``main``; end the process without freeing each object.

    What was registered to run at the exit, by torch say, runs first. A user's model may hold
    more that only a whole exit ends well, such as a file that is written and not closed.
    """
    code = 1

    def end() -> None:
        if "dscalc.commands.model" not in sys.modules:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    atexit.register(end)  # the first that is registered is the last that runs
    code = main()
    sys.exit(code)


if __name__ == "__main__":
    run()
