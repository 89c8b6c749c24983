"""What the commands share: the verdict, the cross-check, and writing the answer."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, assert_never

from dscalc.checks.assertion import check_field
from dscalc.checks.verdict import Verdict
from dscalc.commands.options import OutputOptions
from dscalc.core.blocks import Comparison, Counts
from dscalc.errors import CrosscheckError, DscalcError
from dscalc.record.fields import Record, Value, names, total, values
from dscalc.report import text

if TYPE_CHECKING:
    from dscalc.inputs.network import Layer
    from dscalc.report.sheet import Sheet

_MOST_ROWS = 10_000  # of a format that holds all rows at once
Count = Callable[["Comparison | Layer"], Counts | None]
_NUMBERS = (int, int | None, float, Fraction, Fraction | None)
_AnyLayer = TypeVar("_AnyLayer")


def verdict_on(
    output: OutputOptions, kind: type[NamedTuple] = Record, more: Sequence[str] = ()
) -> Verdict:
    """Read --assert and check --get, before any work is done.

    Known are the fields of the ``kind`` of record, and ``more``, which are numbers.
    """
    if output.plot:
        _kind_of_picture(output.plot)
    known = names((*kind._fields, *more), output.unit)
    for field in output.get:
        check_field(field, known)
    hints = (*kind.__annotations__.values(), *(int for _ in more))
    numbers = {field for field, hint in zip(known, hints, strict=True) if hint in _NUMBERS}
    return Verdict(output.assertions, known, numbers, quiet=output.quiet)


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


@contextmanager
def plotting(file: Path) -> Iterator[tuple[ModuleType, Path, str]]:
    """What draws, where to, and what kind of picture; the file is written whole or not at all."""
    kind = _kind_of_picture(file)
    try:
        from dscalc.report import plot
    except ImportError as error:
        raise DscalcError(
            f"--plot needs matplotlib ({error}); install it with pip install 'dscalc[plot]'"
        ) from error
    from dscalc.report.file import replacing

    with replacing(file) as path:
        yield plot, path, kind


def refuse_many(count: int, output: OutputOptions) -> None:
    """Refuse more rows than a format that is not streamed should hold."""
    streamed = output.format in ("csv", "jsonl") or bool(output.get)
    if count > _MOST_ROWS and (output.plot or not streamed):
        what = "--plot" if output.plot else output.format
        raise DscalcError(
            f"{what} holds at most {_MOST_ROWS:,} rows, and there are {count:,}; "
            "use -f csv or -f jsonl alone"
        )


def counter(verdict: Verdict, verbose: bool) -> Count:
    """The cross-check; where it cannot count, it says so and the formulas stand alone."""
    broken = False

    @lru_cache(maxsize=1024)  # the same layer comes again in a grid or a network
    def count(layer: "Comparison | Layer") -> Counts | None:
        nonlocal broken
        if broken:
            return None
        try:
            with torch_needed():
                from dscalc.pytorch.crosscheck import crosscheck, versions
        except DscalcError as error:
            broken = True
            verdict.refuse(f"{error}; or add --no-verify")
            return None
        try:
            counted = crosscheck(layer)
            if verbose:
                verdict.say(f"counted by {versions()}: {counted}")
            return counted
        except CrosscheckError as error:
            verdict.refuse(f"{error}; add --no-verify to do without")
            return None

    def count_once(layer: "Comparison | Layer") -> Counts | None:
        return count(layer if isinstance(layer, Comparison) else layer.comparison or layer)

    return count_once


def watched(
    layers: Iterable[_AnyLayer], count: int, output: OutputOptions, doing: str = "counting"
) -> Iterable[_AnyLayer]:
    """The layers, with a progress bar on a terminal that nothing else writes to."""
    streamed = output.file is None and sys.stdout.isatty() and output.format in ("csv", "jsonl")
    if output.quiet or streamed or not sys.stderr.isatty():
        return layers
    from dscalc.report import table

    return table.progress(layers, count, sys.stderr, doing)


def uncounted(layer: "Comparison | Layer") -> None:
    """Count nothing."""


class Answer(NamedTuple):
    """What there is to write, whatever the format.

    ``known`` are the fields that --get reads, where they are not those of the rows; ``more`` are
    further objects of the JSON.
    """

    rows: Iterable[NamedTuple]
    to_sheet: Callable[[list[Any]], "Sheet"]
    known: Iterable[Mapping[str, Value]] | None = None
    total: Callable[[list[Any]], Record | None] = total
    kind: type[NamedTuple] = Record
    more: Mapping[str, object] = {}


def write(answer: Answer, output: OutputOptions) -> None:
    """Write the report in its format to its place."""
    if output.file is None:
        sys.stdout.writelines(_report(answer, output))
        return
    from dscalc.report.file import replacing

    with (
        replacing(output.file) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        stream.writelines(_report(answer, output))


def _report(answer: Answer, output: OutputOptions) -> Iterable[str]:
    if output.get:
        known = answer.known or (values(row, output.unit) for row in answer.rows)
        return text.fields(known, output.get)
    match output.format:
        case "csv":
            return text.csv(answer.rows, output.unit, answer.kind)
        case "jsonl":
            return text.jsonl(answer.rows, output.unit)
        case "json":
            held = list(answer.rows)
            return text.json(held, answer.total(held), output.unit, answer.more)
        case "markdown":
            sheet = answer.to_sheet(list(answer.rows))
            if output.file is None and not sys.stdout.encoding.lower().startswith("utf"):
                from dscalc.report.sheet import in_ascii

                sheet = in_ascii(sheet)
            return text.markdown(sheet)
        case "table":
            from dscalc.report import table

            stream = None if output.file else sys.stdout
            return table.render(answer.to_sheet(list(answer.rows)), stream)
        case "svg":
            from dscalc.report import table

            return table.svg(answer.to_sheet(list(answer.rows)))
        case _:
            assert_never(output.format)
