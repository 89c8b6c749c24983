"""What the commands share: the verdict, the cross-check, and writing the answer."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar, assert_never

from dscalc.commands.options import OutputOptions
from dscalc.commands.verdict import Verdict
from dscalc.core.blocks import Block, Step
from dscalc.core.row import Count, Counted, Row
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.record.fields import Command, Field, find
from dscalc.record.report import Report
from dscalc.report import text

_MOST_ROWS = 10_000  # of a format that holds all rows at once
_Any = TypeVar("_Any")


class Asked:
    """What a run is asked for besides its rows: the fields of --get, and the verdict."""

    def __init__(self, command: Command, block: Block, output: OutputOptions) -> None:
        """Read --get and --assert, before any work is done."""
        if output.plot:
            _kind_of_picture(output.plot)
        known = partial(find, command=command, block=block, unit=output.unit)
        self.get = [known(name) for name in output.get]
        assertions = []
        if output.assertions:
            from dscalc.checks.assertion import Assertion

            assertions = [Assertion.parse(text, known) for text in output.assertions]
        self.verdict = Verdict(assertions, quiet=output.quiet)
        self.fields = [*(assertion.field for assertion in assertions), *self.get]


@contextmanager
def torch_needed() -> Iterator[None]:
    """Say in one line what is wrong where torch or fvcore cannot be imported."""
    try:
        yield
    except Exception as error:  # a broken installation can raise anything
        raise DscalcError(
            f"this needs torch and fvcore, and importing them failed ({error}); "
            "install them again: pip install torch fvcore"
        ) from error


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


def _draw(report: Report, file: Path) -> None:
    """Write a picture of a report, whole or not at all."""
    kind = _kind_of_picture(file)
    try:
        from dscalc.report import plot
    except ImportError as error:
        raise DscalcError(
            f"--plot needs matplotlib ({error}); install it with pip install 'dscalc[plot]'"
        ) from error
    from dscalc.report.file import replacing

    with replacing(file) as path:
        plot.draw(report, path, kind)


def is_streamed(output: OutputOptions) -> bool:
    """Whether each row is written as soon as it is known; a picture needs them all."""
    return not output.plot and (output.format in ("csv", "jsonl") or bool(output.get))


def write_existing(
    report: Report,
    rows: Iterator[Row],
    left_out: Mapping[str, int],
    asked: Asked,
    output: OutputOptions,
) -> None:
    """Write the rows of a grid, and why those that ``left_out`` counts meanwhile do not exist."""
    if is_streamed(output):
        write(replace(report, rows=rows), output, asked.get)
        for note in left_out_notes(left_out):
            asked.verdict.note(note)
        return
    with asked.verdict.held():
        held = list(rows)
        notes = left_out_notes(left_out)
        if not held:
            raise DscalcError(f"no layer is left; {notes[0]}")
        checks, notes = asked.verdict.checks, [*report.notes, *notes]
        write(replace(report, rows=held, checks=checks, notes=notes), output, asked.get)


def left_out_notes(left_out: Mapping[str, int]) -> list[str]:
    """Which blocks do not exist for how many layers, and why."""
    return [
        f"left out: {why}{f' ({number:,} layers)' if number > 1 else ''}"
        for why, number in left_out.items()
    ]


def refuse_many(count: int, output: OutputOptions) -> None:
    """Refuse more rows than a format that is not streamed should hold."""
    if count > _MOST_ROWS and not is_streamed(output):
        what = "--plot" if output.plot else output.format
        raise DscalcError(
            f"{what} holds at most {_MOST_ROWS:,} rows, and there are {count:,}; "
            "use -f csv or -f jsonl alone"
        )


def counter(verdict: Verdict, verbose: bool) -> Count:
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    broken = False

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
            verdict.refuse(f"{error}; or add --no-verify")
            return None
        try:
            found = count(steps)
            if verbose:
                verdict.say(f"counted by {versions()}: {found}")
            return found
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
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


def write(
    report: Report,
    output: OutputOptions,
    wanted: Sequence[Field] = (),
) -> None:
    """Write a report, or the ``wanted`` fields of it alone; and draw it where that is asked for."""
    if output.plot:
        _draw(report, output.plot)
    pieces = _pieces(report, output, wanted)
    if output.file is None:
        sys.stdout.writelines(pieces)
        return
    from dscalc.report.file import replacing

    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(pieces)


def _pieces(
    report: Report,
    output: OutputOptions,
    wanted: Sequence[Field],
) -> Iterable[str]:
    if wanted:
        return text.bare(report.rows if report.total is None else [report.total], wanted)
    if output.format == "csv":
        return text.csv(report)
    if output.format == "jsonl":
        return text.jsonl(report)
    if output.format == "json":
        return text.json(report)
    from dscalc.report import sheet

    shown = sheet.of(report)
    match output.format:
        case "markdown":
            if output.file is None and not sys.stdout.encoding.lower().startswith("utf"):
                shown = sheet.in_ascii(shown)
            return text.markdown(shown)
        case "table":
            from dscalc.report import table

            return table.render(shown, None if output.file else sys.stdout)
        case "svg":
            from dscalc.report import table

            return table.svg(shown)
        case _:
            assert_never(output.format)
