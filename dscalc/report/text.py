"""Reports -> JSON, JSON Lines, CSV, Markdown and bare values, with the standard library alone.

Machine formats carry raw integers, and a name that ends in the unit of its number. Sizes are
lists in JSON and HxW elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from dscalc.core.fields import Field, Value
from dscalc.core.row import Row
from dscalc.report.report import Report
from dscalc.show import times

if TYPE_CHECKING:  # machine formats need no sheet
    from dscalc.report.sheet import Sheet


def json(report: Report) -> Iterator[str]:
    """One object: what the report is, a row a line, the total and the checks."""
    from json import dumps

    for key, value in report.head().items():
        yield f"{'{' if key == 'schema' else ','}\n  {dumps(key)}: {dumps(value)}"
    yield ',\n  "rows": [\n    '
    rows = report.fields.records(report.rows)
    yield ",\n    ".join(dumps(record, default=float) for record in rows)
    yield "\n  ]"
    for key, value in report.foot().items():
        yield f",\n  {dumps(key)}: {dumps(value, default=float)}"
    yield "\n}\n"


def jsonl(report: Report) -> Iterator[str]:
    """One object a line."""
    from json import dumps

    lines, fields = report.lines
    for record in fields.records(lines):
        yield dumps(record, default=float) + "\n"


def csv(report: Report) -> Iterator[str]:
    """A header, which names the fields, and one row a line."""
    lines, fields = report.lines
    yield ",".join(fields.names) + "\n"
    cells, read = _CELLS, fields.read
    for line in lines:
        yield ",".join([cells[type(value)](value) for value in read(line)]) + "\n"


def _word(text: str) -> str:
    """A cell, quoted if it must be; a spreadsheet would run what begins like a formula."""
    if text.startswith(("=", "+", "-", "@", "\t", "\r")):
        text = f"'{text}"
    if text.isprintable() and "," not in text and '"' not in text:
        return text
    from csv import writer

    line: str = writer(_Returned(), lineterminator="\n").writerow([text])
    return line[:-1]


class _Returned:
    """A file for csv.writer whose writerow then returns the line."""

    def write(self, line: str) -> str:
        return line


class _Spelling(dict[Any, str]):
    """What was made of each value: a long grid writes few words and sizes many times."""

    def __init__(self, spell: Callable[[Any], str]) -> None:
        super().__init__()
        self._spell = spell

    def __missing__(self, value: Any) -> str:
        if len(self) >= _MOST_SPELLED:
            self.clear()
        text = self[value] = self._spell(value)
        return text


def bare(rows: Iterable[Row], wanted: Sequence[Field]) -> Iterator[str]:
    """The wanted values of each row, separated by tabs."""
    for row in rows:
        yield "\t".join(plain(field.read(row)) for field in wanted) + "\n"


def plain(value: Value) -> str:
    """A value as one word of text; nothing for None."""
    return _PLAIN[type(value)](value)


_PLAIN: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: str,
    str: str,
    float: repr,
    tuple: times,
    list: lambda steps: "; ".join(
        f"{step['name']} {times(step['kernel_size'])} "
        f"{step['in_channels']} -> {step['out_channels']}"
        for step in steps
    ),
    dict: lambda calls: "; ".join(f"{name} {number}" for name, number in calls.items()),
    Fraction: lambda value: repr(value.numerator / value.denominator),
}
_MOST_SPELLED = 5000
_CELLS: dict[type, Callable[[Any], str]] = _PLAIN | {
    str: _Spelling(_word).__getitem__,
    tuple: _Spelling(times).__getitem__,
    list: lambda steps: _word(plain(steps)),
    dict: lambda calls: _word(plain(calls)),
}


def markdown(sheet: "Sheet") -> Iterator[str]:
    """A table of GitHub-flavoured Markdown between its title and its notes; then the checks."""
    yield f"**{_literal(sheet.title)}**\n\n"
    yield from (f"{_literal(sentence)}\n\n" for sentence in sheet.lead)
    shown = [at for at, column in enumerate(sheet.columns) if column.role != "bar"]

    def cells(row: Sequence[Any], name: str = "") -> list[str]:
        return [_literal(name if name and not at else str(row[at])) for at in shown]

    yield _line(_literal(sheet.columns[at].head) for at in shown)
    words = [not at or sheet.columns[at].role == "kind" for at in shown]
    yield _line(":--" if word else "--:" for word in words)
    names = sheet.names or [""] * len(sheet.rows)
    lines = [_line(cells(row, name)) for row, name in zip(sheet.rows, names, strict=True)]
    if sheet.result:
        result = _line(f"**{cell}**" if cell else "" for cell in cells(sheet.result))
        lines.insert(0 if sheet.result_first else len(lines), result)
    yield from lines
    for note in sheet.said():
        yield f"\n{_literal(note)}\n"
    for number, (holds, sentence) in enumerate(sheet.checks):
        yield f"{'' if number else chr(10)}- [{'x' if holds else ' '}] {_literal(sentence)}\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _literal(text: str) -> str:
    for special in r"\`*_|<[":
        text = text.replace(special, f"\\{special}")
    return text
