"""The cells and sentences that people read, for the terminal, SVG and Markdown alike.

A number is written out in full, with thousands separators; only a terminal that is too narrow for
that gets three digits, and a table says so.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from dscalc.core.fields import UNITS, Field, Unit
from dscalc.core.row import Row
from dscalc.report import text
from dscalc.report.sentences import (
    DIFFERENT,
    EIGHTHS,
    MARKS,
    PENDING,
    SAME,
    percent_in_column,
    scaled,
)
from dscalc.show import in_six_digits, plural, times

_ASCII = {
    SAME: "ok",
    DIFFERENT: "NO",
    PENDING: "...",
    "≥": ">=",
    "█": "#",
    **dict.fromkeys(EIGHTHS[1:], "="),
}
LATE = 100  # ranks of columns that give way once names are shortened
LAST = 200  # and once numbers are rounded


class Number(NamedTuple):
    """A cell that a table which is too narrow writes in three digits: 118,013,952, or 118 M."""

    value: int
    lead: str = ""
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.lead}{self.value:,}{self.mark}"

    @property
    def rounded(self) -> str:
        """The same in three digits."""
        return f"{self.lead}{scaled(self.value)}{self.mark}"


Cell = str | Number


class Column(NamedTuple):
    """A column of a sheet.

    Args:
        head: its header; of bars, their scale.
        cell: its cell in a row.
        rank: when it gives way on a narrow terminal, 1 first; 0 is never.
        legend: what it means, said below the table while it is shown.
        role: "name" if it is one of those that together name a row, "kind" if it holds other words,
            "bar" if it holds bars, "asked" if the command line names it; the cells of a "listed"
            one stand below a table that is too narrow for it.
        narrow: a narrower cell, if it has one, and when that takes its place.
        narrow_head: its head then, if it is another one.
        needs: the header of a column that it makes no sense without.
        fields: the names of the fields that it shows.
    """

    head: str
    cell: Callable[[Any], Cell]
    rank: int = 0
    legend: str = ""
    role: Literal["", "name", "kind", "bar", "listed", "asked"] = ""
    narrow: tuple[int, Callable[[Any], Cell]] | None = None
    narrow_head: str = ""
    needs: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A titled table, one row that sums it up, and sentences below.

    Names, kinds and bars are aligned left, other cells right.

    Args:
        title: what it is of.
        columns: of each cell of a row.
        rows: their cells.
        result: the cells of the row that sums them up.
        notes: sentences below.
        checks: sentences, and whether each holds.
        lead: sentences that come before these, and above the table of a page.
        unseen: what rows do not show, in words: of rows that are summed, and of rows left out.
        names: the names of rows in full, where the first column has a part of them alone.
        modules: the rows, by number, of modules whose parts are rows too.
        paths: whether the first column holds names that may be shortened.
        flat: whether two names that differ should look different, which costs columns.
        result_first: whether a page, which is read from the top, begins with the result.
        narrow: of some columns, by number, the narrower cells of all rows and the result.
        last: the sentence that comes last of all.
    """

    title: str
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Cell]] = ()
    result: Sequence[Cell] | None = None
    notes: Sequence[str] = ()
    checks: Sequence[tuple[bool, str]] = ()
    lead: Sequence[str] = ()
    unseen: tuple[str, str] = ("", "")
    names: Sequence[str] = ()
    modules: Collection[int] = ()
    paths: bool = False
    flat: bool = False
    result_first: bool = False
    narrow: dict[int, list[Cell]] = field(default_factory=dict)
    last: str = ""

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[Column],
        rows: Sequence[Any],
        notes: Sequence[str],
        result: Any = None,
        **more: Any,
    ) -> "Sheet":
        """The columns of some rows, and of one that sums them up; a column of blanks is none."""
        read = [[column.cell(row) for row in rows] for column in columns]
        alone = result is not None and not rows  # then its own cells decide
        filled = [
            (column, cells)
            for column, cells in zip(columns, read, strict=True)
            if column.role in ("name", "asked")
            or any(cell not in ("", "-") for cell in ([column.cell(result)] if alone else cells))
        ]
        columns = [column for column, _ in filled]
        body = [list(cells) for cells in zip(*(cells for _, cells in filled), strict=True)]
        summed_up = None if result is None else [column.cell(result) for column in columns]
        everything = rows if result is None else [*rows, result]
        narrow = {
            at: [column.narrow[1](row) for row in everything]
            for at, column in enumerate(columns)
            if column.narrow
        }
        return cls(title, columns, body, summed_up, notes, narrow=narrow, **more)

    def said(self, left_out: Collection[Column] = (), *, rounded: bool = False) -> list[str]:
        """The sentences below the lead: legends of the columns that are shown, notes, the rest."""
        legends = [c.legend for c in self.columns if c.legend and c not in left_out]
        summed, hidden = self.unseen
        heads = [
            column.head.replace(",", " in")  # "time, us" in a list
            for column in self.columns
            if column in left_out and column.head and column.role not in ("bar", "listed")
        ]
        if heads:
            columns = f"{plural('column', len(heads))} {', '.join(heads)}"
            hidden = f"{hidden}; {columns}" if hidden else columns
        rest = [
            summed,
            f"not shown: {hidden}" if hidden else "",
            "numbers of the table are rounded" if rounded else "",
        ]
        last = "; ".join(filter(None, rest))
        return [*filter(None, ["; ".join(legends)]), *self.notes, *filter(None, [last, self.last])]


class Counts:
    """Columns of counts in the unit of a report."""

    def __init__(self, unit: Unit) -> None:
        self.label, self._scale = UNITS[unit]
        self._unit = unit

    def number(self, macs: int, lead: str = "", mark: str = "") -> Number:
        """A count in that unit."""
        return Number(macs * self._scale, lead, mark)

    def text(self, macs: int) -> str:
        """The same, written out."""
        return f"{macs * self._scale:,}"

    def as_is(self) -> Column:
        """As it is, with a mark where something else is counted; if known in part, the part."""

        def cell(row: Row) -> Cell:
            macs = row.as_is.cost.macs
            if row.unknown:
                return self.number(macs, lead="≥ ") if macs else "not known"
            differs = macs and row.crosscheck == "mismatch"
            return self.number(macs, mark=f" {DIFFERENT}" if differs else "")

        return Column(self.label, cell, fields=(self._unit,))

    def rewritten(self, head: str, *, marked: bool = False, **more: Any) -> Column:
        """As it is rewritten."""

        def cell(row: Row) -> Cell:
            mark = MARKS[row.crosscheck] if marked else ""
            return "" if row.unknown else self.number(row.replacement.cost.macs, mark=mark)

        return Column(head, cell, **more)


def params(side: str = "as_is") -> Column:
    """The params of a side."""
    return Column("params", lambda row: Number(getattr(row, side).cost.params), fields=("params",))


def name(head: str) -> Column:
    """What a row is called."""
    return Column(head, lambda row: row.name or "", role="name")


def ratio(head: str = "ratio", **more: Any) -> Column:
    """MACs, rewritten / as it is; nothing where they are not known."""

    def cell(row: Row) -> str:
        return percent_in_column(None if row.unknown else row.mac_ratio)

    return Column(head, cell, fields=("mac_ratio",), **more)


def with_asked(
    columns: Sequence[Column],
    asked: Iterable[Field],
    row_of: Callable[[Any], Row] = lambda row: row,
) -> list[Column]:
    """The columns, and those of the fields that are asked for, none of which gives way.

    ``row_of`` gives the row of a line of the sheet.
    """
    wanted = {each.name: each for each in asked}
    shown = {name for column in columns for name in column.fields}
    kept = [
        column
        if wanted.keys().isdisjoint(column.fields)
        else column._replace(rank=0, role=column.role or "asked")
        for column in columns
    ]
    more = [_column_of(each, row_of) for name, each in wanted.items() if name not in shown]
    end = len(kept) - (kept[-1].role == "bar")
    return [*kept[:end], *more, *kept[end:]]


def _column_of(asked: Field, row_of: Callable[[Any], Row]) -> Column:
    def cell(line: Any) -> Cell:
        value = asked.read(row_of(line))
        if type(value) is int:
            return Number(value)
        return in_six_digits(value) if asked.is_number and value is not None else text.plain(value)

    return Column(asked.name.replace("_", " "), cell, role="asked", fields=(asked.name,))


def channels(row: Row) -> str:
    """Those that a row reads and leaves: 64 -> 128."""
    layer = row.layer
    return f"{layer.in_channels} -> {layer.out_channels}" if layer.in_channels else ""


_SIZES = (
    Column("channels", channels, role="name", fields=("in_channels", "out_channels")),
    Column("F", lambda row: times(row.layer.kernel_size), role="name", fields=("kernel_size",)),
    Column("D", lambda row: times(row.layer.input_size), role="name", fields=("input_size",)),
)


def varying(title: str, rows: Sequence[Row], *, selected: bool) -> tuple[str, list[Column]]:
    """The title of a grid, and as columns the sizes in which layers differ; it has the others.

    A title that begins with the channels is that of one layer, and needs no columns.
    """
    first = rows[0]
    if title.startswith(channels(first)):
        return title, []
    differ = [size for size in _SIZES if len(set(map(size.cell, rows))) > 1]
    differ = differ or [*_SIZES]  # of the only row that is left, all are columns
    said = [f"{size.head} {size.cell(first)}" for size in _SIZES if size not in differ]
    if said:
        title += f"{'; shown: ' if selected else ', '}{', '.join(said)}"
    return title, differ


def in_ascii(sheet: Sheet) -> Sheet:
    """The sheet in plain characters, for a stream that carries no others."""

    def plain(text: str) -> str:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
        return text.encode("ascii", "backslashreplace").decode()

    def in_plain(cell: Cell) -> Cell:
        if isinstance(cell, Number):
            return cell._replace(lead=plain(cell.lead), mark=plain(cell.mark))
        return plain(cell)

    return replace(
        sheet,
        title=plain(sheet.title),
        columns=[column._replace(head=plain(column.head)) for column in sheet.columns],
        rows=[[in_plain(cell) for cell in row] for row in sheet.rows],
        result=sheet.result and [in_plain(cell) for cell in sheet.result],
        lead=[plain(sentence) for sentence in sheet.lead],
        notes=[plain(note) for note in sheet.notes],
        narrow={at: [in_plain(cell) for cell in cells] for at, cells in sheet.narrow.items()},
    )
