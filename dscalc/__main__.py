"""The program: ``dscalc`` and ``python -m dscalc``."""

import atexit
import os
import sys
from contextlib import nullcontext

_OTHERS_RUN = ("model", "check")  # commands that run code of others


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
    try:
        from dscalc.cli import main  # here, so that Ctrl-C at any time is no traceback
        from dscalc.report.file import stdout_for_the_answer

        others = sys.argv[1:2] and sys.argv[1] in _OTHERS_RUN
        with stdout_for_the_answer() if others else nullcontext():
            code = main()
    except KeyboardInterrupt:
        code = 130
    except SystemExit as ended:  # by a signal, while a file was written
        code = ended.code if isinstance(ended.code, int) else 1
    sys.exit(code)


if __name__ == "__main__":
    run()
