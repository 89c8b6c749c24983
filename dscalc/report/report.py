"""What a command or a library call answers: rows, their total, and what was checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from dscalc import show
from dscalc._version import __version__
from dscalc.core.blocks import Block
from dscalc.core.fields import Command, Field, Unit, fields, records, values
from dscalc.core.row import Row

if TYPE_CHECKING:  # few reports have them
    from dscalc.baseline.changes import Change
    from dscalc.baseline.earlier import Baseline

SCHEMA = "dscalc/2"
CONVENTION = {
    "macs": "MACs are multiply-accumulates (1 MAC = 2 FLOPs) for the whole batch; adding a bias "
    "counts as a parameter and not as a MAC; sizes are per axis, [H, W] in 2-D",
    "flops": "FLOPs are 2 per multiply-accumulate (MAC) for the whole batch; adding a bias "
    "counts as a parameter and not as FLOPs; sizes are per axis, [H, W] in 2-D",
}


class Check(NamedTuple):
    """What became of an assertion.

    Args:
        assertion: as it is written.
        holds: whether it holds in every row that it was checked in.
        value: of its field, in the row that is nearest to the limit; of rows that fail, in the one
            that is furthest from it.
        row: the name of that row; "" for a total and for the only layer.
        rows: how many rows it was checked in.
        failed: how many of them it fails in.
        limit: what the value is held against.
    """

    assertion: str
    holds: bool
    value: int | float | Fraction | None
    row: str
    rows: int
    failed: int
    limit: int | float | Fraction = 0

    @property
    def sentence(self) -> str:
        """What became of it, in words."""
        if self.value is None:
            return f"{self.assertion}: not known"
        if self.holds:
            where = f" in all {self.rows:,} rows" if self.rows > 1 else ""
            return f"{self.assertion}: holds{where or f', {show.exact(self.value)}'}"
        where = f" in {self.failed:,} of {self.rows:,} rows, furthest" if self.rows > 1 else ""
        where += f" in {self.row}" if self.row else ""
        return f"{self.assertion}: fails{where}: {show.exact(self.value)}"


@dataclass(eq=False, repr=False)  # frozen, it takes twice as long to define
class Report:
    """Rows, their total, and what was checked of them.

    Args:
        command: the command that makes such rows.
        block: what they are rewritten as.
        rows: in order; an iterable that is read once where they are streamed.
        total: of all rows; None where they are alternatives.
        checks: what became of each assertion.
        title: what the rows are, for people.
        notes: what else people should know, one sentence each.
        faults: what differs in the total from what was counted, one sentence each.
        unit: of the counts that are shown, macs or flops.
        baseline: an earlier report that this one is held against.
        changes: what became of each row since.
        extra: what a slice knows of it besides.
        selected: whether the rows are some of those that the title speaks of.
    """

    command: Command
    block: Block
    rows: Iterable[Row]
    total: Row | None = None
    checks: list[Check] = field(default_factory=list)
    title: str = ""
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unit: Unit = "macs"
    baseline: "Baseline | None" = None
    changes: "list[Change]" = field(default_factory=list)
    extra: Any = None
    selected: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """What each row says."""
        return fields(self.command, self.block, self.unit)

    @property
    def change_fields(self) -> tuple[Field, ...]:
        """What each change says."""
        from dscalc.baseline.earlier import change_fields

        return change_fields(self.unit)

    def to_records(self, *, exact: bool = False) -> list[dict[str, Any]]:
        """Each row by the names of its fields, as rows of a DataFrame.

        Ratios are floats; if ``exact``, they are Fractions.
        """
        found = records(self.rows, self.fields)
        if exact:
            return list(found)

        def plain(value: Any) -> Any:
            return float(value) if isinstance(value, Fraction) else value

        return [{name: plain(value) for name, value in record.items()} for record in found]

    def head(self) -> dict[str, Any]:
        """What the JSON says before its rows."""
        head = {"schema": SCHEMA, "version": __version__, "convention": CONVENTION[self.unit]}
        head["command"] = self.command
        return head if self.command == "check" else head | {"as": str(self.block)}

    def foot(self) -> dict[str, Any]:
        """What the JSON says after its rows."""
        total = values(self.total, self.fields) if self.total else None
        foot: dict[str, Any] = {"total": total}
        if self.baseline:
            foot["baseline"] = {
                "file": self.baseline.name,
                "total": values(self.baseline.total, self.fields),
                "changes": [values(change, self.change_fields) for change in self.changes],
            }
        if self.command != "check":  # whose rows are what became of assertions
            foot["checks"] = [check._asdict() for check in self.checks]
        return foot

    def to_dict(self) -> dict[str, Any]:
        """The JSON: counts as ints, ratios as floats, sizes as lists."""
        everything = self.head() | {"rows": self.to_records()} | self.foot()
        plain: dict[str, Any] = _plain(everything)
        return plain

    def __repr__(self) -> str:
        return f"<Report of dscalc {self.command}: {self.title}>"

    def __str__(self) -> str:
        """Show the table as Markdown, which reads well as plain text too."""
        from dscalc.report import sheet, text

        return "".join(text.markdown(sheet.of(self)))

    def _repr_markdown_(self) -> str:
        return str(self)  # what a notebook shows


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
