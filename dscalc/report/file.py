"""Reports into files, whole or not at all; and to stdout."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dscalc.errors import DscalcError
from dscalc.show import for_who_asks


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` once all is written and not before.

    What is no regular file, such as /dev/null or a pipe, is written to directly.

    Raises:
        DscalcError: the file cannot be written.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        target = Path(os.path.realpath(path))  # a link stays a link
        if target.is_symlink():
            raise DscalcError(f"cannot write {path}: links lead in a circle")
        if target.is_dir():
            raise DscalcError(f"cannot write {path}: it is a directory; name a file in it")
        if target.exists() and not os.access(target, os.W_OK):
            raise DscalcError(f"cannot write {path}: permission denied; name another file")
        if _is_written_by_a_stream(target):  # to replace it loses what is written there
            raise DscalcError(
                f"cannot write {path}: stdout or stderr goes there; name another file"
            )
        temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}{target.suffix}")
        try:  # from before there is a file, so that an interrupt leaves none
            with _ended_by_sigterm():
                temporary.touch(0o600, exist_ok=False)
                temporary.chmod(target.stat().st_mode if target.exists() else 0o666 & ~_umask())
                yield temporary
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DscalcError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def to_stdout() -> Iterator[None]:
    """Write to stdout inside; all of it is written when this ends.

    Raises:
        DscalcError: it cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit flushes again
        reason = error.strerror or error
        raise DscalcError(f"cannot write to stdout: {reason}; is the disk full?") from error


@contextmanager
def stdout_for_the_answer() -> Iterator[None]:
    """Keep what is not Python's out of the answer: descriptor 1 is stderr from here on.

    A model's C code, and the processes that it starts, write there. Inside, ``sys.stdout`` is a
    duplicate of what was descriptor 1. Afterwards it is stderr, for what runs at the exit.
    """
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed, so that the next file would get its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    look: Any = sys.stdout
    own = os.fdopen(
        os.dup(1), "w", encoding=getattr(look, "encoding", None),
        errors=getattr(look, "errors", None),
    )  # fmt: skip
    own.reconfigure(write_through=getattr(look, "write_through", False))
    os.dup2(2, 1)
    sys.stdout = own
    try:
        yield
    finally:
        sys.stdout = sys.stderr


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, which cleans up, where it would end the process at once."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def kind_of_picture(file: Path) -> str:
    """The ending of a file: png, svg or pdf.

    Raises:
        DscalcError: the ending is another.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        plot = for_who_asks("--plot", "plot")
        raise DscalcError(f"{plot} needs a file that ends in .png, .svg or .pdf, got {file}")
    return kind


def _is_written_by_a_stream(path: Path) -> bool:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or no file
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return True
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
