"""Records -> JSON, JSON Lines, CSV, Markdown and bare values, with the standard library alone.

Machine formats carry raw integers, and a name that ends in the unit of its number. Sizes are
lists in JSON and HxW elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dscalc import __version__
from dscalc.record.fields import Record, Unit, Value, names, values
from dscalc.words import times

if TYPE_CHECKING:  # machine formats need no sheet
    from dscalc.report.sheet import Sheet

_CONVENTION = {
    "macs": "MACs are multiply-accumulates (1 MAC = 2 FLOPs) for the whole batch; adding a bias "
    "counts as a parameter and not as a MAC; sizes are per axis, [H, W] in 2-D",
    "flops": "FLOPs are 2 per multiply-accumulate (MAC) for the whole batch; adding a bias "
    "counts as a parameter and not as FLOPs; sizes are per axis, [H, W] in 2-D",
}


def json(
    rows: Iterable[NamedTuple], total: Record | None, unit: Unit, more: Mapping[str, object]
) -> Iterator[str]:
    """One object: schema, version, convention, rows, total, and ``more`` objects."""
    from json import dumps

    yield f'{{\n  "schema": "dscalc/1",\n  "version": {dumps(__version__)},\n'
    yield f'  "convention": {dumps(_CONVENTION[unit])},\n  "rows": [\n    '
    yield ",\n    ".join(dumps(values(row, unit), default=float) for row in rows)
    sums = values(total, unit) if total else None
    yield f'\n  ],\n  "total": {dumps(sums, default=float)}'
    for name, value in more.items():
        yield f",\n  {dumps(name)}: {dumps(value)}"
    yield "\n}\n"


def jsonl(rows: Iterable[NamedTuple], unit: Unit) -> Iterator[str]:
    """One object a row."""
    from json import dumps

    for row in rows:
        yield dumps(values(row, unit), default=float) + "\n"


def csv(rows: Iterable[NamedTuple], unit: Unit, kind: type[NamedTuple] = Record) -> Iterator[str]:
    """A header, which names the fields of a ``kind`` of record, and one line a row."""
    from csv import writer

    line = writer(_Returned(), lineterminator="\n").writerow
    yield line(names(kind._fields, unit))
    hints = enumerate(kind.__annotations__.values())
    spelled = [field for field, hint in hints if hint not in _AS_IS]
    for row in rows:
        cells = list(row if unit == "macs" else values(row, unit).values())
        for field in spelled:
            cells[field] = plain(cells[field])
        yield line(cells)


_AS_IS = (int, int | None, str, str | None, float)  # what csv writes as `plain` does, and sooner


class _Returned:
    """A file for csv.writer whose writerow then returns the line."""

    def write(self, line: str) -> str:
        return line


def fields(rows: Iterable[Mapping[str, Value]], wanted: Sequence[str]) -> Iterator[str]:
    """The wanted values of each row, separated by tabs."""
    for known in rows:
        yield "\t".join(plain(known[field]) for field in wanted) + "\n"


def plain(value: Value) -> str:
    """A value as one word of text; nothing for None."""
    return _PLAIN[type(value)](value)


_PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: str,
    str: str,
    float: repr,
    tuple: lru_cache(maxsize=256)(times),  # a long grid writes few sizes many times
    Fraction: lambda value: repr(value.numerator / value.denominator),  # as float() does, sooner
}


def markdown(sheet: "Sheet") -> Iterator[str]:
    """A table of GitHub-flavoured Markdown between its title and its notes."""
    yield f"**{_literal(sheet.title)}**\n\n"
    yield _line(map(_literal, sheet.header))
    yield _line([":--", *["--:"] * (len(sheet.header) - 1)])
    for row in sheet.rows:
        yield _line(map(_literal, row))
    if sheet.result:
        yield _line([f"**{_literal(cell)}**" if cell else "" for cell in sheet.result])
    for note in sheet.notes:
        yield f"\n{_literal(note)}\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _literal(text: str) -> str:
    for special in r"\`*_|<[":
        text = text.replace(special, f"\\{special}")
    return text
