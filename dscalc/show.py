"""Values to text: 3x5, 13.2 MB, 0.126736 (73/576); and text from outside, quoted."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction

_TYPED = ContextVar("typed", default=False)
_MOST_NAMES = 20  # in a hint


def printable(text: str) -> str:
    """Text from a file or a model, with control characters escaped, safe to print."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def command_line() -> Iterator[None]:
    """Inside, a command line asks, and not Python code."""
    before = _TYPED.set(True)
    try:
        yield
    finally:
        _TYPED.reset(before)


def for_who_asks(typed: str, called: str) -> str:
    """What an option is called by who asks: on a command line, or in Python."""
    return typed if _TYPED.get() else called


def plural(noun: str, number: int) -> str:
    """The noun, with an s unless the number is 1."""
    return noun if number == 1 else f"{noun}s"


def first_few(names: Sequence[str]) -> str:
    """The first three of them, each once."""
    return ", ".join(dict.fromkeys(names[:3])) + (", ..." if len(names) > 3 else "")


def quoted(text: str) -> str:
    """User input in quotes, on one line, control characters escaped, cut to 60 characters."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def did_you_mean(
    word: str, known: Iterable[str], otherwise: str | None = None, *, cutoff: float = 0.6
) -> str:
    """A question with the nearest names; without any, ``otherwise`` or a list of names."""
    from difflib import SequenceMatcher, get_close_matches  # few runs need it

    def likeness(name: str) -> float:
        return SequenceMatcher(None, word, name).ratio()

    known = list(known)
    if near := get_close_matches(word, known, 3, cutoff):
        as_near = [name for name in near if likeness(name) > likeness(near[0]) - 0.08]
        return f"did you mean {' or '.join(map(printable, as_near))}?"
    if otherwise is not None:
        return otherwise
    listed = [*map(printable, known[:_MOST_NAMES]), *(["..."] if len(known) > _MOST_NAMES else [])]
    return f"choose from {', '.join(listed)}"


def message_of(error: object) -> str:
    """What an error says; "" if its own ``__str__`` raises."""
    try:
        return str(error)
    except Exception:
        return ""


def first_line(error: object) -> str:
    """The first line of an error that has content, cut to 200 characters."""
    lines = [line.strip() for line in message_of(error).splitlines()]
    lines = [line for line in lines if line and not line.endswith("raised:")]  # torch's compiler
    line = printable(" ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1]))
    return line if len(line) <= 200 else f"{line[:197]}..."


def times(size: Sequence[int] | None) -> str:
    """A size such as 3x3; "" for None."""
    return "x".join(map(str, size or ()))


def amount(count: int) -> str:
    """Bytes in a readable unit: 13.2 MB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            amount = count / size
            return f"{amount:.4g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"
    return f"{count} bytes"


def in_six_digits(value: float | Fraction) -> str:
    """A number to six digits, from a million on to one decimal: 0.126736, 597,177,369.6."""
    number = float(value)
    return f"{number:,.1f}" if abs(number) >= 10**6 else f"{number:.6g}"


def exact(value: object) -> str:
    """A value as text: 4,096, or 0.126736 (73/576); a float to six digits."""
    if isinstance(value, Fraction) and value.denominator > 1:
        return f"{in_six_digits(value)} ({value})"
    if isinstance(value, float):
        return in_six_digits(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
