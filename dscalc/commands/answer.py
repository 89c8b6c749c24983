"""What the commands share: the verdict, the cross-check, and writing the answer."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from dscalc import parse
from dscalc.commands.options import CheckOptions, OutputOptions, ReportOptions, command_line
from dscalc.commands.verdict import Verdict, named
from dscalc.core.blocks import Block, Step
from dscalc.core.fields import UNITS, Command, Field, find
from dscalc.core.row import Count, Counted, Row, proved
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.report import text
from dscalc.report.file import replacing, to_stdout
from dscalc.report.report import Report
from dscalc.show import plural

if TYPE_CHECKING:  # few runs need them
    from dscalc.baseline.earlier import Baseline
    from dscalc.checks.selection import Selection
    from dscalc.report.sheet import Sheet

_MOST_ROWS = 10_000  # of a format that holds all rows at once
_Any = TypeVar("_Any")


class Asked:
    """What a run is asked for: which rows, the fields of --get, and the verdict."""

    def __init__(
        self,
        command: Command,
        block: Block,
        output: OutputOptions,
        baseline: "Baseline | None" = None,
    ) -> None:
        """Read the options that name fields, before any work is done."""
        if output.plot:
            _kind_of_picture(output.plot)
            if output.file and output.file.resolve() == output.plot.resolve():
                raise DscalcError(f"--plot and --output both name {output.plot}; name two files")
        if output.get_rows and not output.get:
            raise DscalcError("--rows needs --get FIELD")
        self.command, self.block, self.output, self.baseline = command, block, output, baseline
        known = plain = partial(find, command=command, block=block, unit=output.unit)
        if baseline:
            from dscalc.baseline.earlier import find_of_total

            known = partial(find_of_total, baseline, command=command, block=block, unit=output.unit)
        self.get = [(plain if output.get_rows else known)(name) for name in output.get]
        assertions = []
        if output.assertions or output.assertions_each:
            from dscalc.checks.assertion import Assertion

            assertions = [Assertion.parse(text, known) for text in output.assertions]
            for text in output.assertions_each:
                assertion = Assertion.parse(text, plain, what="--assert-each")
                assertions.append(assertion.without_baseline("--assert-each")._replace(each=True))
        self.selection = _selection(output, plain)
        if self.selection and baseline:
            raise DscalcError("--baseline shows what changed; drop --where, --sort and --top")
        before = baseline.total if baseline else None
        self.verdict = Verdict(assertions, before, quiet=output.quiet)
        self.fields = [*(assertion.field for assertion in assertions), *self.get]
        if self.selection:
            self.fields += self.selection.fields

    @property
    def streamed(self) -> bool:
        """Whether each row is written as soon as it is known; a picture needs them all."""
        output = self.output
        return not output.plot and (output.format in ("csv", "jsonl") or bool(output.get))

    @property
    def holder(self) -> str:
        """What has to hold all rows at once, where they are not streamed."""
        return "--plot" if self.output.plot else self.output.format

    def proves(self, check: CheckOptions, by_default: bool) -> bool:
        """Whether to cross-check: bare values only if they need it."""
        return check.wanted(by_default and not self.get, self.fields)

    def report(self, title: str, rows: Iterable[Row] = (), **more: Any) -> Report:
        """A report of rows; those that are alternatives are given where it is written."""
        return Report(self.command, self.block, rows, title=title, unit=self.output.unit, **more)

    def refuse_many(self, count: int) -> None:
        """Refuse more rows than can be held, where all of them are held at once."""
        if self.selection and self.selection.holds_all:
            what, instead = "--sort", "add --top N"
        elif self.selection or self.streamed:
            return
        else:
            what = self.holder
            instead = "use only -f csv or -f jsonl, or add --top N"
        if count > _MOST_ROWS:
            raise DscalcError(f"{what} takes at most {_MOST_ROWS:,} rows, got {count:,}; {instead}")

    def shown(
        self,
        rows: Iterable[Row],
        report: Report,
        count: Count | None,
        name: Callable[[Row], str],
        *,
        told: bool = False,
    ) -> Iterator[Row]:
        """The rows that are asked for, proved by ``count`` and checked; ``name`` names them.

        ``told`` says that what differs in them has been said.
        """

        def counted(rows: Iterable[Row]) -> Iterable[Row]:
            return (proved(row, count) for row in rows) if count else rows

        if not self.selection:
            rows = counted(rows)
        elif any(field.formula for field in self.selection.fields):  # it reads what is counted
            rows = self.selection.of(counted(rows))
        else:
            rows = counted(self.selection.of(rows))
        for row in rows:
            if row.crosscheck == "mismatch" and not told:
                self.verdict.crosscheck(row, report, name)
            if self.verdict.asserts:
                self.verdict.check(row, name)
            yield row

    def conclude_selection(self, name: Callable[[Row], str]) -> None:
        """Where no row satisfies --where, the answer is no."""
        if self.selection and self.selection.none_left:
            self.verdict.fails(self.selection.why_none(name))

    def write(self, report: Report) -> None:
        """Write a report, or the fields of --get alone; and draw it where that is asked for."""
        with _drawn(report, self.output.plot):
            if self.get:
                whole = None if self.output.get_rows else report.total
                rows = report.rows if whole is None else [whole]
                write_pieces(text.bare(rows, self.get), self.output)
            else:
                write(report, self.output)


def _selection(output: OutputOptions, known: Callable[[str], Field]) -> "Selection | None":
    if output.reverse and output.sort is None:
        raise DscalcError("--reverse needs --sort FIELD")
    if not output.where and output.sort is None and output.top is None:
        return None
    from dscalc.checks.assertion import Assertion
    from dscalc.checks.selection import Selection

    return Selection(
        [
            Assertion.parse(text, known, what="--where").without_baseline("--where")
            for text in output.where
        ],
        known(output.sort) if output.sort is not None else None,
        reverse=output.reverse,
        top=parse.whole(output.top, "--top") if output.top is not None else None,
    )


@contextmanager
def torch_needed() -> Iterator[None]:
    """Say in one line what is wrong where torch or fvcore cannot be imported."""
    try:
        with _interrupt_waiting():
            yield
    except Exception as error:  # a broken installation can raise anything
        raise DscalcError(
            f"this needs torch and fvcore, but importing them failed ({error}); "
            "reinstall them: pip install torch fvcore"
        ) from error


@contextmanager
def _interrupt_waiting() -> Iterator[None]:
    """Let Ctrl-C wait: what torch imports swallows it, and goes on or breaks. A second does not."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # it may be ignored
        yield
        return
    pressed = False

    def wait(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            raise KeyboardInterrupt


@contextmanager
def working(output: OutputOptions, what: str) -> Iterator[None]:
    """Show on a terminal that something slow goes on."""
    if output.quiet or not sys.stderr.isatty():
        yield
        return
    from dscalc.report import table

    with table.status(what, sys.stderr):
        yield


def _kind_of_picture(file: Path) -> str:
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise DscalcError(f"--plot needs a file that ends in .png, .svg or .pdf, got {file}")
    return kind


@contextmanager
def _drawn(report: Report, file: Path | None) -> Iterator[None]:
    """Draw a report, if there are rows; the picture is there once all inside has gone well."""
    if not file or not report.rows:
        yield
        return
    kind = _kind_of_picture(file)
    try:
        from dscalc.report import plot
    except ImportError as error:
        raise DscalcError(
            f"--plot needs matplotlib ({error}); install it with pip install matplotlib"
        ) from error
    with replacing(file) as path:
        plot.draw(report, path, kind)
        with to_stdout():  # whose error is not one of the picture
            yield


def write_alternatives(
    report: Report,
    rows: Iterator[Row],
    asked: Asked,
    name: Callable[[Row], str],
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Write rows that have no total; ``left_out`` counts meanwhile why some do not exist."""
    if asked.streamed:
        asked.write(replace(report, rows=rows))
        for note in _left_out_notes(left_out):
            asked.verdict.note(note)
        asked.conclude_selection(name)
        return
    with asked.verdict.held():
        held = list(islice(rows, _MOST_ROWS))
        if next(rows, None):
            fix = "narrow --where, or add --top N"
            if asked.output.top is not None:
                fix = "give a smaller --top"
            raise DscalcError(
                f"more than {_MOST_ROWS:,} rows are left, too many for {asked.holder}; {fix}"
            )
        notes = _left_out_notes(left_out)
        if not held and notes:
            raise DscalcError(f"no layer is left; {notes[0]}")
        if not held and not asked.selection:
            return  # each of them had an error
        asked.conclude_selection(name)
        selected = [asked.selection.sentence()] if asked.selection else []
        notes = [*report.notes, *selected, *notes]
        checks = asked.verdict.checks
        asked.write(replace(report, rows=held, notes=notes, checks=checks, selected=bool(selected)))


def write_with_total(report: Report, asked: Asked) -> None:
    """Write those rows that are asked for of all that make the total, which stays the total."""
    if asked.baseline:
        from dscalc.baseline.earlier import compared

        report = compared(report, asked.baseline)
    whole, rows, notes = report.total, list(report.rows), report.notes
    assert whole is not None
    asked.verdict.check(whole, lambda _: "", each=False)
    if asked.selection:
        everything, rows = rows, list(asked.selection.of(rows))
        asked.conclude_selection(named)
        kept = {id(row) for row in rows}
        hidden = [row for row in everything if id(row) not in kept]
        selected = [asked.selection.sentence()] if asked.selection.leaves_out else []
        notes = [*selected, *_hidden_notes(hidden, UNITS[report.unit][0]), *notes]
    for row in rows:
        asked.verdict.check(row, each=True)
    asked.write(replace(report, rows=rows, notes=notes, checks=asked.verdict.checks))


def _hidden_notes(rows: list[Row], label: str) -> list[str]:
    """That the total holds rows which are not shown."""
    if not rows:
        return []
    with_macs = sum(row.as_is.cost.macs > 0 or bool(row.unknown) for row in rows)
    without = len(rows) - with_macs
    parts = [(with_macs, f"with {label}"), (without, f"without {label}")]
    held = [f"{number:,} more {plural('row', number)} {what}" for number, what in parts if number]
    return [f"{' and '.join(held)} {'is' if len(rows) == 1 else 'are'} in the total"]


def _left_out_notes(left_out: Mapping[str, int]) -> list[str]:
    """Which blocks do not exist for how many layers, and why."""
    return [
        f"left out: {why}{f' ({number:,} layers)' if number > 1 else ''}"
        for why, number in left_out.items()
    ]


def counter(asked: Asked) -> Count:
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    verdict, broken = asked.verdict, False

    @lru_cache(maxsize=1024)  # the same layer comes again in a grid or a network
    def counted(steps: tuple[Step, ...]) -> Counted | None:
        nonlocal broken
        if broken:
            return None
        try:
            with torch_needed():
                from dscalc.pytorch.crosscheck import count, versions
        except DscalcError as error:
            broken = True
            verdict.refuse(f"{error}; or skip the check with --no-verify")
            return None
        try:
            found = count(steps)
            if asked.output.verbose:
                verdict.say(f"counted by {versions()}: {found}")
            return found
        except CrosscheckError as error:
            verdict.refuse(f"{error}; skip the check with --no-verify")
            return None

    return counted


def watched(
    layers: Iterable[_Any], count: int, output: OutputOptions, doing: str = "counting"
) -> Iterable[_Any]:
    """The layers, with a progress bar on a terminal that nothing else writes to."""
    streamed = output.file is None and sys.stdout.isatty() and output.format in ("csv", "jsonl")
    if output.quiet or streamed or not sys.stderr.isatty():
        return layers
    from dscalc.report import table

    return table.progress(layers, count, sys.stderr, doing)


def write(report: Report, output: ReportOptions) -> None:
    """Write a report in its format."""
    plain = {"csv": text.csv, "jsonl": text.jsonl, "json": text.json}.get(output.format)
    if plain:
        write_pieces(plain(report), output)
        return
    from dscalc.report import sheet

    write_pieces(sheet_pieces(sheet.of(report), output), output)


def write_pieces(pieces: Iterable[str], output: ReportOptions) -> None:
    """Write text to stdout, or to the file, whole or not at all."""
    if output.file is None:
        sys.stdout.writelines(pieces)
        return
    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(pieces)


def sheet_pieces(shown: "Sheet", output: ReportOptions) -> Iterable[str]:
    """A sheet in one of the formats that people read."""
    if output.format == "markdown":
        if output.file is None and not sys.stdout.encoding.lower().startswith("utf"):
            from dscalc.report.sheet import in_ascii

            shown = in_ascii(shown)
        return text.markdown(shown)
    from dscalc.report import table

    if output.format == "table":
        return table.render(shown, None if output.file else sys.stdout)
    return table.svg(shown, command_line())
