"""What a command or a library call answers: rows, their total, and what was checked."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dscalc._version import __version__
from dscalc.checks.verdict import Check, row_name
from dscalc.core.blocks import Block
from dscalc.core.fields import Field, Fields, Unit
from dscalc.core.row import Count, Row, proved, total
from dscalc.errors import DscalcError
from dscalc.show import plural

if TYPE_CHECKING:  # machine formats need no sheet
    from dscalc.report.sheet import Sheet

Kind = TypeVar("Kind", bound="Report")
SCHEMA = "dscalc/3"
_MOST_REASONS = 20  # of what is left out, so that a large grid does not flood the terminal
CONVENTION = {
    "macs": "MACs are multiply-accumulates (1 MAC = 2 FLOPs) for the whole batch; adding a bias "
    "counts as a parameter and not as a MAC; sizes are per axis, [H, W] in 2-D",
    "flops": "FLOPs are 2 per multiply-accumulate (MAC) for the whole batch; adding a bias "
    "counts as a parameter and not as FLOPs; sizes are per axis, [H, W] in 2-D",
}
_SHEETS = {  # where what people read of each command's report is worked out
    "compare": "dscalc.report.layer_tables",
    "blocks": "dscalc.report.layer_tables",
    "network": "dscalc.report.network_tables",
    "model": "dscalc.report.network_tables",
}


@dataclass(eq=False, repr=False)
class Report:
    """Rows, their total, and what was checked of them.

    Args:
        command: the command that makes such rows.
        block: what they are rewritten as; None if nothing is rewritten.
        fields: what each row says.
        rows: in order; of a large grid an iterable, which makes them one at a time.
        total: of all rows; None if they are alternatives, which do not add up.
        checks: what became of each assertion.
        title: what the rows are, for people.
        inputs: what they were counted on, such as 1x3x224x224; ``""`` if each row has its own.
        at: the same after the title, in words.
        notes: what else people should know, one sentence each.
        doubts: those of the notes that say why the total is not proved.
        faults: what differs in the total from what was counted, one sentence each.
        unit: of the counts that are shown, macs or flops.
        count: how many rows there are at most, if that is known before they are read.
        left_out: how many rows do not exist, by the reason; known once the rows are read.
        selected: how the rows were chosen, in words; ``""`` if they are all that there are.
        classes: of what class the module at each path is.
        parts: the rows of a model before they were summed by ``--depth``; a table is made of these.
        depth: how many parts of module paths a table sums rows by: None for a table of at most
            30 lines, 0 for all rows.
        asked: the fields that a command line names; a table always shows them.
        work: whether people read the arithmetic of each step.
        name: what a row is called in a sentence.
        prove: adds to a row what fvcore and torch count.
        progress: gets how much of a next row is done, while slow rows are made.
        extra: data of a slice, which nothing else reads.
    """

    command: str
    block: Block | None
    fields: Fields
    rows: Iterable[Row]
    total: Row | None = None
    checks: list[Check] = field(default_factory=list)
    title: str = ""
    inputs: str = ""
    at: str = ""
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unit: Unit = "macs"
    count: int | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    selected: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Row] | None = None
    depth: int | None = None
    asked: Sequence[Field] = ()
    work: bool = False
    name: Callable[[Row], str] = row_name
    prove: Callable[[Row, Count], Row] = proved
    progress: Callable[[float], object] = lambda rows: None
    extra: Any = None

    @property
    def replacement(self) -> Block:
        """What rows are rewritten as, of a report that rewrites them."""
        assert self.block is not None
        return self.block

    @property
    def adds_up(self) -> bool:
        """Whether what is asked of it is asked of the total; one layer has one for its JSON."""
        return self.total is not None and self.command in ("network", "model")

    @property
    def whole(self) -> Row:
        """The total.

        Raises:
            DscalcError: there is none: the rows are alternatives.
        """
        if self.total is None:
            raise DscalcError(
                f"there is no total of {self.title}; give the report of one layer, network or model"
            )
        return self.total

    def as_a(self, kind: type[Kind], **more: Any) -> Kind:
        """The same as another kind of report, with ``more`` that this kind says."""
        return kind(**{each.name: getattr(self, each.name) for each in fields(Report)} | more)

    def proved(self, count: Count) -> "Report":
        """The report with what is counted of each row, and of all."""
        self.rows = [self.prove(row, count) for row in self.rows]
        if self.total is not None:
            self.total = total(self.rows)
        return self

    @property
    def remarks(self) -> list[str]:
        """The notes, and which blocks do not exist for how many layers, and why."""
        return [*self.notes, *self.left_out_notes]

    @property
    def macs(self) -> int | None:
        """MACs of the total; None if there is none, or some of its operators have no formula."""
        return None if self.total is None or self.total.unknown else self.total.as_is.cost.macs

    @property
    def params(self) -> int | None:
        """Params of the total; None if there is none."""
        return None if self.total is None else self.total.as_is.cost.params

    @property
    def left_out_notes(self) -> list[str]:
        """Which blocks do not exist for how many layers, and why."""
        said = list(self.left_out.items())[:_MOST_REASONS]
        notes = [
            f"left out: {why}{f' ({number:,} layers)' if number > 1 else ''}"
            for why, number in said
        ]
        if more := self.left_out.total() - sum(number for _, number in said):
            reasons = len(self.left_out) - len(said)
            notes.append(
                f"left out: {more:,} more, for {reasons:,} more {plural('reason', reasons)}"
            )
        return notes

    @property
    def lines(self) -> tuple[Iterable[Any], Fields]:
        """What CSV and JSON Lines tell of, and by which fields."""
        return self.rows, self.fields

    def __iter__(self) -> Iterator[Row]:
        """The rows, such as ``for row in report``."""
        return iter(self.rows)

    def to_frame(self) -> Any:
        """The rows as a DataFrame of pandas, where counts stay whole numbers: as Int64.

        Raises:
            ImportError: pandas is not installed.
        """
        from pandas import DataFrame

        frame = DataFrame(self.to_records(), columns=self.fields.names, dtype=object)
        counts = [frame[each.name] for each in self.fields if each.type is int]
        small = [count for count in counts if not (count.dropna().abs() >= 2**63).any()]
        return frame.infer_objects().assign(**{each.name: each.astype("Int64") for each in small})

    def to_records(self, *, exact: bool = False) -> list[dict[str, Any]]:
        """Each row by the names of its fields.

        Ratios are floats; if ``exact``, they are Fractions.
        """
        return list(map(self.fields.exact if exact else self.fields.record, self.rows))

    def head(self) -> dict[str, Any]:
        """What the JSON says before its rows."""
        head: dict[str, Any] = {
            "schema": SCHEMA,
            "version": __version__,
            "convention": CONVENTION[self.unit],
        }
        as_ = None if self.block is None else str(self.block)
        head |= {"command": self.command, "as": as_, "inputs": self.inputs or None}
        memory = self.total.memory if self.total else None
        return head | ({"bits": memory.run.bits} if memory and memory.run.bits else {})

    def foot(self) -> dict[str, Any]:
        """What the JSON says after its rows."""
        total = self.fields.record(self.total) if self.total else None
        unknown = [self.total.no_formula] if self.total and self.total.unknown else []
        memory = self.total.memory.run.remarks if self.total and self.total.memory else []
        return {
            "total": total,
            "notes": [*unknown, *self.remarks, *memory],
            "checks": [check._asdict() for check in self.checks],
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON: counts as ints, ratios as floats, sizes as lists."""
        everything = self.head() | {"rows": self.to_records()} | self.foot()
        plain: dict[str, Any] = _plain_data(everything)
        return plain

    def json(self) -> Iterator[str]:
        """The JSON as text, a row a line."""
        from dscalc.report import text

        return text.json(self)

    def bare(self) -> str:
        """What is written as it is in place of a table; "" where there is a table."""
        return ""

    def sheet(self) -> "Sheet":
        """What people read of it."""
        checks = [(check.holds, check.sentence) for check in self.checks]
        return replace(self.table(), checks=checks)

    def table(self) -> "Sheet":
        """The same without what became of assertions."""
        made: Sheet = import_module(_SHEETS[self.command]).sheet(self)
        return made

    @property
    def exit_code(self) -> int:
        """1 if the answer is no, whatever is asserted."""
        return 0

    def draw(self, path: Path, kind: str) -> None:
        """Draw its picture; ``kind`` is png, svg or pdf.

        Raises:
            DscalcError: there is more in it than a picture can show.
            ImportError: there is no matplotlib.
        """
        from dscalc.report import plot

        plot.draw(self, path, kind)

    def plot(self, file: str | PathLike[str]) -> None:
        """Draw its picture in a file that ends in .png, .svg or .pdf, as ``--plot`` does.

        Raises:
            DscalcError: the file ends otherwise, or there is more in it than a picture can show.
            ImportError: there is no matplotlib.
        """
        from dscalc.report.file import kind_of_picture, replacing

        kind = kind_of_picture(Path(file))
        with replacing(Path(file)) as path:
            self.draw(path, kind)

    def __repr__(self) -> str:
        return f"<Report of dscalc {self.command}: {self.title}>"

    def __str__(self) -> str:
        """Show the table as Markdown, which reads well as plain text too."""
        from dscalc.report import text

        return "".join(text.markdown(self.sheet()))

    def _repr_markdown_(self) -> str:
        return str(self)  # what a notebook shows


def _plain_data(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain_data(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_data(inner) for inner in value]
    return value
