"""One way to an answer: select, prove and check a report; then write it."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from dscalc.checks.verdict import Verdict
from dscalc.commands.asked import Asked
from dscalc.commands.proof import counter
from dscalc.commands.writing import drawn, write, write_pieces
from dscalc.core.fields import UNITS
from dscalc.core.row import Row, summed_by_path, total
from dscalc.errors import DscalcError
from dscalc.report import text
from dscalc.report.report import Report
from dscalc.show import plural

_MOST_ROWS = 10_000  # of a format that holds all rows at once


class Answer:
    """A report as it is asked for; it is proved, checked and written once that is asked.

    Args:
        report: the rows, and their total if they have one.
        asked: what of it is shown, and what must hold.
        prove: whether to count its rows; the rows of a model have been counted.
    """

    def __init__(self, report: Report, asked: Asked, *, prove: bool = False) -> None:
        self._report, self._asked, self._verdict = report, asked, asked.verdict
        self._count = counter(asked) if prove else None

    @property
    def verdict(self) -> Verdict:
        """What became of each check, once the answer is written or settled."""
        return self._verdict

    def write(self) -> int:
        """Write it, and return the exit code."""
        asked, report = self._asked, self._report
        _refuse_too_many_rows(report, asked)
        if asked.streamed and not report.adds_up:
            self._write(replace(report, rows=self._rows()))
            for note in report.left_out_notes:
                self._verdict.note(note)
            self._conclude_selection()
        else:
            with self._verdict.held():
                if self._is_live:
                    self._write_live()
                elif (finished := self._finished()) is not None:
                    self._write(finished)
        return self._conclude()

    def settle(self) -> int:
        """Prove and check it without writing anything, and return the exit code."""
        if self._report.adds_up:
            self._finished()
        else:
            deque(self._rows(), maxlen=0)
            self._conclude_selection()
        return self._conclude()

    def _conclude(self) -> int:
        code = self._verdict.conclude()
        return 130 if getattr(self._report, "interrupted", False) else code

    # ---- Select, prove, check. ----

    def _rows(self) -> Iterator[Row]:
        """The rows that are asked for, proved and checked."""
        selection, rows = self._asked.selection, self._watched()
        if not selection:
            rows = self._proved(rows)
        elif any(field.formula for field in selection.fields):  # it reads what is counted
            rows = selection.of(self._proved(rows))
        else:
            rows = self._proved(selection.of(rows))
        name = self._report.name
        asserts = bool(self._verdict.assertions)
        for row in rows:
            self._crosscheck(row)
            if isinstance(row.extra, Report) and (reason := self._not_known(row)):
                self._verdict.refuse(f"{name(row)}: {reason}")
                continue
            if asserts:
                self._verdict.check(row, name)
            yield row

    def _finished(self) -> Report | None:
        """The report with all that is asked for; None if each row had an error."""
        return self._summed() if self._report.adds_up else self._held()

    def _summed(self) -> Report:
        """Rows that make a total, which stays the total of all of them."""
        asked, verdict, report = self._asked, self._verdict, self._report
        if self._count:
            report = replace(report, rows=self._watched()).proved(self._count)
        for row in report.rows:
            self._crosscheck(row)
        for fault in report.faults:
            verdict.differs(fault)
        if report.depth:
            report = replace(report, rows=summed_by_path(report.rows, report.depth))
        report = asked.question.answer(report, asked)
        assert report.total is not None
        if reason := self._not_known(report.total):
            raise DscalcError(reason)
        verdict.check(report.total, lambda _: "", each=False)
        rows, notes, selection = list(report.rows), report.notes, asked.selection
        if selection:
            everything, rows = rows, list(selection.of(rows))
            self._conclude_selection()
            kept = {id(row) for row in rows}
            hidden = [row for row in everything if id(row) not in kept]
            selected = [selection.sentence()] if selection.leaves_out else []
            notes = [*selected, *_hidden_notes(hidden, UNITS[report.unit][0]), *notes]
        for row in rows:
            verdict.check(row, each=True)
        return replace(report, rows=rows, notes=notes, checks=verdict.checks)

    def _held(self) -> Report | None:
        """Rows that have no total, all of them at once."""
        asked, report, rows = self._asked, self._report, self._rows()
        held = list(islice(rows, _MOST_ROWS))
        if next(rows, None):
            narrower = "narrow --where, or add --top N"
            fix = narrower if asked.output.top is None else "give a smaller --top"
            raise DscalcError(
                f"more than {_MOST_ROWS:,} rows are left, too many for {_holder(asked)}; {fix}"
            )
        if not held and report.left_out:
            raise DscalcError(f"no layer is left; {report.left_out_notes[0]}")
        if not held and not asked.selection:
            return None
        self._conclude_selection()
        selected = [asked.selection.sentence()] if asked.selection else []
        whole = total(held) if report.total is not None and not asked.selection else None
        found = replace(
            report, rows=held, total=whole, notes=[*report.notes, *selected],
            checks=self._verdict.checks, selected=bool(selected),
        )  # fmt: skip
        return asked.question.answer(found, asked)

    def _watched(self) -> Iterable[Row]:
        """The rows, with a progress bar on a terminal that nothing else writes to."""
        report, output = self._report, self._asked.output
        doing = "measuring" if self._asked.command == "bench" else "counting"
        slow = self._count or self._asked.command == "bench"
        streamed = output.file is None and sys.stdout.isatty() and output.format in ("csv", "jsonl")
        if not slow or not report.count or output.quiet or streamed or not sys.stderr.isatty():
            return report.rows
        from dscalc.report import table

        return table.progress(report.rows, report.count, sys.stderr, doing)

    def _proved(self, rows: Iterable[Row]) -> Iterable[Row]:
        count, prove = self._count, self._report.prove
        return (prove(row, count) for row in rows) if count else rows

    def _crosscheck(self, row: Row) -> None:
        """Say where the counts of a row differ from its formulas; of a total, those in it."""
        inside = row.extra
        if not isinstance(inside, Report):
            self._verdict.crosscheck(row, self._report.fields, self._report.name)
            return
        for part in inside.rows:
            self._verdict.crosscheck(part, inside.fields)
        for fault in inside.faults:
            self._verdict.differs(fault)

    def _not_known(self, whole: Row) -> str:
        """Why a field of --get has no value in a total, if that is for operators not known."""
        for field in self._asked.get:
            if field.read(whole) is None and field.read(whole._replace(unknown=())) is not None:
                return f"{field.name} is not known: {whole.no_formula}"
        return ""

    def _conclude_selection(self) -> None:
        """Where no row satisfies --where, the answer is no."""
        selection = self._asked.selection
        if selection and selection.none_left:
            self._verdict.fails(selection.why_none(self._report.name))

    # ---- Write. ----

    @property
    def _is_live(self) -> bool:
        """Whether a layer is shown at once, and its cross-check as soon as it is there."""
        output, report = self._asked.output, self._report
        one_layer = report.command == "compare" and report.total is not None
        plain = output.format == "table" and not output.file and not output.get
        question = self._asked.question.asked or self._asked.selection
        return bool(self._count and one_layer and plain and not question and sys.stdout.isatty())

    def _write_live(self) -> None:
        from dscalc.report import layer_tables, table

        [row] = self._report.rows
        first = layer_tables.one_layer(self._report, row, pending=True)
        with table.live(first, sys.stdout) as replaced:
            finished = self._finished()
            assert finished is not None
            replaced(finished.sheet())

    def _write(self, report: Report) -> None:
        """Write a report, or the fields of --get alone; and draw it where that is asked for."""
        asked = self._asked
        with drawn(report, asked.output.plot):
            if asked.get:
                total_alone = report.adds_up and not asked.output.get_rows
                rows = [report.total] if total_alone and report.total else report.rows
                write_pieces(text.bare(rows, asked.get), asked.output)
            else:
                write(report, asked.output, asked.ctx)
        self._verdict.worse(report.exit_code)


def _holder(asked: Asked) -> str:
    """What has to hold all rows at once, where they are not streamed."""
    return "--plot" if asked.output.plot else asked.output.format


def _refuse_too_many_rows(report: Report, asked: Asked) -> None:
    """Refuse more rows than can be held, where all of them are held at once."""
    if asked.selection and asked.selection.holds_all:
        what, instead = "--sort", "add --top N"
    elif asked.selection or asked.streamed:
        return
    else:
        what = _holder(asked)
        instead = "use only -f csv or -f jsonl, or add --top N"
    count = report.count or 0
    if count > _MOST_ROWS:
        raise DscalcError(f"{what} takes at most {_MOST_ROWS:,} rows, got {count:,}; {instead}")


def _hidden_notes(rows: list[Row], label: str) -> list[str]:
    """That the total holds rows which are not shown."""
    if not rows:
        return []
    with_macs = sum(row.as_is.cost.macs > 0 or bool(row.unknown) for row in rows)
    without = len(rows) - with_macs
    parts = [(with_macs, f"with {label}"), (without, f"without {label}")]
    held = [f"{number:,} more {plural('row', number)} {what}" for number, what in parts if number]
    return [f"{' and '.join(held)} {'is' if len(rows) == 1 else 'are'} in the total"]
