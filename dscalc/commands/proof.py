"""The cross-check of a run: fvcore counts each row, or the run reports why it cannot."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from dscalc.commands.asked import Asked
from dscalc.core.blocks import Step
from dscalc.core.row import Count, Counted
from dscalc.errors import CrosscheckError, DscalcError


@contextmanager
def torch_needed() -> Iterator[None]:
    """Report in one line that torch or fvcore cannot be imported.

    Raises:
        DscalcError: the import inside the block fails.
    """
    try:
        with _interrupt_waiting():
            yield
    except Exception as error:  # a broken installation can raise anything
        raise DscalcError(
            f"this needs torch and fvcore, but importing them failed ({error}); "
            "reinstall them: pip install torch fvcore"
        ) from error


@contextmanager
def _interrupt_waiting() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; a second Ctrl-C interrupts at once.

    Code that torch imports swallows the interrupt, and then goes on or breaks.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # the signal may be ignored
        yield
        return
    pressed = False

    def wait(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            raise KeyboardInterrupt


def counter(asked: Asked) -> Count:
    """The cross-check as a function; if it cannot count, it reports that and returns None."""
    verdict, broken = asked.verdict, False

    @lru_cache(maxsize=1024)  # layers of a grid or a network repeat
    def counted(steps: tuple[Step, ...]) -> Counted | None:
        nonlocal broken
        if broken:
            return None
        try:
            with torch_needed():
                from dscalc.pytorch.crosscheck import count, versions
        except DscalcError as error:
            broken = True
            verdict.refuse(f"{error}; or skip the check with --no-verify")
            return None
        try:
            found = count(steps)
            if asked.output.verbose:
                verdict.say(f"counted by {versions()}: {found}")
            return found
        except CrosscheckError as error:
            verdict.refuse(f"{error}; skip the check with --no-verify")
            return None

    return counted
