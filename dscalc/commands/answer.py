"""The one way to an answer: select, prove and check a report, then write it."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from dscalc.checks.verdict import Verdict
from dscalc.commands.asked import Asked
from dscalc.commands.proof import counter
from dscalc.commands.writing import drawn, write, write_pieces
from dscalc.core.row import Row, summed_by_path, total
from dscalc.errors import DscalcError
from dscalc.report import text
from dscalc.report.report import Report

_MOST_ROWS = 10_000  # of a format that buffers its rows


class Answer:
    """A report and the options that it is asked for with; `write` and `settle` do the work.

    Args:
        report: the rows, and their total if they have one.
        asked: the options.
        prove: whether to cross-check the rows; those of a model come with counts.
    """

    def __init__(self, report: Report, asked: Asked, *, prove: bool = False) -> None:
        self._report, self._asked, self._verdict = report, asked, asked.verdict
        self._count = counter(asked) if prove else None

    @property
    def verdict(self) -> Verdict:
        """The outcome of each check, after `write` or `settle`."""
        return self._verdict

    def write(self) -> int:
        """Write the answer, and return the exit code."""
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
        """Prove and check the answer without writing it, and return the exit code."""
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
        """The selected rows, proved and checked."""
        selection, rows = self._asked.selection, self._watched()
        if not selection:
            rows = self._proved(rows)
        elif any(field.formula for field in selection.fields):  # it reads counts
            rows = selection.of(self._proved(rows))
        else:
            rows = self._proved(selection.of(rows))
        name = self._report.name
        asserts = bool(self._verdict.assertions)
        for row in rows:
            self._crosscheck(row)
            if isinstance(row.extra, Report):
                if reason := self._not_known(row):
                    self._verdict.refuse(f"{name(row)}: {reason}")
                    continue
                self._tell_doubts(row.extra, f"{name(row)}: ")
            if asserts:
                self._verdict.check(row, name)
            yield row

    def _finished(self) -> Report | None:
        """The finished report; None if every row had an error."""
        return self._summed() if self._report.adds_up else self._held()

    def _summed(self) -> Report:
        """The finished report of rows with a total; a selection does not change the total."""
        asked, verdict, report = self._asked, self._verdict, self._report
        if self._count:
            report = replace(report, rows=self._watched()).proved(self._count)
        for row in report.rows:
            self._crosscheck(row)
        for fault in report.faults:
            verdict.differs(fault)
        if report.depth:
            rows = list(report.rows)
            summed = summed_by_path(rows, report.depth, report.classes)
            report = replace(report, rows=summed, parts=rows)
        report = asked.question.answer(report, asked)
        if reason := self._not_known(report.whole):
            raise DscalcError(reason)
        self._tell_doubts(report)
        verdict.check(report.whole, lambda _: "", each=False)
        rows = list(report.rows)
        if selection := asked.selection:
            report = replace(report, parts=rows, selected=selection.after_rows())
            rows = list(selection.of(rows))
            self._conclude_selection()
        for row in rows:
            verdict.check(row, each=True)
        return replace(report, rows=rows, checks=verdict.checks, asked=asked.fields)

    def _held(self) -> Report | None:
        """The finished report of rows without a total, buffered; None if every row had an error.

        Raises:
            DscalcError: there are too many rows, or none.
        """
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
            checks=self._verdict.checks, selected=" ".join(selected), asked=asked.fields,
        )  # fmt: skip
        return asked.question.answer(found, asked)

    def _watched(self) -> Iterable[Row]:
        """The rows, with a progress bar if they are slow and the terminal is free."""
        report, output = self._report, self._asked.output
        doing = "measuring" if self._asked.command == "bench" else "counting"
        slow = self._count or self._asked.command == "bench"
        streamed = output.file is None and sys.stdout.isatty() and output.format in ("csv", "jsonl")
        if not slow or not report.count or output.quiet or streamed or not sys.stderr.isatty():
            return report.rows
        from dscalc.report import table

        return table.progress(report, sys.stderr, doing)

    def _proved(self, rows: Iterable[Row]) -> Iterable[Row]:
        count, prove = self._count, self._report.prove
        return (prove(row, count) for row in rows) if count else rows

    def _crosscheck(self, row: Row) -> None:
        """Report counts that differ from their formulas, in a row or in the rows of its report."""
        inside = row.extra
        if not isinstance(inside, Report):
            self._verdict.crosscheck(row, self._report.fields, self._report.name)
            return
        for part in inside.rows:
            self._verdict.crosscheck(part, inside.fields)
        for fault in inside.faults:
            self._verdict.differs(fault)

    def _tell_doubts(self, report: Report, of: str = "") -> None:
        """Keep why counts are not proved; say it where nothing else of the answer does."""
        for doubt in report.doubts:
            self._verdict.doubts.append(f"{of}{doubt}")
            if self._asked.get:
                self._verdict.note(f"note: {of}{doubt}")

    def _not_known(self, whole: Row) -> str:
        """Why a field of --get is not known in a total with unknown operators; "" if it is."""
        for field in self._asked.get:
            if field.read(whole) is None:
                if why := field.undecided and field.undecided(whole):
                    return f"{field.name} is not known: {why}"
                if field.read(whole._replace(unknown={})) is not None:
                    return f"{field.name} is not known: {whole.no_formula}"
        return ""

    def _conclude_selection(self) -> None:
        """If no row satisfies --where, the answer is no."""
        selection = self._asked.selection
        if selection and selection.none_left:
            self._verdict.fails(selection.why_none(self._report.name))

    # ---- Write. ----

    @property
    def _is_live(self) -> bool:
        """Whether to show a layer before its cross-check, and add that later."""
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
        """Write a report, or only the fields of --get, and draw the plot if --plot is given."""
        asked = self._asked
        with drawn(report, asked.output.plot):
            if asked.get:
                total_alone = report.adds_up and not asked.gets_rows
                rows = [report.whole] if total_alone else report.rows
                write_pieces(text.bare(rows, asked.get), asked.output)
            else:
                write(report, asked.output, asked.ctx)
        self._verdict.worse(report.exit_code)


def _holder(asked: Asked) -> str:
    """The option or the format that needs all rows in memory."""
    return "--plot" if asked.output.plot else asked.output.format


def _refuse_too_many_rows(report: Report, asked: Asked) -> None:
    """Raise if a format that buffers its rows, --plot or --sort would get over 10,000."""
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
