"""Globs that choose by name what to rewrite."""

from collections.abc import Collection, Sequence
from fnmatch import filter as matching

from dscalc.errors import DscalcError
from dscalc.show import did_you_mean

Patterns = str | Sequence[str]


def chosen(
    names: Collection[str], only: Patterns | None, exclude: Patterns | None, what: str
) -> set[str]:
    """The names that ``only`` matches (all if it is None) and ``exclude`` does not.

    Raises:
        DscalcError: a glob matches no name; ``what`` is a noun for the names.
    """
    found = set(names) if only is None else _matching(only, names, what)
    return found if exclude is None else found - _matching(exclude, names, what)


def _matching(patterns: Patterns, names: Collection[str], what: str) -> set[str]:
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = matching(names, pattern)
        if not matched:
            hint = did_you_mean(pattern, names) if names else "it has none"
            raise DscalcError(f"{pattern!r} matches no {what}; {hint:.300}")
        found.update(matched)
    return found
