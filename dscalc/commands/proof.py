"""The cross-check of a run: fvcore counts each row, and where it cannot, that is said."""

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
    """Say in one line what is wrong where torch or fvcore cannot be imported."""
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
    """Let Ctrl-C wait: what torch imports swallows it, and goes on or breaks. A second does not."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # it may be ignored
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
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    verdict, broken = asked.verdict, False

    @lru_cache(maxsize=1024)  # the same layer comes again in a grid or a network
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
