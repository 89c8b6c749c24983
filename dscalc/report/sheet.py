"""The cells and sentences that people read, for the terminal, SVG and Markdown alike.

A number is written out in full, with thousands separators.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from dscalc.core.fields import UNITS, Unit
from dscalc.core.row import Row
from dscalc.report.sentences import DIFFERENT, EIGHTHS, MARKS, PENDING, SAME, percent_in_column
from dscalc.show import times

_ASCII = {SAME: "ok", DIFFERENT: "NO", PENDING: "...", "█": "#", **dict.fromkeys(EIGHTHS[1:], "=")}
LATE = 100  # a rank of columns that give way only once module paths are shortened


class Column(NamedTuple):
    """A column of a sheet.

    Args:
        head: its header; of bars, their scale.
        cell: its cell in a row.
        rank: when it gives way on a narrow terminal, 1 first; 0 is never.
        legend: what it means, said below the table while it is shown.
        role: "name" if it is one of those that together name a row, "bar" if it holds bars; the
            cells of a "listed" one stand below a table that is too narrow for it.
    """

    head: str
    cell: Callable[[Any], str]
    rank: int = 0
    legend: str = ""
    role: Literal["", "name", "bar", "listed"] = ""


@dataclass(frozen=True)
class Sheet:
    """A titled table, one row that sums it up, and sentences below.

    The first column is aligned left, the others right but for bars.

    Args:
        title: what it is of.
        columns: of each cell of a row.
        rows: their cells.
        result: the cells of the row that sums them up.
        notes: sentences below.
        checks: sentences, and whether each holds.
        paths: whether the first column holds module paths, which may be shortened.
        result_first: whether a page, which is read from the top, begins with the result.
    """

    title: str
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[str]] = ()
    result: Sequence[str] | None = None
    notes: Sequence[str] = ()
    checks: Sequence[tuple[bool, str]] = ()
    paths: bool = False
    result_first: bool = False

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[Column],
        rows: Iterable[Any],
        notes: Sequence[str],
        result: Any = None,
        **more: Any,
    ) -> "Sheet":
        """The columns of some rows, and of one that sums them up."""

        def cells(row: Any) -> list[str]:
            return [column.cell(row) for column in columns]

        summed_up = None if result is None else cells(result)
        return cls(title, columns, [*map(cells, rows)], summed_up, notes, **more)

    @property
    def header(self) -> list[str]:
        """The head of each column."""
        return [column.head for column in self.columns]

    def said(self, left_out: Collection[Column] = ()) -> list[str]:
        """The sentences below the table: the legend of the columns that are shown, the notes."""
        legends = [c.legend for c in self.columns if c.legend and c not in left_out]
        return [*(["; ".join(legends)] if legends else []), *self.notes]


class Counts:
    """Columns of counts in the unit of a report."""

    def __init__(self, unit: Unit) -> None:
        self.label, self._scale = UNITS[unit]

    def text(self, macs: int) -> str:
        """A count in that unit."""
        return f"{macs * self._scale:,}"

    def as_is(self, head: str = "", **more: Any) -> Column:
        """As it is, with the mark of its check; nothing is checked that has no MACs."""

        def cell(row: Row) -> str:
            if row.unknown:
                return "not known"
            mark = MARKS[row.crosscheck] if row.as_is.cost.macs else ""
            return f"{self.text(row.as_is.cost.macs)}{mark}"

        return Column(head or self.label, cell, **more)

    def rewritten(self, head: str, *, marked: bool = False, **more: Any) -> Column:
        """As it is rewritten."""

        def cell(row: Row) -> str:
            mark = MARKS[row.crosscheck] if marked else ""
            return f"{self.text(row.rewritten.cost.macs)}{mark}"

        return Column(head, cell, **more)


def params(side: str, rank: int = 0) -> Column:
    """The params of a side."""
    return Column("params", lambda row: f"{getattr(row, side).cost.params:,}", rank)


def name(head: str = "layer") -> Column:
    """What a row is called."""
    return Column(head, lambda row: row.name or "", role="name")


def ratio(head: str = "ratio", **more: Any) -> Column:
    """MACs, rewritten / as it is."""
    return Column(head, lambda row: percent_in_column(row.mac_ratio), **more)


def channels(row: Row) -> str:
    """Those that a row reads and leaves: 64 -> 128."""
    layer = row.layer
    return f"{layer.in_channels} -> {layer.out_channels}" if layer.in_channels else ""


_SIZES: dict[str, Callable[[Row], str]] = {
    "channels": channels,
    "F": lambda row: times(row.layer.kernel_size),
    "D": lambda row: times(row.layer.input_size),
}


def varying(title: str, rows: Sequence[Row], *, selected: bool) -> tuple[str, list[Column]]:
    """The title of a grid, and as columns the sizes in which layers differ; it has the others.

    A title that begins with the channels is that of one layer, and needs no columns.
    """
    first = rows[0]
    if title.startswith(channels(first)):
        return title, []
    alike = {head: len({size(row) for row in rows}) == 1 for head, size in _SIZES.items()}
    if all(alike.values()):  # of the only row that is left, all are columns
        alike = dict.fromkeys(alike, False)
    said = [f"{head} {_SIZES[head](first)}" for head, same in alike.items() if same]
    if said:
        title += f"{'; shown: ' if selected else ', '}{', '.join(said)}"
    differ = [head for head, same in alike.items() if not same]
    return title, [Column(head, _SIZES[head], role="name") for head in differ]


def in_ascii(sheet: Sheet) -> Sheet:
    """The sheet in plain characters, for a stream that carries no others."""

    def plain(text: str) -> str:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
        return text.encode("ascii", "backslashreplace").decode()

    return replace(
        sheet,
        title=plain(sheet.title),
        columns=[column._replace(head=plain(column.head)) for column in sheet.columns],
        rows=[[plain(cell) for cell in row] for row in sheet.rows],
        result=sheet.result and [plain(cell) for cell in sheet.result],
        notes=[plain(note) for note in sheet.notes],
    )
