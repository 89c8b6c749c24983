"""Errors of the user's code, in one line that names the user's own line."""

import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple, NoReturn

import torch

from dscalc.errors import DscalcError
from dscalc.show import first_line, message_of, printable, quoted

USER_ERRORS = (Exception, SystemExit)  # a model's own code can raise these
OWN = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
_NOT_THE_USERS = (
    OWN,
    _TORCH,
    *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
)


class Line(NamedTuple):
    """A line of code: its file, relative to the working folder if it is inside, and its text."""

    file: str
    number: int
    text: str


def user_line(error: BaseException, *, packages: bool = False) -> Line | None:
    """The innermost line of the user's own files in an error's traceback; None if there is none.

    If ``packages``, a line of another package may stand for it, but none of torch or dscalc.
    """
    frames = [(frame.f_code.co_filename, number) for frame, number in walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno or 1))  # the file never ran
    found = [frame for frame in frames if is_users(frame[0])]
    if packages and not found:
        theirs = [frame for frame in frames if not frame[0].startswith("<")]
        found = [(f, n) for f, n in theirs if not any(map(Path(f).is_relative_to, (OWN, _TORCH)))]
    if not found:
        return None
    file, number = found[-1]
    path = Path(file).resolve()
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    text = linecache.getline(file, number).strip()
    return Line(printable(str(near)), number, printable(text))


def error_in_words(error: BaseException) -> str:
    """An error on one line; if it has no message, such as an assertion, the user's line."""
    message = first_line(error.msg if isinstance(error, SyntaxError) else error)
    line = user_line(error)
    if not message and line and not line.text.startswith("raise"):
        message = line.text
    if isinstance(error, ModuleNotFoundError):
        return message
    return named_error(error, message)


def named_error(error: BaseException, message: str) -> str:
    """An error's class and what it says."""
    kind = printable(type(error).__name__)
    return f"{kind}: {message}" if message else kind


def failure_of(doing: str, error: BaseException, hint: str = "") -> DscalcError:
    """The error to raise ``from`` the user's; cuts the user's traceback to the user's code."""
    line = user_line(error)
    trace = error.__traceback__
    while trace and not is_users(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    if trace:
        error.__traceback__ = trace
    where = f"{line.file}:{line.number}: " if line else ""
    if re.search("CUDA|NVIDIA", message_of(error)) and not torch.cuda.is_available():
        code = f" in {quoted(line.text)}" if line else ""
        return DscalcError(
            f"{where}{doing} needs CUDA{code}, but torch finds none here; build the model on the "
            "CPU: dscalc needs no GPU"
        )
    hint = hint or other_version(error) or ("" if line else "; -v shows where")
    return DscalcError(f"{where}{doing} failed ({error_in_words(error)}){hint}")


def other_version(error: BaseException) -> str:
    """A hint if a package is installed, but lacks what is imported from it."""
    top = (getattr(error, "name", None) or "").partition(".")[0]
    package = sys.modules.get(top)
    if not isinstance(error, ImportError) or not package:
        return ""
    version = getattr(package, "__version__", "")
    if not version or is_users(getattr(package, "__file__", None) or ""):
        return ""
    return f"; {top} {printable(version)} is installed, and the code is for another version of it"


def is_users(file: str) -> bool:
    """Whether a file is the user's own: none of Python, of a package or of dscalc."""
    if not file or file.startswith("<"):
        return False
    path = Path(file).absolute()
    return not any(map(path.is_relative_to, _NOT_THE_USERS)) and not (
        {"site-packages", "dist-packages"} & set(path.parts)
    )


@contextmanager
def exits_refused() -> Iterator[None]:
    """Refuse ``os._exit`` in this process, which would end it without an answer.

    Raises:
        DscalcError: it was called, whether or not the code went on.
    """
    calls: list[SystemExit] = []
    home, end = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os._exit is not refuse or os.getpid() != home:  # code that kept it, or a fork
            end(status)
        calls.append(SystemExit(f"os._exit({status})"))
        raise calls[-1]

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end
        if calls:
            line = user_line(calls[0], packages=True)
            where = f", at {line.file}:{line.number}," if line else ""
            raise DscalcError(
                f"{calls[0]}{where} would end dscalc without an answer; raise an error instead"
            ) from None
